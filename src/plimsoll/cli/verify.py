"""`plimsoll verify BUNDLE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from plimsoll.report import Check, Report


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle: a folder or a .zip.")],
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check every file of a bundle, and that it answers here as it did where it was packed.

    Exit code 1 if it does not.
    """
    from plimsoll.bundle import Bundle
    from plimsoll.errors import CheckFailed
    from plimsoll.package import verify as run

    with Bundle.open(bundle) as opened:
        report = run(opened)
        files = len(opened.manifest.files)
    if json_:
        typer.echo(report.to_json())
    else:
        _show(report, files)
    if not report.passed:
        failed = [check.name for check in report.checks if not check.passed]
        raise CheckFailed(
            f"{bundle}: {len(failed)} of {len(report.checks)} checks failed: {'; '.join(failed)}", "It does not answer here as it did where it was packed."
        )


def _show(report: Report, files: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(report.subject, style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("check", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("worst at", style="dim")
    table.add_row(Text("✓", style="green"), "size and SHA-256", f"{files} files", "all", "")
    for check in report.checks:
        mark = Text("✓", style="green") if check.passed else Text("✗", style="bold red")
        table.add_row(mark, Text(check.name), *_figures(check), Text(_printable(check.detail) if check.measured else ""))
    console.print(table)
    for name, value in report.measurements.items():
        console.print(Text(f"{name}: {_printable(str(value))}", style="dim"))


def _figures(check: Check) -> tuple[str, str]:
    unit = f" {check.unit}" if check.unit else ""
    return f"{check.measured:.3g}{unit}", f"{'≤' if check.bound == 'at_most' else '≥'} {check.limit:g}{unit}"


def _printable(text: str) -> str:
    """Take out what a terminal would obey: the text may come from the bundle."""
    return "".join(char if char.isprintable() else "?" for char in text[:500])

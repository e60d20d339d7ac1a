"""`plimsoll verify BUNDLE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plimsoll.cli import options
from plimsoll.core.wording import printable

if TYPE_CHECKING:
    from rich.text import Text

    from plimsoll.report.report import Report


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle: a folder or a .zip.")],
    json_: options.Json = False,
) -> None:
    """Check every file of a bundle, and that it answers here as it did where it was packed.

    Exits with code 1 if it does not.
    """
    from plimsoll.bundle import Bundle, open_any
    from plimsoll.bundle.golden import verify as run
    from plimsoll.errors import CheckError
    from plimsoll.inference.cascade_bundle import verify_cascade

    with open_any(bundle) as opened:
        report = run(opened) if isinstance(opened, Bundle) else verify_cascade(opened)
        files = len(opened.manifest.files)
    if json_:
        typer.echo(report.to_json())
    else:
        _show(report, files)
    if not report.passed:
        failed = [check.name for check in report.checks if not check.passed]
        raise CheckError(
            f"{bundle}: {len(failed)} of {len(report.checks)} checks failed: {'; '.join(failed)}",
            "It does not answer here as it did where it was packed.",
        )


def _show(report: Report, files: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from plimsoll.report.figures import check_in_words

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
        words = check_in_words(check)
        table.add_row(
            mark,
            Text(check.name),
            Text(words.measured),
            Text(words.limit),
            Text(printable(check.detail, 500) if check.measured else ""),
        )
    console.print(table)
    console.print()
    for line in _machine(report):
        console.print(line, soft_wrap=True)


def _machine(report: Report) -> list[Text]:
    """Say whether this machine is like the one where the bundle was packed, how it differs, and what follows."""
    from rich.text import Text

    from plimsoll.bundle.golden import ROUNDING
    from plimsoll.bundle.step_digests import MEASUREMENT, SAME_PIXELS

    measurements = {name: str(value) for name, value in report.measurements.items()}
    where = "proven" if "proof" in measurements else "packed"
    lines = [Text(f"proof: {printable(measurements['proof'], 500)}")] if "proof" in measurements else []
    if (steps := measurements.get(MEASUREMENT, SAME_PIXELS)) != SAME_PIXELS:
        lines.append(Text(f"input steps: {printable(steps, 500)}", style="yellow"))
    facts = {name.removeprefix("same "): value for name, value in measurements.items() if name.startswith("same ")}
    different = [name for name, value in facts.items() if value != "yes"]
    if not different:
        return [*lines, Text(f"✓ this machine is like the one where it was {where}: {', '.join(facts)}", style="green")]
    lines.append(Text(f"this machine is not like the one where it was {where}:", style="yellow"))
    lines += [
        Text(f"  other {name}: {printable(facts[name].removeprefix('no: '), 500)}", style="dim") for name in different
    ]
    if any(fact.replace("_", " ") in different for fact in ROUNDING):
        consequence = (
            "Answers may differ in their last digits: the checks above say by how much, and `plimsoll prove` proves"
            " them here."
        )
    else:
        consequence = (
            "Instruction sets and versions are the same, so results round alike and the proof carries over; the speed"
            " was measured elsewhere."
        )
    return [*lines, Text(consequence)]

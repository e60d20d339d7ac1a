"""`plimsoll targets`."""

from __future__ import annotations

import typer

from plimsoll.cli import options


def targets(json_: options.Json = False) -> None:
    """List the targets that models can be built for, and the command that adds what is missing here."""
    import json

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from plimsoll import backends
    from plimsoll.system import toolchains as environments

    rows = [
        {
            "target": str(available.target),
            "missing": available.missing,
            "toolchain": available.toolchain,
            "created": not available.toolchain or environments.is_ready(available.toolchain),
            "deployable": backend.deployable,
        }
        for backend in map(backends.get, backends.names())
        for available in backend.targets()
    ]
    if json_:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("target", no_wrap=True)
    table.add_column("here", no_wrap=True)
    table.add_column("note")
    for row in rows:
        table.add_row(
            f"[bold]{row['target']}[/]", "[dim]no[/]" if row["missing"] else "[green]yes[/]", escape(_note(row))
        )
    Console().print(table)


def _note(row: dict[str, object]) -> str:
    if row["missing"]:
        return str(row["missing"])
    if not row["deployable"]:
        return "`plimsoll ship` tries it only when --targets names it"
    if not row["created"]:
        name = row["toolchain"]
        return f"needs the toolchain '{name}', which is created on first use: plimsoll toolchains make {name}"
    return ""

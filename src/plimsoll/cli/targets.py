"""`plimsoll targets`."""

from __future__ import annotations

from typing import Annotated

import typer


def targets(
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """List what models can be built for: what this machine has, what is missing, and the command that adds it."""
    import json

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from plimsoll import backends
    from plimsoll.system import toolchains

    rows = []
    for name in backends.names():
        backend = backends.get(name)
        for offer in backend.targets():
            made = not offer.toolchain or toolchains.made(offer.toolchain)
            rows.append(
                {
                    "target": str(offer.target),
                    "missing": offer.missing,
                    "toolchain": offer.toolchain,
                    "made": made,
                    "deployable": backend.deployable,
                }
            )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("target", no_wrap=True)
    table.add_column("here", no_wrap=True)
    table.add_column("what it needs")
    for row in rows:
        table.add_row(
            f"[bold]{row['target']}[/]", "[dim]no[/]" if row["missing"] else "[green]yes[/]", escape(_needs(row))
        )
    Console().print(table)


def _needs(row: dict[str, object]) -> str:
    if row["missing"]:
        return str(row["missing"])
    if not row["deployable"]:
        return "`plimsoll ship` doesn't try it by itself"
    if row["toolchain"] and not row["made"]:
        return (
            f"the toolchain '{row['toolchain']}', which is made when it is first used: plimsoll toolchains make"
            f" {row['toolchain']}"
        )
    return ""

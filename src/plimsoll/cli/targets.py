"""`plimsoll targets` and `plimsoll toolchains [list|make|remove]`."""

from __future__ import annotations

from typing import Annotated

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


toolchains = typer.Typer(help="Manage toolchains: isolated environments for heavy converters, created on first use.")

Names = Annotated[list[str], typer.Argument(metavar="NAME…", help="`plimsoll toolchains` lists them.")]


@toolchains.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """List the toolchains if no command is given."""
    if context.invoked_subcommand is None:
        list_()


@toolchains.command("list")
def list_() -> None:
    """List the toolchains: whether each exists, its size on disk, its purpose."""
    from rich.console import Console
    from rich.table import Table

    from plimsoll.system import toolchains as environments

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "created", "MB"):
        table.add_column(heading, justify="right" if heading == "MB" else "left", no_wrap=True)
    table.add_column("purpose")
    for name in environments.names():
        toolchain = environments.describe(name)
        size = f"{toolchain.size_bytes / 1e6:,.0f}" if toolchain.size_bytes else f"[dim]≈ {toolchain.megabytes:,}[/]"
        table.add_row(f"[bold]{name}[/]", "yes" if toolchain.ready else "[dim]no[/]", size, toolchain.purpose)
    Console().print(table)


@toolchains.command()
def make(names: Names) -> None:
    """Create toolchains now, for example before going offline, and print where each is."""
    from plimsoll.system import toolchains as environments

    for name in names:
        typer.echo(environments.make(name))


@toolchains.command()
def remove(names: Names) -> None:
    """Remove toolchains, including those of older versions of Plimsoll. They are created again when needed."""
    from plimsoll.system import toolchains as environments

    for name in names:
        freed = environments.describe(name).size_bytes
        environments.remove(name)
        typer.echo(f"{name}: {freed / 1e6:,.0f} MB freed")

"""`plimsoll toolchains [list|make|remove]`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Environments of their own for heavy converters, made on first use.")

Names = Annotated[list[str], typer.Argument(metavar="NAME…", help="Toolchains; `plimsoll toolchains` lists them.")]


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """List the toolchains where no other command is given."""
    if context.invoked_subcommand is None:
        list_()


@app.command("list")
def list_() -> None:
    """List the toolchains: whether each is made, what it takes on disk, what it is for."""
    from rich.console import Console
    from rich.table import Table

    from plimsoll.system import toolchains

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "made", "MB"):
        table.add_column(heading, justify="right" if heading == "MB" else "left", no_wrap=True)
    table.add_column("what it is for")
    for name in toolchains.names():
        one = toolchains.describe(name)
        size = f"{one.size_bytes / 1e6:,.0f}" if one.size_bytes else f"[dim]≈ {one.megabytes:,}[/]"
        table.add_row(f"[bold]{name}[/]", "yes" if one.made else "[dim]no[/]", size, one.purpose)
    Console().print(table)


@app.command()
def make(names: Names) -> None:
    """Make toolchains now, for example before the network goes; print where each is kept."""
    from plimsoll.system import toolchains

    for name in names:
        typer.echo(toolchains.make(name))


@app.command()
def remove(names: Names) -> None:
    """Remove toolchains, with what older versions of Plimsoll left of them. They are made again when they are needed."""
    from plimsoll.system import toolchains

    for name in names:
        freed = toolchains.describe(name).size_bytes
        toolchains.remove(name)
        typer.echo(f"{name}: {freed / 1e6:,.0f} MB freed")

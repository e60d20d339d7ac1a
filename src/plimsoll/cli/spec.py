"""`plimsoll spec show|check|schema|export`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plimsoll.cli import options

if TYPE_CHECKING:
    from plimsoll.spec import Spec

app = typer.Typer(
    help="Show, check and export Specs: a Spec is the contract of a model, from a picture's bytes to its meaning.",
    no_args_is_help=True,
)


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A zoo name, a bundle, or a Spec file (.toml).")],
) -> None:
    """Print a Spec as TOML; of a cascade its file, and the Specs of its networks."""
    from plimsoll.inference.cascade_bundle import open_whole
    from plimsoll.inference.cascade_spec import is_cascade, write_cascade
    from plimsoll.spec import files

    if (Path(model).suffix.lower() != ".toml" or is_cascade(Path(model))) and (whole := open_whole(model)) is not None:
        with whole:
            typer.echo(write_cascade(whole.stages.spec))
            for number, network in enumerate(whole.networks, 1):
                typer.echo(f"# Stage {number}:\n{files.dumps(network.spec)}")
        return
    typer.echo(files.dumps(_read(model)), nl=False)


def _read(model: str) -> Spec:
    """Return the Spec of a zoo name, a bundle or a Spec file."""
    from plimsoll import zoo
    from plimsoll.bundle import Bundle
    from plimsoll.errors import InputError
    from plimsoll.spec import files

    if model in zoo.names():
        return zoo.card(model).spec
    if Path(model).suffix.lower() == ".toml":
        return files.read(Path(model))
    if not Path(model).exists():
        raise InputError(
            f"'{model}' is neither a bundle nor a Spec file (.toml) nor a network of the zoo",
            f"The zoo has: {', '.join(zoo.names())}.",
        )
    with Bundle.open(Path(model)) as bundle:
        return bundle.spec


@app.command()
def check(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A Spec file (.toml).")],
    model: Annotated[
        Path | None, typer.Option("--model", "-m", metavar="FILE", help="A model file that the Spec has to fit.")
    ] = None,
) -> None:
    """Check a Spec, and that it fits a model, which runs on two sample pictures."""
    from plimsoll.spec import files

    contract = files.read(spec)
    tensor = contract.input.tensor_spec
    shape = ", ".join("any" if size is None else str(size) for size in tensor.shape)
    typer.echo(
        f"{spec} is a valid Spec: {len(contract.input.steps)} input steps to {tensor.dtype} [{shape}] ({tensor.layout},"
        f" {tensor.colour}), task {contract.output.task}"
    )
    if model is not None:
        _try_out(model, contract)


def _try_out(model: Path, contract: Spec) -> None:
    """Run a model on sample pictures and say what doesn't fit; raises SpecError where its answers would be wrong."""
    import logging

    from plimsoll import backends, importers
    from plimsoll.core.target import REFERENCE_TARGET
    from plimsoll.core.wording import printable
    from plimsoll.errors import SpecError
    from plimsoll.inference.predictor import Predictor, ResolvedModel
    from plimsoll.inference.spec_check import try_out

    network = importers.read(model, contract)
    own = backends.for_format(network.format)
    target = (own.default_target if own is not None else None) or REFERENCE_TARGET
    with Predictor(ResolvedModel(network, target)) as predictor:
        trial = try_out(predictor)
    for finding in trial.findings:
        if not finding.is_error:
            logging.getLogger("plimsoll").warning(
                "%s%s", finding.message, f"\n  {finding.hint}" if finding.hint else ""
            )
    errors = [finding for finding in trial.findings if finding.is_error]
    if errors:
        listed = "\n".join(f"  - {finding.message}\n    {finding.hint}".rstrip() for finding in errors)
        raise SpecError(f"{model} and the Spec '{contract.name}' don't fit:\n{listed}")
    for name, answer in zip(trial.pictures, trial.answers, strict=False):
        typer.echo(f"{name}: {printable(answer.brief(), 160)}")
    checked = ": alone, together and twice, the sample pictures have the same answers" if trial.answers else ""
    typer.echo(f"{model}: the Spec fits{checked}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a Spec."""
    from plimsoll.spec import files

    typer.echo(json.dumps(files.schema(), indent=2, ensure_ascii=False))


def _tools() -> Iterable[str]:
    from plimsoll import backends

    return [name for name in backends.names() if backends.get(name).exports_settings]


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A zoo name, a bundle, or a Spec file (.toml).")],
    for_: Annotated[
        str, options.choice("--for", _tools, "The runtime whose calibration tool reads the settings.", noun="tool")
    ],
    images: Annotated[
        str,
        typer.Option(
            "--images", "-i", metavar="DIR", help="The folder of calibration pictures that the settings name."
        ),
    ] = "images/",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to this file instead of standard output.")
    ] = None,
    force: options.Force = False,
) -> None:
    """Write a Spec's preprocessing as settings of a runtime's own calibration tool, with a warning where that tool
    differs."""
    import logging

    from plimsoll import backends
    from plimsoll.errors import InputError

    if out is not None:
        options.check_new(out, force=force)
    settings = backends.get(for_).calibrator_settings(_read(model), images)
    for warning in settings.warnings:
        logging.getLogger("plimsoll").warning("%s", warning)
    if out is None:
        typer.echo(settings.text, nl=False)
        return
    try:
        out.write_text(settings.text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"can't write {out}: {error.strerror}") from error

"""`plimsoll calibrate MODEL --images DIR --out TABLE`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plimsoll.cli import options

if TYPE_CHECKING:
    from plimsoll.core.model import Model
    from plimsoll.inference.predictor import ResolvedModel
    from plimsoll.quantize import Calibration


def _methods() -> Iterable[str]:
    from plimsoll.quantize import METHODS

    return METHODS


def _formats() -> Iterable[str]:
    from plimsoll.quantize.calibration import table_names

    return table_names()


def calibrate(  # noqa: PLR0913 - each parameter is an option of the command
    model: options.Model,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="TABLE", help="The calibration table to write.")],
    images: options.CalibrationImages = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="TABLE",
            help="Convert this table, in any format that --for takes, instead of calibrating.",
        ),
    ] = None,
    spec: options.Spec = None,
    method: Annotated[
        str,
        options.choice(
            "--method", _methods, "minmax, moving_average, percentile, entropy or mse.", noun="calibration method"
        ),
    ] = "percentile",
    parameter: Annotated[
        float | None, typer.Option("--parameter", help="The percentile of --method percentile. Default: 99.999.")
    ] = None,
    for_: Annotated[
        str,
        options.choice(
            "--for",
            _formats,
            "plimsoll (JSON), or a runtime's format; the error for an unknown one lists them all.",
            noun="table format",
        ),
    ] = "plimsoll",
    max_images: options.MaxCalibrationImages = 300,
    force: options.Force = False,
) -> None:
    """Find the ranges of a network's tensors and write them as a table for quantizing, here or in another tool."""
    from plimsoll.errors import InputError
    from plimsoll.inference.images import list_images
    from plimsoll.inference.predictor import open_model
    from plimsoll.quantize.calibration import read_table, write_table

    if (images is None) == (from_ is None):
        raise InputError("give either --images to calibrate with, or --from with a table to convert")
    options.check_new(out, force=force)
    with open_model(model, spec) as opened:
        example: Any = None
        if from_ is not None:
            table = read_table(from_, opened.model)
        else:
            pictures = list_images(images or [], max_images, opened.model.require_spec().input.decode.formats)
            table, example = _calibrated(opened, pictures, method, parameter)
        write_table(table, out, for_, opened.model, example)
    source = f" from {table.images:,} pictures" if table.images else ""
    typer.echo(f"{out}: ranges of {len(table.ranges):,} tensors{source}")


def _calibrated(
    opened: ResolvedModel, pictures: list[str], method: str, parameter: float | None
) -> tuple[Calibration, Any]:
    """Return the table, and the network's input for the first picture, `[1, …]`. The network runs in a process of its
    own, so that a crash of its runtime is an error."""
    import math

    from plimsoll.core.model import ModelRecord
    from plimsoll.errors import BuildError, InputError
    from plimsoll.quantize import Calibration
    from plimsoll.system import subprocesses
    from plimsoll.system.subprocesses import JobError, ProcessDiedError, ProcessLimits

    reasons = list[str]()
    inputs = _tensors(
        opened.model,
        opened.preprocessing,
        opened.scaled_sides,
        pictures,
        lambda picture, reason: reasons.append(f"{picture}: {reason}"),
    )
    first = next(inputs, None)
    if first is None:
        raise InputError(f"no picture can be read; the first: {reasons[0]}")
    with tempfile.TemporaryDirectory(prefix="plimsoll-calibrate-") as folder:
        payload = {
            "model": ModelRecord.of(opened.model).model_dump(mode="json"),
            "preprocessing": opened.preprocessing,
            "scaled_sides": opened.scaled_sides,
            "pictures": list(pictures),  # as they were given; the process starts in the same folder
            "method": method,
            "parameter": parameter,
            "table": str(Path(folder, "table.json")),
        }
        try:
            subprocesses.run_job(__name__, payload, Path(folder), ProcessLimits(math.inf))
        except ProcessDiedError as error:
            raise BuildError(
                f"{opened.model.source}: the process that ran it for calibration crashed: {error.message}",
                "Check the network with `plimsoll prove`, or convert another tool's table with --from.",
            ) from error
        except JobError as error:
            # The log goes with the folder.
            raise error.__cause__ or BuildError(f"{opened.model.source}: {error.message}") from error
        return Calibration.read(Path(folder, "table.json")), first


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Calibrate, in the process of `_calibrated`."""
    from plimsoll import quantize
    from plimsoll.core.model import ModelRecord
    from plimsoll.inference.images import warn_left_out

    model = ModelRecord.model_validate(payload["model"]).model
    sides = tuple(payload["scaled_sides"]) if payload["scaled_sides"] is not None else None
    inputs = _tensors(model, payload["preprocessing"], sides, payload["pictures"], warn_left_out)
    quantize.calibrate(model, inputs, payload["method"], parameter=payload["parameter"]).write(Path(payload["table"]))
    return {}


def _tensors(
    model: Model, preprocessing: Any, scaled_sides: Any, pictures: Iterable[str], left_out: Callable[[str, str], None]
) -> Iterator[Any]:
    """Yield what the network reads for each picture, `[1, …]`; `left_out` gets those that can't be read, and why."""
    import numpy as np

    from plimsoll.errors import ImageError
    from plimsoll.inference.predictor import Predictor, ResolvedModel

    predictor = Predictor(ResolvedModel(model, preprocessing=preprocessing, scaled_sides=scaled_sides))
    for picture in pictures:
        try:
            yield predictor.prepare(Path(picture))[0][np.newaxis]
        except ImageError as error:
            left_out(picture, error.message)

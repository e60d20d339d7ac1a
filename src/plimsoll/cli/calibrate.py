"""`plimsoll calibrate MODEL --images DIR --out TABLE`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plimsoll.cli import options

if TYPE_CHECKING:
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
    """Return the table, and the network's input for the first picture, `[1, …]`."""
    import numpy as np

    from plimsoll import quantize
    from plimsoll.errors import ImageError, InputError
    from plimsoll.inference.images import warn_left_out
    from plimsoll.preprocessing import Preprocessor

    preprocessor = Preprocessor(opened.model.require_spec().input, opened.preprocessing, opened.scaled_sides)

    reasons = list[str]()

    def tensors() -> Iterator[Any]:
        for picture in pictures:
            try:
                yield preprocessor(Path(picture))[np.newaxis]
            except ImageError as error:
                reasons.append(f"{picture}: {error.message}")
                warn_left_out(picture, error.message)

    batches = tensors()
    first = next(batches, None)
    if first is None:
        raise InputError(f"no picture can be read; the first: {reasons[0]}")
    return quantize.calibrate(opened.model, chain([first], batches), method, parameter=parameter), first

"""`plimsoll calibrate MODEL --images DIR --out TABLE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from plimsoll.inference.resolve import ResolvedModel
    from plimsoll.quantize import Calibration


def calibrate(  # noqa: PLR0913 - each parameter is an option of the command
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A zoo name, a bundle, or an ONNX file with --spec.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="TABLE", help="Where the table goes.")],
    images: Annotated[
        list[str] | None,
        typer.Option("--images", "-i", help="Pictures that calibrate: a folder, files or patterns; may be repeated."),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="TABLE", help="Take the ranges of this table, in any format that --for has."),
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="The Spec of a bare model file.")] = None,
    method: Annotated[str, typer.Option(help="minmax, moving_average, percentile, entropy or mse.")] = "percentile",
    parameter: Annotated[float | None, typer.Option(help="The percentile (default 99.999).")] = None,
    for_: Annotated[
        str,
        typer.Option(
            "--for",
            help="The table's format: plimsoll (JSON), or a runtime's; the error for an unknown one lists them all.",
        ),
    ] = "plimsoll",
    max_images: Annotated[
        int, typer.Option("--max-images", min=1, help="At most so many pictures, taken from all over.")
    ] = 300,
) -> None:
    """Find the ranges of a network's tensors and write them as a table that quantizes it, here or in another tool."""
    from plimsoll.errors import InputError
    from plimsoll.inference.resolve import open_model
    from plimsoll.quantize.tables import read_table, table_names, write_table

    if (images is None) == (from_ is None):
        raise InputError("give either --images, which calibrate, or --from with a table")
    if for_ not in table_names():
        raise InputError(f"--for: unknown table format '{for_}'", f"Choose from: {', '.join(table_names())}.")
    with open_model(model, spec) as opened:
        picture: Any = None
        if from_ is not None:
            table = read_table(from_, opened.model)
        else:
            table, picture = _calibrated(opened, images or [], (method, parameter), max_images)
        write_table(table, out, for_, opened.model, picture)
    typer.echo(
        f"{out}: ranges of {len(table.ranges):,} tensors" + (f" from {table.images:,} pictures" if table.images else "")
    )


def _calibrated(
    opened: ResolvedModel, images: list[str], method: tuple[str, float | None], most: int
) -> tuple[Calibration, Any]:
    """Return the table, and what the network reads for the first picture, `[1, …]`."""
    import numpy as np

    from plimsoll import quantize
    from plimsoll.errors import InputError
    from plimsoll.inference.images import pictures
    from plimsoll.preprocessing import Preprocessor

    found = list(pictures(images))
    chosen = found if len(found) <= most else [found[place * len(found) // most] for place in range(most)]
    preprocessor = Preprocessor(opened.model.contract().input, opened.preprocessing)
    batches = (preprocessor(Path(picture))[np.newaxis] for picture in chosen)
    first = next(batches, None)
    if first is None:
        raise InputError(
            f"--images {' '.join(images)}: there is no picture",
            "Give a folder of pictures of the kind that the network will meet.",
        )
    table = quantize.calibrate(
        opened.model, (batch for part in ([first], batches) for batch in part), method[0], parameter=method[1]
    )
    return table, first

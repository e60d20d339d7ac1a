"""`plimsoll convert MODEL --target T --out BUNDLE`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from plimsoll.inference.resolve import ResolvedModel
    from plimsoll.preprocessing import Preprocessing


def convert(  # noqa: PLR0913 - each parameter is an option of the command
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A zoo name, a bundle, or a model file of any kind, with --spec.")
    ],
    target: Annotated[str, typer.Option(help="runtime:device:precision; `plimsoll targets` lists them.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the bundle goes: a folder, or one file where it ends in .zip.")
    ],
    spec: Annotated[Path | None, typer.Option(help="The Spec of a bare model file.")] = None,
    images: Annotated[
        list[str] | None,
        typer.Option("--images", "-i", help="Pictures that calibrate: a folder, files or patterns; may be repeated."),
    ] = None,
    calibrator: Annotated[str | None, typer.Option(help="Default: the target's first.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="A calibration table (JSON) to use in place of calibrating.")
    ] = None,
    max_images: Annotated[
        int, typer.Option("--max-images", min=1, help="At most so many pictures calibrate, taken from all over.")
    ] = 300,
    preprocessing: Annotated[
        str | None, typer.Option(help="Preprocessing: reference or fast. Default: the bundle's, else reference.")
    ] = None,
    folded: Annotated[
        bool, typer.Option("--folded", help="Make channels, scale, mean, std, layout and dtype part of the network.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
) -> None:
    """Build a network for one target and pack it, without searching or proving.

    `plimsoll ship` finds the best target and proves it; `plimsoll prove MODEL BUNDLE` compares what was built here. For
    a runtime in browsers, what is written is a folder that any web server serves.
    """
    import tempfile

    from plimsoll import backends
    from plimsoll.bundle import check_destination
    from plimsoll.bundle.packing import pack
    from plimsoll.cli.pack import chosen_preprocessing
    from plimsoll.core.target import Target
    from plimsoll.ship.candidate import Candidate
    from plimsoll.ship.conversion import calibrator_for
    from plimsoll.ship.conversion import convert as build

    check_destination(out, overwrite=force)
    wanted = Target.parse(target)
    backends.for_target(wanted)  # Before anything is done for a target that can't be built for here.
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plimsoll-convert-")))
        opened = stack.enter_context(_opened(model, spec, folder / "import"))
        chosen: Preprocessing = chosen_preprocessing(preprocessing) or opened.preprocessing
        candidate = Candidate(chosen, folded, wanted, calibrator_for(wanted, calibrator))
        made = build(opened.model, candidate, _pictures(images or [], max_images), folder, calibration)
        if backends.get(wanted.runtime).in_browser:
            from plimsoll.export.web import package

            written = package(made, wanted, out, origin=opened.origin, force=force)
        else:
            written = pack(made, wanted, out, preprocessing=chosen, origin=opened.origin, force=force)
    typer.echo(written)


def _opened(reference: str, spec: Path | None, folder: Path) -> ResolvedModel:
    """Open what `plimsoll.inference.resolve` knows; import what has to become ONNX first."""
    from plimsoll import zoo
    from plimsoll.importers.conversion import import_model
    from plimsoll.inference.resolve import ResolvedModel, open_model
    from plimsoll.spec import files as spec_files

    path = Path(reference)
    if reference in zoo.names() or not _is_imported(path):
        return open_model(reference, spec)
    return ResolvedModel(import_model(path, folder, spec=spec_files.read(spec) if spec is not None else None).model)


def _is_imported(path: Path) -> bool:
    """Whether a path means a model that has to become ONNX first."""
    from plimsoll import importers
    from plimsoll.errors import ModelError
    from plimsoll.importers.base import Converter

    try:
        return isinstance(importers.format_of(path), Converter)
    except ModelError:
        return False


def _pictures(given: list[str], most: int) -> list[str]:
    """Return at most so many of the pictures, taken from all over."""
    from plimsoll.inference.images import pictures

    found = [str(picture) for picture in pictures(given)] if given else []
    return found if len(found) <= most else [found[place * len(found) // most] for place in range(most)]

"""`plimsoll convert MODEL --target T --out BUNDLE`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from plimsoll.cli import options


def convert(  # noqa: PLR0913 - each parameter is an option of the command
    model: options.Model,
    target: options.RequiredTarget,
    out: options.OutBundle,
    spec: options.Spec = None,
    images: options.CalibrationImages = None,
    calibrator: Annotated[
        str | None,
        typer.Option(
            "--calibrator", metavar="NAME", help="How ranges are chosen. Default: the target's first calibrator."
        ),
    ] = None,
    calibration: options.CalibrationTable = None,
    max_images: options.MaxCalibrationImages = 300,
    preprocessing: options.Preprocessing = None,
    folded: Annotated[
        bool, typer.Option("--folded", help="Fold channels, scale, mean, std, layout and dtype into the network.")
    ] = False,
    force: options.Force = False,
) -> None:
    """Build a model for one target and pack it, without a search and without a proof.

    `plimsoll ship` finds the best target and proves it; `plimsoll prove MODEL BUNDLE` checks what this command built.
    A model of another framework is imported first. For a runtime in browsers, the result is a folder that any web
    server can serve.
    """
    from plimsoll import backends
    from plimsoll.bundle import check_destination
    from plimsoll.bundle.packing import pack
    from plimsoll.inference.images import check_exist, list_images
    from plimsoll.inference.predictor import open_model
    from plimsoll.report.trial import Candidate
    from plimsoll.ship.job_runner import convert as build
    from plimsoll.ship.strategy import calibrator_for

    check_destination(out, overwrite=force)
    backends.for_target(target)  # refuses a target that this machine can't build for before any work is done
    if images:
        check_exist(images)
    with tempfile.TemporaryDirectory(prefix="plimsoll-convert-") as name:
        folder = Path(name)
        with open_model(model, spec, preprocessing=preprocessing, import_folder=folder / "import") as opened:
            formats = opened.model.require_spec().input.decode.formats
            pictures = list_images(images, max_images, formats) if images else []
            candidate = Candidate(opened.preprocessing, folded, target, calibrator_for(target, calibrator))
            built = build(opened.model, candidate, pictures, folder, calibration)
            if backends.get(target.runtime).in_browser:
                from plimsoll.export.web import package

                written = package(built, target, out, origin=opened.origin, force=force)
            else:
                written = pack(
                    built,
                    target,
                    out,
                    preprocessing=opened.preprocessing,
                    scaled_sides=opened.scaled_sides,
                    origin=opened.origin,
                    force=force,
                )
    typer.echo(written)

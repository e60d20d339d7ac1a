"""`plimsoll convert MODEL --target T --out BUNDLE`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plimsoll.cli import options
from plimsoll.core.wording import printable
from plimsoll.errors import InputError

if TYPE_CHECKING:
    from plimsoll.core.target import Target
    from plimsoll.inference.cascade import CascadePredictor


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
    server can serve; MODEL may then be a cascade, whose networks keep their precisions.
    """
    from plimsoll import backends
    from plimsoll.bundle import check_destination
    from plimsoll.bundle.packing import pack
    from plimsoll.inference.images import check_exist, list_images
    from plimsoll.inference.predictor import open_model
    from plimsoll.quantize import lint
    from plimsoll.report.trial import Candidate
    from plimsoll.ship.job_runner import convert as build
    from plimsoll.ship.strategy import calibrator_for

    backends.for_target(target)  # refuses a target that this machine can't build for before any work is done
    if backends.get(target.runtime).in_browser:
        from plimsoll.export import web

        web.check_destination(out, overwrite=force)
    else:
        check_destination(out, overwrite=force)
    if images:
        check_exist(images)
    with tempfile.TemporaryDirectory(prefix="plimsoll-convert-") as name:
        folder = Path(name)
        if backends.get(target.runtime).in_browser and (cascade := _open_cascade(model)) is not None:
            with cascade:
                given = {"--spec": spec, "--images": images, "--calibrator": calibrator, "--calibration": calibration}
                _require_none({**given, "--preprocessing": preprocessing, "--folded": folded}, cascade.spec.name)
                typer.echo(_package_cascade(cascade, target, out, folder, force=force))
            return
        with open_model(model, spec, preprocessing=preprocessing, import_folder=folder / "import") as opened:
            formats = opened.model.require_spec().input.decode.formats
            pictures = list_images(images, max_images, formats) if images else []
            if target.precision in ("int8", "int16x8") and opened.model.format == "onnx":
                for finding in lint(opened.model, images=None if calibration else len(pictures)):
                    typer.echo(f"before quantizing: {printable(finding.message)}. {finding.advice}", err=True)
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


def _open_cascade(model: str) -> CascadePredictor | None:
    """Open a cascade with the preprocessing that browsers have; None for a single network."""
    from plimsoll.inference.cascade_bundle import open_whole

    return open_whole(model, preprocessing="reference")


def _require_none(given: Mapping[str, object], name: str) -> None:
    if named := [option for option, value in given.items() if value]:
        raise InputError(
            f"{', '.join(named)}: {name} is a cascade, whose networks become a web package as they are",
            "`plimsoll ship` quantizes a cascade's networks; convert the bundle that it makes.",
        )


def _package_cascade(cascade: CascadePredictor, target: Target, out: Path, folder: Path, *, force: bool) -> Path:
    """Write a cascade's web package; a bundle's golden pictures go along."""
    from plimsoll.export.web import package_cascade
    from plimsoll.inference.cascade import CascadePredictor
    from plimsoll.ship.cascade import as_onnx

    pictures = sorted((cascade.folder / "golden").iterdir()) if cascade.folder is not None else []
    images = [picture for picture in pictures if picture.suffix != ".json"]
    networks = [as_onnx(network.opened, folder / "imported") for network in cascade.networks]
    with CascadePredictor(cascade.stages.spec, networks) as converted:
        return package_cascade(converted, target, out, images=images, force=force)

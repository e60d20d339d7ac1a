"""`plimsoll convert`, `plimsoll pack` (also for another server: `--for triton`) and `plimsoll verify`."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plimsoll.cli import options
from plimsoll.core.wording import printable

if TYPE_CHECKING:
    from rich.text import Text

    from plimsoll.core.budget import Check
    from plimsoll.inference.predictor import ResolvedModel
    from plimsoll.report.report import Report


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
    from plimsoll.inference.images import list_images
    from plimsoll.inference.predictor import open_model
    from plimsoll.report.trial import Candidate
    from plimsoll.ship.preparation import convert as build
    from plimsoll.ship.strategy import calibrator_for

    check_destination(out, overwrite=force)
    backends.for_target(target)  # refuses a target that this machine can't build for before any work is done
    pictures = list_images(images, max_images) if images else []
    with tempfile.TemporaryDirectory(prefix="plimsoll-convert-") as name:
        folder = Path(name)
        with open_model(model, spec, preprocessing=preprocessing, import_folder=folder / "import") as opened:
            candidate = Candidate(opened.preprocessing, folded, target, calibrator_for(target, calibrator))
            built = build(opened.model, candidate, pictures, folder, calibration)
            if backends.get(target.runtime).in_browser:
                from plimsoll.export.web import package

                written = package(built, target, out, origin=opened.origin, force=force)
            else:
                written = pack(
                    built, target, out, preprocessing=opened.preprocessing, origin=opened.origin, force=force
                )
    typer.echo(written)


def pack(  # noqa: PLR0913 - each parameter is an option of the command
    model: options.Model,
    out: options.OutBundle,
    for_: Annotated[
        str | None,
        options.choice(
            "--for", ("triton",), "Write a model repository for this server instead of a bundle.", noun="server"
        ),
    ] = None,
    spec: options.Spec = None,
    target: options.ChosenTarget = None,
    preprocessing: options.Preprocessing = None,
    images: Annotated[
        list[str] | None,
        options.images("Your own golden pictures, which the bundle then contains, metadata included"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="With --for: an option of the server; may be repeated."),
    ] = None,
    force: options.Force = False,
) -> None:
    """Pack a network, its Spec and golden answers into a bundle that runs and can be verified anywhere."""
    from plimsoll.bundle.packing import pack as pack_bundle
    from plimsoll.errors import InputError
    from plimsoll.inference.predictor import open_model

    if for_ is not None and images:
        raise InputError(f"--images doesn't go with --for {for_}", "Golden pictures belong to bundles.")
    if for_ is None and set_:
        raise InputError("--set needs --for", "A bundle's options are given where it runs.")
    with open_model(model, spec, target=target, preprocessing=preprocessing) as opened:
        if for_ is not None:
            written = _pack_for_triton(opened, out, options.settings(set_ or []), force=force)
        else:
            written = pack_bundle(
                opened.model,
                opened.target,
                out,
                preprocessing=opened.preprocessing,
                images=_golden(images) if images else [],
                origin=opened.origin,
                force=force,
            )
    typer.echo(written)


def _pack_for_triton(opened: ResolvedModel, out: Path, settings: dict[str, str], *, force: bool) -> Path:
    from plimsoll.export.triton import TritonOptions, export

    return export(
        opened.model,
        opened.target,
        out,
        preprocessing=opened.preprocessing,
        options=TritonOptions.read(settings),
        force=force,
    )


def _golden(paths: list[str]) -> list[Path]:
    """Return the golden pictures: those named one by one, or at most as many of a folder as a bundle holds."""
    from plimsoll.bundle.golden import MAX_PICTURES
    from plimsoll.inference.images import list_images

    pictures = list_images(paths)
    if len(pictures) > MAX_PICTURES and len(paths) != len(pictures):
        logging.getLogger("plimsoll").info("%d of the %s pictures become golden", MAX_PICTURES, f"{len(pictures):,}")
        pictures = list_images(paths, MAX_PICTURES)
    return [Path(picture) for picture in pictures]


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle: a folder or a .zip.")],
    json_: options.Json = False,
) -> None:
    """Check every file of a bundle, and that it answers here as it did where it was packed.

    Exits with code 1 if it does not.
    """
    from plimsoll.bundle import Bundle
    from plimsoll.bundle.golden import verify as run
    from plimsoll.errors import CheckError

    with Bundle.open(bundle) as opened:
        report = run(opened)
        files = len(opened.manifest.files)
    if json_:
        typer.echo(report.to_json())
    else:
        _show(report, files)
    if not report.passed:
        failed = [check.name for check in report.checks if not check.passed]
        raise CheckError(
            f"{bundle}: {len(failed)} of {len(report.checks)} checks failed: {'; '.join(failed)}",
            "It does not answer here as it did where it was packed.",
        )


def _show(report: Report, files: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(report.subject, style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("check", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("worst at", style="dim")
    table.add_row(Text("✓", style="green"), "size and SHA-256", f"{files} files", "all", "")
    for check in report.checks:
        mark = Text("✓", style="green") if check.passed else Text("✗", style="bold red")
        table.add_row(
            mark, Text(check.name), *_figures(check), Text(printable(check.detail, 500) if check.measured else "")
        )
    console.print(table)
    console.print()
    for line in _machine(report):
        console.print(line, soft_wrap=True)


def _machine(report: Report) -> list[Text]:
    """Say whether this machine is like the one where the bundle was packed, how it differs, and what follows."""
    from rich.text import Text

    from plimsoll.bundle.golden import ROUNDING

    measurements = {name: str(value) for name, value in report.measurements.items()}
    where = "proven" if "proof" in measurements else "packed"
    lines = [Text(f"proof: {printable(measurements['proof'], 500)}")] if "proof" in measurements else []
    facts = {name.removeprefix("same "): value for name, value in measurements.items() if name.startswith("same ")}
    different = [name for name, value in facts.items() if value != "yes"]
    if not different:
        return [*lines, Text(f"✓ this machine is like the one where it was {where}: {', '.join(facts)}", style="green")]
    lines.append(Text(f"this machine is not like the one where it was {where}:", style="yellow"))
    lines += [
        Text(f"  other {name}: {printable(facts[name].removeprefix('no: '), 500)}", style="dim") for name in different
    ]
    if any(fact.replace("_", " ") in different for fact in ROUNDING):
        consequence = (
            "Answers may differ in their last digits: the checks above say by how much, and `plimsoll prove` proves"
            " them here."
        )
    else:
        consequence = (
            "Instruction sets and versions are the same, so results round alike and the proof carries over; the speed"
            " was measured elsewhere."
        )
    return [*lines, Text(consequence)]


def _figures(check: Check) -> tuple[str, str]:
    unit = f" {check.unit}" if check.unit else ""
    return f"{check.measured:.3g}{unit}", f"{'≤' if check.bound == 'at_most' else '≥'} {check.limit:g}{unit}"

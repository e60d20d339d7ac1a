"""Pack what a `ship` found: the winner's network, its golden vectors, and the report as it may leave the machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plimsoll.bundle.packing import pack
from plimsoll.inference.cascade_bundle import pack_cascade
from plimsoll.report.page import render
from plimsoll.report.report import Report
from plimsoll.report.ship_result import ShipResult
from plimsoll.ship import results
from plimsoll.ship.search import Search
from plimsoll.ship.sharing import shareable, shareable_command


@dataclass(frozen=True)
class Export:
    """Where the bundle and the whole report of a ship are."""

    bundle: Path
    page: Path
    """In the work folder, with pictures and paths."""
    report: Report


@dataclass(frozen=True)
class Pictures:
    """Where pictures of the user go into the bundle."""

    golden: bool = False
    """Some of the test pictures become golden pictures, metadata and all, but for their names; else those that Plimsoll
    brings along do."""
    in_report: bool = False
    """Its report has thumbnails of those that moved most, and the paths of all test pictures."""


def export(
    search: Search,
    result: ShipResult,
    out: Path,
    command: Sequence[str] = (),
    *,
    pictures: Pictures | None = None,
    force: bool = False,
) -> Export:
    """Pack the winner with its Spec, golden vectors, proof and report; `command` is what started the run.

    Without `pictures`, none of the user's are in the bundle; the whole report stays in the work folder. Raises what
    `pack` raises.
    """
    pictures = pictures or Pictures()
    candidate = result.shipped.candidate
    table = search.table(candidate)
    commands = results.repeat_commands(command, out, table is not None)
    whole = result.model_copy(update={"commands": commands})
    packed = whole if pictures.in_report else _shareable(search, result, command, out)
    model = search.resolved.model
    report = results.report(packed, model)
    extras = {"report/report.json": report.to_json().encode(), "report/index.html": render(report).encode()}
    if table is not None:
        extras[results.CALIBRATION] = table.read_bytes()
    formats = model.require_spec().input.decode.formats
    with tempfile.TemporaryDirectory(prefix="plimsoll-golden-") as folder:
        golden = results.golden_pictures(result, formats) if pictures.golden else []
        images = [_numbered(picture, number, Path(folder)) for number, picture in enumerate(golden, 1)]
        first, *_ = deployments = search.deployments(candidate)
        if search.cascade is not None:
            pack_cascade(search.cascade, deployments, out, images=images, extras=extras, force=force)
        else:
            pack(
                first.model,
                first.target,
                out,
                preprocessing=first.preprocessing,
                scaled_sides=first.scaled_sides,
                images=images,
                origin=first.origin,
                force=force,
                extras=extras,
            )
    whole_report = results.report(whole, model)
    page = search.work.path / "report.html"
    page.write_text(render(whole_report), encoding="utf-8")
    page.with_suffix(".json").write_text(whole_report.to_json(), encoding="utf-8")
    return Export(out, page, whole_report)


def _numbered(picture: Path, number: int, folder: Path) -> Path:
    """Return a copy of a picture under a name that says nothing."""
    return Path(shutil.copyfile(picture, folder / f"picture-{number}{picture.suffix}"))


def _shareable(search: Search, result: ShipResult, command: Sequence[str], out: Path) -> ShipResult:
    """Return the result as a bundle may hold it."""
    with_table = search.table(result.shipped.candidate) is not None
    commands = results.repeat_commands(shareable_command(command), Path(out.name), with_table)
    split = search.split
    pictures = (*split.calibration, *split.validation, *split.test, *split.unreadable)
    folders = (
        search.work.path,
        search.resolved.model.path.parent,
        search.resolved.model.source.parent,
        Path.cwd(),
        Path.home(),
        Path(tempfile.gettempdir()),
    )
    return shareable(result.model_copy(update={"commands": commands}), pictures, folders)

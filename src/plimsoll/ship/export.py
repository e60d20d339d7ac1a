"""Deliver what a `ship` found: the bundle of the winner with its report inside, and the page beside what was built."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plimsoll.bundle.packing import pack
from plimsoll.errors import ImageError
from plimsoll.preprocessing.decode import read, sniff
from plimsoll.report.page import render
from plimsoll.report.report import Report
from plimsoll.ship import Ship, Shipped
from plimsoll.ship.report_builder import report

GOLDEN_PICTURES = 8
"""Of the user's own, where they are to be in the bundle."""


@dataclass(frozen=True)
class Delivery:
    """Where things are."""

    bundle: Path
    page: Path
    """The report as a page: in the bundle where that is a folder, else in the work folder."""
    report: Report


def deliver(
    run: Ship,
    shipped: Shipped,
    out: Path,
    command: Sequence[str] = (),
    *,
    golden_from_images: bool = False,
    force: bool = False,
) -> Delivery:
    """Pack the winner with its Spec, golden vectors, proof and report; `command` is what started the run.

    The golden pictures are those that Plimsoll brings along. With `golden_from_images` they are some of the judging
    pictures, which then lie in the bundle, metadata and all. Raises what `pack` raises.
    """
    network = run.network(shipped.winner.candidate)
    table = run.table(shipped.winner.candidate)
    found = report(run, shipped, _commands(command, out, table))
    page = render(found)
    extras = {"report/report.json": found.to_json().encode(), "report/index.html": page.encode()}
    if table is not None:
        extras["report/calibration.json"] = table.read_bytes()
    candidate = shipped.winner.candidate
    images = _golden(run, shipped) if golden_from_images else ()
    pack(
        network,
        candidate.target,
        out,
        preprocessing=candidate.steps,
        images=images,
        origin=run.opened.origin,
        force=force,
        extras=extras,
    )
    kept = run.work.path / "report.html"
    kept.write_text(page, encoding="utf-8")
    return Delivery(out, out / "report" / "index.html" if out.is_dir() else kept, found)


def _commands(command: Sequence[str], out: Path, table: Path | None) -> list[str]:
    """Return what repeats the work: the run itself, the proof on another machine, the same ranges again."""
    commands = [shlex.join(command)] if command else []
    commands.append(f"plimsoll verify {shlex.quote(str(out))}")
    if table is not None and command and not _option(command, "--calibration"):
        again = [word for place, word in enumerate(command) if place not in _option(command, "--calibrators")]
        commands.append(
            "# The ranges that it was quantized with, to be used"
            f" again:\n{shlex.join([*again, '--calibration', str(table)])}"
        )
    return commands


def _option(command: Sequence[str], name: str) -> set[int]:
    """Return the places of an option and its value in a command."""
    places: set[int] = set()
    for place, word in enumerate(command):
        if word == name:
            places |= {place, place + 1}
        elif word.startswith(f"{name}="):
            places.add(place)
    return places


def _golden(run: Ship, shipped: Shipped) -> list[Path]:
    """Return judging pictures, spread evenly from the one whose score moved least to the one that moved most."""
    accepted = run.opened.model.contract().input.decode.formats
    label = run.output.positive
    moved = []
    for ours, theirs in shipped.rows:
        path = Path(ours["path"])
        if theirs["error"] is None and _format(path) in accepted:
            name = label or max(ours["scores"], key=lambda one: ours["scores"][one])
            moved.append((abs(theirs["scores"][name] - ours["scores"][name]), str(path)))
    moved.sort()
    count = min(GOLDEN_PICTURES, len(moved))
    places = [round(step * (len(moved) - 1) / max(count - 1, 1)) for step in range(count)]
    return [Path(moved[place][1]) for place in places]


def _format(path: Path) -> str | None:
    try:
        return sniff(read(path))
    except ImageError:
        return None

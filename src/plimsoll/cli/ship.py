"""`plimsoll ship MODEL --images DIR --out BUNDLE`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from plimsoll.opener import Opened
    from plimsoll.report import Report
    from plimsoll.ship import Ship, Shipped, Wishes


def ship(  # noqa: PLR0913 - each parameter is an option of the command
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A zoo name, a bundle, or a model file with --spec.")],
    images: Annotated[list[str], typer.Option("--images", "-i", help="Your own pictures: a folder, files or patterns; may be repeated.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the bundle goes: a folder, or one file where it ends in .zip.")],
    spec: Annotated[Path | None, typer.Option(help="The Spec of a bare model file.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Right labels: a CSV file with path,label, or a folder with one folder a class.")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="What the answers may lose, for example flips=0.5%; may be repeated. Default: flips=4% drift=0.01.")
    ] = None,
    targets: Annotated[str, typer.Option(help="Targets to try, separated by commas. Default: all that this machine has.")] = "",
    calibrators: Annotated[str, typer.Option(help="Calibrators to try, separated by commas.")] = "percentile,minmax,moving_average,entropy,mse",
    objective: Annotated[str, typer.Option(help="throughput, latency or size.")] = "throughput",
    time: Annotated[str, typer.Option(help="How long to look for better ones, for example 90s or 10m; the last race and the judging come on top.")] = "10m",
    min_gain: Annotated[str, typer.Option("--min-gain", help="The least gain that is worth a change.")] = "3%",
    max_images: Annotated[int, typer.Option("--max-images", min=12, help="At most so many of the pictures, drawn at random.")] = 2000,
    work: Annotated[Path | None, typer.Option(help="Where everything built and measured is kept, so that a stopped run continues.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
) -> None:
    """Find the fastest deployment whose answers stay within the budget, prove it, and pack it.

    Candidates are built, proven against the reference on your pictures, and measured end to end, each in a process of its
    own. The winner is judged on pictures that nothing before has seen. If nothing passes, the reference ships.
    """
    from plimsoll import zoo
    from plimsoll.bundle import check_destination
    from plimsoll.opener import open_reference
    from plimsoll.prove.labels import read_labels
    from plimsoll.ship import Ship
    from plimsoll.ship.split import split
    from plimsoll.ship.work import WorkFolder

    check_destination(out, overwrite=force)
    wishes = _wishes(targets, calibrators, budget, objective, time, min_gain)
    with open_reference(model, spec) as opened:
        pictures = list(_pictures(images))
        truths = read_labels(labels, opened.model.contract().output.labels) if labels is not None else None  # type: ignore[union-attr]
        parts = split(pictures, max_images)
        folder = WorkFolder.of(work or zoo.cache_folder() / "ship", opened.model, parts)
        with folder.locked():
            run = Ship(opened, parts, folder, wishes, truths)
            shipped = _watched(run, sys.stdout.isatty())
            _deliver(run, shipped, opened, out, force)


def _deliver(run: Ship, shipped: Shipped, opened: Opened, out: Path, force: bool) -> None:
    """Pack the winner with its report, and say what became of it."""
    from plimsoll.package import pack
    from plimsoll.page import render
    from plimsoll.ship import make
    from plimsoll.ship.account import report

    command = shlex.join(["plimsoll", *sys.argv[1:]])
    found = report(run, shipped, [command, f"plimsoll verify {shlex.quote(str(out))}"])
    table = run.table(shipped.winner.variant)
    network = make.network(opened.model, shipped.winner.variant, run.work.built, table)
    page = render(found)
    extras = {"report/report.json": found.to_json().encode(), "report/index.html": page.encode()}
    pack(network, shipped.winner.variant.target, out, implementation=shipped.winner.variant.steps, origin=opened.origin, force=force, extras=extras)
    (run.work.path / "report.html").write_text(page, encoding="utf-8")
    _sum_up(found, shipped, out, run.work.path / "report.html")


def _wishes(targets: str, calibrators: str, budget: list[str] | None, objective: str, time: str, min_gain: str) -> Wishes:
    from plimsoll.budget import DEFAULT, Budget
    from plimsoll.errors import InputError
    from plimsoll.ship import CALIBRATORS, Wishes, default_targets
    from plimsoll.target import Target

    if objective not in ("throughput", "latency", "size"):
        raise InputError(f"--objective {objective}: allowed: throughput, latency, size")
    chosen = tuple(name.strip() for name in calibrators.split(",") if name.strip())
    if unknown := [name for name in chosen if name not in CALIBRATORS]:
        raise InputError(f"--calibrators: '{unknown[0]}' is none", f"There are: {', '.join(CALIBRATORS)}.")
    wanted = default_targets() if targets in ("", "all") else tuple(Target.parse(name) for name in targets.split(","))
    return Wishes(wanted, chosen, Budget.parse(budget) if budget else DEFAULT, objective, _seconds(time), _share(min_gain))


def _seconds(text: str) -> float:
    from plimsoll.errors import InputError

    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e7:
        raise InputError(f"--time {text}: expected a time like 90s, 10m or 1h")
    return seconds


def _share(text: str) -> float:
    from plimsoll.errors import InputError

    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 10:
        raise InputError(f"--min-gain {text}: expected a share like 3% or 0.03")
    return share


def _pictures(images: list[str]) -> Any:
    from plimsoll.listing import pictures

    return pictures(images)


def _watched(run: Ship, live: bool) -> Shipped:
    """Run, with a table that grows while it works; on anything but a terminal a line a variant."""
    from plimsoll.cli.ladder import Ladder

    with Ladder(run, live) as ladder:
        return run.run(ladder.add)


def _sum_up(found: Report, shipped: Shipped, out: Path, page: Path) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    variant = shipped.winner.variant
    if shipped.outcome == "faster":
        console.print(f"\n[bold green]{shipped.winner.ratio:.1f}× as fast[/]: {variant.name}", end="")
        console.print(f" [dim](95 % interval {shipped.winner.result['speed']['low']:.2f} … {shipped.winner.result['speed']['high']:.2f})[/]")
    elif shipped.outcome == "not_faster":
        console.print("\n[bold yellow]not faster[/]: nothing that keeps the budget is truly faster; the reference ships")
    else:
        console.print("\n[bold yellow]nothing passed[/]: no variant keeps the budget; the reference ships")
    drift = shipped.judged.drift
    moved = f"; scores move by {drift.mean:.2g} on average, at most {drift.maximum:.2g}" if drift is not None else ""
    console.print(f"{shipped.judged.headline}{moved} [dim](judged on {shipped.judged.pictures:,} pictures that nothing before had seen)[/]")
    for note in shipped.notes:
        console.print(f"[dim]note: {note}[/]")
    console.print(f"bundle: {out}\nreport: {out / 'report' / 'index.html' if out.is_dir() else page}")
    del found

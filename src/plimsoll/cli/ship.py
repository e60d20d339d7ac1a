"""`plimsoll ship MODEL --images DIR --out BUNDLE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from plimsoll.core.target import Target
    from plimsoll.ship import SearchConfig, Ship, Shipped
    from plimsoll.ship.export import Delivery
    from plimsoll.spec.output import Classify


def ship(  # noqa: PLR0913 - each parameter is an option of the command
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A zoo name, a bundle, or a model file with --spec.")],
    images: Annotated[
        list[str],
        typer.Option("--images", "-i", help="Your own pictures: a folder, files or patterns; may be repeated."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the bundle goes: a folder, or one file where it ends in .zip.")
    ],
    spec: Annotated[Path | None, typer.Option(help="The Spec of a bare model file.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Right labels: a CSV file with path,label, or a folder with one folder a class.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="What the answers may lose, for example flips=0.5%; may be repeated. Default: flips=4% deviation=0.01."
        ),
    ] = None,
    targets: Annotated[
        str,
        typer.Option(
            help=(
                "Targets to try, separated by commas; 'all' makes the toolchains that some need. Default: all that need"
                " no toolchain made."
            )
        ),
    ] = "",
    calibrators: Annotated[
        str,
        typer.Option(
            help="Calibrators to try, separated by commas. Default: percentile,minmax,moving_average,entropy,mse."
        ),
    ] = "",
    calibration: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="A calibration table (JSON) to use in place of calibrating.")
    ] = None,
    objective: Annotated[str, typer.Option(help="throughput, latency or size.")] = "throughput",
    time: Annotated[
        str,
        typer.Option(
            help=(
                "How long to look for better ones, for example 90s or 10m with many targets; the last race and the"
                " judging come on top."
            )
        ),
    ] = "3m",
    measure: Annotated[
        str, typer.Option(help="Measured time of each candidate; longer where the machine is noisy.")
    ] = "2s",
    min_gain: Annotated[str, typer.Option("--min-gain", help="The least gain that is worth a change.")] = "3%",
    max_images: Annotated[
        int, typer.Option("--max-images", min=12, help="At most so many of the pictures, drawn at random.")
    ] = 2000,
    golden_from_images: Annotated[
        bool,
        typer.Option(
            "--golden-from-images",
            help="Put some of your judging pictures into the bundle, for `verify`. Default: pictures of Plimsoll's.",
        ),
    ] = False,
    work: Annotated[
        Path | None, typer.Option(help="Where everything built and measured is kept, so that a stopped run continues.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
) -> None:
    """Find the fastest deployment whose answers stay within the budget, prove it, and pack it.

    Candidates are built, proven against the reference on your pictures, and measured end to end, each in a process of
    its own. The winner is judged on pictures that nothing before has seen. If nothing passes, the reference ships.
    """
    from plimsoll.bundle import check_destination
    from plimsoll.inference.images import pictures
    from plimsoll.inference.resolve import open_model
    from plimsoll.prove.labels import read_labels
    from plimsoll.ship import Ship
    from plimsoll.ship.export import deliver
    from plimsoll.ship.split import split
    from plimsoll.ship.store import WorkFolder
    from plimsoll.system.cache import cache_folder

    check_destination(out, overwrite=force)
    config = _wishes(_targets(targets), (calibrators, calibration), budget, objective, (time, measure, min_gain))
    with open_model(model, spec) as opened:
        output: Classify | object = opened.model.contract().output
        truths = read_labels(labels, getattr(output, "labels", ()), _folder(images)) if labels is not None else None
        parts = split(pictures(images), max_images)
        folder = WorkFolder.of(work or cache_folder() / "ship", opened.model, parts)
        with folder.locked():
            run = Ship(opened, parts, folder, config, truths)
            shipped = _watched(run, sys.stdout.isatty())
            done = deliver(
                run, shipped, out, ["plimsoll", *sys.argv[1:]], golden_from_images=golden_from_images, force=force
            )
            _sum_up(run, shipped, done, golden_from_images)


def _targets(text: str) -> tuple[Target, ...]:
    """Return the targets that are meant, and make the toolchains of those that were asked for."""
    from plimsoll.core.target import Target
    from plimsoll.errors import InputError
    from plimsoll.ship import all_targets, default_targets, toolchains

    if not text:
        return default_targets()
    wanted = (
        all_targets()
        if text == "all"
        else tuple(dict.fromkeys(Target.parse(name) for name in text.split(",") if name.strip()))
    )
    if not wanted:
        raise InputError(
            f"--targets '{text}': there is no target in it",
            "For example --targets onnxruntime:cpu:int8,openvino:cpu:int8.",
        )
    _check(wanted)
    if needed := toolchains(wanted):
        from plimsoll.system.toolchains import make

        for name in needed:
            make(name)
    return wanted


def _check(targets: tuple[Target, ...]) -> None:
    """Raise TargetError or BackendMissingError for a target that can't be tried here: who names it wants to know."""
    from plimsoll import backends

    for target in targets:
        backends.for_target(target)


def _wishes(
    targets: tuple[Target, ...],
    calibration: tuple[str, Path | None],
    budget: list[str] | None,
    objective: str,
    limits: tuple[str, str, str],
) -> SearchConfig:
    from plimsoll.core.budget import DEFAULT, Budget
    from plimsoll.errors import InputError
    from plimsoll.ship import CALIBRATORS, OBJECTIVES, SearchConfig

    if objective not in OBJECTIVES:
        raise InputError(f"--objective {objective}: allowed: {', '.join(OBJECTIVES)}")
    named, table = calibration
    if named and table is not None:
        raise InputError("--calibrators and --calibration: a given table needs no calibrator", "Give one of the two.")
    chosen = tuple(dict.fromkeys(name.strip() for name in named.split(",") if name.strip())) or CALIBRATORS
    if unknown := [name for name in chosen if name not in CALIBRATORS]:
        raise InputError(f"--calibrators: '{unknown[0]}' is none", f"There are: {', '.join(CALIBRATORS)}.")
    time, measured, share = (
        _seconds("--time", limits[0]),
        _seconds("--measure", limits[1], least=0.05),
        _share(limits[2]),
    )
    return SearchConfig(
        targets,
        chosen,
        Budget.parse(budget) if budget else DEFAULT,
        objective,
        time,
        share,
        measured,
        calibration=table,
    )


def _seconds(option: str, text: str, least: float = 0.0) -> float:
    from plimsoll.errors import InputError

    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = -1.0
    if not least <= seconds < 1e7:
        raise InputError(
            f"{option} {text}: expected a time like 90s, 10m or 1h" + (f", at least {least:g}s" if least else "")
        )
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


def _folder(images: list[str]) -> Path | None:
    return Path(images[0]) if len(images) == 1 and Path(images[0]).is_dir() else None


def _watched(run: Ship, live: bool) -> Shipped:
    """Run, with a table that grows while it works; on anything but a terminal a line a candidate."""
    from plimsoll.cli.results_table import ResultsTable

    with ResultsTable(run, live) as table:
        return run.run(table.add, table.say)


def _sum_up(run: Ship, shipped: Shipped, done: Delivery, own_golden: bool) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"\n{_verdict(run, shipped)}")
    deviation = shipped.judged.deviation
    moved = (
        f"; scores move by {deviation.mean:.2g} on average, at most {deviation.maximum:.2g}"
        if deviation is not None
        else ""
    )
    console.print(
        f"{shipped.judged.headline}{moved} [dim](judged on {shipped.judged.pictures:,} pictures that nothing before had"
        " seen)[/]"
    )
    for change in shipped.judged.changes:
        if change.name in run.config.budget.metrics and change.reference is not None and change.other is not None:
            console.print(
                f"{change.name}: {change.reference:.4g} → {change.other:.4g} [dim](on {change.count:,} labelled"
                " pictures)[/]"
            )
    for note in shipped.notes:
        console.print(f"[dim]note: {escape(note)}[/]")
    golden = "some of your judging pictures" if own_golden else "pictures that come with Plimsoll, none of yours"
    console.print(
        f"bundle: {escape(str(done.bundle))} [dim](golden pictures for `plimsoll verify`: {golden})[/]\nreport:"
        f" {escape(str(done.page))}"
    )


def _verdict(run: Ship, shipped: Shipped) -> str:
    from plimsoll.report.figures import ratio_rounded_down, reduction, size

    name, by_size = shipped.winner.candidate.name, run.config.objective == "size"
    if shipped.outcome == "nothing_passed":
        return "[bold yellow]nothing passed[/]: no candidate keeps the budget; the reference ships"
    if shipped.outcome == "not_better":
        word = "smaller" if by_size else "faster"
        return f"[bold yellow]not {word}[/]: nothing that keeps the budget is truly {word}; the reference ships"
    speed = shipped.winner.result["speed"]
    interval = f"{speed['low']:.2f} … {speed['high']:.2f}"
    if by_size:
        ours, theirs = (float(one.result["size_bytes"]) for one in (shipped.winner, shipped.reference))
        return (
            f"[bold green]{reduction(ours, theirs)} smaller[/] ({size(ours)}, was {size(theirs)}): {name} [dim]({interval}×"
            " as fast)[/]"
        )
    return (
        f"[bold green]{ratio_rounded_down(shipped.winner.ratio)} as fast[/]: {name} [dim](95 % interval {interval})[/]"
    )

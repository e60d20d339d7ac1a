"""`plimsoll ship MODEL --images DIR --out BUNDLE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plimsoll.cli import options
from plimsoll.core import wording

if TYPE_CHECKING:
    from plimsoll.core.target import Target
    from plimsoll.ship import SearchConfig, Ship, Shipped
    from plimsoll.ship.export import Delivery


def ship(  # noqa: PLR0913 - each parameter is an option of the command
    model: options.Model,
    images: Annotated[list[str], options.images("Your own pictures")],
    out: options.OutBundle,
    spec: options.Spec = None,
    labels: options.Labels = None,
    budget: options.Budget = None,
    targets: Annotated[
        str,
        typer.Option(
            "--targets",
            metavar="TARGET,…",
            help="Targets to try; 'all' includes those that need a toolchain and makes it. Default: all but those.",
        ),
    ] = "",
    calibrators: Annotated[
        str,
        typer.Option(
            "--calibrators",
            metavar="NAME,…",
            help="Calibrators to try. Default: percentile,minmax,moving_average,entropy,mse.",
        ),
    ] = "",
    calibration: options.CalibrationTable = None,
    objective: Annotated[
        str, options.choice("--objective", ("throughput", "latency", "size"), "What to optimize.")
    ] = "throughput",
    time: Annotated[
        float,
        options.duration(
            "--time",
            "How long to look for better candidates; more targets need more. The final benchmark and the proof come"
            " on top.",
            default="3m",
            at_least="0s",
        ),
    ] = 180.0,
    measure: Annotated[
        float,
        options.duration(
            "--measure",
            "How long to measure each candidate; longer where the machine is noisy.",
            default="2s",
            at_least="50ms",
        ),
    ] = 2.0,
    min_gain: Annotated[
        float, options.share("--min-gain", "The least gain that is worth a change.", default="3%")
    ] = 0.03,
    max_images: Annotated[
        int, options.max_images("Use at most this many of the pictures, drawn at random.", least=12)
    ] = 2000,
    golden_from_images: Annotated[
        bool,
        typer.Option(
            "--golden-from-images",
            help="Put some of the test pictures into the bundle for `plimsoll verify`. Default: pictures that come"
            " with Plimsoll.",
        ),
    ] = False,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work", metavar="DIR", help="Where everything built and measured is kept, so that a stopped run resumes."
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Find the fastest deployment whose answers stay within the budget, prove it, and pack it.

    Candidates are built, proven against the reference on your pictures, and measured end to end, each in a process of
    its own. The winner is judged on pictures that nothing before has seen. If nothing passes, the reference ships.
    """
    from plimsoll.bundle import check_destination
    from plimsoll.inference.images import pictures
    from plimsoll.inference.resolve import open_model
    from plimsoll.ship import Ship
    from plimsoll.ship.export import deliver
    from plimsoll.ship.split import split
    from plimsoll.ship.store import WorkFolder
    from plimsoll.system.cache import cache_folder

    check_destination(out, overwrite=force)
    config = _wishes(_targets(targets), (calibrators, calibration), budget, objective, (time, measure, min_gain))
    with open_model(model, spec) as opened:
        truths = options.labels_of(labels, opened.model.contract(), images)
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
            "For example --targets onnxruntime:cpu:float32,onnxruntime:cpu:int8.",
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
    limits: tuple[float, float, float],
) -> SearchConfig:
    from plimsoll.core.budget import DEFAULT_BUDGET, Budget
    from plimsoll.errors import InputError
    from plimsoll.ship import CALIBRATORS, SearchConfig

    named, table = calibration
    if named and table is not None:
        raise InputError("--calibrators and --calibration: a given table needs no calibrator", "Give one of the two.")
    chosen = tuple(dict.fromkeys(name.strip() for name in named.split(",") if name.strip())) or CALIBRATORS
    if unknown := [name for name in chosen if name not in CALIBRATORS]:
        raise InputError(f"--calibrators: {wording.unknown('calibrator', unknown[0], CALIBRATORS)}")
    time, measured, share = limits
    return SearchConfig(
        targets,
        chosen,
        Budget.parse(budget) if budget else DEFAULT_BUDGET,
        objective,
        time,
        share,
        measured,
        calibration=table,
    )


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

"""`plimsoll bench A [--vs B] --images DIR`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plimsoll.cli import options
from plimsoll.core.target import Target

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from plimsoll.benchmark import (
        BenchmarkResult,
        Estimate,
        Footprint,
        MaxRate,
        Profile,
        RateTrial,
        Scenario,
        Server,
        SystemUnderTest,
    )


_SCENARIOS = {"offline": "offline", "single": "single_stream", "server": "server"}


@dataclass(frozen=True)
class _Settings:
    """What the options say about measuring."""

    scenario: str
    seconds: float
    min_count: int | None
    rate: float | None
    latency_bound: float
    json: bool


def bench(  # noqa: PLR0913 - each parameter is an option of the command
    model: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help=(
                "The baseline: a zoo name, a bundle or a model file. MODEL@fast or MODEL@target,fast sets how to"
                " run it."
            ),
        ),
    ],
    images: Annotated[list[str], options.images("Pictures to measure with")],
    vs: Annotated[
        list[str] | None,
        typer.Option(
            "--vs", metavar="B", help="A candidate to compare with the baseline, written like A; may be repeated."
        ),
    ] = None,
    scenario: Annotated[
        str,
        options.choice(
            "--scenario",
            tuple(_SCENARIOS),
            "offline: all pictures at once; single: one after another; server: at random moments.",
        ),
    ] = "offline",
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", help="server: pictures per second. Default: search the highest rate that keeps the latency bound."
        ),
    ] = None,
    latency_bound: Annotated[
        float,
        options.duration(
            "--latency-bound", "server: the latency that 99 % of the answers must not exceed.", default="100ms"
        ),
    ] = 0.1,
    time: Annotated[float, options.duration("--time", "How long to measure each candidate.", default="10s")] = 10.0,
    min_count: Annotated[
        int | None,
        typer.Option(
            min=1, help="Answers for each candidate. Default: 64; for server 662, as the 99th percentile requires."
        ),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also measure each stage from file to answer.")] = False,
    footprint: Annotated[
        bool, typer.Option("--footprint/--no-footprint", help="Also measure load time and peak memory.")
    ] = True,
    preprocessing: Annotated[
        options.PreprocessingName | None,
        options.preprocessing(
            "--preprocessing", "For candidates that don't set it. Default: the bundle's, else reference."
        ),
    ] = None,
    target: Annotated[
        Target | None, options.target("--target", "For candidates that don't set it: runtime:device:precision.")
    ] = None,
    spec: Annotated[Path | None, typer.Option("--spec", metavar="FILE", help="The Spec of bare model files.")] = None,
    json_: options.Json = False,
) -> None:
    """Measure how fast models answer pictures, end to end, and whether one is faster.

    Candidates are measured in turns on the same pictures. Exits with code 1 if the server scenario's latency bound is
    exceeded.
    """
    from plimsoll.errors import InputError
    from plimsoll.inference.images import check_exist, list_images

    if rate is not None and scenario != "server":
        raise InputError(f"--rate goes with --scenario server, not with {scenario}")
    settings = _Settings(_SCENARIOS[scenario], time, min_count, rate, latency_bound, json_)
    check_exist(images)
    with ExitStack() as stack:
        systems: list[SystemUnderTest] = []
        for text in (model, *(vs or [])):
            names = {system.name for system in systems}
            systems.append(_system(stack, text, preprocessing, target, spec, names))
        photos = list_images(images, formats=systems[0].predictor.spec.input.decode.formats)
        if settings.scenario == "server" and rate is None:
            _search_rates(systems, photos, settings)
        else:
            _measure(systems, photos, settings, with_profile=profile, with_footprint=footprint)


def _measure(
    systems: list[SystemUnderTest], photos: list[str], settings: _Settings, *, with_profile: bool, with_footprint: bool
) -> None:
    from plimsoll import benchmark
    from plimsoll.errors import CheckError

    with _progress(enabled=not settings.json) as progress:
        result = benchmark.bench(
            systems,
            photos,
            scenario=_scenario(settings),
            min_seconds=settings.seconds,
            min_count=settings.min_count,
            progress=progress,
        )
        profile_seconds = min(2.0, settings.seconds)
        profiles = [
            benchmark.profile(system, photos, min_seconds=profile_seconds) for system in systems if with_profile
        ]
        footprints, notes = _footprints(systems, photos) if with_footprint else ({}, [])
    report = benchmark.report(result, profiles=profiles, footprints=footprints)
    if settings.json:
        typer.echo(report.to_json())
    else:
        _show(result, profiles, footprints, notes)
    if failed := [check.name for check in report.checks if not check.passed]:
        raise CheckError(
            f"the latency bound of {1e3 * settings.latency_bound:g} ms is exceeded: {', '.join(failed)}",
            "Lower --rate, or omit it to search for the highest.",
        )


def _footprints(systems: list[SystemUnderTest], photos: list[str]) -> tuple[dict[str, Footprint], list[str]]:
    """Return what each costs; a system whose own process fails has a note instead."""
    from plimsoll import benchmark
    from plimsoll.errors import PlimsollError

    footprints, notes = {}, []
    for system in systems:
        try:
            footprints[system.name] = benchmark.footprint(system, [Path(photo) for photo in photos])
        except PlimsollError as error:
            notes.append(f"{system.name}: load time and memory could not be measured: {error.message}")
    return footprints, notes


def _search_rates(systems: list[SystemUnderTest], photos: list[str], settings: _Settings) -> None:
    from plimsoll import benchmark

    rates = {
        system.name: benchmark.max_rate(
            system.predictor,
            photos,
            _server(settings),
            min_seconds=min(2.0, settings.seconds),
            min_count=settings.min_count,
            progress=None if settings.json else _trial_printer(system.name),
        )
        for system in systems
    }
    if settings.json:
        typer.echo(benchmark.rates_report(rates).to_json())
    else:
        _show_rates(rates)


def _scenario(settings: _Settings) -> Scenario:
    from plimsoll.benchmark import Offline, SingleStream

    if settings.scenario == "server":
        return _server(settings)
    return SingleStream() if settings.scenario == "single_stream" else Offline()


def _server(settings: _Settings) -> Server:
    from plimsoll.benchmark import Server

    return Server(rate=settings.rate or 1.0, latency_bound=settings.latency_bound)


def _system(
    stack: ExitStack,
    text: str,
    preprocessing: options.PreprocessingName | None,
    target: Target | None,
    spec: Path | None,
    taken: set[str],
) -> SystemUnderTest:
    """Open MODEL or MODEL@SETTING[,SETTING]; a setting is a kind of preprocessing or a target. Its name is none of
    `taken`."""
    import itertools

    from plimsoll.benchmark import SystemUnderTest
    from plimsoll.inference.predictor import load

    model, settings = (text, "") if Path(text).exists() or "@" not in text else text.rsplit("@", 1)
    for setting in filter(None, settings.split(",")):
        if setting in options.PREPROCESSING:
            preprocessing = options.PREPROCESSING[setting]
        else:
            target = Target.parse(setting)
    name = f"{Path(model).name}{'@' if settings else ''}{settings}"
    numbered = (f"{text} ({number})" for number in itertools.count(2))
    name = next(free for free in itertools.chain((name, text), numbered) if free not in taken)
    bare = spec if Path(model).is_file() and not model.endswith(".zip") else None
    return SystemUnderTest(
        name, stack.enter_context(load(model, spec=bare, target=target, preprocessing=preprocessing))
    )


_STYLES = {"faster": "bold green", "slower": "bold red", "no difference": "bold yellow"}
_BAR = 32


@contextmanager
def _progress(*, enabled: bool) -> Iterator[Callable[[float], None] | None]:
    """Show a bar on the terminal's standard error; yields what to call with the share that is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not enabled or not console.is_terminal:
        yield None
        return
    with Progress(TextColumn("measuring"), BarColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _show(
    result: BenchmarkResult, profiles: Sequence[Profile], footprints: Mapping[str, Footprint], notes: Sequence[str]
) -> None:
    """Print everything about a finished benchmark."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for comparison in result.comparisons:
        console.print(Text(comparison.sentence(), style=_STYLES[comparison.verdict]), soft_wrap=True)
    if result.comparisons:
        console.print()
    console.print(_table(result, footprints))
    counts = (
        f"{result.images:,} pictures, {len(result.systems[0].rounds)} rounds in turns, {result.cores} cores, from"
        " file to answer"
    )
    console.print(Text(counts, style="dim"), soft_wrap=True)
    for profile in profiles:
        console.print()
        _show_profile(console, profile)
    for warning in [*result.warnings, *notes]:
        console.print(Text(f"! {warning}", style="yellow"), soft_wrap=True)


def _table(result: BenchmarkResult, footprints: Mapping[str, Footprint]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    ranks = sorted({name for system in result.systems for name in system.percentiles}, key=lambda name: float(name[1:]))
    table.add_column(
        "candidate", overflow="fold", min_width=min(24, max(len(system.name) for system in result.systems))
    )
    figures = ["images/s", *(f"{name.upper()} ms" for name in ranks)]
    cost_headings = ["MB on disk", "load s", "peak MB", "threads"] if footprints else []
    for heading in [*figures, *cost_headings, "answers"]:
        table.add_column(heading, justify="right", no_wrap=True)
    for system in result.systems:
        times = [f"{1e3 * system.percentiles[name]:.1f}" if name in system.percentiles else "–" for name in ranks]
        failed = f" ({system.failed:,} failed)" if system.failed else ""
        costs = _costs(footprints.get(system.name)) if footprints else []
        table.add_row(Text(system.name), _interval(system.rate), *times, *costs, f"{system.answered:,}{failed}")
    return table


def _interval(rate: Estimate) -> str:
    known = math.isfinite(rate.uncertainty)
    return f"{rate.median:,.1f} ± {rate.uncertainty:.0%}" if known else f"{rate.median:,.1f}"


def _costs(footprint: Footprint | None) -> list[str]:
    if footprint is None:
        return ["–"] * 4
    peak = f"{footprint.peak_bytes / 1e6:,.0f}" if math.isfinite(footprint.peak_bytes) else "–"
    return [
        f"{footprint.disk_bytes / 1e6:.1f}",
        f"{footprint.load_seconds:.2f}",
        peak,
        f"{footprint.streams} × {footprint.threads}",
    ]


def _show_profile(console: Console, profile: Profile) -> None:
    from rich.text import Text

    total = sum(stage.seconds for stage in profile.stages)
    console.print(Text(f"{profile.name}: {1e3 * total:.2f} ms of work a picture", style="bold"), soft_wrap=True)
    widest = max(len(stage.name) for stage in profile.stages)
    for stage in profile.stages:
        filled = round(_BAR * stage.share)
        line = Text(f"  {stage.name:<{widest}}  ")
        line.append("█" * filled, style="cyan")
        line.append("·" * (_BAR - filled), style="dim")
        line.append(f" {1e3 * stage.seconds:7.2f} ms {stage.share:6.1%}")
        console.print(line)
    console.print(
        Text(
            f"  {'queue':<{widest}}  {'':{_BAR}} {1e3 * profile.queue:7.2f} ms of waiting while all cores are busy",
            style="dim",
        ),
        soft_wrap=True,
    )
    console.print(
        Text(
            f"  with an infinitely fast network: {profile.infinite_network_rate:,.0f} images/s; with infinitely fast"
            f" preprocessing: {profile.infinite_preprocessing_rate:,.0f} images/s"
        )
    )


def _trial_printer(name: str) -> Callable[[RateTrial], None]:
    """Return what prints each trial of a search, on standard error."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)

    def show_trial(trial: RateTrial) -> None:
        latency = f"{1e3 * trial.latency:,.1f} ms" if math.isfinite(trial.latency) else "too many too late"
        console.print(Text(f"{name}: {trial.rate:,.1f} a second: {latency}", style="dim"), soft_wrap=True)

    return show_trial


def _show_rates(rates: Mapping[str, MaxRate]) -> None:
    """Print the highest rate of each candidate."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for name, highest in rates.items():
        bound = f"P{highest.rank:g} ≤ {1e3 * highest.latency_bound:g} ms"
        text = (
            f"{name} keeps {bound} up to {highest.rate:,.1f} pictures a second"
            if highest.rate
            else f"{name} keeps {bound} at no rate that was tried"
        )
        console.print(Text(text, style="bold"), soft_wrap=True)

"""`plimsoll bench A [--vs B] --images DIR`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plimsoll.cli import options
from plimsoll.core.target import Target

if TYPE_CHECKING:
    from plimsoll.benchmark import Server, SystemUnderTest

_SCENARIOS = {"offline": "offline", "single": "single_stream", "server": "server"}


@dataclass(frozen=True)
class _Wanted:
    """What the options say, checked."""

    scenario: str
    seconds: float
    min_count: int | None
    rate: float | None
    bound: float


def bench(  # noqa: PLR0913 - each parameter is an option of the command
    model: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help=(
                "The baseline: a zoo name, a bundle or a model file. MODEL@fast or MODEL@target,fast says how to"
                " run it."
            ),
        ),
    ],
    images: Annotated[list[str], options.images("Pictures to measure with")],
    vs: Annotated[
        list[str] | None, typer.Option("--vs", metavar="B", help="Another candidate, written like A; may be repeated.")
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
        options.duration("--latency-bound", "server: the latency that 99 % of the answers must keep.", default="100ms"),
    ] = 0.1,
    time: Annotated[float, options.duration("--time", "How long to measure each candidate.", default="10s")] = 10.0,
    min_count: Annotated[
        int | None, typer.Option(min=1, help="Answers for each candidate. Default: 64; server 662, what P99 needs.")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also measure each stage of a picture's way.")] = False,
    footprint: Annotated[
        bool, typer.Option("--footprint/--no-footprint", help="Also measure load time and peak memory.")
    ] = True,
    preprocessing: Annotated[
        options.PreprocessingName | None,
        options.preprocessing(
            "--preprocessing", "Of the candidates that don't say. Default: the bundle's, else reference."
        ),
    ] = None,
    target: Annotated[
        Target | None, options.target("--target", "Of the candidates that don't say: runtime:device:precision.")
    ] = None,
    spec: Annotated[Path | None, typer.Option("--spec", metavar="FILE", help="The Spec of bare model files.")] = None,
    json_: options.Json = False,
) -> None:
    """Measure how fast models answer pictures, end to end, and whether one is faster.

    Candidates are measured in turns on the same pictures. Exit code 1 if the server scenario's latency bound is not
    kept.
    """
    from plimsoll.errors import InputError
    from plimsoll.inference.images import list_images

    if rate is not None and scenario != "server":
        raise InputError(f"--rate goes with --scenario server, not with {scenario}")
    wanted = _Wanted(_SCENARIOS[scenario], time, min_count, rate, latency_bound)
    photos = list_images(images)
    with ExitStack() as stack:
        candidates: list[SystemUnderTest] = []
        for text in (model, *(vs or [])):
            candidates.append(_candidate(stack, text, preprocessing, target, spec, {one.name for one in candidates}))
        if wanted.scenario == "server" and rate is None:
            _search(candidates, photos, wanted, json_=json_)
        else:
            _measure(candidates, photos, wanted, profiled=profile, weighed=footprint, json_=json_)


def _measure(
    candidates: list[SystemUnderTest], photos: list[str], wanted: _Wanted, *, profiled: bool, weighed: bool, json_: bool
) -> None:
    from plimsoll import benchmark
    from plimsoll.cli import bench_view
    from plimsoll.errors import CheckError

    with bench_view.progress(enabled=not json_) as watch:
        outcome = benchmark.bench(
            candidates,
            photos,
            scenario=_made(wanted),
            min_seconds=wanted.seconds,
            min_count=wanted.min_count,
            progress=watch,
        )
        profiles = (
            [benchmark.profile(one, photos, min_seconds=min(2.0, wanted.seconds)) for one in candidates]
            if profiled
            else []
        )
        footprints, notes = _footprints(candidates, photos) if weighed else ({}, [])
    report = benchmark.report(outcome, profiles=profiles, footprints=footprints)
    if json_:
        typer.echo(report.to_json())
    else:
        bench_view.show(outcome, profiles, footprints, notes)
    if failed := [check.name for check in report.checks if not check.passed]:
        raise CheckError(
            f"the latency bound of {1e3 * wanted.bound:g} ms is not kept: {', '.join(failed)}",
            "Lower --rate, or leave it out to search the highest.",
        )


def _footprints(candidates: list[SystemUnderTest], photos: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what each costs; a candidate whose own process fails has a note instead."""
    from plimsoll import benchmark
    from plimsoll.errors import PlimsollError

    found, notes = {}, []
    for one in candidates:
        try:
            found[one.name] = benchmark.footprint(one, [Path(photo) for photo in photos])
        except PlimsollError as error:
            notes.append(f"{one.name}: load time and memory could not be measured: {error.message}")
    return found, notes


def _search(candidates: list[SystemUnderTest], photos: list[str], wanted: _Wanted, *, json_: bool) -> None:
    from plimsoll import benchmark
    from plimsoll.cli import bench_view

    found = {}
    for one in candidates:
        watch = None if json_ else bench_view.trial_printer(one.name)
        found[one.name] = benchmark.max_rate(
            one.predictor,
            photos,
            _server(wanted),
            min_seconds=min(2.0, wanted.seconds),
            min_count=wanted.min_count,
            progress=watch,
        )
    if json_:
        typer.echo(benchmark.rates_report(found).to_json())
    else:
        bench_view.show_rates(found)


def _made(wanted: _Wanted) -> Any:
    from plimsoll.benchmark import Offline, SingleStream

    return (
        _server(wanted)
        if wanted.scenario == "server"
        else SingleStream()
        if wanted.scenario == "single_stream"
        else Offline()
    )


def _server(wanted: _Wanted) -> Server:
    from plimsoll.benchmark import Server

    return Server(rate=wanted.rate or 1.0, latency_bound=wanted.bound)


def _candidate(
    stack: ExitStack,
    text: str,
    preprocessing: options.PreprocessingName | None,
    target: Target | None,
    spec: Path | None,
    taken: set[str],
) -> SystemUnderTest:
    """Open MODEL or MODEL@SETTING[,SETTING]; a setting is `reference`, `fast` or a target. Its name is none of those
    `taken`."""
    import itertools

    from plimsoll.benchmark import SystemUnderTest
    from plimsoll.inference.predictor import load

    model, settings = (text, "") if Path(text).exists() or "@" not in text else text.rsplit("@", 1)
    for setting in filter(None, settings.split(",")):
        if setting in ("reference", "fast"):
            preprocessing = "fast" if setting == "fast" else "reference"
        else:
            target = Target.parse(setting)
    name = f"{Path(model).name}{'@' if settings else ''}{settings}"
    others = (f"{text} ({number})" for number in itertools.count(2))
    name = next(one for one in itertools.chain((name, text), others) if one not in taken)
    bare = spec if Path(model).is_file() and not model.endswith(".zip") else None
    return SystemUnderTest(
        name, stack.enter_context(load(model, spec=bare, target=target, preprocessing=preprocessing))
    )

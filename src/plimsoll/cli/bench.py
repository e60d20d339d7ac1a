"""`plimsoll bench A [--vs B] --images DIR`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from plimsoll.benchmark import Server, SystemUnderTest

_SCENARIOS = {"offline": "offline", "single": "single_stream", "single_stream": "single_stream", "server": "server"}


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
    images: Annotated[list[str], typer.Option("--images", "-i", help="Pictures, or folders of them; may be repeated.")],
    vs: Annotated[
        list[str] | None, typer.Option("--vs", metavar="B", help="Another candidate, written like A; may be repeated.")
    ] = None,
    scenario: Annotated[
        str,
        typer.Option(help="offline (all pictures at once), single (one after another) or server (at random moments)."),
    ] = "offline",
    rate: Annotated[
        float | None,
        typer.Option(help="server: pictures a second. Without it, the highest rate that keeps the bound is searched."),
    ] = None,
    latency_bound: Annotated[
        str, typer.Option(help="server: what 99 % of the answers must keep, such as 100ms or 0.2s.")
    ] = "100ms",
    time: Annotated[str, typer.Option("--time", help="Measured time for each candidate, such as 10s or 1m.")] = "10s",
    min_count: Annotated[
        int | None, typer.Option(min=1, help="Answers for each candidate. Default: 64; server 662, what P99 needs.")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also measure each stage of a picture's way.")] = False,
    footprint: Annotated[
        bool, typer.Option("--footprint/--no-footprint", help="Also measure load time and peak memory.")
    ] = True,
    preprocessing: Annotated[
        str | None, typer.Option(help="Preprocessing of candidates that don't name one: reference or fast.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Target of candidates that don't say: runtime:device:precision.")
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="The Spec of bare model files.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure how fast models answer pictures, end to end, and whether one is faster.

    Candidates are measured in turns on the same pictures. Exit code 1 if the server scenario's latency bound is not
    kept.
    """
    from plimsoll.errors import InputError
    from plimsoll.inference.images import pictures

    wanted = _Wanted(
        _scenario(scenario, rate), _seconds("--time", time), min_count, rate, _seconds("--latency-bound", latency_bound)
    )
    photos = list(pictures(images))
    if not photos:
        raise InputError(
            f"no pictures in {', '.join(images)}", "A folder's pictures are known by their endings: .jpg .png .webp …"
        )
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
            watch=watch,
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
            watch=watch,
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
    stack: ExitStack, text: str, preprocessing: str | None, target: str | None, spec: Path | None, taken: set[str]
) -> SystemUnderTest:
    """Open MODEL or MODEL@SETTING[,SETTING]; a setting is `reference`, `fast` or a target. Its name is none of those
    `taken`."""
    import itertools

    from plimsoll.benchmark import SystemUnderTest
    from plimsoll.errors import InputError
    from plimsoll.inference.predictor import load

    model, settings = (text, "") if Path(text).exists() or "@" not in text else text.rsplit("@", 1)
    for setting in filter(None, settings.split(",")):
        if setting in ("reference", "fast"):
            preprocessing = setting
        else:
            target = setting
    if preprocessing not in (None, "reference", "fast"):
        raise InputError(f"--preprocessing {preprocessing}: found '{preprocessing}', allowed: reference, fast")
    name = f"{Path(model).name}{'@' if settings else ''}{settings}"
    others = (f"{text} ({number})" for number in itertools.count(2))
    name = next(one for one in itertools.chain((name, text), others) if one not in taken)
    bare = spec if Path(model).is_file() and not model.endswith(".zip") else None
    return SystemUnderTest(
        name, stack.enter_context(load(model, spec=bare, target=target, preprocessing=preprocessing))
    )  # type: ignore[arg-type]  # checked above


def _scenario(given: str, rate: float | None) -> str:
    from plimsoll.errors import InputError

    if given not in _SCENARIOS:
        raise InputError(f"--scenario {given}: found '{given}', allowed: offline, single, server")
    if rate is not None and given != "server":
        raise InputError(f"--rate {rate:g} goes with --scenario server, found --scenario {given}")
    return _SCENARIOS[given]


def _seconds(option: str, text: str) -> float:
    """Read `100ms`, `10s`, `2m` or a bare number of seconds."""
    import re

    from plimsoll.errors import InputError

    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|)\s*", text)
    value = float(match[1]) * {"ms": 1e-3, "s": 1.0, "m": 60.0, "": 1.0}[match[2]] if match else 0.0
    if value <= 0:
        raise InputError(f"{option} {text}: expected a time such as 100ms, 10s or 2m")
    return value

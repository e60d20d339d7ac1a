"""Candidates are measured in turns, on the same pictures, long enough and not for ever; and the report says what was
found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers.slow_predictor import pictures, slow
from plimsoll.benchmark import (
    Offline,
    RoundResult,
    Scenario,
    Server,
    SingleStream,
    SystemUnderTest,
    bench,
    footprint,
    report,
)
from plimsoll.benchmark.measure import Conditions, snapshot
from plimsoll.errors import InputError
from plimsoll.inference.predictor import Picture, Predictor
from plimsoll.report.report import Report


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@dataclass
class Scripted:
    """A scenario whose rounds take what the script says, and which notes who ran what."""

    seconds: dict[int, float]
    answers: int = 10
    name: str = "scripted"
    min_count: int = 5
    log: list[tuple[int, int, tuple[Picture, ...]]] = field(default_factory=list)

    def size(self, rate: float, cores: int, seconds: float) -> int:
        del rate, cores, seconds
        return 4

    def warm_up(self) -> Scenario:
        return SingleStream()

    def run(self, predictor: Predictor, pictures: Sequence[Picture], number: int) -> RoundResult:
        self.log.append((id(predictor), number, tuple(pictures)))
        return RoundResult(self.seconds[id(predictor)], self.answers)

    def speed(self, done: RoundResult) -> float:
        return done.answered / done.seconds


def pair(stack: ExitStack, folder: Path, first: Any = 0.0, second: Any = 0.0) -> list[SystemUnderTest]:
    for name in "ab":
        (folder / name).mkdir(exist_ok=True)
    return [
        SystemUnderTest(name, stack.enter_context(slow(folder / name.lower(), seconds)))
        for name, seconds in (("A", first), ("B", second))
    ]


def test_candidates_take_turns_on_the_same_pictures(stack: ExitStack, tmp_path: Path) -> None:
    a, b = pair(stack, tmp_path)
    images = pictures(tmp_path)
    scenario = Scripted({id(a.predictor): 0.25, id(b.predictor): 0.125})
    result = bench([a, b], images, scenario=scenario, min_seconds=2.0)
    order = [who for who, _, _ in scenario.log]
    assert order == [id(a.predictor), id(b.predictor)] * (len(order) // 2)
    assert [number for _, number, _ in scenario.log] == [index // 2 for index in range(len(order))]
    assert all(first[2] == second[2] for first, second in zip(scenario.log[::2], scenario.log[1::2], strict=True))
    flat = [picture for _, _, chunk in scenario.log[::2] for picture in chunk]
    assert flat == [images[index % 3] for index in range(len(flat))], "round and round over all pictures"
    assert len(result.systems[0].rounds) == 16, "until the quicker one has its minimum time"
    assert result.comparisons[0].speed.median == pytest.approx(2)
    assert result.comparisons[0].verdict == "faster"


def test_the_count_is_reached_even_when_the_time_is(stack: ExitStack, tmp_path: Path) -> None:
    a, b = pair(stack, tmp_path)
    scenario = Scripted({id(a.predictor): 0.125, id(b.predictor): 0.125}, answers=1)
    result = bench([a, b], pictures(tmp_path), scenario=scenario, min_seconds=1.0, min_count=20)
    assert [system.answered for system in result.systems] == [20, 20]


def test_a_run_ends_after_five_times_its_minimum_time(stack: ExitStack, tmp_path: Path) -> None:
    a, b = pair(stack, tmp_path)
    scenario = Scripted({id(a.predictor): 0.5, id(b.predictor): 0.5}, answers=1)
    result = bench([a, b], pictures(tmp_path), scenario=scenario, min_seconds=1.0, min_count=1000)
    assert len(result.systems[0].rounds) == 10
    assert [text for text in result.warnings if "10 answers when the time was over, expected at least 1,000" in text]


@pytest.mark.parametrize("scenario", [Offline(), SingleStream()], ids=lambda scenario: str(scenario.name))
def test_a_session_that_sleeps_is_slower_by_what_it_sleeps(
    stack: ExitStack, tmp_path: Path, scenario: Scenario
) -> None:
    candidates = pair(stack, tmp_path, 0.3, 0.02)
    result = bench(candidates, pictures(tmp_path), scenario=scenario, min_seconds=0.5, min_count=8)
    (comparison,) = result.comparisons
    assert comparison.verdict != "slower"
    assert comparison.speed.median > 1
    assert all(system.answered >= 8 and not system.failed for system in result.systems)


def test_what_was_failed_is_reported(stack: ExitStack, tmp_path: Path) -> None:
    (candidate, _) = pair(stack, tmp_path, 0.01)
    (tmp_path / "none.png").write_bytes(b"no picture")
    result = bench([candidate], [*pictures(tmp_path), str(tmp_path / "none.png")], min_seconds=0.3, min_count=8)
    measured = result.systems[0]
    assert measured.failed > 0
    assert measured.answered == pytest.approx(3 * measured.failed, rel=0.5)
    assert [text for text in result.warnings if "got no answer" in text and "not a picture" in text]


def test_what_can_not_be_measured_is_refused(stack: ExitStack, tmp_path: Path) -> None:
    a, b = pair(stack, tmp_path)
    images = pictures(tmp_path)
    (tmp_path / "none.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="A answers none of the 1 pictures: not a picture"):
        bench([a], [str(tmp_path / "none.png")], min_seconds=0.1)
    with pytest.raises(InputError, match="0 pictures"):
        bench([a], [])
    with pytest.raises(InputError, match="duplicate names"):
        bench([a, SystemUnderTest("A", b.predictor)], images)
    with pytest.raises(InputError, match="more than 0"):
        bench([a], images, min_seconds=math.nan)


def test_the_report_holds_everything_and_is_legal_json(stack: ExitStack, tmp_path: Path) -> None:
    a, b = pair(stack, tmp_path)
    server = Scripted({id(a.predictor): 0.25, id(b.predictor): 0.25})
    result = bench([a, b], pictures(tmp_path), scenario=server, min_seconds=1.0)
    written = report(result)
    assert written.kind == "bench"
    assert written.measurements["A: images/s"] == 40
    assert written.measurements["B against A"] == "no difference"
    path = tmp_path / "report.json"
    path.write_text(written.to_json())
    details: Any = json.loads(path.read_text())["details"]
    assert [row["name"] for row in details["candidates"]] == ["A", "B"]
    assert len(details["candidates"][0]["rounds"]) == len(details["comparisons"][0]["ratios"]) == 12
    assert Report.read(path).details.keys() == {"scenario", "candidates", "comparisons", "conditions", "warnings"}


def test_a_server_is_checked_against_its_bound(stack: ExitStack, tmp_path: Path) -> None:
    quick, late = pair(stack, tmp_path, 0.0, 0.3)
    server = Server(rate=20, latency_bound=0.25, rank=50.0)
    checks = report(bench([quick, late], pictures(tmp_path), scenario=server, min_seconds=0.3, min_count=10)).checks
    assert [check.name for check in checks] == ["A: P50 latency", "B: P50 latency"]
    assert [check.passed for check in checks] == [True, False]
    assert checks[1].measured >= 300
    (few,) = report(bench([quick], pictures(tmp_path), scenario=Server(rate=100), min_seconds=0.2, min_count=50)).checks
    assert math.isnan(few.measured)
    assert not few.passed
    assert "P99 takes at least 662" in few.detail


def test_costs_are_those_of_a_process_of_its_own(stack: ExitStack, tmp_path: Path) -> None:
    (candidate, _) = pair(stack, tmp_path)
    ballast = bytearray(300_000_000)
    costs = footprint(candidate, [Path(picture) for picture in pictures(tmp_path)])
    del ballast
    assert costs.disk_bytes == (tmp_path / "a" / "small.onnx").stat().st_size
    assert 0 < costs.load_seconds < 60
    assert math.isnan(costs.peak_bytes) or 20e6 < costs.peak_bytes < 300e6
    assert (costs.streams, costs.threads) == (2, 1)


def test_conditions(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu 1000 0 0 5000 0 0 0 0 0 0\n")
    before = snapshot(stat)
    stat.write_text("cpu 1800 0 0 5000 0 0 0 100 0 0\n")
    after = snapshot(stat)
    assert (after.busy - before.busy) == pytest.approx(8 * (after.steal - before.steal))
    conditions = Conditions.between(before, after)
    assert conditions.steal == pytest.approx(1 / 9)
    assert any("hypervisor took 11%" in text for text in conditions.warnings(4))
    assert any("other programs" in text for text in conditions.warnings(4)), "8 s of CPU time in no time"
    unknown = snapshot(tmp_path / "none")
    silent = Conditions.between(unknown, unknown)
    assert math.isnan(silent.steal)
    assert Conditions(0.0, math.nan, math.nan).warnings(4) == []
    assert any("load average was 3.0 on 4" in text for text in Conditions(3.0, math.nan, math.nan).warnings(4))
    assert Conditions(9.0, 0.1, 0.001).warnings(4) == []

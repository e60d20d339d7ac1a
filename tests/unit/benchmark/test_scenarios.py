"""Pictures come as the scenario says, and a latency runs from the moment that was due."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.slow_predictor import pictures, slow
from plimsoll.benchmark import Offline, Server, SingleStream, arrivals, max_rate
from plimsoll.benchmark.scenarios import LateLimit, answer_arrivals
from plimsoll.core.model import Tensors
from plimsoll.errors import InputError


def test_arrivals_are_a_poisson_process() -> None:
    rate, count = 50.0, 20_000
    due = arrivals(rate, count, 7)
    gaps = np.diff(due, prepend=0.0)
    assert (gaps > 0).all()
    assert gaps.mean() == pytest.approx(1 / rate, rel=0.03)
    assert gaps.std() == pytest.approx(1 / rate, rel=0.03), "an exponential's deviation is its mean"
    assert (gaps < np.log(2) / rate).mean() == pytest.approx(0.5, abs=0.02), (
        "half of the gaps are below the exponential's median"
    )
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.03, "gaps don't depend on each other"
    per_second = np.histogram(due, bins=np.arange(0, int(due[-1])))[0]
    assert per_second.var() / per_second.mean() == pytest.approx(1, abs=0.25), "a Poisson count varies by its mean"


def test_arrivals_are_the_same_for_the_same_seed() -> None:
    assert np.array_equal(arrivals(10, 100, (3, 1)), arrivals(10, 100, (3, 1)))
    assert not np.array_equal(arrivals(10, 100, (3, 1)), arrivals(10, 100, (3, 2)))


def test_a_slow_answer_shows_in_those_that_wait_behind_it(tmp_path: Path) -> None:
    """Whoever measures from the start of the work instead sees one slow answer and four quick ones."""
    with slow(tmp_path, {0: 0.5}, cores=1) as predictor:
        due = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
        done = answer_arrivals(predictor, pictures(tmp_path, 5), due)
    for latency, moment in zip(done.latencies, due, strict=True):
        assert latency >= 0.5 - moment - 0.01


def test_a_server_answers_on_every_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call waits until four are there."""
    together = threading.Barrier(4, timeout=60)
    with slow(tmp_path, cores=4) as predictor:
        run = predictor.session.run

        def meeting(feeds: Mapping[str, NDArray[Any]]) -> Tensors:
            together.wait()
            return run(feeds)

        monkeypatch.setattr(predictor.session, "run", meeting)
        done = answer_arrivals(predictor, pictures(tmp_path, 4), np.zeros(4))
    assert (done.answered, done.failed) == (4, 0)


def test_nothing_starts_before_it_is_due(tmp_path: Path) -> None:
    with slow(tmp_path) as predictor:
        assert answer_arrivals(predictor, pictures(tmp_path), np.array([0.0, 0.1, 0.4])).seconds >= 0.4


def test_a_hopeless_run_is_given_up(tmp_path: Path) -> None:
    with slow(tmp_path, 0.05, cores=1) as predictor:
        done = answer_arrivals(predictor, pictures(tmp_path) * 40, np.zeros(120), LateLimit(latency_bound=0.1, count=5))
    assert done.answered < 20


@pytest.mark.parametrize(
    "scenario", [Offline(), SingleStream(), Server(rate=1000)], ids=lambda scenario: str(scenario.name)
)
def test_pictures_without_an_answer_are_counted(tmp_path: Path, scenario: Offline | SingleStream | Server) -> None:
    (tmp_path / "none.png").write_bytes(b"no picture")
    mixed = [*pictures(tmp_path), str(tmp_path / "none.png"), str(tmp_path / "missing.png")]
    with slow(tmp_path, failing=frozenset({1})) as predictor:
        done = scenario.run(predictor, mixed, 0)
    assert (done.answered, done.failed) == (2, 3)
    assert done.first_error
    assert len(done.latencies) in (0, 2)
    assert scenario.speed(done) > 0


def test_single_stream_is_one_after_another(tmp_path: Path) -> None:
    with slow(tmp_path, 0.05) as predictor:
        done = SingleStream().run(predictor, pictures(tmp_path) * 2, 0)
    assert all(latency >= 0.05 for latency in done.latencies)
    assert done.seconds >= 6 * 0.05


def test_an_impossible_server_is_refused() -> None:
    for rate, bound in ((0.0, 0.1), (float("nan"), 0.1), (10.0, 0.0)):
        with pytest.raises(InputError, match="greater than 0"):
            Server(rate=rate, latency_bound=bound)


def test_the_highest_rate_lies_between_none_and_the_capacity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores with 10 ms a picture answer at most 200 a second; what comes in one second need not show that it is a
    little more."""
    monkeypatch.setattr("plimsoll.benchmark.scenarios.PRECISION", 1.25)
    with slow(tmp_path, 0.01, cores=2) as predictor:
        highest = max_rate(predictor, pictures(tmp_path), Server(rate=1, latency_bound=0.25, rank=50.0))
        assert 0 < highest.rate <= 400
        assert [trial.rate for trial in highest.trials if trial.valid and trial.rate == highest.rate]
        none = max_rate(predictor, pictures(tmp_path), Server(rate=1, latency_bound=0.005, rank=50.0), min_seconds=0.1)
    assert none.rate == 0
    assert not any(trial.valid for trial in none.trials)

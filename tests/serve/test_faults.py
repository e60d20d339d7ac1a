"""What a service survives: workers that die, hang or are stopped, and pictures that do it to them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.crashing_runtime import HANGS, KILLS, picture
from helpers.service_process import ServiceProcess, start, until


@pytest.fixture
def service(nsfw_model_path: Path, tmp_path: Path) -> Iterator[ServiceProcess]:
    """Two workers, which may be silent for longer than by default: a crowded machine holds the others up, too."""
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("heartbeat_timeout = 6.0\n")
    with start("open_nsfw", "--workers", "2", "--config", str(config), "--grace", "0") as running:
        yield running


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_workers_that_are_killed_or_stopped_cost_nobody_an_answer(
    service: ServiceProcess, example_photos: list[Path], number: signal.Signals
) -> None:
    expected = service.score(example_photos[0])
    before = set(service.workers())
    with service.load(example_photos[0]) as answers:
        until(lambda: len(answers) > 6, "answers")
        os.kill(before.copy().pop(), number)
        until(lambda: len(set(service.workers()) - before) == 1 and len(service.workers()) == 2, "another worker")
        until(lambda: service.metric("plimsoll_workers", state="ready") == 2, "it to be ready")
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["results"][0]["answer"]["score"] for answer in answers} == {expected}
    assert (
        service.metric("plimsoll_worker_restarts_total", reason="died" if number == signal.SIGKILL else "silent") == 1
    )
    assert service.metric("plimsoll_shared_memory_bytes") == 0


def test_a_worker_that_is_stopped_while_it_starts_costs_nobody_an_answer(
    nsfw_model_path: Path, tmp_path: Path, example_photos: list[Path]
) -> None:
    """How long one that starts may be silent is learnt from those that started; nobody would wait for the first ones'
    limit."""
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("start_heartbeat_timeout = 3600.0\nstart_timeout = 3600.0\ntimeout = 85.0\n")
    with start("open_nsfw", "--workers", "1", "--config", str(config), "--grace", "0") as running:
        expected = running.score(example_photos[0])
        (first,) = running.workers()
        os.kill(first, signal.SIGKILL)
        until(lambda: running.workers() not in ([], [first]), "another worker")
        (second,) = running.workers()
        os.kill(second, signal.SIGSTOP)
        assert running.score(example_photos[0]) == expected
        assert running.metric("plimsoll_worker_restarts_total", reason="start_failed") == 1


def test_a_picture_that_kills_its_worker_is_answered_and_harms_nobody_else(
    fragile: dict[str, str], nsfw_model_path: Path, example_photos: list[Path]
) -> None:
    del nsfw_model_path
    with start(
        "open_nsfw", "--workers", "1", "--max-batch", "4", "--grace", "0", "--target", "fragile", environment=fragile
    ) as running:
        with ThreadPoolExecutor(4) as pool:
            good = [pool.submit(running.score, photo) for photo in example_photos[:3]]
            poisoned = pool.submit(running.post, "/v1/predict", content=picture(KILLS))
            answer = poisoned.result()
            scores = [future.result() for future in good]
        assert answer.status_code == 500
        assert "the worker ended" in answer.json()["results"][0]["error"]["message"]
        assert running.get("/healthz").status_code == 200
        assert scores == pytest.approx([running.score(photo) for photo in example_photos[:3]], abs=1e-6)


def test_a_batch_that_hangs_is_ended(
    fragile: dict[str, str], nsfw_model_path: Path, tmp_path: Path, example_photos: list[Path]
) -> None:
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("batch_timeout = 5.0\n")
    with start(
        "open_nsfw",
        "--workers",
        "1",
        "--config",
        str(config),
        "--grace",
        "0",
        "--target",
        "fragile",
        environment=fragile,
    ) as running:
        score = running.score(example_photos[0])
        answer = running.post("/v1/predict", content=picture(HANGS))
        assert answer.status_code == 500
        assert "hung" in answer.json()["results"][0]["error"]["message"]
        assert running.score(example_photos[0]) == score


def test_a_worker_that_holds_too_much_memory_is_replaced_and_nobody_notices(
    tmp_path: Path, example_photos: list[Path]
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("worker_bytes = 1_048_576\n")  # any worker holds more
    with start("open_nsfw", "--workers", "1", "--config", str(config), "--grace", "0") as running:
        until(lambda: running.metric("plimsoll_worker_restarts_total", reason="memory") >= 1, "a replacement")
        answer = running.post("/v1/predict", content=example_photos[0].read_bytes())
        assert answer.status_code == 200, answer.text

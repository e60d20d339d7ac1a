"""`plimsoll bench`, run as a command on real photos with the trained network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surfaces.conftest import Run

pytestmark = pytest.mark.usefixtures("nsfw_model_path")


@pytest.fixture
def few(example_photos: list[Path]) -> list[str | Path]:
    return [argument for photo in example_photos[:4] for argument in ("--images", photo)]


def test_two_candidates_and_their_stages(plimsoll: Run, few: list[str | Path]) -> None:
    pytest.importorskip("cv2")
    done = plimsoll(
        "bench", "open_nsfw", "--vs", "open_nsfw@fast", *few, "--time", "1s", "--min-count", "8", "--profile"
    )
    assert done.returncode == 0, done.stderr
    first, *_ = done.stdout.splitlines()
    assert first.startswith("open_nsfw@fast is ")
    assert " times as fast as open_nsfw (95 % interval" in first
    assert first.endswith((": faster", ": slower", ": no difference"))
    for word in (
        "images/s",
        "MB on disk",
        "load s",
        "peak MB",
        "decode",
        "jpeg",
        "normalize",
        "inference",
        "with an infinitely fast network",
    ):
        assert word in done.stdout


def test_json(plimsoll: Run, few: list[str | Path]) -> None:
    done = plimsoll("bench", "open_nsfw", *few, "--time", "0.5s", "--min-count", "4", "--scenario", "single", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kind"] == "bench"
    (row,) = report["details"]["candidates"]
    assert row["name"] == "open_nsfw"
    assert row["latency_ms"].keys() <= {"p50", "p90"}
    assert row["answered"] >= 4
    assert row["footprint"]["disk_bytes"] == 23_590_724
    assert row["footprint"]["load_seconds"] > 0
    assert report["details"]["scenario"]["name"] == "single_stream"


def test_a_server_that_can_not_keep_its_bound_exits_with_1(plimsoll: Run, few: list[str | Path]) -> None:
    arguments = [
        "bench",
        "open_nsfw",
        *few,
        "--scenario",
        "server",
        "--rate",
        "20",
        "--latency-bound",
        "1ms",
        "--time",
        "0.5s",
        "--no-footprint",
    ]
    done = plimsoll(*arguments, "--min-count", "8")
    assert done.returncode == 1
    assert "the latency bound of 1 ms is exceeded" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "quick"], "choose from offline, single"),
        (["--rate", "5"], "goes with --scenario server"),
        (["--time", "soon"], "invalid duration"),
        (["--time", "0s"], "too short"),
        (["--preprocessing", "quick"], "reference, fast"),
        (["--target", "imaginary"], "imaginary"),
        (["--vs", "open_nsfw@quick:quick"], "quick"),
    ],
)
def test_mistakes_are_reported(plimsoll_here: Run, few: list[str | Path], arguments: list[str], message: str) -> None:
    done = plimsoll_here("bench", "open_nsfw", *few, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr

"""The profile names every stage of a picture's way, and puts the time where it is spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.slow_predictor import pictures, slow
from plimsoll.benchmark import SystemUnderTest, profile
from plimsoll.errors import InputError, RunError
from plimsoll.inference.predictor import load


def test_stages_and_shares(tmp_path: Path) -> None:
    with slow(tmp_path, 0.05, cores=2) as predictor:
        profiled = profile(SystemUnderTest("A", predictor), pictures(tmp_path), min_seconds=0.2)
    assert [stage.name for stage in profiled.stages] == [
        "read",
        "decode",
        "resize",
        "resize 2",
        "scale",
        "inference",
        "output",
    ]
    assert sum(stage.share for stage in profiled.stages) == pytest.approx(1)
    assert all(stage.seconds > 0 for stage in profiled.stages)
    inference = next(stage for stage in profiled.stages if stage.name == "inference")
    assert inference.seconds >= 0.05
    assert inference.share > 0.5
    assert profiled.infinite_preprocessing_rate <= 2 / 0.05
    assert profiled.rate <= 2 / 0.05
    assert profiled.infinite_network_rate > profiled.infinite_preprocessing_rate
    assert profiled.queue >= 0


def test_a_picture_that_can_not_be_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "none.png").write_bytes(b"no picture")
    with slow(tmp_path) as predictor:
        profile(SystemUnderTest("A", predictor), [str(tmp_path / "none.png"), *pictures(tmp_path)], min_seconds=0.05)
        with pytest.raises(InputError, match="none of the 1 pictures can be read"):
            profile(SystemUnderTest("A", predictor), [str(tmp_path / "none.png")], min_seconds=0.05)


@pytest.mark.parametrize("call", [0, 3, 5])
def test_a_failing_runtime_is_reported(tmp_path: Path, call: int) -> None:
    with (
        slow(tmp_path, failing=frozenset(range(call, 500))) as predictor,
        pytest.raises(RunError, match="a planted failure"),
    ):
        profile(SystemUnderTest("A", predictor), pictures(tmp_path), min_seconds=0.01)


def test_fast_preprocessing_of_the_real_network(nsfw_model_path: Path, example_photos: list[Path]) -> None:
    del nsfw_model_path
    pytest.importorskip("cv2")
    with load("open_nsfw", preprocessing="fast") as predictor:
        profiled = profile(
            SystemUnderTest("fast", predictor), [str(photo) for photo in example_photos[:4]], min_seconds=0.2
        )
    assert [stage.name for stage in profiled.stages] == [
        "read",
        "decode",
        "resize",
        "jpeg",
        "crop",
        "normalize",
        "inference",
        "output",
    ]
    assert all(stage.seconds > 0 for stage in profiled.stages)

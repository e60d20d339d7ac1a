"""`plimsoll convert` and `plimsoll targets`, run as commands on the trained network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surfaces.conftest import Run


def score(done: str) -> float:
    return float(json.loads(done)["score"])


def test_a_quantized_bundle_answers_nearly_like_the_network(
    plimsoll: Run, example_photos: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "int8.plimsoll"
    options = [
        "--target",
        "onnxruntime:cpu:int8",
        "--images",
        example_photos[0].parent,
        "--max-images",
        "24",
        "--folded",
        "--preprocessing",
        "fast",
    ]
    done = plimsoll("convert", "open_nsfw", *options, "--out", out)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["target"], manifest["preprocessing"]) == ("onnxruntime:cpu:int8", "fast")
    assert sum(file.stat().st_size for file in (out / "model").iterdir()) < 8e6, "the weights are 8-bit numbers"
    verified = plimsoll("verify", out)
    assert verified.returncode == 0, verified.stdout
    apart = abs(
        score(plimsoll("predict", out, example_photos[3]).stdout)
        - score(plimsoll("predict", "open_nsfw", example_photos[3]).stdout)
    )
    assert 0 < apart < 0.05


def test_what_is_calibrated_needs_pictures(plimsoll_here: Run, tmp_path: Path) -> None:
    done = plimsoll_here("convert", "open_nsfw", "--target", "onnxruntime:cpu:int8", "--out", tmp_path / "x")
    assert done.returncode == 2
    assert "--images" in done.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "onnxruntime:cpu:int8", "--calibrator", "kl"], "percentile"),
        (["--target", "onnxruntime:cpu:float32", "--calibrator", "minmax"], "unknown calibrator 'minmax'"),
        (["--target", "nowhere:cpu:float32"], "nowhere"),
        (["--target", "onnxruntime:cpu:float32", "--preprocessing", "quick"], "reference, fast"),
    ],
)
def test_wrong_options_are_refused_with_the_choices(
    plimsoll_here: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    done = plimsoll_here("convert", "open_nsfw", *options, "--out", tmp_path / "x")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_targets_tell_what_is_here_and_what_adds_the_rest(plimsoll: Run) -> None:
    rows = {row["target"]: row for row in json.loads(plimsoll("targets", "--json").stdout)}
    assert rows["onnxruntime:cpu:float32"]["missing"] == ""
    assert not rows["reference:cpu:float32"]["deployable"]
    shown = plimsoll("targets").stdout
    assert all(target in shown for target in rows)

"""A runtime that ends its process while `convert` or `pack` works: a sentence, or a way around it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from helpers import crashing_runtime
from helpers.small_models import SPEC, small_model
from surfaces.conftest import Run

CRASHES_WHILE_CALIBRATING = """
import os, signal
import onnxruntime

class Session(onnxruntime.InferenceSession):
    "Ends the process where inner values are outputs too and nothing was said against any optimization."

    def __init__(self, network, settings=None, **others):
        super().__init__(network, settings, **others)
        everything = settings.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        if everything and len(self.get_outputs()) > 1:
            os.kill(os.getpid(), signal.SIGSEGV)

onnxruntime.InferenceSession = Session
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(SPEC)
    return file


@pytest.mark.parametrize("command", ["pack", "convert"])
def test_a_crash_of_the_runtime_is_a_sentence(plimsoll: Run, spec: Path, tmp_path: Path, command: str) -> None:
    name = crashing_runtime.CRASHES if command == "pack" else crashing_runtime.CRASHES_BUILD
    path = shutil.copy(small_model(tmp_path / "model").path, tmp_path / f"{name}.onnx")
    environment = crashing_runtime.install(tmp_path / "outsider")
    options = ["--spec", spec, "--target", "fragile:cpu:float32", "--out", tmp_path / "bundle"]
    done = plimsoll(command, path, *options, env=environment)
    assert done.returncode == 3, done.stderr
    assert f"{name}.onnx" in done.stderr
    assert "crashed" in done.stderr
    assert "a segmentation fault (SIGSEGV)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "bundle").exists()


def test_a_crash_while_calibrating_is_avoided_with_fewer_optimizations(
    plimsoll: Run, example_photos: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CRASHES_WHILE_CALIBRATING)
    target = ["--target", "onnxruntime:cpu:int8", "--images", example_photos[0].parent, "--max-images", "2"]
    out = tmp_path / "bundle"
    done = plimsoll("convert", "open_nsfw", *target, "--out", out, env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "manifest.json").read_text())["target"] == "onnxruntime:cpu:int8"


def test_a_crash_of_calibrate_is_a_sentence(plimsoll: Run, example_photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CRASHES_WHILE_CALIBRATING)
    options = ["--images", example_photos[0].parent, "--max-images", "2", "--out", tmp_path / "table"]
    done = plimsoll("calibrate", "open_nsfw", *options, env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 3, done.stderr
    assert "open-nsfw.onnx: the process that ran it for calibration crashed" in done.stderr
    assert "a segmentation fault (SIGSEGV)" in done.stderr
    assert not (tmp_path / "table").exists()


def test_what_the_job_of_a_conversion_logs_reaches_the_terminal(plimsoll: Run, spec: Path, tmp_path: Path) -> None:
    environment = crashing_runtime.install(tmp_path / "outsider")
    path = shutil.copy(small_model(tmp_path / "model").path, tmp_path / f"{crashing_runtime.LOGS}.onnx")
    options = ["--spec", spec, "--target", "fragile:cpu:float32", "--out", tmp_path / "bundle"]
    assert "plimsoll: the fragile runtime warns\n" in plimsoll("convert", path, *options, env=environment).stderr
    quiet = plimsoll("--quiet", "convert", path, *options, "--force", env=environment)
    assert (quiet.returncode, "warns" in quiet.stderr, "informs" in quiet.stderr) == (0, True, False)

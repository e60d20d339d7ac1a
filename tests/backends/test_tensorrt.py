"""TensorRT where there is none: the parts that need no library, and all others against a stand-in that checks how it is
called.

See `tests/tensorrt_standin`. What only a GPU can tell is in `benchmarks/gpu.py`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plimsoll import backends
from plimsoll.backends.runner import Runner
from plimsoll.backends.tensorrt import engine, job
from plimsoll.backends.tensorrt.options import TensorRtOptions
from plimsoll.core.target import Target
from plimsoll.errors import BackendMissingError, BuildError
from plimsoll.system import gpu

TESTS = Path(__file__).parents[1]
STANDIN = TESTS / "tensorrt_standin"
here = pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is here")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-in for NVIDIA's driver."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler, on Linux")
    folder = tmp_path_factory.mktemp("driver")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", folder / "libcuda.so.1", STANDIN / "driver.c"], check=True
    )
    shutil.copy(folder / "libcuda.so.1", folder / "libnvidia-ml.so.1")
    return folder


def environment(driver: Path, generation: int, cache: Path) -> dict[str, str]:
    return os.environ | {
        "STANDIN_TENSORRT": str(generation),
        "LD_LIBRARY_PATH": str(driver),
        "PYTHONPATH": str(STANDIN),
        "PLIMSOLL_CACHE": str(cache),
    }


@pytest.mark.parametrize("generation", [10, 11])
def test_against_the_stand_in(driver: Path, tmp_path: Path, generation: int) -> None:
    """The contract suite in one precision, and what is TensorRT's own."""
    contract = "float32" if generation == 10 else "float16"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        str(tmp_path / "work"),
    ]
    files = [str(STANDIN / "checks.py"), str(TESTS / "backends" / "test_contract.py")]
    run = subprocess.run(
        [*command, *files, "-k", f"checks or (tensorrt and {contract} and not bfloat16)"],
        cwd=TESTS.parent,
        env=environment(driver, generation, tmp_path / "cache"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-3000:]


@here
def test_without_tensorrt_the_command_that_installs_it_is_reported() -> None:
    with pytest.raises(BackendMissingError, match="tensorrt:gpu:float16 can't be used") as caught:
        backends.for_target(Target("tensorrt", "gpu", "float16"))
    assert "pip install tensorrt-cu13" in caught.value.hint


def test_a_gpu_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "gpus", lambda: (gpu.Gpu("Old", (7, 0)),))
    assert (
        gpu.missing((8, 9), "TensorRT in fp8")
        == "TensorRT in fp8 needs compute capability 8.9; here is Old (compute capability 7.0)."
    )
    monkeypatch.setattr(gpu, "gpus", lambda: (gpu.Gpu("Old", (7, 0)), gpu.Gpu("New", (9, 0))))
    assert gpu.missing((8, 9), "TensorRT in fp8") == ""


def test_free_sizes_are_filled_from_batch_and_spec() -> None:
    assert job.shape_for("a", (-1, 3, -1, -1), 8, [3, 224, 192]) == (8, 3, 224, 192)
    assert job.shape_for("a", (4, 3), 8, []) == (4, 3)
    assert job.shape_for("a", (), 8, []) == ()
    with pytest.raises(BuildError, match="axis 3"):
        job.shape_for("a", (-1, 3, 5, -1), 8, [3, 5, None])


def test_only_what_changes_the_engine_is_in_its_key() -> None:
    assert TensorRtOptions(contexts=4).of_engine() == TensorRtOptions().of_engine()
    assert TensorRtOptions(tf32=True).of_engine() != TensorRtOptions().of_engine()


@here
def test_a_plan_is_found_by_its_suffix(tmp_path: Path) -> None:
    from plimsoll import importers

    (tmp_path / "net.plan").write_bytes(b"x")
    model = importers.read(tmp_path / "net.plan")
    assert (model.format, model.files) == (engine.FORMAT, ())
    engine.facts_file(model.path).write_text("{}")
    assert importers.read(tmp_path / "net.plan").files == (engine.facts_file(model.path),)
    with pytest.raises(BackendMissingError):
        Runner.open(model, Target("tensorrt", "gpu", "float32"))

"""The stand-in's list of TensorRT's classes and signatures against NVIDIA's own Python bindings, and our subclasses of
theirs.

The bindings are on PyPI, their libraries aren't: empty ones with the entry points that they look up let them be
imported. To run it:

    pip download --no-deps --dest DIR tensorrt-cu12-bindings==10.16.1.11 tensorrt-cu13-bindings==11.4.0.106
    PLIMSOLL_TENSORRT_WHEELS=DIR pytest tests/backends/test_tensorrt_bindings.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

STANDIN = Path(__file__).parents[1] / "tensorrt_standin"
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
VERSIONS = {10: "10.16.1.11", 11: "11.4.0.106"}

OURS = """
import sys
import numpy as np
import tensorrt_bindings
sys.modules["tensorrt"] = tensorrt_bindings
from plimsoll.backends.tensorrt import calibration, context, runtime

log = runtime.logger()
log.log(tensorrt_bindings.ILogger.Severity.ERROR, "as it was")
assert runtime.recent_errors(log) == ": as it was"
assert isinstance(log, tensorrt_bindings.ILogger)
allocator = context._allocator(None)
allocator.notify_shape("out", tensorrt_bindings.Dims([2, 3]))
assert allocator.shapes == {"out": (2, 3)}
assert isinstance(allocator, tensorrt_bindings.IOutputAllocator)
if runtime.generation() == runtime.WEAKLY_TYPED:
    for method in ("entropy", "minmax"):
        feeder = calibration.Feeder(method, np.empty((0,), np.float32), b"TRT", None, None, 4)
        made = calibration.calibrator(feeder)
        assert isinstance(made, tensorrt_bindings.IInt8Calibrator)
        assert (made.get_batch_size(), made.get_batch(["picture"]), made.read_calibration_cache()) == (4, None, b"TRT")
        assert made.get_algorithm().name == ("ENTROPY_CALIBRATION_2" if method == "entropy" else "MINMAX_CALIBRATION")
"""


@pytest.fixture(params=VERSIONS, ids=VERSIONS.get)
def generation(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def bindings(generation: int, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that can import them."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    wheels = sorted(
        Path(os.environ.get("PLIMSOLL_TENSORRT_WHEELS", os.devnull)).glob(
            f"tensorrt_cu1?_bindings-{VERSIONS[generation]}-{tag}-*linux*.whl"
        )
    )
    if not wheels or compiler is None:
        pytest.skip(
            "needs a C compiler, and NVIDIA's bindings as wheels in PLIMSOLL_TENSORRT_WHEELS (see the top of this file)"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(tmp_path / "site")
    for library in LIBRARIES:
        file = tmp_path / "lib" / f"{library}.so.{generation}"
        file.parent.mkdir(exist_ok=True)
        subprocess.run(
            [compiler, "-shared", "-fPIC", f"-Wl,-soname,{file.name}", "-o", file, STANDIN / "libraries.c"], check=True
        )
    return os.environ | {"PYTHONPATH": str(tmp_path / "site"), "LD_LIBRARY_PATH": str(tmp_path / "lib")}


def run(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_list_is_what_the_bindings_have(generation: int, bindings: dict[str, str]) -> None:
    outputs = json.loads(run(bindings, str(STANDIN / "surface.py")))
    assert outputs == json.loads((STANDIN / f"{generation}.json").read_text())


def test_our_subclasses_are_accepted(bindings: dict[str, str]) -> None:
    run(bindings, "-c", OURS)

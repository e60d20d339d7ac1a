"""Clients of the Open Inference Protocol as they are published, unmodified, against a real service. Each runs in a
process of its own.

Triton's and KServe's come with the toolchain `oip` of `tests/toolchains`. `perf_analyzer` is used where it is on the
PATH: the wheels of tritonclient before 2.60 for Linux carry it.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import plimsoll
from helpers.oip_service import ServedProtocols, alone, element, patient, serving
from plimsoll.system import toolchains
from plimsoll.system.toolchains.environment import python_of

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def client_python() -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLIMSOLL_TOOLCHAINS", str(TESTS / "toolchains"))
        if not toolchains.is_ready("oip"):
            pytest.skip("the toolchain isn't made: PLIMSOLL_TOOLCHAINS=tests/toolchains plimsoll toolchains make oip")
        return python_of(toolchains.make("oip"))


@pytest.fixture(scope="module")
def oip(nsfw_model_path: Path) -> Iterator[ServedProtocols]:
    del nsfw_model_path
    with serving(patient(), alone("open_nsfw")) as service:
        yield service


@pytest.fixture(scope="module")
def photos(example_photos: list[Path]) -> list[Path]:
    return sorted(example_photos, key=lambda photo: photo.stat().st_size)[:3]


@pytest.fixture(scope="module")
def expected(photos: list[Path]) -> NDArray[np.float32]:
    with plimsoll.load("open_nsfw") as model:
        return np.array([list(model.predict(photo).scores.values()) for photo in photos], np.float32)  # type: ignore[attr-defined]


def run_client(python: Path, program: str, *arguments: str | Path) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-B", TESTS / "programs" / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize("protocol", ["http", "grpc", "aio"])
def test_tritonclient(
    client_python: Path, oip: ServedProtocols, photos: list[Path], expected: NDArray[np.float32], protocol: str
) -> None:
    if protocol != "http":
        pytest.importorskip("grpc")
    answers = run_client(
        client_python, "oip_triton.py", protocol, oip.http if protocol == "http" else oip.grpc, *photos
    )
    assert answers["alive"] == [True] * 4
    assert answers["server"] == "plimsoll"
    assert [tensor["name"] for tensor in answers["model"]] == ["image"]
    for way in (
        answers["outputs"],
        *answers["compressed"],
        answers["as JSON"] if protocol == "http" else answers["stream"][0],
    ):
        np.testing.assert_allclose(way, expected, atol=1e-6)
    assert [text.split(":")[2] for text in answers["best"]] == [("sfw", "nsfw")[index] for index in expected.argmax(1)]
    assert np.shape(answers["bare"]) == (1, 2)
    assert "nobody" in answers["unknown"][1]
    assert "input 'input:0'" in answers["misfit"][1] or "unknown input 'image'" in answers["misfit"][1]
    assert answers["unloaded"][0] is False
    assert "unloaded" in answers["unloaded"][1][1]
    assert answers["loaded"] is True
    if protocol != "http":
        assert "nobody" in answers["stream"][1]
        assert [answers[case][0] for case in ("unknown", "misfit")] == [
            "StatusCode.NOT_FOUND",
            "StatusCode.INVALID_ARGUMENT",
        ]
    else:
        assert [answers[case][0] for case in ("unknown", "misfit")] == ["404", "400"]


def test_kserve_s_client(
    client_python: Path, oip: ServedProtocols, photos: list[Path], expected: NDArray[np.float32]
) -> None:
    answers = run_client(client_python, "oip_kserve.py", f"http://{oip.http}", photos[0])
    assert [answers[name] for name in ("live", "ready", "model ready", "unknown model ready")] == [
        True,
        True,
        True,
        False,
    ]
    for way in ("raw", "json"):
        assert answers[way][0] == way, "the request's id"
        np.testing.assert_allclose(answers[way][1], expected[:1], atol=1e-6)
    assert np.shape(answers["tensor"]) == (1, 2)
    assert "nobody" in answers["refusal"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("model", ["open_nsfw", "open_nsfw.tensor"])
def test_perf_analyzer(oip: ServedProtocols, photos: list[Path], tmp_path: Path, protocol: str, model: str) -> None:
    program = shutil.which("perf_analyzer")
    if program is None or (protocol == "grpc" and not oip.grpc):
        pytest.skip("perf_analyzer is not on the PATH")
    data = [
        {"image": {"b64": base64.b64encode(element(photo.read_bytes())).decode(), "shape": [1]}} for photo in photos
    ]
    (tmp_path / "photos.json").write_text(json.dumps({"data": data}))
    way = ["--input-data", str(tmp_path / "photos.json")] if model == "open_nsfw" else ["-b", "2"]
    command = [program, "-m", model, "-i", protocol, "-u", oip.http if protocol == "http" else oip.grpc, *way]
    # Counting requests, not time: the machine may be busy, and then its measurements never agree.
    command += (
        ["--request-count", "10", "-s", "999"]
        if "--request-count" in _help(program)
        else ["-p", "1000", "-r", "2", "-s", "999"]
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "Throughput:" in done.stdout
    assert "Inference count:" in done.stdout, "what the server says in its statistics"


def _help(program: str) -> str:
    return subprocess.run([program, "--help"], capture_output=True, text=True, check=False, env=os.environ).stderr

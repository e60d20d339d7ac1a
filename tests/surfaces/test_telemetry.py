"""No process of Plimsoll lets a library report its use: nothing of theirs appears in the home folder, and no page
reaches another host."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers import network_namespace
from helpers.service_process import start
from helpers.small_models import SPEC, TENSOR_SPEC, brightness, small_model
from helpers.toolchain_required import program
from plimsoll import backends
from plimsoll.cli import inspect
from plimsoll.system import host, subprocesses, toolchains
from plimsoll.system.cache import cache_folder
from plimsoll.system.subprocesses import ProcessLimits

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "predict": ("predict", "small.onnx", ROOT / "examples" / "photos" / "swans.jpg", "--spec", "spec.toml"),
    "inspect": ("inspect", "small.onnx"),
    "calibrate": (
        "calibrate",
        "small.onnx",
        "--images",
        ROOT / "examples" / "photos",
        "--max-images",
        "2",
        "--spec",
        "spec.toml",
        "--out",
        "table.json",
    ),
    "convert": (
        "convert",
        "small.onnx",
        "--target",
        "onnxruntime:cpu:float16",
        "--spec",
        "spec.toml",
        "--out",
        "half.onnx",
    ),
}


PACKAGES = {"litert": "ai_edge_litert", "mnn": "MNN"}
"""Runtimes whose packages have another name."""


@pytest.fixture
def users_cache() -> Path:
    """Plimsoll's own cache, where toolchains are."""
    return cache_folder()


@pytest.fixture
def keras_file(tmp_path: Path) -> Path:
    """A network that Keras wrote; its own settings go to the home folder of whoever runs the tests."""
    (tmp_path / "keras").mkdir()
    program("tensorflow", "write_tensorflow.py", "small", tmp_path / "keras")
    return next((tmp_path / "keras").rglob("*.keras"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder of the processes that the test starts, which nobody has told to be silent."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(folder))
    for name in ("CI", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME", "XDG_DATA_HOME", *host.TELEMETRY_OFF):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path / "cache"))
    return folder


def files_in(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_leave_nothing_in_the_home_folder(command: str, home: Path, tmp_path: Path) -> None:
    small_model(tmp_path)
    (tmp_path / "spec.toml").write_text(SPEC)
    arguments = list(map(str, COMMANDS[command]))
    done = subprocess.run(
        [sys.executable, "-m", "plimsoll", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not files_in(home)


def test_a_service_and_its_workers_leave_nothing_in_the_home_folder(home: Path, tmp_path: Path) -> None:
    model = brightness(tmp_path / "brightness.onnx")
    (tmp_path / "spec.toml").write_text(TENSOR_SPEC)
    with start(str(model.path), "--spec", str(tmp_path / "spec.toml"), "--grace", "0") as running:
        answer = running.post(
            "/v1/predict",
            content=(ROOT / "examples" / "photos" / "swans.jpg").read_bytes(),
            headers={"Content-Type": "image/jpeg"},
        )
        assert answer.status_code == 200, answer.text
        environments = [Path(f"/proc/{worker}/environ") for worker in running.workers()]
        assert environments
        if sys.platform == "linux":
            assert all(b"ORT_DISABLE_TELEMETRY=1" in path.read_bytes() for path in environments)
    assert not files_in(home)


def test_jobs_are_configured_before_they_import_anything(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "importing_job.py").write_text(
        "import os\nimport onnxruntime\ndef run(payload):\n    return {'value':"
        " os.environ.get('ORT_DISABLE_TELEMETRY'), 'version': onnxruntime.__version__}\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    assert subprocesses.run_job("importing_job", {}, tmp_path / "job", ProcessLimits(60))["value"] == "1"
    assert not files_in(home)


TARGETS = {
    "onnxruntime:cpu:float32": None,
    "openvino:cpu:float32": None,
    "mnn:cpu:float32": None,
    "ncnn:cpu:float32": "pnnx",
    "litert:cpu:float32": "onnx2tf",
}
"""Target → the toolchain that converts for it."""
ANSWER_EVERYWHERE = """
import sys
import plimsoll
for target in sys.argv[2:]:
    with plimsoll.load("small.onnx", spec="spec.toml", target=target) as model:
        print(target, model.predict(sys.argv[1]).score)
"""
SERVE_ONE_REQUEST = """
import sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from helpers.service_process import start
with start(sys.argv[1], "--spec", "spec.toml", "--grace", "0") as running:
    headers = {"Content-Type": "image/jpeg"}
    answer = running.post("/v1/predict", content=Path(sys.argv[2]).read_bytes(), headers=headers)
    print(answer.status_code, running.get("/").status_code)
"""


def looked_up(command: list[str | Path], folder: Path, home: Path) -> tuple[str, list[str]]:
    """Return what a command printed without a network, and the names that it looked up; it must leave no file at
    home."""
    done, names = network_namespace.run(command, folder, os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not files_in(home)
    return done.stdout, names


def test_the_name_server_of_these_tests_sees_native_code(home: Path, tmp_path: Path) -> None:
    code = "import socket\ntry:\n    socket.getaddrinfo('collector.example.org', 443)\nexcept OSError:\n    pass"
    assert "collector.example.org" in looked_up([sys.executable, "-c", code], tmp_path, home)[1]


def test_no_runtime_and_no_toolchain_s_job_looks_up_a_name(
    users_cache: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_model(tmp_path)
    (tmp_path / "spec.toml").write_text(SPEC)
    monkeypatch.setenv("PLIMSOLL_CACHE", str(users_cache))
    available = {backend for backend in backends.names() if find_spec(PACKAGES.get(backend, backend)) is not None}
    targets = [
        target
        for target, toolchain in TARGETS.items()
        if target.partition(":")[0] in available and (toolchain is None or toolchains.is_ready(toolchain))
    ]
    photo = ROOT / "examples" / "photos" / "swans.jpg"
    printed, names = looked_up([sys.executable, "-c", ANSWER_EVERYWHERE, photo, *targets], tmp_path, home)
    assert [line.split()[0] for line in printed.splitlines()] == targets
    assert not names


def test_a_keras_import_looks_up_no_name(
    users_cache: Path, keras_file: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLIMSOLL_CACHE", str(users_cache))
    command: list[str | Path] = [sys.executable, "-m", "plimsoll", "import", keras_file, "--out", tmp_path / "x.onnx"]
    assert not looked_up(command, tmp_path, home)[1]


def test_a_service_that_answers_looks_up_no_name(home: Path, tmp_path: Path) -> None:
    model = brightness(tmp_path / "brightness.onnx")
    (tmp_path / "spec.toml").write_text(TENSOR_SPEC)
    photo = ROOT / "examples" / "photos" / "swans.jpg"
    command: list[str | Path] = [sys.executable, "-c", SERVE_ONE_REQUEST, model.path, photo, ROOT / "tests"]
    printed, names = looked_up(command, tmp_path, home)
    assert printed.split() == ["200", "200"]
    assert not names


def test_the_graph_s_page_reaches_no_other_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Netron's page reports to Google Analytics unless the browser is told what it may reach."""
    headers: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

    def serve(path: str, *, browse: bool) -> None:
        del path, browse
        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=10) as answer:
                headers.update(answer.headers)
            thread.join()

    netron: Any = SimpleNamespace(start=serve, wait=lambda: None)
    monkeypatch.setitem(sys.modules, "netron", netron)
    monkeypatch.setattr(
        BaseHTTPRequestHandler, "end_headers", BaseHTTPRequestHandler.end_headers
    )  # so that it is undone
    inspect._show_graph(tmp_path / "small.onnx")
    assert headers["Content-Security-Policy"] == "connect-src 'self'"
    assert headers["Set-Cookie"].startswith("consent=")


EXPORT_WITH_TORCH = """
import torch
network, picture = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval(), torch.zeros(1, 3, 8, 8)
torch.export.save(torch.export.export(network, (picture,)), "network.pt2")
torch.export.load("network.pt2")
torch.onnx.export(network, (picture,), "network.onnx", dynamo=True)
torch.jit.trace(network, picture).save("network.pt")
torch.jit.load("network.pt")
"""


def test_pytorch_looks_up_no_name_while_it_loads_and_exports(home: Path, tmp_path: Path) -> None:
    if find_spec("torch") is None or find_spec("onnxscript") is None:
        pytest.skip("PyTorch and onnxscript are not installed")
    assert not looked_up([sys.executable, "-c", EXPORT_WITH_TORCH], tmp_path, home)[1]

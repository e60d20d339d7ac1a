"""Triton Inference Server itself, from the wheel of PyTriton: its core and its Python backend, without ONNX Runtime,
OpenVINO or TensorRT."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.toolchain_required import require
from plimsoll.system import toolchains
from plimsoll.system.toolchains.environment import python_of

TOOLCHAIN = "triton"
_SERVER = "pytriton/tritonserver"
SOURCE = Path(__file__).resolve().parents[2] / "src"


def client_python() -> Path:
    """Return the Python that has tritonclient; skips where the toolchain isn't made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLIMSOLL_TOOLCHAINS", str(Path(__file__).resolve().parents[1] / "toolchains"))
        require(TOOLCHAIN)
        return python_of(toolchains.make(TOOLCHAIN))


def ask(program: str, *arguments: str | Path, timeout: float = 120) -> str:
    """Run a program of `tests/programs` with tritonclient and return what it printed."""
    script = Path(__file__).resolve().parents[1] / "programs" / program
    done = subprocess.run(
        [client_python(), "-B", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@contextlib.contextmanager
def serve_repository(repository: Path, work: Path) -> Iterator[str]:
    """Serve a model repository; yields the address of its HTTP port. Its Python backend has the toolchain's packages
    and Plimsoll's source."""
    packages = next(client_python().parents[1].glob("lib/python*/site-packages"))
    server = shutil.copytree(packages / _SERVER, work / "server", ignore=shutil.ignore_patterns("python_backend_stubs"))
    stub = (
        packages
        / _SERVER
        / "python_backend_stubs"
        / f"{sys.version_info[0]}.{sys.version_info[1]}"
        / "triton_python_backend_stub"
    )
    if not stub.is_file():
        pytest.skip("PyTriton has no stub for this Python")
    for program in (shutil.copy(stub, server / "backends" / "python"), server / "bin" / "tritonserver"):
        Path(program).chmod(0o755)
    (server / "backends" / "python" / "plimsoll").symlink_to(
        SOURCE / "plimsoll"
    )  # It minds no PYTHONPATH, and looks there for its own module.
    ports = _free_ports(2)
    shared = f"plimsoll-triton-{uuid.uuid4().hex}"
    command = [
        str(server / "bin" / "tritonserver"), "--model-repository", str(repository), "--backend-directory",
        str(server / "backends"),
        "--http-address", "127.0.0.1", "--grpc-address", "127.0.0.1", "--http-port", str(ports[0]), "--grpc-port",
        str(ports[1]),
        "--allow-metrics", "false", "--exit-timeout-secs", "2", "--backend-config",
        f"python,shm-region-prefix-name={shared}",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
        "PATH": os.pathsep.join(
            (str(client_python().parent), os.environ["PATH"])
        ),  # Triton's Python finds its own files by it.
    }
    log = work / "triton.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        _wait(process, f"http://127.0.0.1:{ports[0]}/v2/health/ready", log)
        yield f"127.0.0.1:{ports[0]}"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for left in Path("/dev/shm").glob(f"{shared}*"):
            left.unlink()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1):
            return
        assert process.poll() is None, _log_text(log)
        time.sleep(0.2)
    raise AssertionError(_log_text(log))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


def _log_text(log: Path) -> str:
    """Return what the server said, without the tables that it draws."""
    return "\n".join(line for line in log.read_text(errors="replace").splitlines() if line[:1] not in ("+", "|"))[
        -5000:
    ]

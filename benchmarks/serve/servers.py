"""The servers that are compared: how each is started, asked and stopped. Ours, and its peers with the same network on
the same cores."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from http_wire import Connection, NoResponseError, Response
from processes import command_line, memory_mb, own_seconds, processor_seconds, tree
from request_formats import INFER_BINARY, INFER_JSON, PLAIN, PLIMSOLL, ROOT, RequestFormat
from set_up import HERE, peers_folder

from plimsoll.zoo import catalog

PORT = "{port}"
"""Stands for the port in commands and environments."""


@dataclass(frozen=True)
class Server:
    """How one server is started and asked."""

    name: str
    command: Sequence[str]
    request_format: RequestFormat
    environment: Mapping[str, str] = field(default_factory=dict)


def plimsoll_server(name: str, model: str, *options: str) -> Server:
    """Return `plimsoll serve MODEL`."""
    return Server(
        name, [sys.executable, "-m", "plimsoll", "--quiet", "serve", model, "--port", PORT, *options], PLIMSOLL
    )


def peers() -> list[Server]:
    """Return the peers that are set up here (`set_up.py`), each with 4 workers of one ONNX Runtime thread."""
    gunicorn = ["gunicorn", "--workers", "4", "--bind", f"127.0.0.1:{PORT}", "peers.flask_app:app"]
    bentoml = ["bentoml", "serve", "peers.bentoml_app:OpenNsfw", "--host", "127.0.0.1", "--port", PORT]
    mlserver = {"MLSERVER_HTTP_PORT": PORT, "MLSERVER_GRPC_PORT": "0"}
    libraries = {
        "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR") or "")
    }  # Triton's Python backend needs the same libpython
    known = [
        _peer("gunicorn + Flask", "flask", gunicorn, PLAIN),
        _peer("LitServe", "litserve", ["python", "-m", "peers.litserve_app"], PLAIN),
        _peer("Ray Serve", "ray", ["python", "-m", "peers.ray_app"], ROOT, {"RAY_USAGE_STATS_ENABLED": "0"}),
        _peer("BentoML", "bentoml", bentoml, PLAIN, {"BENTOML_DO_NOT_TRACK": "True"}),
        _peer("MLServer", "mlserver", ["mlserver", "start", "peers/mlserver"], INFER_JSON, mlserver),
        _peer("PyTriton", "pytriton", ["python", "-m", "peers.pytriton_app"], INFER_BINARY, libraries),
    ]
    return [peer for peer in known if Path(peer.command[0]).exists()]


def _peer(
    name: str,
    folder: str,
    command: Sequence[str],
    request_format: RequestFormat,
    environment: Mapping[str, str] | None = None,
) -> Server:
    programs = peers_folder() / folder / "bin"
    usual = {
        "NETWORK": str(catalog.fetch("open_nsfw")),
        "THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PORT": PORT,
        "PYTHONPATH": str(HERE),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    return Server(name, [str(programs / command[0]), *command[1:]], request_format, usual | dict(environment or {}))


class Running:
    """A server that runs, with all its processes; use it in a `with` block."""

    def __init__(self, server: Server, port: int, log: Path) -> None:
        self.server, self.port, self.log = server, port, log
        self._log = log.open("wb")
        environment = os.environ | {name: value.replace(PORT, str(port)) for name, value in server.environment.items()}
        command = [part.replace(PORT, str(port)) for part in server.command]
        launcher = [sys.executable, str(HERE / "contain.py"), *command]
        self.process = subprocess.Popen(
            launcher,
            cwd=HERE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            process_group=0,
        )

    @property
    def main(self) -> int:
        """The process of the server's command itself (the launcher's first child)."""
        return tree(self.process.pid)[1]

    def cpu_seconds(self) -> float:
        """Return the processor time that all its processes have used."""
        return processor_seconds(self.process.pid)

    def web_seconds(self) -> float:
        """Return the processor time that the processes have used that speak with the network: of ours all but the
        workers, of others the first one."""
        pids = [self.main, *(pid for pid in tree(self.main) if "plimsoll.serve.web" in command_line(pid))]
        return sum(own_seconds(pid) for pid in pids)

    def memory_mb(self) -> float:
        """Return the memory of all its processes."""
        return memory_mb(self.process.pid)

    def ask(self, photo: bytes, patience: float = 30.0) -> Response:
        """Ask one photo over a new connection; raises NoResponseError, OSError and TimeoutError."""
        return asyncio.run(asyncio.wait_for(self._ask(photo), patience))

    async def _ask(self, photo: bytes) -> Response:
        connection = await Connection.connect(self.port)
        try:
            return await connection.ask(self.server.request_format.request(photo, self.port))
        finally:
            connection.close()

    def wait(self, photo: bytes, patience: float = 180.0) -> None:
        """Wait until it answers a photo; raises RuntimeError with the end of its log where it ends or stays silent."""
        until = time.monotonic() + patience
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if self.ask(photo).status == 200:
                    return
            except (NoResponseError, OSError, TimeoutError):
                pass
            time.sleep(0.2)
        raise RuntimeError(
            f"{self.server.name} doesn't answer: {self.log.read_bytes()[-1500:].decode(errors='replace')}"
        )

    def freeze(self, number: signal.Signals = signal.SIGSTOP) -> None:
        """Stop all its processes, so that they use no processor time; `freeze(SIGCONT)` lets them go on."""
        for pid in tree(self.process.pid)[1:]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def stop(self, patience: float = 40.0) -> int:
        """End it and all that it started; returns its exit code."""
        self.freeze(signal.SIGCONT)
        self.process.terminate()
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            for pid in reversed(tree(self.process.pid)):
                os.kill(pid, signal.SIGKILL)
            return self.process.wait()
        finally:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()

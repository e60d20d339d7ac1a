"""Run a network with ONNX Runtime Web in processes of Node."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.model import TensorInfo, Tensors
from plimsoll.errors import RunError

_ENDING_S = 5.0


class WebSession:
    """A Node process for each stream; a call takes a free one."""

    concurrent = True

    def __init__(self, command: Sequence[str], streams: int) -> None:
        self._free: queue.SimpleQueue[_NodeProcess] = queue.SimpleQueue()
        self._processes: list[_NodeProcess] = []
        try:
            for _ in range(streams):
                self._processes.append(_NodeProcess(command))
            for process in self._processes:
                head = process.head()
                self._free.put(process)
        except (OSError, RunError):
            self.close()
            raise
        self.inputs, self.outputs = (
            tuple(_info(described) for described in head[key]) for key in ("inputs", "outputs")
        )

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        process = self._free.get()
        try:
            return process.run(feeds)
        except RunError as error:
            raise RunError(f"ONNX Runtime Web failed: {error.message}", error.hint) from error
        finally:
            self._free.put(process)

    def close(self) -> None:
        for process in self._processes:
            process.end()


class _NodeProcess:
    """A Node process that runs `session.mjs`."""

    def __init__(self, command: Sequence[str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)
        self._to, self._from = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        arrays = {name: np.ascontiguousarray(value) for name, value in feeds.items()}
        tensors = [
            {"name": name, "dtype": str(value.dtype), "shape": value.shape, "bytes": value.nbytes}
            for name, value in arrays.items()
        ]
        try:
            self._to.write(
                json.dumps({"tensors": tensors}).encode()
                + b"\n"
                + b"".join(value.tobytes() for value in arrays.values())
            )
            self._to.flush()
        except OSError as error:
            raise RunError(self._last_words()) from error
        head = self.head()
        return {
            described["name"]: np.frombuffer(
                bytearray(self._from.read(described["bytes"])), described["dtype"]
            ).reshape(described["shape"])
            for described in head["tensors"]
        }

    def head(self) -> dict[str, Any]:
        """Return the next message's line; the first describes the network's inputs and outputs. Raises RunError."""
        line = self._from.readline()
        if not line:
            raise RunError(self._last_words())
        head: dict[str, Any] = json.loads(line)
        if "error" in head:
            raise RunError(_short(head["error"]))
        return head

    def _last_words(self) -> str:
        self._process.wait()
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        reason = next((line for line in lines if "Error" in line), lines[-1] if lines else "it printed nothing")
        return f"its process has ended with exit code {self._process.returncode}: {_short(reason)}"

    def end(self) -> None:
        """End the process; twice is harmless."""
        with contextlib.suppress(OSError):  # The process may be gone already.
            self._to.close()
        self._from.close()
        try:
            self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _info(described: Mapping[str, Any]) -> TensorInfo:
    return TensorInfo(described["name"], tuple(described["shape"] or ()), described["dtype"])


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 300 else f"{plain[:300]} …"

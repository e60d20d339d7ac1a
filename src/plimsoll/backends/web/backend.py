"""ONNX Runtime Web: the runtime that a web package (`plimsoll.export.web`) answers with in a browser, here in Node.

It is the same WebAssembly with the same network, so what is measured here is what a browser answers. Nobody would serve
with it: `ship` tries it only when asked to. As in a browser without cross-origin isolation, one thread computes a call;
several streams are several processes.
"""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.base import AvailableTarget, Backend, Calibrated, ThreadPlan
from plimsoll.core.model import Model, TensorInfo, Tensors
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, RunError
from plimsoll.onnx.form import OnnxForm, require_form
from plimsoll.system import npm
from plimsoll.system.npm import NpmFiles

SCRIPT = "dist/ort.wasm.bundle.min.mjs"
BINARY = "dist/ort-wasm-simd-threaded.wasm"
RUNTIME = NpmFiles(
    package="onnxruntime-web",
    version="1.30.0",
    integrity="sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    files={
        SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
        BINARY: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    },
)
"""The plain WebAssembly build, with every operator of ONNX Runtime: 14 MB. Those for WebGPU and WebNN are 17 to 28 MB.
"""

_FORMS: dict[str, OnnxForm] = {"float32": "float32", "int8": "qdq"}
_LANE = Path(__file__).with_name("web_lane.mjs")
_ENDING_S = 5.0


class Web(Backend):
    """ONNX Runtime Web."""

    name = "web"
    deployable = False

    def offers(self) -> tuple[AvailableTarget, ...]:
        missing = (
            npm.missing(RUNTIME)
            if shutil.which("node")
            else "Node.js is not installed. Install it (Debian: apt-get install nodejs npm)"
        )
        return tuple(AvailableTarget(Target("web", "wasm", precision), missing) for precision in _FORMS)

    def needs(self, target: Target) -> OnnxForm:
        return _FORMS[target.precision]

    def build(self, model: Model, target: Target, folder: Path, calibrated: Calibrated | None = None) -> Model:
        del folder, calibrated
        self.check(target)
        require_form(model, target, self.needs(target))
        return model

    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> _Session:
        del options
        self.check(target)
        files = npm.fetch(RUNTIME)
        further = [file.relative_to(model.path.parent).as_posix() for file in model.files]
        command = [
            shutil.which("node") or "node",
            str(_LANE),
            str(files[SCRIPT]),
            str(files[BINARY]),
            str(model.path.resolve()),
            *further,
        ]
        try:
            return _Session(command, plan.streams)
        except (OSError, RunError) as error:
            reason = error.message if isinstance(error, RunError) else error
            raise BuildError(
                f"ONNX Runtime Web can't load {model.path.name}: {reason}", "Check the file with `plimsoll inspect`."
            ) from error


class _Session:
    """A process for each lane; a call takes a free one."""

    concurrent = True

    def __init__(self, command: Sequence[str], streams: int) -> None:
        self._free: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        self._lanes: list[_Lane] = []
        try:
            for _ in range(streams):
                self._lanes.append(_Lane(command))
            for lane in self._lanes:
                head = lane.head()
                self._free.put(lane)
        except (OSError, RunError):
            self.close()
            raise
        self.inputs, self.outputs = (tuple(_info(one) for one in head[key]) for key in ("inputs", "outputs"))

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        lane = self._free.get()
        try:
            return lane.run(feeds)
        except RunError as error:
            raise RunError(f"ONNX Runtime Web failed: {error.message}", error.hint) from error
        finally:
            self._free.put(lane)

    def close(self) -> None:
        for lane in self._lanes:
            lane.end()


class _Lane:
    """A Node process that runs `web_lane.mjs`."""

    def __init__(self, command: Sequence[str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the lane
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
            one["name"]: np.frombuffer(bytearray(self._from.read(one["bytes"])), one["dtype"]).reshape(one["shape"])
            for one in head["tensors"]
        }

    def head(self) -> dict[str, Any]:
        """Return the next message's line: after the start, what the network takes and gives; raises RunError."""
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
        with contextlib.suppress(OSError):  # What was left to write has nobody to read it.
            self._to.close()
        self._from.close()
        try:
            self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _info(one: Mapping[str, Any]) -> TensorInfo:
    return TensorInfo(one["name"], tuple(one["shape"] or ()), one["dtype"])


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 300 else f"{plain[:300]} …"


BACKEND = Web()

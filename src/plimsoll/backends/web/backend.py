"""ONNX Runtime Web: the runtime that a web package (`plimsoll.export.web`) answers with in a browser, here in Node.

It is the same WebAssembly with the same network, so what is measured here is what a browser answers. Nobody would serve
with it: `ship` tries it only when asked to. As in a browser without cross-origin isolation, one thread computes a call;
several streams are several processes.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from plimsoll.backends.base import AvailableTarget, Backend, CalibrationData, ThreadPlan
from plimsoll.backends.web.session import WebSession
from plimsoll.core.model import Model
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
_SCRIPT = Path(__file__).with_name("session.mjs")


class Web(Backend):
    """ONNX Runtime Web."""

    name = "web"
    title = "ONNX Runtime Web"
    deployable = False
    in_browser = True

    def targets(self) -> tuple[AvailableTarget, ...]:
        missing = (
            npm.missing(RUNTIME)
            if shutil.which("node")
            else "Node.js is not installed. Install it (Debian: apt-get install nodejs npm)"
        )
        return tuple(AvailableTarget(Target("web", "wasm", precision), missing) for precision in _FORMS)

    def onnx_form(self, target: Target) -> OnnxForm:
        return _FORMS[target.precision]

    def build(self, model: Model, target: Target, folder: Path, calibration: CalibrationData | None = None) -> Model:
        del folder, calibration
        self.check(target)
        require_form(model, target, self.onnx_form(target))
        return model

    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> WebSession:
        del options
        self.check(target)
        files = npm.fetch(RUNTIME)
        further = [file.relative_to(model.path.parent).as_posix() for file in model.files]
        command = [
            shutil.which("node") or "node",
            str(_SCRIPT),
            str(files[SCRIPT]),
            str(files[BINARY]),
            str(model.path.resolve()),
            *further,
        ]
        try:
            return WebSession(command, plan.streams)
        except (OSError, RunError) as error:
            reason = error.message if isinstance(error, RunError) else error
            raise BuildError(
                f"ONNX Runtime Web can't load {model.source.name}: {reason}", "Check the file with `plimsoll inspect`."
            ) from error


BACKEND = Web()

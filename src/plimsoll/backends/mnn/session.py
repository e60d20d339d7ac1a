"""MNN's interpreters, one for each stream, behind the session that presents them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.session_pool import SessionPool
from plimsoll.core.model import Tensors
from plimsoll.errors import BuildError, RunError
from plimsoll.onnx import names
from plimsoll.onnx.signature import Signature
from plimsoll.system import native_output

Array = NDArray[Any]

KINDS = {"float32": "Halide_Type_Float", "int32": "Halide_Type_Int", "uint8": "Halide_Type_Uint8"}
"""MNN's names of what an input or output can hold."""
_HELD_AS = {"int64": "int32"}
"""What outputs are held as that MNN has no type for."""

_REASONS = {
    1: "it ran out of memory",
    2: "it doesn't support one of the network's operators",
    3: "it can't work out the size of one of the network's tensors",
    4: "it has no kernel for one of the network's operators",
    5: "one of the network's operators has a value that it doesn't take",
}
"""MNN's error codes (`include/MNN/ErrorCode.hpp`)."""

_muting = threading.Lock()


@contextmanager
def muted() -> Iterator[None]:
    """Keep MNN from printing: when it is loaded it tells standard output, where answers go, what the processor can
    do."""
    with _muting:
        sys.stdout.flush()
        stdout, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 1)
            yield
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
            os.close(nowhere)


class MnnSession(SessionPool):
    """A network that is loaded once for each stream: calls of one interpreter wait for one another."""

    def __init__(self, signature: Signature, interpreters: list[MnnInterpreter]) -> None:
        super().__init__("MNN", signature.inputs, signature.outputs, interpreters)


class MnnInterpreter:
    """One interpreter. Only one thread may use it at a time."""

    def __init__(self, mnn: ModuleType, path: str, signature: Signature, config: Mapping[str, Any]) -> None:
        self._mnn = mnn
        self._interpreter = mnn.Interpreter(path)
        self._session = self._interpreter.createSession(dict(config))
        self._signature = signature
        self._inputs = [names.stored(info.name, "input", index) for index, info in enumerate(signature.inputs)]
        self._outputs = [names.stored(info.name, "output", index) for index, info in enumerate(signature.outputs)]
        self._shapes: dict[str, tuple[int, ...]] = {}
        known = {
            *self._interpreter.getSessionInputAll(self._session),
            *self._interpreter.getSessionOutputAll(self._session),
        }
        if missing := [name for name in (*self._inputs, *self._outputs) if name not in known]:
            raise BuildError(
                f"{path}: it has no input or output {', '.join(missing)}", "Convert the ONNX network again."
            )
        if foreign := [
            f"'{info.name}' {info.dtype}"
            for infos, known_kinds in ((signature.inputs, KINDS), (signature.outputs, {**KINDS, **_HELD_AS}))
            for info in infos
            if info.dtype not in known_kinds
        ]:
            raise BuildError(
                f"{path}: MNN's inputs and outputs are {', '.join(KINDS)} here; the network has {', '.join(foreign)}",
                "Choose another runtime.",
            )

    def run(self, feeds: Mapping[str, Array]) -> Tensors:
        """Compute all outputs; raises RunError, and what MNN raises."""
        inputs = zip(self._signature.inputs, self._inputs, strict=True)
        self._resize({name: feeds[info.name].shape for info, name in inputs})
        for info, name in zip(self._signature.inputs, self._inputs, strict=True):
            self._interpreter.getSessionInput(self._session, name).copyFrom(
                self._tensor(np.ascontiguousarray(feeds[info.name]))
            )
        if code := self._interpreter.runSession(self._session):
            reason = _REASONS.get(code) or native_output.recent() or f"its error code is {code}"
            raise RunError(f"MNN failed: {reason}", "Choose another runtime.")
        outputs = zip(self._signature.outputs, self._outputs, strict=True)
        return {info.name: self._fetch(name, info.dtype) for info, name in outputs}

    def _resize(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Prepare the interpreter for these sizes, where they are others than last time."""
        if shapes == self._shapes:
            return
        self._shapes = {}  # Should it fail, the next call must not think that all is prepared.
        for name, shape in shapes.items():
            self._interpreter.resizeTensor(self._interpreter.getSessionInput(self._session, name), shape)
        self._interpreter.resizeSession(self._session)
        self._shapes = shapes

    def _tensor(self, values: Array) -> Any:
        kind = getattr(self._mnn, KINDS[str(values.dtype)])
        return self._mnn.Tensor(values.shape, kind, values, self._mnn.Tensor_DimensionType_Caffe)

    def _fetch(self, name: str, dtype: str) -> Array:
        output = self._interpreter.getSessionOutput(self._session, name)
        held = self._tensor(np.zeros(output.getShape(), _HELD_AS.get(dtype, dtype)))
        output.copyToHostTensor(held)
        return np.array(held.getNumpyData(), dtype).reshape(output.getShape())

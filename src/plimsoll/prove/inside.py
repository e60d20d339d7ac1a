"""Run a network with values from its inside given out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.onnx import form, graph

_PRECISIONS = {"float32": "float32", "float16": "float16", "qdq": "int8", "dynamic": "dynamic"}


def open_inside(model: Model, names: Sequence[str], path: Path) -> Runner:
    """Open an ONNX model with the values `names` as further outputs in ONNX Runtime, which can give out any; `path`
    takes the changed file.

    It computes in one thread: threads that spin between calls would hold up the NumPy that works on what they gave.
    """
    exposed = graph.expose(model, names, path)
    return Runner.open(exposed, Target("onnxruntime", "cpu", _PRECISIONS[form.form_of(path)]), objective="throughput")

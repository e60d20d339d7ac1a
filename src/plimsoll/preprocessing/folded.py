"""Fold input steps into the network, so that a deployment feeds it the picture as it is: uint8, RGB, height x width x
3.

Everything after the last step on pixels (channels, scale, mean, std, layout, dtype) becomes a few operators at the
front of the graph: cast, subtract, multiply. The subtraction stays an operator of its own and never becomes part of the
first convolution's bias: a convolution pads with zeros *after* the mean is gone, so along the borders its bias would be
wrong. The order of the channels and a factor a channel do commute with that padding; where the first convolution is
reached directly they move into its weights and cost nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plimsoll.core.fit import only_input
from plimsoll.core.foreign import translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx import load
from plimsoll.preprocessing.folded_front import Front, is_used, unused
from plimsoll.preprocessing.folded_tail import split
from plimsoll.spec import Input

if TYPE_CHECKING:
    pass

INPUT = "picture"
"""The name of the folded network's input."""

_MINIMUM_OPSET = 8
"""Max and Min broadcast from here on, Add and Sub from 7."""


def fold(model: Model, folder: Path) -> Model:
    """Return a child whose graph takes uint8 `[N, H, W, 3]` (RGB; 1 channel where it is grey) and whose Spec has the
    pixel steps only.

    Written into `folder`; opset and IR version stay. Outputs equal the parent's behind its own steps up to float32's
    rounding. Raises ModelError, naming the steps that are left outside, where values are no longer 8-bit pixels at the
    last step on pixels, or where there is nothing to fold; BuildError where the graph can't be written.
    """
    spec = model.contract()
    pixels, tail = split(spec)
    raised = load.raise_opset(model, folder, _MINIMUM_OPSET) if model.format == "onnx" else model
    proto = onnx_graph.load(raised)
    taken = only_input(spec, load.inputs_and_outputs(proto)[0], model.path.name)
    old = next(value for value in proto.graph.input if value.name == taken.name)
    name = INPUT if old.name == INPUT or not is_used(proto.graph, INPUT) else unused(proto.graph, INPUT)
    with translate(BuildError, f"{model.path}: can't fold its input steps"):
        Front(proto, old.name, name, tail).build(old, Input(steps=pixels).form)
        path = folder / f"{model.path.stem}.folded.onnx"
        onnx_graph.save(proto, path)
        _check(path)
    folded = spec.model_copy(update={"input": Input(tensor=name, steps=pixels)})
    return Model(path, "onnx", folded, parent=raised)


def _check(path: Path) -> None:
    from onnx import checker

    checker.check_model(str(path), full_check=True)


__all__ = ["INPUT", "fold", "split"]

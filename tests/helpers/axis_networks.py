"""Small networks whose outputs have their pictures anywhere but first, or nowhere; on pictures of 4 x 6 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from plimsoll.spec import Spec
from plimsoll.spec.files import loads

T = 6
"""The steps of the sequence: the picture's columns."""


def spec(output: str = 'task = "tensor"', further: str = "") -> Spec:
    return loads(
        f'name = "lines"\n[[input.steps]]\nstep = "decode"\n[[input.steps]]\nstep = "resize"\nwidth = {T}\nheight = 4\n'
        f'[[input.steps]]\nstep = "dtype"\nto = "float32"\n{further}\n[output]\n{output}\n'
    )


def save(path: Path, nodes: Sequence[Any], outputs: Sequence[Any], batch: Any = "N", more: Sequence[Any] = ()) -> Path:
    """Write a network that reads pictures `x` of 4 x 6 pixels, and `more`."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4, T, 3]), *more]
    constants = [
        numpy_helper.from_array(np.array(values, np.int64), name)
        for name, values in {"rows": [1], "colours": [3], "pixels": [0, 1, 2, 3], "each": [1, 2], "start": [0]}.items()
    ]
    constants.append(numpy_helper.from_array(np.float32(128), "half"))
    graph = helper.make_graph(nodes, "network", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def sequence(path: Path, shape: Sequence[Any], batch: Any = "N") -> Path:
    """Write a network to `[T, N, 3]`: the mean colour of each column."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "rows"], ["columns"], keepdims=0),
        helper.make_node("Transpose", ["columns"], ["y"], perm=[1, 0, 2]),
    ]
    return save(path, nodes, [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(shape))], batch)


def hidden_sequence(path: Path) -> Path:
    """Write the same, but so that no runtime can tell how long its first axis is."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "rows"], ["columns"], keepdims=0),
        helper.make_node("Transpose", ["columns"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Shape", ["places"], ["long"], start=1),
        helper.make_node("Slice", ["turned", "start", "long"], ["y"]),
    ]
    return save(path, nodes, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None, 3])])


def bright_pixels(path: Path, batch: Any = "N") -> Path:
    """Write a network to `[n, 3]`, as end-to-end detectors have it: picture, row and column of each bright pixel."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "colours"], ["grey"], keepdims=0),
        helper.make_node("Greater", ["grey", "half"], ["bright"]),
        helper.make_node("NonZero", ["bright"], ["places"]),
        helper.make_node("Transpose", ["places"], ["y"], perm=[1, 0]),
    ]
    return save(path, nodes, [helper.make_tensor_value_info("y", TensorProto.INT64, ["n", 3])], batch)

"""ONNX → TFLite in float32, by onnx2tf's own writer, which needs no TensorFlow.

Expects fixed sizes everywhere. onnx2tf takes every input for channels first and turns it around unless it is told to
keep its shape; it turns outputs around, replaces characters in names and overwrites its input file: it gets a file and
names of its own, and the old names are put back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ai_edge_litert.tools import flatbuffer_utils
from onnx import helper, numpy_helper
from onnx2tf import convert
from tflite_names import rename, write
from tflite_products import write_layers


def run(request: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    del request
    model = onnx.load(inputs["model"])
    names = {value.name: f"plimsoll_input_{index}" for index, value in enumerate(model.graph.input)}
    names |= {value.name: f"plimsoll_output_{index}" for index, value in enumerate(model.graph.output)}
    names = _plain_names(model.graph, names)
    _hold_layouts(model.graph)
    work = Path("converted").absolute()
    work.mkdir()
    onnx.save(model, work / "network.onnx")
    convert(
        input_onnx_file_path=str(work / "network.onnx"),
        output_folder_path=str(work),
        tflite_backend="flatbuffer_direct",
        keep_shape_absolutely_input_names=[value.name for value in model.graph.input],
        not_use_onnxsim=True,
        not_use_opname_auto_generate=True,
        verbosity="error",
    )
    before = {new: old for old, new in names.items()}
    rename(
        _corrected(work / "network_float32.tflite"),
        out / "network.tflite",
        [before[value.name] for value in model.graph.input],
        [before[value.name] for value in model.graph.output],
    )
    return {}


def _corrected(path: Path) -> Path:
    """Take back what onnx2tf says of free sizes, behind a Split for example: there are none; and write products with
    stored matrices as layers."""
    model = flatbuffer_utils.read_model(str(path))
    write_layers(model)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.shape is not None and min(tensor.shape, default=1) > 0:
                tensor.shapeSignature = None
    write(model, path)
    return path


def _hold_layouts(graph: onnx.GraphProto) -> None:
    """Let every output be reshaped to what it is: of a convolution that ends the graph, onnx2tf would give the channels
    last. What reads an output inside the network reads it behind that: onnx2tf drops the value before it."""
    for value in graph.output:
        sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        if len(sizes) < 3 or not all(sizes):
            continue
        inner = f"{value.name}_inner"
        for node in graph.node:
            node.output[:] = [inner if name == value.name else name for name in node.output]
        shape = numpy_helper.from_array(np.asarray(sizes, np.int64), f"{value.name}_shape")
        graph.initializer.append(shape)
        graph.node.append(helper.make_node("Reshape", [inner, shape.name], [value.name], name=f"{value.name}_reshape"))


def _plain_names(graph: onnx.GraphProto, chosen: dict[str, str]) -> dict[str, str]:
    """Give every value a name that onnx2tf leaves alone, subgraphs included; returns old name → new name."""
    names = dict(chosen)

    def plain(name: str) -> str:
        if name and name not in names:
            names[name] = name if ":" not in name else f"{name.replace(':', '_')}_{len(names)}"
        return names.get(name, "")

    def visit(part: onnx.GraphProto) -> None:
        for value in (*part.input, *part.output, *part.value_info, *part.initializer):
            value.name = plain(value.name)
        for node in part.node:
            node.input[:] = [plain(name) for name in node.input]
            node.output[:] = [plain(name) for name in node.output]
            for attribute in node.attribute:
                for child in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                    visit(child)

    visit(graph)
    return names

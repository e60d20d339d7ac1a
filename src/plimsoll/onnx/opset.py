"""Raise the opset: by onnx's converter, and by hand where it is known to change what a network computes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plimsoll.core.foreign import translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import load
from plimsoll.onnx.graph import attribute, set_attributes, unique
from plimsoll.onnx.load import DEFAULT_DOMAINS, messages
from plimsoll.onnx.structure import copy_of, inline_functions, replace_nodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

COMMON = 13
"""The first opset whose DequantizeLinear knows a scale for each channel, and whose Softmax has one axis."""

_FLATTENED = ("Softmax", "LogSoftmax", "Hardmax")
"""Until opset 12 over all axes from the given one on, from 13 over one axis."""

_BY_HAND = "plimsoll.raised"
"""A domain that onnx's converter leaves alone; operators are there while it runs."""


def raise_opset(model: Model, folder: Path, minimum: int = COMMON) -> Model:
    """Return the model with opset `minimum` or later: itself if it has that, else a new file in `folder`, weights
    inside.

    Raises BuildError, naming the operator, where onnx's converter can't do it or is known to change the meaning.
    """
    from onnx import external_data_helper

    file = load.read(model.path)
    before = load.opset(file.proto)
    if before >= minimum:
        return model
    with translate(BuildError, f"{model.source}: can't load its external weights"):
        external_data_helper.load_external_data_for_model(file.proto, str(model.path.parent))
    try:
        proto = raised(file.proto, minimum)
    except BuildError as error:
        raise BuildError(f"{model.source}: {error.message}", error.hint) from error.__cause__
    path = folder / f"{model.path.stem}.opset{minimum}.onnx"
    with translate(BuildError, f"{model.source}: can't be written with opset {minimum}"):
        path.write_bytes(proto.SerializeToString())
    return Model(path, "onnx", model.spec, parent=model)


def raised(proto: ModelProto, minimum: int = COMMON) -> ModelProto:
    """Return a network of an earlier opset with opset `minimum`, weights as they are; raises BuildError as
    `raise_opset` does."""
    from onnx import checker, helper, version_converter

    before = load.opset(proto)
    doing = f"can't raise its opset from {before} to {minimum}"
    hint = f"Export the model again with opset {minimum} or later."
    if wrong := next((node for node in messages(proto, "NodeProto") if _loses_meaning(node, proto, minimum)), None):
        raise BuildError(f"{doing}: ONNX's converter would change what {wrong.op_type} ({wrong.name!r}) computes", hint)
    try:
        with translate(BuildError, doing):
            result: ModelProto = inline_functions(copy_of(proto))
            if before < 13 <= minimum:
                _set_aside_flattened(result)
            result = version_converter.convert_version(result, minimum)
            _take_back(result)
            _keep_coordinates(result, before)
            needed = helper.find_min_ir_version_for(result.opset_import, ignore_unknown=True)
            result.ir_version = max(result.ir_version, needed)
            checker.check_model(result, full_check=True)
            return result
    except BuildError as error:
        raise BuildError(f"{error.message}{_blame(proto, error.message)}", hint) from error.__cause__


def _loses_meaning(node: NodeProto, proto: ModelProto, minimum: int) -> bool:
    """Tell whether onnx's converter (seen in 1.23) leaves an operator as it is although a later opset reads it
    differently."""
    from onnx import defs, numpy_helper

    before = load.opset(proto)
    if node.domain not in DEFAULT_DOMAINS:
        return False
    if node.op_type == "Resize" and before == 10 and minimum > 10:
        linear = attribute(node, "mode") == b"linear"
        scales = [numpy_helper.to_array(tensor) for tensor in proto.graph.initializer if tensor.name == node.input[1]]
        # Opset 10 leaves open which pixel a reduction by nearest takes; runtimes differ from every mode of opset 11.
        return not linear and not (scales and bool((scales[0] >= 1).all()))
    inner = [part for part in messages(node, "NodeProto") if part is not node and part.domain in DEFAULT_DOMAINS]
    # The converter doesn't enter subgraphs.
    return any(
        defs.get_schema(part.op_type, before).since_version != defs.get_schema(part.op_type, minimum).since_version
        and part.op_type not in _SAME_SINCE
        for part in inner
    )


_SAME_SINCE = (
    *("Abs", "Add", "And", "Ceil", "Concat", "Constant", "Conv", "Cos", "Div", "Equal", "Erf", "Exp", "Expand"),
    *("Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gemm", "Greater", "Identity", "If", "Less", "Log"),
    *("MatMul", "Max", "Min", "Mul", "Neg", "NonZero", "Or", "Pow", "Reciprocal", "Relu", "Reshape", "ScatterND"),
    *("Shape", "Sigmoid", "Size", "Sqrt", "Sub", "Sum", "Tanh", "Tile", "Transpose"),
)
"""Operators that later opsets (from 7 to 13 and on) only gave more types, or inputs and attributes with defaults."""


def _set_aside_flattened(proto: ModelProto) -> None:
    """Give every Softmax and its like one axis: the given one where no others follow that hold anything, else that of a
    flattened value."""
    from onnx import helper, shape_inference

    graph = shape_inference.infer_shapes(proto, strict_mode=False).graph
    shapes = {value.name: load.shape_of(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    taken = {name for node in messages(proto, "NodeProto") for name in (*node.input, *node.output)}
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        if node.op_type not in _FLATTENED or node.domain not in DEFAULT_DOMAINS:
            nodes.append(node)
            continue
        axis, shape = attribute(node, "axis", 1), shapes.get(node.input[0])
        whole = copy_of(node)
        whole.domain = _BY_HAND
        if shape is not None and all(size == 1 for size in shape[axis % max(len(shape), 1) + 1 :]):
            set_attributes(whole, axis=axis)
            nodes.append(whole)
            continue
        sizes, flat, result = (unique(taken, f"{node.output[0]}/{part}") for part in ("sizes", "flat", "result"))
        set_attributes(whole, axis=-1)
        whole.input[0], whole.output[0] = flat, result
        nodes += [
            helper.make_node("Shape", [node.input[0]], [sizes], name=sizes),
            helper.make_node("Flatten", [node.input[0]], [flat], name=flat, axis=axis),
            whole,
            helper.make_node("Reshape", [result, sizes], [node.output[0]], name=f"{node.output[0]}/whole"),
        ]
    if any(node.domain == _BY_HAND for node in nodes):
        replace_nodes(proto.graph, nodes)
        proto.opset_import.add(domain=_BY_HAND, version=1)


def _take_back(proto: ModelProto) -> None:
    for node in proto.graph.node:
        if node.domain == _BY_HAND:
            node.domain = ""
    for index in reversed(range(len(proto.opset_import))):
        if proto.opset_import[index].domain == _BY_HAND:
            del proto.opset_import[index]


def _keep_coordinates(proto: ModelProto, before: int) -> None:
    """Give a Resize that was opset 10's, or an Upsample, their coordinates; the converter leaves it to opset 11's other
    default."""
    from onnx import helper

    for node in messages(proto, "NodeProto") if before < 11 else ():
        if node.op_type == "Resize" and node.domain in DEFAULT_DOMAINS:
            node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(helper.make_attribute("nearest_mode", "floor"))


def _blame(proto: ModelProto, reason: str) -> str:
    """Name the operator that the converter's reason mentions."""
    kinds = sorted({node.op_type for node in messages(proto, "NodeProto")}, key=len, reverse=True)
    named = [kind for kind in kinds if kind in reason]
    return f" (operator {named[0]})" if named else ""

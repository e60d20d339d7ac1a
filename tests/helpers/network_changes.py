"""Changes to the networks of `answer_networks`: what follows an output, and what is done to weights, values, names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from helpers.answer_networks import constant, node

Change = Callable[[onnx.ModelProto], Any]


def behind(output: str, *operators: tuple[str, tuple[Any, ...], dict[str, Any]]) -> Change:
    """Append operators to an output one after another: (operator, further inputs as arrays, attributes)."""

    def change(proto: onnx.ModelProto) -> None:
        source = f"{output}_before"
        position = next(index for index, each in enumerate(proto.graph.node) if output in each.output)
        proto.graph.node[position].output[0] = source
        for index, (operator, arrays, attributes) in enumerate(operators):
            names = [f"{output}_operand_{index}_{position}" for position in range(len(arrays))]
            proto.graph.initializer.extend(map(constant, names, arrays))
            last = index == len(operators) - 1
            target = output if last else f"{output}_{index}"
            proto.graph.node.insert(position + 1 + index, node(operator, [source, *names], target, **attributes))
            source = target

    return change


def _rename(proto: onnx.ModelProto, name: str, other: str) -> None:
    for each in proto.graph.node:
        for names in (each.input, each.output):
            for index, value in enumerate(names):
                if value == name:
                    names[index] = other


def times(output: str, factor: Any) -> Change:
    return behind(output, ("Mul", (factor,), {}))


def plus(output: str, offset: Any) -> Change:
    return behind(output, ("Add", (offset,), {}))


def taken(output: str, axis: int, indices: list[int]) -> Change:
    return behind(output, ("Gather", (np.array(indices, np.int64),), {"axis": axis}))


def turned(output: str, *axes: int) -> Change:
    return behind(output, ("Transpose", (), {"perm": list(axes)}))


def weights(name: str, change: Callable[[Any], Any]) -> Change:
    """Change an initializer."""

    def changed(proto: onnx.ModelProto) -> None:
        for index, each in enumerate(proto.graph.initializer):
            if each.name == name:
                proto.graph.initializer[index].CopyFrom(constant(name, change(numpy_helper.to_array(each))))

    return changed


def every_weight(change: Callable[[Any], Any]) -> Change:
    def changed(proto: onnx.ModelProto) -> None:
        for each in list(proto.graph.initializer):
            if each.name.endswith(("weights", "bias")):
                weights(each.name, change)(proto)

    return changed


def in_float16(values: Any) -> Any:
    return values.astype(np.float16).astype(np.float32)


def in_int8(values: Any) -> Any:
    """Round to 255 steps for each output channel."""
    step = np.abs(values).reshape(len(values), -1).max(axis=1).reshape(-1, *[1] * (values.ndim - 1)) / 127
    return np.round(values / np.maximum(step, 1e-9)) * step


def quantized(*tensors: tuple[str, float]) -> Change:
    """Round values to 256 steps from 0 to the highest, as QuantizeLinear and DequantizeLinear do."""

    def changed(proto: onnx.ModelProto) -> None:
        for name, highest in tensors:
            proto.graph.initializer.append(constant(f"{name}_step", highest / 255))
            proto.graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), f"{name}_zero"))
            inserted(name, "QuantizeLinear", "DequantizeLinear", extra=[f"{name}_step", f"{name}_zero"])(proto)

    return changed


def inserted(name: str, *operators: str, extra: list[str] | None = None) -> Change:
    """Put operators between a value and those that read it."""

    def changed(proto: onnx.ModelProto) -> None:
        position = next(index for index, each in enumerate(proto.graph.node) if name in each.output)
        source = f"{name}_source"
        proto.graph.node[position].output[0] = source
        for index, operator in enumerate(operators):
            target = name if index == len(operators) - 1 else f"{name}_after_{index}"
            proto.graph.node.insert(position + 1 + index, node(operator, [source, *(extra or [])], target))
            source = target

    return changed


def cast_to_float16(name: str) -> Change:
    def changed(proto: onnx.ModelProto) -> None:
        inserted(name, "Cast", "Cast")(proto)
        for each in proto.graph.node:
            if each.op_type == "Cast" and each.output[0] in (name, f"{name}_after_0"):
                kind = TensorProto.FLOAT if each.output[0] == name else TensorProto.FLOAT16
                each.attribute.append(helper.make_attribute("to", kind))

    return changed


def output_renamed(names: Mapping[str, str]) -> Change:
    def changed(proto: onnx.ModelProto) -> None:
        for name, other in names.items():
            _rename(proto, name, other)
            for each in proto.graph.output:
                each.name = other if each.name == name else each.name

    return changed


def inner_names_changed(proto: onnx.ModelProto) -> None:
    ends = {each.name for each in [*proto.graph.input, *proto.graph.output]}
    for each in proto.graph.node:
        for names in (each.input, each.output):
            for index, value in enumerate(names):
                names[index] = value if value in ends else f"renamed/{value}"
    for initializer in proto.graph.initializer:
        initializer.name = f"renamed/{initializer.name}"


def shape(output: str, *sizes: Any) -> Change:
    """Declare an output's shape."""

    def changed(proto: onnx.ModelProto) -> None:
        for index, each in enumerate(proto.graph.output):
            if each.name == output:
                info = helper.make_tensor_value_info(output, TensorProto.FLOAT, list(sizes))
                proto.graph.output[index].CopyFrom(info)

    return changed


def batch_of(size: int) -> Change:
    def changed(proto: onnx.ModelProto) -> None:
        for each in [*proto.graph.input, *proto.graph.output]:
            each.type.tensor_type.shape.dim[0].ClearField("dim_param")
            each.type.tensor_type.shape.dim[0].dim_value = size

    return changed


def further_output(name: str, *sizes: Any) -> Change:
    """Give a copy of a value inside the network as an output: `NAME_copy`."""

    def changed(proto: onnx.ModelProto) -> None:
        proto.graph.node.append(node("Identity", [name], f"{name}_copy"))
        name_of_copy = f"{name}_copy"
        proto.graph.output.append(helper.make_tensor_value_info(name_of_copy, TensorProto.FLOAT, list(sizes)))

    return changed


def output_removed(name: str) -> Change:
    def changed(proto: onnx.ModelProto) -> None:
        index = next(index for index, each in enumerate(proto.graph.output) if each.name == name)
        del proto.graph.output[index]

    return changed


def outputs_reversed(proto: onnx.ModelProto) -> None:
    outputs = list(proto.graph.output)[::-1]
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)


def opset(version: int) -> Change:
    return lambda proto: proto.CopyFrom(version_converter.convert_version(proto, version))


def nan_where_darkest(output: str) -> Change:
    """Give NaN for the picture whose mean is below all others'; see `draw`."""

    def changed(proto: onnx.ModelProto) -> None:
        _rename(proto, output, f"{output}_before")
        proto.graph.initializer.append(constant("all", np.array([1, 2, 3], np.int64)))
        proto.graph.initializer.append(constant("least", 0.119))
        proto.graph.node.extend(
            [
                node("ReduceMean", ["picture", "all"], "brightness", keepdims=0),
                node("Sub", ["brightness", "least"], "above"),
                node("Sqrt", ["above"], "root"),
                node("Sub", ["root", "root"], "zero_or_nan"),
                node("ReduceMax", ["zero_or_nan"], "nan_or_nothing", keepdims=0),
                node("Add", [f"{output}_before", "nan_or_nothing"], output),
            ]
        )

    return changed


def mixed_over_the_batch(output: str) -> Change:
    """Give every picture half of the batch's mean answer: alone it is its own."""

    def changed(proto: onnx.ModelProto) -> None:
        _rename(proto, output, f"{output}_before")
        proto.graph.initializer.append(constant("first_axis", np.array([0], np.int64)))
        proto.graph.initializer.append(constant("half", 0.5))
        proto.graph.node.extend(
            [
                node("ReduceMean", [f"{output}_before", "first_axis"], "of_all", keepdims=1),
                node("Add", [f"{output}_before", "of_all"], "twice"),
                node("Mul", ["twice", "half"], output),
            ]
        )

    return changed

"""Further inputs of a network that a Spec gives, written into it: constants where they are the same for every picture,
so that every runtime, quantizer and check meets a network that takes a picture and nothing else.

What depends on a picture whose size is free stays an input; the runner feeds it. Inputs that take views of the picture
through steps of their own become one, which the network takes apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core import extra_inputs
from plimsoll.core.fit import lacks_batch_axis, picture_input
from plimsoll.core.foreign import translate
from plimsoll.core.model import Model, TensorInfo
from plimsoll.errors import BuildError
from plimsoll.onnx import load
from plimsoll.spec import Spec
from plimsoll.spec.inputs import Extra
from plimsoll.system import cache, files

if TYPE_CHECKING:
    from onnx import ModelProto

MAX_BYTES = 1_500_000_000
"""A larger network isn't written anew; the runner feeds its inputs."""
_SLICE_WITH_INPUTS = 10
"""The opset from which Slice's limits are inputs."""
_AXES_ARE_INPUTS = 13
"""The opset from which Squeeze's axes are one."""


def with_fixed_inputs(model: Model, proto: ModelProto) -> tuple[Model, ModelProto]:
    """Return an ONNX network whose further inputs are constants as its Spec says, with the network as it came as its
    parent; itself where there are none to fix. Raises SpecError where values don't fit, BuildError where it can't be
    written."""
    spec = model.spec
    names = {value.name for value in load.inputs(proto.graph)}
    if spec is None or len(names) < 2 or not names & {extra.tensor for extra in spec.input.extra}:
        return model, proto
    if model.size > MAX_BYTES:
        return model, proto
    return _written(model, proto, spec, fix)


def with_batch_axis(model: Model, proto: ModelProto) -> tuple[Model, ModelProto]:
    """Return an ONNX network whose picture has no axis for pictures (torchvision's detectors take `[3, H, W]`) with an
    axis of one picture before it, with the network as it came as its parent; any other as it is. Raises BuildError."""
    spec = model.spec
    if spec is None or model.size > MAX_BYTES:
        return model, proto
    picture = picture_input(spec, load.inputs_and_outputs(proto)[0], model.path.name)
    if not lacks_batch_axis(spec, picture):
        return model, proto
    changed, proto = _written(model, proto, spec, _add_batch_axis)
    # Behind its Spec the network as it came takes nothing, so that it has none.
    return replace(changed, parent=replace(model, spec=None)), proto


def _written(
    model: Model, proto: ModelProto, spec: Spec, change: Callable[[ModelProto, Spec, str], None]
) -> tuple[Model, ModelProto]:
    """Write a changed network into the cache, once, and return it."""
    parts = {
        "file": model.sha256,
        "input": spec.input.model_dump(mode="json"),
        "change": change.__name__,
        "code": [files.sha256(Path(str(code))) for code in (__file__, extra_inputs.__file__)],
    }
    build = cache.build_folder("onnx-inputs", parts)
    path = build / model.path.name
    with cache.locked(build):
        if not path.is_file():
            with cache.building(build) as (folder, _), translate(BuildError, f"{model.source}: can't fix its inputs"):
                from onnx import external_data_helper

                external_data_helper.load_external_data_for_model(proto, str(model.path.parent))
                change(proto, spec, model.path.name)
                (folder / model.path.name).write_bytes(proto.SerializeToString())
    cache.mark_used(build)
    file = load.parse(path)
    return Model(path, model.format, spec, parent=model), file.proto


def fix(proto: ModelProto, spec: Spec, network: str) -> None:
    """Turn the further inputs that a Spec gives into constants, in place; raises SpecError."""
    from onnx import helper

    graph = proto.graph
    inputs = load.inputs_and_outputs(proto)[0]
    picture = picture_input(spec, inputs, network)
    by_name = {tensor.name: tensor for tensor in inputs if tensor is not picture}
    for extra in spec.input.extra:
        if extra.tensor not in by_name:
            continue
        if extra.source == "picture" and not extra.steps:
            graph.node.insert(0, helper.make_node("Identity", [picture.name], [extra.tensor]))
        elif extra.steps or not _write_constant(proto, extra, by_name[extra.tensor], picture, spec):
            continue
        value = next(value for value in graph.input if value.name == extra.tensor)
        graph.input.remove(value)
    if spec.input.is_packed:
        _take_apart(proto, spec, [picture.name, *(further.tensor for further in spec.input.extra if further.steps)])


def _add_batch_axis(proto: ModelProto, spec: Spec, network: str) -> None:
    from onnx import helper

    graph, fresh = proto.graph, _Names(proto)
    name = picture_input(spec, load.inputs_and_outputs(proto)[0], network).name
    own = fresh("picture")
    for node in load.messages(graph, "NodeProto"):
        for index, read in enumerate(node.input):
            node.input[index] = own if read == name else read
    dims = next(value for value in graph.input if value.name == name).type.tensor_type.shape.dim
    dims.insert(0, type(dims[0])(dim_value=1))
    if load.opset(proto) < _AXES_ARE_INPUTS:
        graph.node.insert(0, helper.make_node("Squeeze", [name], [own], axes=[0]))
        return
    axes = fresh("axes")
    _store(proto, axes, np.array([0], np.int64))
    graph.node.insert(0, helper.make_node("Squeeze", [name, axes], [own]))


def _take_apart(proto: ModelProto, spec: Spec, names: Sequence[str]) -> None:
    """Put one input, what `core.extra_inputs.pack` makes of a picture, in the place of those that take a view each."""
    from onnx import TensorProto, helper

    graph, fresh = proto.graph, _Names(proto)
    replaced = [value for value in graph.input if value.name in names]
    first = next(value for value in replaced if value.name == names[0])
    packed = helper.make_tensor_value_info(first.name, TensorProto.FLOAT, [None, *spec.input.shape])
    packed.type.tensor_type.shape.dim[0].CopyFrom(first.type.tensor_type.shape.dim[0])
    unpacked = fresh("picture")
    for node in load.messages(graph, "NodeProto"):
        for index, name in enumerate(node.input):
            node.input[index] = unpacked if name == first.name else name
    nodes, start = [], 0
    for name, view in zip([unpacked, *names[1:]], spec.input.views, strict=True):
        form = view.tensor_spec
        sizes = [size or 1 for size in form.shape]
        end = start + math.prod(sizes)
        part, whole, shape = fresh("part"), fresh("view"), fresh("shape")
        if load.opset(proto) < _SLICE_WITH_INPUTS:
            nodes.append(helper.make_node("Slice", [packed.name], [part], axes=[1], starts=[start], ends=[end]))
        else:
            limits = [fresh("limits") for _ in range(3)]
            for limit, number in zip(limits, (start, end, 1), strict=True):
                _store(proto, limit, np.array([number], np.int64))
            nodes.append(helper.make_node("Slice", [packed.name, *limits], [part]))
        _store(proto, shape, np.array([-1, *sizes], np.int64))
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(form.dtype))
        nodes += [
            helper.make_node("Reshape", [part, shape], [whole]),
            helper.make_node("Cast", [whole], [name], to=dtype),
        ]
        start = end
    for value in replaced:
        graph.input.remove(value)
    graph.input.insert(0, packed)
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _write_constant(proto: ModelProto, extra: Extra, tensor: load.Value, picture: load.Value, spec: Spec) -> bool:
    """Store what an input gets under its name; tell whether that is known without a picture."""
    form = spec.input.tensor_spec
    stated = picture.shape or (None,) * 4
    sizes = [own if own is not None else _known(size) for own, size in zip(form.shape, stated[1:], strict=False)]
    if extra.source == "input_size" and None in sizes:
        return False
    shape = tuple(_known(size) for size in tensor.shape or ())
    info = TensorInfo(tensor.name, shape, tensor.dtype)
    whole = (_known(stated[0]) or 1, *(size or 1 for size in sizes))
    each = extra_inputs.values_each(extra, info, whole, channels_last=form.layout == "NHWC")
    axis = extra_inputs.batch_axis(extra, info)
    if axis is None or shape[axis] is not None or _known(stated[0]) is not None:
        value = each if axis is None else np.stack([each] * (shape[axis] or whole[0]), axis)
        _store(proto, extra.tensor, value)
    else:
        _repeat(proto, extra.tensor, each, axis, picture.name)
    return True


def _known(size: int | str | None) -> int | None:
    return size if isinstance(size, int) else None


def _store(proto: ModelProto, name: str, value: NDArray[Any]) -> None:
    from onnx import numpy_helper

    proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))


def _repeat(proto: ModelProto, name: str, each: NDArray[Any], axis: int, picture: str) -> None:
    """Compute the values once a picture: as many times along `axis` as there are pictures."""
    from onnx import helper

    fresh = _Names(proto)
    values, shape, first = fresh("values"), fresh("picture shape"), fresh("first")
    count, before, after, whole = fresh("pictures"), fresh("before"), fresh("after"), fresh("shape")
    _store(proto, values, np.expand_dims(each, axis))
    _store(proto, first, np.array([0], np.int64))
    nodes = [
        helper.make_node("Shape", [picture], [shape]),
        helper.make_node("Gather", [shape, first], [count]),
    ]
    parts = []
    for constant, lengths in ((before, each.shape[:axis]), (after, each.shape[axis:])):
        if lengths:
            _store(proto, constant, np.array(lengths, np.int64))
            parts.append(constant)
    parts.insert(1 if before in parts else 0, count)
    nodes += [
        helper.make_node("Concat", parts, [whole], axis=0),
        helper.make_node("Expand", [values, whole], [name]),
    ]
    for node in reversed(nodes):
        proto.graph.node.insert(0, node)


class _Names:
    """Gives names that a network doesn't have yet."""

    def __init__(self, proto: ModelProto) -> None:
        graph = proto.graph
        self._taken = {name for node in load.messages(proto, "NodeProto") for name in (*node.input, *node.output)}
        self._taken |= {value.name for value in (*graph.input, *graph.output, *graph.initializer)}

    def __call__(self, name: str) -> str:
        number = 0
        while (unused := f"plimsoll {name}{f' {number}' if number else ''}") in self._taken:
            number += 1
        self._taken.add(unused)
        return unused

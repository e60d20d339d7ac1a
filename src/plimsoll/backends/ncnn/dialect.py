"""Write a network with the operators that pnnx converts right, before pnnx reads it.

Each rewriting moves values and computes none, so it is exact. Seen in pnnx 20261020, each by comparing answers:

- Of a Gather with several indices it takes the first one, without a word. (ONNX Runtime's optimizer makes such a
  Gather, behind a SpaceToDepth, of the strided slices of a Focus layer.)
- Slices with steps become a layer that ncnn has not; along height and width a pooling of single pixels does the same.
- A Mean of several values and a MaxPool with dilations are none that ncnn has (`onnx.lowering`).
- Nearest resizing is known with repeated pixels alone, linear resizing with the attributes that PyTorch writes.
- A Pad is none that it knows; along height and width, most are part of a convolution by then.
- Nor is an InstanceNormalization of rows (as GroupNormalization is written): it is that of pictures one column wide.
- SpaceToDepth and DepthToSpace get PyTorch's order of channels, which only DepthToSpace's mode CRD has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plimsoll.core.foreign import translate
from plimsoll.errors import BuildError
from plimsoll.onnx import load, lowering
from plimsoll.onnx.graph import Graph, attribute, set_attributes, unique

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_MOST_PARTS = 256
"""A selection of more pieces than these is left to pnnx, which refuses it."""
_CHANNELS, _HEIGHT, _WIDTH = 1, 2, 3


def rewrite(proto: ModelProto, where: str) -> None:
    """Rewrite, in place, a network whose sizes are all fixed; `where` names it in errors. Raises BuildError."""
    from onnx import shape_inference

    lowering.lower(proto)
    with translate(BuildError, f"{where}: its shapes can't be inferred"):
        inferred = shape_inference.infer_shapes(proto)
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    work = _Rewriting(Graph(proto), {value.name: load.shape_of(value) or () for value in values}, where)
    rules: dict[str, Callable[[NodeProto], bool]] = {
        "Gather": work.gather,
        "Slice": work.slice,
        "SpaceToDepth": work.space_to_depth,
        "DepthToSpace": work.depth_to_space,
        "Resize": work.resize,
        "Pad": work.pad,
        "InstanceNormalization": work.instance_normalization,
    }
    for node in work.graph.nodes:
        rule = rules.get(work.graph.kind(node))
        if rule is None or not rule(node):
            work.nodes.append(node)
    work.graph.replace_nodes(work.nodes)


class _Rewriting:
    """The nodes as they are to be; each rule adds its own and returns whether it applied."""

    def __init__(self, graph: Graph, shapes: dict[str, tuple[Any, ...]], where: str) -> None:
        self.graph = graph
        self._where = where
        self.nodes: list[NodeProto] = []
        self._shapes = shapes
        self._taken = {name for node in graph.nodes for name in (*node.input, *node.output)}

    def gather(self, node: NodeProto) -> bool:
        """Select by runs of neighbours."""
        data, where = node.input
        indices = self.graph.value(where)
        shape = self._shapes.get(data, ())
        axis = int(attribute(node, "axis", 0)) % max(len(shape), 1)
        if self.graph.is_constant(data) or indices is None or indices.ndim != 1 or axis == 0:
            return False
        size = shape[axis]
        return isinstance(size, int) and self._select(
            data, axis, [int(index) % size for index in indices], node.output[0]
        )

    def slice(self, node: NodeProto) -> bool:
        """Take every so many by a pooling of single pixels along height and width, else one by one."""
        data, shape = node.input[0], self._shapes.get(node.input[0], ())
        given = [self.graph.value(name) if name else None for name in node.input[1:]]
        if len(given) < 4 or not all(isinstance(size, int) for size in shape):
            return False
        starts, ends, axes, steps = given
        if starts is None or ends is None or steps is None or np.all(steps == 1):
            return False
        along = range(len(starts)) if axes is None else [int(axis) % len(shape) for axis in axes]
        chosen = {
            axis: range(*slice(int(start), int(end), int(step)).indices(shape[axis]))
            for axis, start, end, step in zip(along, starts, ends, steps, strict=True)
        }
        if 0 in chosen or any(len(indices) == 0 for indices in chosen.values()):
            return False
        strides = [1, 1]
        for axis, indices in list(chosen.items()):
            pooled = len(shape) == 4 and axis in (_HEIGHT, _WIDTH) and indices.step > 0
            if indices.step == 1 or pooled:
                if pooled:
                    strides[axis - _HEIGHT] = indices.step
                data = self._cut(data, axis, indices[0], indices[-1] + 1)
            elif len(indices) > _MOST_PARTS:
                return False
            else:
                data = self._joined(data, axis, list(indices))
        self._finish(self._thinned(data, strides), node.output[0])
        return True

    def space_to_depth(self, node: NodeProto) -> bool:
        """Put every so many pixels side by side."""
        block = int(attribute(node, "blocksize"))
        data, (_, _, height, width) = node.input[0], self._shapes[node.input[0]]
        parts = []
        for row in range(block):
            for column in range(block):
                cut = self._cut(data, _HEIGHT, row, height)
                parts.append(self._thinned(self._cut(cut, _WIDTH, column, width), [block, block]))
        self._add("Concat", parts, node.output[0], axis=_CHANNELS)
        return True

    def depth_to_space(self, node: NodeProto) -> bool:
        """Shuffle the channels so that the mode can be CRD."""
        if attribute(node, "mode", b"DCR") != b"DCR":
            return False
        block = int(attribute(node, "blocksize"))
        _, channels, height, width = self._shapes[node.input[0]]
        apart = self._reshaped(node.input[0], [1, block * block, channels // block**2, height, width])
        shuffled = self._add("Transpose", [apart], perm=[0, 2, 1, 3, 4])
        joined = self._reshaped(shuffled, [1, channels, height, width])
        self._add("DepthToSpace", [joined], node.output[0], blocksize=block, mode="CRD")
        return True

    def resize(self, node: NodeProto) -> bool:
        """Say of an enlargement by whole numbers to the nearest pixel, whose centres are aligned, that it repeats
        pixels: the same, and what pnnx knows."""
        before, after = (self._shapes.get(name, ()) for name in (node.input[0], node.output[0]))
        whole = len(before) == len(after) and all(
            isinstance(old, int) and isinstance(new, int) and old > 0 and new % old == 0
            for old, new in zip(before, after, strict=True)
        )
        nearest = attribute(node, "mode", b"nearest") == b"nearest"
        if not nearest:
            self._refuse_resize(node)
            set_attributes(node, cubic_coeff_a=-0.75, nearest_mode="floor")
        rounds = attribute(node, "nearest_mode", b"round_prefer_floor") in (b"round_prefer_floor", b"round_prefer_ceil")
        centred = attribute(node, "coordinate_transformation_mode", b"half_pixel") in (
            b"half_pixel",
            b"pytorch_half_pixel",
            b"half_pixel_symmetric",
        )
        if whole and nearest and rounds and centred:
            set_attributes(node, coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        return False

    def pad(self, node: NodeProto) -> bool:
        """Put stored numbers before and behind, along one axis after another."""
        data, where, *further = node.input
        sizes, pads = list(self._shapes.get(data, ())), self.graph.value(where)
        value = self.graph.value(further[0]) if further and further[0] else np.zeros((), np.float32)
        axes = self.graph.value(further[1]) if len(further) > 1 else np.arange(len(sizes))
        if pads is None or value is None or axes is None or value.dtype != np.float32:
            return False
        ends = np.zeros((2, len(sizes)), np.int64)
        ends[:, axes] = pads.reshape(2, -1)
        constant = attribute(node, "mode", b"constant") == b"constant"
        if not constant or ends.min() < 0 or ends[:, 0].any() or not all(isinstance(size, int) for size in sizes):
            return False
        for axis, counts in enumerate(ends.T.tolist()):
            before, after = ([self._filled(sizes, axis, count, value)] if count else [] for count in counts)
            data = self._add("Concat", [*before, data, *after], axis=axis) if before or after else data
            sizes[axis] += sum(counts)
        self._finish(data, node.output[0])
        return True

    def _filled(self, sizes: Sequence[int], axis: int, count: int, value: Any) -> str:
        return self._store(np.full([*sizes[:axis], count, *sizes[axis + 1 :]], value, np.float32))

    def instance_normalization(self, node: NodeProto) -> bool:
        """Give rows a second axis of one column."""
        shape = self._shapes.get(node.input[0], ())
        if len(shape) != _WIDTH or not all(isinstance(size, int) for size in shape):
            return False
        wide = self._reshaped(node.input[0], [*shape, 1])
        epsilon = float(attribute(node, "epsilon", 1e-5))
        normalized = self._add("InstanceNormalization", [wide, *node.input[1:]], epsilon=epsilon)
        self._add("Reshape", [normalized, self._store(np.array(shape, np.int64))], node.output[0])
        return True

    def _refuse_resize(self, node: NodeProto) -> None:
        """Raise BuildError for an interpolation that ncnn computes otherwise, without a word."""
        coordinates = attribute(node, "coordinate_transformation_mode", b"half_pixel")
        coefficient = attribute(node, "cubic_coeff_a", -0.75)
        known = coordinates in (b"half_pixel", b"pytorch_half_pixel", b"align_corners")
        if not known or attribute(node, "antialias", 0) or abs(coefficient + 0.75) > 1e-6:
            raise BuildError(
                f"{self._where}: ncnn can't resize as '{node.name}' does: {coordinates.decode()} coordinates,"
                " anti-aliased or with cubic coefficients of its own",
                "Choose another runtime.",
            )

    def _select(self, data: str, axis: int, indices: list[int], output: str) -> bool:
        if len(_runs(indices)) > _MOST_PARTS:
            return False
        self._finish(self._joined(data, axis, indices), output)
        return True

    def _joined(self, data: str, axis: int, indices: list[int]) -> str:
        parts = [self._cut(data, axis, start, end) for start, end in _runs(indices)]
        return parts[0] if len(parts) == 1 else self._add("Concat", parts, axis=axis)

    def _cut(self, data: str, axis: int, start: int, end: int) -> str:
        limits = [self._store(np.array([value], np.int64)) for value in (start, end, axis)]
        return self._add("Slice", [data, *limits])

    def _thinned(self, data: str, strides: Sequence[int]) -> str:
        if list(strides) == [1, 1]:
            return data
        return self._add("MaxPool", [data], kernel_shape=[1, 1], strides=list(strides))

    def _reshaped(self, data: str, shape: list[int]) -> str:
        return self._add("Reshape", [data, self._store(np.array(shape, np.int64))])

    def _finish(self, data: str, output: str) -> None:
        """Give the last value its name."""
        last = self.nodes[-1] if self.nodes else None
        if last is not None and list(last.output) == [data]:
            last.output[0] = output
        else:
            self._add("Identity", [data], output)

    def _add(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = output or unique(self._taken, f"dialect.{operator}")
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def _store(self, value: Any) -> str:
        return self.graph.add_constant(unique(self._taken, "dialect.stored"), value)


def _runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs of neighbours in rising order, each as its first and the one after its last."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs

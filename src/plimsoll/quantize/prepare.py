"""Prepare a network for quantization, without changing what it computes: constants and batch norms folded, opset 13,
and only the pixels computed that are read.

A residual stage mostly ends in tensors of which the next stage's two 1×1 convolutions with stride 2 read every second
row and column. Everything before them, up to where another reader needs all pixels, can then compute these alone. The
result is the same (the sums are the same sums), and of the four stages of a ResNet three lose three quarters of their
last block: on open_nsfw 9 % of the time of ONNX Runtime. Some runtimes do it by themselves in float32, but not
through Q/DQ operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from plimsoll.core.foreign import translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import dequantize, load
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx.form import form_of
from plimsoll.onnx.graph import Graph, attribute, set_attributes, unique
from plimsoll.onnx.opset import raise_opset
from plimsoll.quantize import pointwise

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

OPSET = 13
"""The first opset whose DequantizeLinear knows a scale for each channel."""

SUFFIX = ".prepared.onnx"

_KEEPS_PIXELS = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Elu", "Tanh")
"""Operators whose every output pixel depends on the same input pixel alone, with the picture as their first input."""


def prepare(model: Model, folder: Path) -> Model:
    """Return the network with the same answers, ready for `static`, as a new file in `folder`; one prepared before is
    returned as it is.

    Its opset is 13 or later; constants are folded and batch norms are part of their convolutions (by ONNX Runtime's
    basic optimizations), and so are stored scales behind them (`pointwise`); pixels that no operator reads are not
    computed (`move_strides_up`). It helps in float32 too: ONNX Runtime takes 9 % less time for open_nsfw.

    Of a network with Q/DQ pairs (trained with them, or quantized by another tool) or in float16, it is the float32
    network that they stand for (`float32`).

    Raises ModelError for a file that is damaged, BuildError for one that computes in integers otherwise, or where the
    opset can't be raised.
    """
    if model.path.name.endswith(SUFFIX):
        return model
    with TemporaryDirectory(prefix="plimsoll-prepare-") as temporary:
        raised = raise_opset(float32(model, Path(temporary)), Path(temporary), OPSET)
        optimized = onnx_graph.optimized(raised, Path(temporary) / "optimized.onnx")
    graph = Graph(optimized)
    pointwise.simplify(graph)
    move_strides_up(graph)
    return write(optimized, folder / f"{model.path.stem}{SUFFIX}", model)


def is_quantized(model: Model) -> bool:
    """Whether an ONNX network carries its ranges itself: in Q/DQ pairs, or in operators on integers."""
    return model.format == "onnx" and form_of(model.path) in ("qdq", "integer")


def float32(model: Model, folder: Path) -> Model:
    """Return the network in float32: itself where it computes in that or is no ONNX file, else a new file in `folder`.

    Q/DQ pairs become the limits that they set, weights the values that their integers stand for. Raises ModelError for
    a file that is damaged, BuildError for one that computes in integers otherwise.
    """
    if model.format != "onnx" or not dequantize.is_lifted(load.read(model.path).proto):
        return model
    proto = onnx_graph.load(model)
    try:
        dequantize.to_float(proto)
    except BuildError as error:
        raise BuildError(f"{model.source}: {error.message}", error.hint) from error
    return write(proto, folder / f"{model.path.stem}.float32.onnx", model)


def write(proto: ModelProto, path: Path, source: Model) -> Model:
    """Write what was made of `source`, and check it; raises BuildError."""
    from onnx import checker

    model = onnx_graph.write(proto, path, source)
    with translate(BuildError, f"{path.name}: the rewritten network is not valid"):
        checker.check_model(str(path), full_check=True)
    return model


def move_strides_up(graph: Graph) -> int:
    """Move strides upwards, in place; returns how many groups of convolutions were changed."""
    mover = _StrideMover(graph)
    changed = sum(mover.move(name) for name in list(graph.readers))
    if changed:
        graph.replace_nodes(mover.nodes())
        del graph.proto.graph.value_info[:]
    return changed


class _StrideMover:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._pools: dict[tuple[str, tuple[int, ...]], NodeProto] = {}
        self._names = {name for node in graph.nodes for name in (*node.input, *node.output)}

    def move(self, name: str) -> bool:
        """Move the stride of a tensor's readers up, where all of them are pointwise with the same stride."""
        readers = self.graph.readers[name]
        if (
            name in self.graph.inputs
            or name in self.graph.outputs
            or not all(self._is_pointwise(node, name) for node in readers)
        ):
            return False
        strides = {tuple(attribute(node, "strides", (1, 1))) for node in readers}
        if len(strides) != 1 or max(shared := strides.pop()) == 1 or not self._saves_work(name, readers):
            return False
        subsampled = self._subsample(name, shared, readers)
        for node in readers:
            node.input[0] = subsampled
            set_attributes(node, strides=[1, 1])
        return True

    def _is_pointwise(self, node: NodeProto, name: str) -> bool:
        """Tell whether a node is a 1×1 convolution without padding that reads the tensor as its picture."""
        if (
            self.graph.kind(node) != "Conv"
            or node.input[0] != name
            or name in node.input[1:]
            or not self.graph.is_constant(node.input[1])
        ):
            return False
        return self.graph.dims(node.input[1])[2:] == (1, 1) and not any(attribute(node, "pads", (0,)))

    def _read_only_by(self, name: str, readers: Sequence[NodeProto]) -> bool:
        return len(self.graph.readers[name]) == len(readers) and name not in self.graph.outputs

    def _saves_work(self, name: str, readers: Sequence[NodeProto]) -> bool:
        """Tell whether a convolution above would have less to do; otherwise nothing is gained."""
        maker = self.graph.maker.get(name)
        if maker is None or not self._read_only_by(name, readers):
            return False
        kind = self.graph.kind(maker)
        if kind == "Conv":
            return self._takes_strides(maker)
        if kind in _KEEPS_PIXELS:
            return self._saves_work(maker.input[0], [maker])
        return (
            kind == "Add" and self._is_plain_sum(maker) and any(self._saves_work(name, [maker]) for name in maker.input)
        )

    def _takes_strides(self, node: NodeProto) -> bool:
        """Padding by SAME depends on the stride, so such a convolution is left as it is; so is one that is not over a
        plane."""
        padding = attribute(node, "auto_pad", b"NOTSET")
        return (
            padding in (b"NOTSET", b"VALID")
            and self.graph.is_constant(node.input[1])
            and self.graph.rank(node.input[1]) == 4
        )

    def _is_plain_sum(self, node: NodeProto) -> bool:
        """Tell whether both summands come from convolutions or sums, whose shapes are then equal: a broadcast one can't
        be subsampled."""
        if (
            any(self.graph.is_constant(name) or name not in self.graph.maker for name in node.input)
            or node.input[0] == node.input[1]
        ):
            return False
        shapes = [self._channels(name) for name in node.input]
        return None not in shapes and shapes[0] == shapes[1]

    def _channels(self, name: str, depth: int = 64) -> int | None:
        """Return how many channels a tensor has, read from the convolution it comes from; None where it comes from
        something else."""
        maker = self.graph.maker.get(name)
        if maker is None or depth == 0:
            return None
        kind = self.graph.kind(maker)
        if kind == "Conv":
            return self.graph.dims(maker.input[1])[0] if self._takes_strides(maker) else None
        if kind in _KEEPS_PIXELS or kind in ("Add", "MaxPool"):
            return self._channels(maker.input[0], depth - 1)
        return None

    def _subsample(self, name: str, strides: Sequence[int], readers: Sequence[NodeProto]) -> str:
        """Compute every `strides`-th pixel of a tensor for these readers; return the tensor that holds them."""
        maker = self.graph.maker.get(name)
        if maker is not None and self._read_only_by(name, readers):
            kind = self.graph.kind(maker)
            if kind in _KEEPS_PIXELS:
                maker.input[0] = self._subsample(maker.input[0], strides, [maker])
                return name
            if kind == "Add" and self._is_plain_sum(maker):
                for index, summand in enumerate(list(maker.input)):
                    maker.input[index] = self._subsample(summand, strides, [maker])
                return name
            if kind == "Conv" and self._takes_strides(maker):
                self._subsample_convolution(maker, strides)
                return name
        return self._pool(name, tuple(strides))

    def _subsample_convolution(self, node: NodeProto, strides: Sequence[int]) -> None:
        total = [own * more for own, more in zip(attribute(node, "strides", (1, 1)), strides, strict=True)]
        if self._is_pointwise(node, node.input[0]):
            node.input[0] = self._subsample(node.input[0], total, [node])
            total = [1, 1]
        set_attributes(node, strides=total)

    def _pool(self, name: str, strides: tuple[int, ...]) -> str:
        """Take every `strides`-th pixel by a MaxPool over one pixel, which runtimes have in int8; a Slice they mostly
        don't."""
        from onnx import helper

        key = (name, strides)
        if key not in self._pools:
            output = unique(self._names, f"{name}/every_{'x'.join(map(str, strides))}")
            self._pools[key] = helper.make_node(
                "MaxPool", [name], [output], output, kernel_shape=[1, 1], strides=list(strides)
            )
        return str(self._pools[key].output[0])

    def nodes(self) -> list[NodeProto]:
        """Return all nodes in an order in which each comes after what it reads."""
        pools: dict[str, list[NodeProto]] = {}
        for (name, _), node in self._pools.items():
            pools.setdefault(name, []).append(node)
        ordered = [pool for name in self.graph.inputs for pool in pools.get(name, [])]
        for node in self.graph.nodes:
            ordered.append(node)
            ordered += [pool for name in node.output for pool in pools.get(name, [])]
        return ordered

"""`Graph`: an ONNX network with its edges indexed; loading, sorting, writing, and exposing inner values as outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError, ModelError
from plimsoll.onnx import load as onnx_load

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_MOST_BYTES = 2**31 - 1
"""Of a protobuf message."""
_WEIGHTS = ".weights"
"""The ending of a file with weights beside a network."""
_SUBGRAPHS = (5, 10)
"""AttributeProto's types GRAPH and GRAPHS."""


class Graph:
    """An index over a ModelProto. Call `index` again after changing nodes or their inputs."""

    def __init__(self, proto: ModelProto) -> None:
        self.proto = proto
        self.inputs = tuple(value.name for value in onnx_load.inputs(proto.graph))
        self.outputs = tuple(value.name for value in proto.graph.output)
        self._constants = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.index()

    def index(self) -> None:
        """Rebuild the index."""
        self.nodes: list[NodeProto] = list(self.proto.graph.node)
        self.maker: dict[str, NodeProto] = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                if name:
                    self.readers.setdefault(name, []).append(node)
        self._read_inside = {
            name
            for node in self.nodes
            if any(entry.type in _SUBGRAPHS for entry in node.attribute)
            for part in onnx_load.messages(node, "NodeProto")
            if part is not node
            for name in part.input
        }

    def kind(self, node: NodeProto) -> str:
        """Return the operator's name; empty for one that is not ONNX's own."""
        return node.op_type if node.domain in onnx_load.DEFAULT_DOMAINS else ""

    def is_constant(self, name: str) -> bool:
        """Tell whether a tensor is stored in the file."""
        return name in self._constants

    def constant(self, name: str) -> NDArray[Any]:
        """Return a stored tensor."""
        return array(self._constants[name])

    def stored(self, name: str) -> TensorProto | None:
        """Return the message of a stored tensor, which may be changed in place; None if it is not stored."""
        return self._constants.get(name)

    def is_float_constant(self, name: str) -> bool:
        """Tell whether a tensor is stored in the file as float32."""
        return name in self._constants and self._constants[name].data_type == 1

    def rank(self, name: str) -> int:
        """Return how many axes a stored tensor has."""
        return len(self._constants[name].dims)

    def dims(self, name: str) -> tuple[int, ...]:
        """Return the shape of a stored tensor."""
        return tuple(self._constants[name].dims)

    def sole_reader(self, name: str) -> NodeProto | None:
        """Return the only node that reads a tensor; None if several do, or a subgraph, or it is an output of the
        network."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and not self.is_read_beyond(name) else None

    def is_read_beyond(self, name: str) -> bool:
        """Tell whether a tensor is read by more than the nodes of the graph: by a subgraph, or as an output."""
        return name in self._read_inside or name in self.outputs

    def all_readers(self, name: str) -> list[NodeProto]:
        """Return the nodes that read a tensor, those in subgraphs too."""
        return [node for node in onnx_load.messages(self.proto.graph, "NodeProto") if name in node.input]

    def value(self, name: str) -> NDArray[Any] | None:
        """Return a tensor's value if it is stored, or dequantized from stored values; else None."""
        if self.is_constant(name):
            return self.constant(name)
        node = self.maker.get(name)
        if node is None:
            return None
        if node.op_type == "Constant":
            value = attribute(node, "value")
            return None if value is None else array(value)
        return self._dequantized(node) if node.op_type == "DequantizeLinear" else None

    def _dequantized(self, node: NodeProto) -> NDArray[Any] | None:
        """Return what a DequantizeLinear of stored values gives, per tensor or per axis; None if any of them is
        computed."""
        parts = [np.asarray(part, np.float64) for name in node.input if name and (part := self.value(name)) is not None]
        if len(parts) != sum(map(bool, node.input)):
            return None
        values, scale, zero = (*parts, np.zeros(()))[:3]
        if scale.size > 1:
            axis = attribute(node, "axis")
            shape = [1] * values.ndim
            shape[1 if axis is None else axis] = -1
            scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
        return np.asarray((values - zero) * scale, np.float32)

    def before_quantization(self, name: str) -> str:
        """Return the tensor before a QuantizeLinear/DequantizeLinear pair, or the tensor itself if there is none."""
        last = self.maker.get(name)
        before = self.maker.get(last.input[0]) if last is not None and last.op_type == "DequantizeLinear" else None
        return str(before.input[0]) if before is not None and before.op_type == "QuantizeLinear" else name

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Store a tensor, replacing one of that name; returns its name."""
        from onnx import numpy_helper

        tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
        if name in self._constants:
            self._constants[name].CopyFrom(tensor)
        else:
            self.proto.graph.initializer.append(tensor)
            self._constants[name] = self.proto.graph.initializer[-1]
        return name

    def replace_nodes(self, nodes: list[NodeProto]) -> None:
        """Replace all nodes by these, in this order; drop constants that are no longer read, by subgraphs neither."""
        from onnx import NodeProto

        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        graph = self.proto.graph
        del graph.node[:]
        graph.node.extend(copies)
        read = {name for node in onnx_load.messages(graph, "NodeProto") for name in node.input} | set(self.outputs)
        used = [tensor.SerializeToString() for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        for data in used:
            graph.initializer.add().ParseFromString(data)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self.index()


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Return an attribute's value as Python has it, or the default."""
    from onnx import helper

    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def set_attributes(node: NodeProto, **values: Any) -> None:
    """Set attributes of a node."""
    from onnx import helper

    others = [entry for entry in node.attribute if entry.name not in values]
    added = [helper.make_attribute(name, value) for name, value in values.items()]
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in others]
    del node.attribute[:]
    node.attribute.extend(copies + added)


def unique(taken: set[str], base: str) -> str:
    """Return `base`, or `base` with a number, so that it is not in `taken`; and add it there."""
    name = base
    number = 2
    while name in taken:
        name = f"{base}.{number}"
        number += 1
    taken.add(name)
    return name


def load(model: Model) -> ModelProto:
    """Return a checked ONNX model with its external weights loaded; raises ModelError."""
    from onnx import external_data_helper

    if model.format != "onnx":
        raise ModelError(
            f"{model.source}: expected an ONNX file, it is {model.format}", "Use the ONNX model that it was made from."
        )
    proto = onnx_load.read(model.path).proto
    with translate(BuildError, f"{model.source}: can't load its external weights"):
        external_data_helper.load_external_data_for_model(proto, str(model.path.parent))
    return proto


def save(proto: ModelProto, path: Path, where: str = "") -> None:
    """Write a model, weights inside; raises BuildError, which names `where`, also for one of more than 2 GB."""
    if (size := _weight_bytes(proto)) > _MOST_BYTES:
        raise BuildError(
            f"{where or path.name}: its weights have {size:,} bytes, which one ONNX file can't hold",
            "Choose a runtime that reads weights beside the file, as that of the reference does.",
        )
    with translate(BuildError, f"{where or path.name}: can't be written as one ONNX file"):
        path.write_bytes(proto.SerializeToString())


def write(proto: ModelProto, path: Path, source: Model) -> Model:
    """Write what was made of `source`, its weights inside, or in a file beside where they are large; `proto` is of no
    use afterwards. Raises BuildError."""
    import onnx

    if _weight_bytes(proto) <= onnx_load.MAX_INSIDE_BYTES:
        save(proto, path)
        return Model(path, "onnx", source.spec, parent=source)
    beside = path.with_name(f"{path.name}{_WEIGHTS}")
    beside.unlink(missing_ok=True)
    with translate(BuildError, f"{path.name}: can't be written"):
        onnx.save_model(proto, str(path), save_as_external_data=True, location=beside.name)
    return Model(path, "onnx", source.spec, parent=source, files=(beside,))


def _weight_bytes(proto: ModelProto) -> int:
    return sum(tensor.ByteSize() for tensor in proto.graph.initializer)


def open_in_runtime(
    network: str | bytes,
    optimizations: Literal["DISABLE_ALL", "ENABLE_BASIC", "ENABLE_ALL"] = "ENABLE_ALL",
    written_to: Path | None = None,
    entries: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Open a network, by its path or its bytes, in a session of ONNX Runtime on the processor, without its log.

    `written_to` gets the optimized network; `entries` configure the session. Raises what ONNX Runtime raises.
    """
    runtime = require("onnxruntime", "pip install onnxruntime")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4
    settings.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_{optimizations}")
    if written_to is not None:
        settings.optimized_model_filepath = str(written_to)
    for name, value in entries.items():
        settings.add_session_config_entry(name, value)
    return runtime.InferenceSession(network, settings, providers=["CPUExecutionProvider"])


def optimized(model: Model, path: Path) -> ModelProto:
    """Return what ONNX Runtime's basic optimizations make of a network: ONNX operators only, weights inside.

    Constants are folded, batch norms are part of their convolutions, a MatMul and its bias become a Gemm. `path` is
    written and removed again. Raises BuildError.
    """
    import onnx

    beside = path.with_name(f"{path.name}{_WEIGHTS}")
    large = {"session.optimized_model_external_initializers_file_name": beside.name} if model.files else {}
    with translate(BuildError, f"{model.source}: ONNX Runtime can't optimize it"):
        open_in_runtime(str(model.path), "ENABLE_BASIC", path, large)
        proto = onnx.load(path)
    path.unlink()
    beside.unlink(missing_ok=True)
    used = {node.domain for node in onnx_load.messages(proto, "NodeProto")}
    imports = [
        entry for entry in proto.opset_import if entry.domain in onnx_load.DEFAULT_DOMAINS or entry.domain in used
    ]
    domains = [type(entry).FromString(entry.SerializeToString()) for entry in imports]
    del proto.opset_import[:]
    proto.opset_import.extend(domains)
    return proto


def array(tensor: TensorProto) -> NDArray[Any]:
    """Return a stored tensor's values."""
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor))


@dataclass(frozen=True)
class FirstConvolution:
    """The first convolution applied to a picture."""

    source: str
    """The float value `[N, C, H, W]` that it reads, before it is quantized."""
    weights: NDArray[Any]
    """[outputs, C, …]."""


def first_convolution(proto: ModelProto, picture: str) -> FirstConvolution | None:
    """Return the first convolution that depends on the input `picture`; None if there is none, or its weights are
    computed."""
    graph = Graph(proto)
    reached = {picture}
    for node in graph.nodes:
        if reached.isdisjoint(node.input):
            continue
        if node.op_type in {"ConvInteger", "QLinearConv", "ConvTranspose"}:
            return None
        if node.op_type == "Conv":
            weights = graph.value(node.input[1])
            return (
                None
                if weights is None or node.input[0] not in reached
                else FirstConvolution(graph.before_quantization(node.input[0]), weights)
            )
        reached.update(node.output)
    return None


def expose(model: Model, names: Sequence[str], path: Path) -> Model:
    """Return the model with the values `names` as further outputs, written to `path`; it has no Spec. Raises ModelError
    or BuildError."""
    proto = load(model)
    given = {value.name for value in proto.graph.output}
    for name in names:
        if name not in given:
            proto.graph.output.add().name = name  # Runtimes infer the type themselves.
    return replace(write(proto, path, model), spec=None)


def without_quantization(model: Model, path: Path) -> Model:
    """Return the model, written to `path`, with every value read as it is before a pair quantizes and dequantizes it.
    It has no Spec. Weights stay as they are. Raises ModelError or BuildError."""
    proto = load(model)
    graph = Graph(proto)
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = graph.before_quantization(name)
    save(proto, path)
    return Model(path, "onnx", None, parent=model)


def computed_values(proto: ModelProto) -> Iterator[tuple[str, str]]:
    """Yield (name, name to read it by) of every value that a node of the main graph computes, in topological order.

    A value that is quantized and dequantized before it is used is read by the dequantized name.
    """
    graph = Graph(proto)
    for node in proto.graph.node:
        if node.op_type in {"Constant", "QuantizeLinear", "DequantizeLinear"}:
            continue
        for name in node.output:
            if name:
                yield name, _dequantized_name(graph, name)


def _dequantized_name(graph: Graph, name: str) -> str:
    for quantize in graph.readers.get(name, []):
        if quantize.op_type == "QuantizeLinear" and quantize.input[0] == name:
            for dequantize in graph.readers.get(quantize.output[0], []):
                if dequantize.op_type == "DequantizeLinear":
                    return str(dequantize.output[0])
    return name

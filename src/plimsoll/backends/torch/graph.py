"""An ONNX network as a PyTorch module. Imported only where PyTorch is.

The module is a list of PyTorch's own operators, which `torch.export` writes down as a graph again: that is what is
compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plimsoll.backends.torch.operators import OPERATORS, Node, Stored, Value, tensor
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import graph, load

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_FLOATING = ("f", "V")  # bfloat16 is a type of its own to NumPy


class OnnxModule(torch.nn.Module):  # type: ignore[misc]
    """A network of ONNX operators, computed in one floating-point precision; inputs and outputs keep the types that
    they have in the file.

    Raises BuildError for operators that have no translation, and, when it is called, for attributes that have none.
    """

    def __init__(self, proto: ModelProto, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._precision = precision
        opset = next((value.version for value in proto.opset_import if value.domain in load.DEFAULT_DOMAINS), 0)
        _require_known(proto)
        self._nodes = [_node(node, int(opset), precision) for node in proto.graph.node]
        self._numbers = {value.name: graph.array(value) for value in proto.graph.initializer}
        self._weights: dict[str, str] = {}
        for name, array in self._numbers.items():
            if array.dtype.kind in _FLOATING:
                self._weights[name] = f"weight_{len(self._weights)}"
                self.register_buffer(self._weights[name], torch.from_numpy(np.array(array, np.float32)).to(precision))
        self.inputs = tuple(value.name for value in proto.graph.input if value.name not in self._numbers)
        self.outputs = tuple(value.name for value in proto.graph.output)
        self._output_types = {value.name: load.dtype_of(value) for value in proto.graph.output}
        self._last_use = {name: index for index, node in enumerate(self._nodes) for name in node.inputs}

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute all outputs, in the file's order, from all inputs in theirs."""
        values: dict[str, Value] = {
            name: Stored(self._numbers[name], getattr(self, held)) for name, held in self._weights.items()
        }
        values |= {name: array for name, array in self._numbers.items() if name not in self._weights}
        for name, value in zip(self.inputs, given, strict=True):
            values[name] = value.to(self._precision) if value.is_floating_point() else value
        for index, node in enumerate(self._nodes):
            computed = OPERATORS[node.kind](node, *(values[name] if name else None for name in node.inputs))
            results = computed if isinstance(computed, (list, tuple)) else [computed]
            values |= {name: value for name, value in zip(node.outputs, results, strict=False) if name}
            for name in node.inputs:
                if self._last_use[name] == index and name not in self.outputs:
                    values.pop(name, None)
        like = given[0] if given else None
        return tuple(
            tensor(values[name], like).to(getattr(torch, str(self._output_types[name]))) for name in self.outputs
        )


def translated(model: Model, precision: torch.dtype) -> OnnxModule:
    """Return an ONNX model as a module, in evaluation mode; raises BuildError."""
    module = OnnxModule(graph.load(model), precision)
    module.eval()
    return module


def _require_known(proto: ModelProto) -> None:
    foreign = sorted(
        {
            _full_name(node)
            for node in proto.graph.node
            if node.op_type not in OPERATORS or node.domain not in load.DEFAULT_DOMAINS
        }
    )
    if foreign:
        raise BuildError(
            f"PyTorch: no translation for {', '.join(foreign[:5])}{' …' if len(foreign) > 5 else ''}",
            "Run the network with another runtime.",
        )


def _full_name(node: NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in load.DEFAULT_DOMAINS else str(node.op_type)


def _node(node: NodeProto, opset: int, precision: torch.dtype) -> Node:
    from onnx import TensorProto, helper

    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        attributes[attribute.name] = (
            graph.array(value)
            if isinstance(value, TensorProto)
            else list(value)
            if isinstance(value, (list, tuple))
            else value
        )
    return Node(node.op_type, node.name, tuple(node.input), tuple(node.output), opset, precision, attributes)

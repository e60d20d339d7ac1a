"""Write a network as ONNX, operator by operator: shared by the importers that read other frameworks' files
themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.foreign import translate
from plimsoll.errors import BuildError, InputError, ModelError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

OPSET = 17
"""New enough for per-channel quantization and LayerNormalization, old enough for every backend."""

IR_VERSION = 8
BATCH = "N"
"""The name of the free batch axis."""

Size = int | str | None


class GraphWriter:
    """A graph under construction. Values are identified by name; a name that is taken gets a number."""

    def __init__(self, name: str, batch: int | None = None) -> None:
        self.name = name
        self.batch: Size = batch or BATCH
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        self._taken: set[str] = set()
        self._renamed: dict[str, str] = {}

    def unique(self, name: str) -> str:
        """Return `name`, with a number if it is taken, and reserve it."""
        free, count = name, 1
        while free in self._taken:
            count += 1
            free = f"{name}_{count}"
        self._taken.add(free)
        return free

    def input(self, name: str, shape: Sequence[Size], dtype: str = "float32") -> str:
        """Add an input of the graph; raises ModelError if the name is taken."""
        if name in self._taken:
            raise ModelError(f"{self.name}: duplicate input {name!r}", "Give every input a name of its own.")
        self._taken.add(name)
        self._inputs.append(_info(name, shape, dtype))
        return name

    def input_shape(self, name: str) -> tuple[int | None, ...]:
        """Return the shape of an input; None for free sizes."""
        value = next(info for info in self._inputs if info.name == name)
        return tuple(axis.dim_value or None for axis in value.type.tensor_type.shape.dim)

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Store values under `name`, with a number if it is taken."""
        from onnx import numpy_helper

        name = self.unique(name)
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add an operator with one output and return the output's name; attributes that are None are left out."""
        return self.add_many(operator, inputs, [output], **attributes)[0]

    def add_many(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> list[str]:
        """Add an operator and return its outputs' names."""
        from onnx import helper

        names = [self.unique(output) for output in outputs]
        given = {key: value for key, value in attributes.items() if value is not None}
        self._nodes.append(helper.make_node(operator, list(inputs), names, **given))
        return names

    def output(self, value: str, name: str, shape: Sequence[Size], dtype: str = "float32") -> None:
        """Make a value an output of the graph under `name`; another value of that name is renamed."""
        if value in self._renamed or any(info.name == value for info in self._inputs):
            value = self.add("Identity", [value], f"{name}.output")
        self._renamed[value] = name
        self._outputs.append(_info(name, shape, dtype))

    def proto(self) -> ModelProto:
        """Return the checked model; raises BuildError if it is not valid ONNX."""
        from onnx import checker, helper

        nodes, constants = self._with_final_names()
        with translate(BuildError, f"{self.name}: can't be written as ONNX"):
            graph = helper.make_graph(nodes, self.name, self._inputs, self._outputs, constants)
            model = helper.make_model(
                graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="plimsoll"
            )
            checker.check_model(model, full_check=True)
        return model

    def _with_final_names(self) -> tuple[list[NodeProto], list[TensorProto]]:
        """Return the nodes and the constants that they read, with outputs renamed; a node is named after its output."""
        names = {
            name: self.unique(f"{name}.inner")
            for name in self._renamed.values()
            if name in self._taken and name not in self._renamed
        }
        names |= self._renamed
        nodes = []
        for node in self._nodes:
            final = type(node)()
            final.CopyFrom(node)
            for part, given in ((final.input, node.input), (final.output, node.output)):
                part[:] = [names.get(name, name) for name in given]
            final.name = final.output[0]
            nodes.append(final)
        used = {name for node in self._nodes for name in node.input}
        constants = [tensor for name, tensor in self._constants.items() if name in used]
        for tensor in constants:
            tensor.name = names.get(tensor.name, tensor.name)
        return nodes, constants

    def save(self, path: Path) -> Path:
        """Check the model and write it, weights inside; raises BuildError."""
        proto = self.proto()
        with translate(BuildError, f"{path.name}: can't be written as one ONNX file"):
            path.write_bytes(proto.SerializeToString())
        return path


def require_names(names: Iterable[str], known: Iterable[str], what: str, where: str) -> None:
    """Raise InputError for names that the source doesn't have; `what` they name, for example `input`."""
    there = list(known)
    if missing := [name for name in names if name not in there]:
        shown = ", ".join(there[:20]) + (f" … ({len(there)} in all)" if len(there) > 20 else "")
        raise InputError(f"{where}: no {what} {', '.join(missing)}", f"Choose from: {shown or 'none'}.")


def _info(name: str, shape: Sequence[Size], dtype: str) -> ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))

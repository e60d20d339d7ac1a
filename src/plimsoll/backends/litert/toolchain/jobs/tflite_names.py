"""Name what goes in and out of a TFLite file, and bring its weights in line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

_SIGNATURE = b"serving_default"
_LAST_OLD_CODE = 127
"""Operators from here on are in the newer field only, as the schema has it."""


def rename(source: Path, target: Path, inputs: list[str], outputs: list[str], mark: str = "") -> None:
    """Write a TFLite file again, its inputs and outputs called so, in order, in the graph and in its only signature.

    Weights that lie behind the FlatBuffer, as the quantizer leaves them, move into it: what other tools write again
    would lose them. Operators are numbered for older readers too, which the quantizer forgets. `mark` is the name of an
    empty entry among the metadata.
    """
    model = flatbuffer_utils.read_model(str(source))
    graph = model.subgraphs[0]
    ends = dict(zip([*graph.inputs, *graph.outputs], [*inputs, *outputs], strict=True))
    for index, tensor in enumerate(graph.tensors):
        name = _text(tensor.name)
        if index in ends:
            tensor.name = ends[index].encode()
        elif name in ends.values():
            tensor.name = f"{name}_inner".encode()
    sign(model)
    for code in model.operatorCodes:  # What reads the older field alone takes every operator for its default, ADD.
        code.deprecatedBuiltinCode = min(code.builtinCode, _LAST_OLD_CODE)
    if mark:
        entry = schema.MetadataT()
        entry.name, entry.buffer = mark.encode(), 0
        model.metadata = [*(model.metadata or []), entry]
    write(model, target)


def write(model: Any, target: Path) -> None:
    """Write a model. Weights that aren't arrays, as those from behind the FlatBuffer, would be packed byte by byte."""
    for buffer in model.buffers:
        if buffer.data is not None and not isinstance(buffer.data, np.ndarray):
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    flatbuffer_utils.write_model(model, str(target))


def sign(model: Any) -> None:
    """Give a model the one signature that says what its ends are: the quantizer and newer clients go by it, older files
    have none."""
    graph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = _SIGNATURE, 0
    signature.inputs, signature.outputs = (
        [_end(graph, index) for index in indices] for indices in (graph.inputs, graph.outputs)
    )
    model.signatureDefs = [signature]


def _end(graph: Any, index: int) -> Any:
    end = schema.TensorMapT()
    end.name, end.tensorIndex = graph.tensors[index].name, index
    return end


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name

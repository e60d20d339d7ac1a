"""Run a request, and the classification extension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.serve.messages import RequestOptions
from plimsoll.serve.oip.datatypes import DATATYPES, bad_request, datatype_of, dtype_of, quoted
from plimsoll.serve.oip.models import NamedModel
from plimsoll.serve.oip.schema import InferInput, InferRequest, OutputParameters, RequestedOutput, RequestParameters
from plimsoll.serve.oip.tensors import array, pictures

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A tensor of an answer."""

    name: str
    datatype: str
    value: Array
    binary: bool
    """Whether it goes as bytes behind the JSON."""


@dataclass(frozen=True, slots=True)
class Inference:
    """What came of a request."""

    model: str
    version: str
    id: str | None
    outputs: tuple[OutputTensor, ...]
    milliseconds: tuple[Mapping[str, float], ...] = ()
    """How long each picture, or each part of a tensor, took in each stage."""


async def infer(named: NamedModel, request: InferRequest, options: RequestOptions, limit: int) -> Inference:
    """Run a request of at most `limit` pictures or rows; raises RequestError."""
    metadata = named.metadata
    _check_names(request.outputs or (), [info.name for info in metadata.outputs], "output")
    if named.bare:
        parts = await named.model.infer(_feeds(named, request.inputs, limit), options)
    else:
        _check_names(request.inputs, ["image"], "input")
        parts = await named.model.raw_outputs(pictures(request.inputs[0], limit), options)
    requested = request.outputs or [RequestedOutput(name=info.name) for info in metadata.outputs]
    outputs = tuple(
        _output(
            output.name,
            output.parameters,
            _joined([part.outputs[output.name] for part in parts]),
            binary=request.binary,
            labels=metadata.labels,
        )
        for output in requested
    )
    return Inference(named.name, named.model.version, request.id, outputs, tuple(part.milliseconds for part in parts))


def whole_body(named: NamedModel, body: bytes) -> InferRequest:
    """Return the request that a body without JSON means: the model's one input, as a batch of one; the outputs go back
    as bytes. Raises RequestError."""
    inputs = named.inputs
    if len(inputs) != 1:
        raise bad_request(
            f"a body without JSON means one input, and '{named.name}' has {len(inputs)}",
            "Say in JSON which bytes are whose.",
        )
    info = inputs[0]
    if not named.bare:
        tensor = InferInput(name=info.name, datatype="BYTES", shape=[1], data=[body])
    else:
        datatype = datatype_of(info.dtype)
        shape = _shape_of_one(info.shape, len(body) // dtype_of(datatype, f"input '{info.name}'").itemsize)
        tensor = InferInput(name=info.name, datatype=datatype, shape=shape).with_raw(body)
    return InferRequest(inputs=[tensor], parameters=RequestParameters(binary_data_output=True))


def best(value: Array, count: int, labels: Sequence[str]) -> NDArray[np.object_]:
    """Return `[N, min(count, C)]` of `bytes` `value:index:label` for an output `[N, C]` (further axes are laid flat
    into C), best first.

    Labels stand there where there are C of them. NaN comes last; of equal values the first comes first.
    https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_classification.html
    """
    rows = value.reshape(len(value), -1)
    labelled = len(labels) == rows.shape[1]
    count = min(count, rows.shape[1])
    ranked = np.empty((len(rows), count), dtype=object)
    for row, scores in enumerate(rows):
        for rank, index in enumerate(np.argsort(-scores.astype(np.float64), kind="stable")[:count]):
            label = ":" + labels[index] if labelled else ""
            ranked[row, rank] = f"{float(scores[index]):f}:{index}{label}".encode()
    return ranked


def _shape_of_one(shape: Sequence[int | None], elements: int) -> list[int]:
    """Return the shape with one row; an axis that is free beside the first takes what the elements say."""
    free = [axis for axis, size in enumerate(shape) if size is None and axis > 0]
    if len(free) > 1:
        raise bad_request(
            f"a body without JSON doesn't say its shape, and {len(free)} axes of the network's input are free",
            "Say the shape in JSON.",
        )
    known = 1
    for size in shape[1:]:
        known *= size or 1
    return [1, *(size if size is not None else elements // known for size in shape[1:])]


def _feeds(named: NamedModel, inputs: Sequence[InferInput], limit: int) -> Mapping[str, Array]:
    infos = {info.name: info for info in named.inputs}
    _check_names(inputs, list(infos), "input")
    missing = infos.keys() - {tensor.name for tensor in inputs}
    if missing:
        raise bad_request(f"missing input {quoted(min(missing))}; '{named.name}' takes {_quoted_names(list(infos))}")
    feeds = {tensor.name: array(tensor, infos[tensor.name], limit) for tensor in inputs}
    rows = {len(value) for value in feeds.values()}
    if len(rows) > 1:
        raise bad_request(f"the inputs have {', '.join(map(str, sorted(rows)))} rows; all need the same number")
    return feeds


def _check_names(tensors: Sequence[InferInput | RequestedOutput], known: Sequence[str], what: str) -> None:
    for tensor in tensors:
        if tensor.name not in known:
            raise bad_request(f"unknown {what} {quoted(tensor.name)}; choose from {_quoted_names(known)}")


def _quoted_names(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _joined(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _output(
    name: str, parameters: OutputParameters, value: Array, *, binary: bool, labels: Sequence[str]
) -> OutputTensor:
    binary = binary if parameters.binary_data is None else parameters.binary_data
    if parameters.classification:
        return OutputTensor(name, "BYTES", best(value, parameters.classification, labels), binary)
    return OutputTensor(name, DATATYPES.get(value.dtype) or datatype_of(value.dtype.name), value, binary)

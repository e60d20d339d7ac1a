"""Run a request: pictures or arrays from the caller, outputs as bytes or JSON; and the classification extension."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.model import TensorInfo
from plimsoll.serve.messages import RequestOptions
from plimsoll.serve.oip.datatypes import DATATYPES, bad_request, datatype_of, dtype_of, listed, quoted, short
from plimsoll.serve.oip.models import NamedModel
from plimsoll.serve.oip.schema import (
    MAX_AXES,
    InferInput,
    InferRequest,
    OutputParameters,
    RequestedOutput,
    RequestParameters,
)
from plimsoll.serve.parsing import decode_base64, off_loop

Array = NDArray[Any]

_LENGTH = struct.Struct("<I")


def pictures(tensor: InferInput, limit: int) -> list[bytes]:
    """Return the picture files of a BYTES tensor of any shape, 1 to `limit` of them, in row-major order; raises
    RequestError.

    In JSON each is text in base64, or `{"b64": text}`.
    """
    where = f"input '{tensor.name}'"
    if tensor.datatype != "BYTES":
        raise bad_request(
            f"{where} is {quoted(tensor.datatype)}; expected BYTES: files of pictures",
            "The bare network is served under `<name>.tensor`.",
        )
    count = math.prod(tensor.shape)
    if not 1 <= count <= limit:
        raise bad_request(
            f"{where} has the shape {listed(tensor.shape)}: {short(count)} pictures; expected 1 to {limit}"
        )
    if tensor.raw is not None:
        return list(_elements(tensor.raw, count, where))
    files = [_picture(value, where) for value in _flat(tensor.data or (), count)]
    if len(files) != count:
        raise bad_request(f"{where} holds {len(files)} elements; its shape {listed(tensor.shape)} says {count}")
    return files


def array(tensor: InferInput, info: TensorInfo, limit: int) -> Array:
    """Return the tensor for the network's input `info`, read-only where it was sent as bytes; raises RequestError.

    Its first axis counts rows, 1 to `limit`.
    """
    where = f"input '{tensor.name}'"
    dtype = dtype_of(tensor.datatype, where)
    expected = datatype_of(info.dtype)
    if tensor.datatype != expected:
        raise bad_request(f"{where} is {tensor.datatype}; the network takes {expected}")
    _check_shape(tensor.shape, info, limit, where)
    count = math.prod(tensor.shape)
    flat = (
        _from_raw(tensor.raw, dtype, count, where)
        if tensor.raw is not None
        else _from_values(tensor.data or (), dtype, tensor.shape, where)
    )
    return flat.reshape(tensor.shape)


def to_bytes(value: Array) -> bytes:
    """Return a tensor of numbers or of `bytes` (dtype object) row-major and little-endian, as it goes behind the JSON
    or in a gRPC message."""
    if value.dtype == object:
        return b"".join(part for element in value.flat for part in (_LENGTH.pack(len(element)), element))
    return (value if value.dtype in DATATYPES else value.astype(value.dtype.newbyteorder("<"))).tobytes()


def to_values(value: Array) -> list[Any]:
    """Return a tensor's elements for JSON, flat; `bytes` as text."""
    return (
        [element.decode("utf-8", "replace") for element in value.flat]
        if value.dtype == object
        else value.ravel().tolist()
    )


def _check_shape(shape: Sequence[int], info: TensorInfo, limit: int, where: str) -> None:
    fits = len(shape) == len(info.shape) and all(
        expected in (None, size) for size, expected in zip(shape[1:], info.shape[1:], strict=True)
    )
    if not fits or 0 in shape:
        expected = listed([-1, *(-1 if size is None else size for size in info.shape[1:])])
        raise bad_request(f"{where} has the shape {listed(shape)}; the network takes {expected}, where -1 is 1 or more")
    if shape and shape[0] > limit:
        raise bad_request(
            f"{where} has the shape {listed(shape)}: {short(shape[0])} rows; at most {limit} go into one request"
        )


def _elements(raw: memoryview | bytes, count: int, where: str) -> Iterator[bytes]:
    """Yield the elements of a BYTES tensor, at most `count`; raises RequestError where the lengths don't add up."""
    view = memoryview(raw)
    at = 0
    for index in range(count):
        if at + _LENGTH.size > len(view):
            raise bad_request(
                f"{where} ends after {index} elements; its shape says {count}",
                "Before each element stands its length: 4 bytes, little-endian.",
            )
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if length > len(view) - at:
            raise bad_request(
                f"{where}: element {index} is said to have {length:,} bytes, and {len(view) - at:,} follow",
                "Before each element stands its length: 4 bytes, little-endian.",
            )
        yield bytes(view[at : at + length])
        at += length
    if at != len(view):
        raise bad_request(f"{where}: {len(view) - at:,} bytes follow after its {count} elements")


def _flat(values: Sequence[object], count: int) -> list[object]:
    """Return nested lists flat, breadth first; stops once there are more than `count`."""
    level = list(values[: count + 1])
    while any(isinstance(value, list) for value in level):
        level = [inner for value in level for inner in (value[: count + 1] if isinstance(value, list) else [value])][
            : count + 1
        ]
    return level


def _picture(value: object, where: str) -> bytes:
    if isinstance(value, bytes):
        return value
    text = value.get("b64") if isinstance(value, dict) and len(value) == 1 else value
    if not isinstance(text, str):
        raise bad_request(
            f"{where} holds {quoted(value)}; expected a picture's file as text in base64",
            "Or send it as bytes: the binary tensor extension.",
        )
    try:
        return decode_base64(text)
    except ValueError as error:
        raise bad_request(
            f"{where} holds text that is not base64: {error}",
            "In JSON a picture's file is written in base64; or send it as bytes: the binary tensor extension.",
        ) from error


def _from_raw(raw: memoryview | bytes, dtype: np.dtype[Any], count: int, where: str) -> Array:
    if len(raw) != count * dtype.itemsize:
        raise bad_request(f"{where} has {len(raw):,} bytes; its shape and datatype say {short(count * dtype.itemsize)}")
    if dtype == np.bool_ and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
        raise bad_request(f"{where} is BOOL and holds a byte that is neither 0 nor 1")
    return np.frombuffer(raw, dtype)


def _from_values(values: Sequence[object], dtype: np.dtype[Any], shape: Sequence[int], where: str) -> Array:
    sizes, flat = _unnested(values)
    count = math.prod(shape)
    if sizes is None or not set(map(type, flat)) <= {
        int,
        float,
        bool,
    }:  # before NumPy: it makes all texts as long as one
        raise bad_request(f"{where}: its data is not a list of numbers, flat or nested as its shape {listed(shape)}")
    if len(flat) != count or (len(sizes) > 1 and sizes != tuple(shape)):
        raise bad_request(
            f"{where}: its data is {listed(sizes)}, its shape {listed(shape)}",
            "Give the data flat, or nested as the shape says.",
        )
    try:
        numbers = _numbers(flat, dtype)
    except OverflowError:
        raise bad_request(f"{where}: its data holds numbers that {datatype_of(dtype.name)} can't hold") from None
    kinds = "b" if dtype.kind == "b" else "iu" if dtype.kind in "iu" else "iuf"
    if numbers.dtype.kind not in kinds:
        raise bad_request(f"{where} is {datatype_of(dtype.name)}, and its data holds something else")
    return _fitted(numbers, dtype, where)


def _unnested(values: Sequence[object]) -> tuple[tuple[int, ...] | None, Sequence[object]]:
    """Return the sizes of nested lists and their elements, row-major; None where they are not nested evenly."""
    sizes = [len(values)]
    while values and isinstance(values[0], list):
        size = len(values[0])
        if len(sizes) > MAX_AXES or not all(isinstance(value, list) and len(value) == size for value in values):
            return None, ()
        sizes.append(size)
        values = list(chain.from_iterable(values))  # type: ignore[arg-type]  # all of them are lists
    return tuple(sizes), values


def _numbers(values: Sequence[object], dtype: np.dtype[Any]) -> Array:
    if dtype == np.uint64 and all(type(value) is int for value in values):
        return np.array(values, np.uint64)  # NumPy would read small and very large whole numbers together as floats
    return np.asarray(values)


def _fitted(numbers: Array, dtype: np.dtype[Any], where: str) -> Array:
    """Convert to `dtype` where every value has a place in it."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        outside = int(numbers.min()) < limits.min or int(numbers.max()) > limits.max
        converted = numbers.astype(dtype) if not outside else numbers
    else:
        with np.errstate(over="ignore"):
            converted = numbers.astype(dtype)
        outside = dtype.kind == "f" and bool((np.isinf(converted) & np.isfinite(numbers)).any())
    if outside:
        raise bad_request(f"{where}: its data holds numbers that {datatype_of(dtype.name)} can't hold")
    return converted


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
        feeds = await off_loop(request.size, _feeds, named, request.inputs, limit)
        parts = await named.model.infer(feeds, options)
    else:
        _check_names(request.inputs, ["image"], "input")
        files = await off_loop(request.size, pictures, request.inputs[0], limit)
        parts = await named.model.raw_outputs(files, options)
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

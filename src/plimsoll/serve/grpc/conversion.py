"""gRPC's messages, and the values of `plimsoll.serve.oip`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from plimsoll.serve.grpc import oip_pb2
from plimsoll.serve.messages import Problem, RequestError, validated
from plimsoll.serve.oip.datatypes import bad_request, quoted
from plimsoll.serve.oip.inference import Inference, to_bytes
from plimsoll.serve.oip.schema import InferInput, InferRequest
from plimsoll.serve.parsing import without_garbage_collection

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of a tensor's elements that are not sent as bytes. FP16 has none: it goes as bytes."""

MAX_FIELDS = 10_000
"""In a request; an empty input takes two bytes of a message, and forty times that once it is parsed."""
MAX_ELEMENTS = 800_000
"""Numbers in `contents`, as in JSON: once they are parsed, a byte of the message may have become 36."""
_INPUTS, _CONTENTS, _PACKED = 5, 5, {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 4, 7: 8}
"""Numbers of fields: of a request's inputs, of an input's contents, and of lists of numbers in these, with the bytes
that an element has at least."""


def parse(body: bytes) -> oip_pb2.ModelInferRequest:
    """Parse a request for inference; raises RequestError where it can't be parsed, or has too many fields or
    elements."""
    _check_size(body)
    message = oip_pb2.ModelInferRequest()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise bad_request("expected a ModelInferRequest") from error
    return message


def identity(body: bytes) -> str:
    """Return the id of a request for inference, empty where it can't be read."""
    try:
        return parse(body).id
    except RequestError:
        return ""


def _check_size(body: bytes) -> None:
    """Raise RequestError where a request has more fields or elements than may be built; it is walked over, not
    parsed."""
    fields = elements = 0
    waiting = [(0, len(body), 0)]
    try:
        while waiting:
            start, end, depth = waiting.pop()
            for number, at, until in _fields(body, start, end):
                fields += 1
                if fields > MAX_FIELDS:
                    raise IndexError(fields)
                if until > at and (depth, number) in ((0, _INPUTS), (1, _CONTENTS)):
                    waiting.append((at, until, depth + 1))
                elif depth == 2 and number in _PACKED:
                    elements += -(-(until - at) // _PACKED[number])
    except (IndexError, KeyError):
        raise bad_request(f"the message can't be read, or has more than {MAX_FIELDS:,} fields") from None
    if elements > MAX_ELEMENTS:
        raise RequestError(
            Problem(
                "input",
                f"the request may have more than {MAX_ELEMENTS:,} numbers in 'contents'",
                "Send tensors as bytes: 'raw_input_contents'.",
                413,
            )
        )


def _fields(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each field of a message, and where its value begins and ends; raises IndexError or KeyError
    where it is none. https://protobuf.dev/programming-guides/encoding/"""
    while at < end:
        tag, at = _varint(body, at)
        start = at
        match tag & 7:
            case 0:
                _, at = _varint(body, at)
            case 2:
                length, start = _varint(body, at)
                at = start + length
            case kind:
                at += {1: 8, 5: 4}[kind]
        if at > end:
            raise IndexError(at)
        yield tag >> 3, start, at


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Return a number of up to ten bytes, and where it ends; raises IndexError where the message ends before it
    does."""
    value = 0
    for index in range(10):
        byte = body[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise IndexError(at)


def read_request(message: oip_pb2.ModelInferRequest) -> InferRequest:
    """Read a request; raises RequestError."""
    count = len(message.raw_input_contents)
    if count not in (0, len(message.inputs)):
        raise bad_request(
            f"there are {len(message.inputs)} inputs and {count} raw_input_contents",
            "Send all inputs as bytes, or none.",
        )
    if not message.inputs:
        raise bad_request("the request has no inputs")
    data = {
        "id": message.id or None,
        "inputs": [_input_data(tensor) for tensor in message.inputs],
        "outputs": [
            {"name": output.name, "parameters": parameters_of(output.parameters)} for output in message.outputs
        ],
        "parameters": parameters_of(message.parameters),
    }
    request = validated(InferRequest, data, status=400)
    raw = message.raw_input_contents if count else [None] * len(message.inputs)
    for tensor, sent, contents in zip(request.inputs, message.inputs, raw, strict=True):
        _add_elements(tensor, sent, contents)
    return request


def write_response(inference: Inference) -> oip_pb2.ModelInferResponse:
    """Return the response; its tensors go as bytes, as Triton's do."""
    message = oip_pb2.ModelInferResponse(
        model_name=inference.model, model_version=inference.version, id=inference.id or ""
    )
    for output in inference.outputs:
        message.outputs.add(name=output.name, datatype=output.datatype, shape=output.value.shape)
        message.raw_output_contents.append(to_bytes(output.value))
    return message


def parameters_of(parameters: Mapping[str, oip_pb2.InferParameter]) -> dict[str, Any]:
    """Return parameters as plain values; empty ones are left out."""
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in chosen.items() if choice is not None}


def _input_data(message: oip_pb2.ModelInferRequest.InferInputTensor) -> dict[str, Any]:
    return {
        "name": message.name,
        "datatype": message.datatype,
        "shape": list(message.shape),
        "parameters": parameters_of(message.parameters),
    }


def _add_elements(tensor: InferInput, message: oip_pb2.ModelInferRequest.InferInputTensor, raw: bytes | None) -> None:
    """Give a tensor its bytes or its elements; raises RequestError."""
    where = f"input {quoted(message.name)}"
    if raw is not None:
        if message.HasField("contents"):
            raise bad_request(f"{where} has both 'contents' and 'raw_input_contents'", "Send the tensor once.")
        tensor.with_raw(raw)
        return
    field = _FIELDS.get(message.datatype)
    if field is None and message.datatype == "FP16":
        raise bad_request(f"{where} is FP16 and not sent as bytes", "Put it into 'raw_input_contents'.")
    with without_garbage_collection():
        tensor.data = list(getattr(message.contents, field)) if field is not None else []

"""gRPC's messages, and the values of `plimsoll.serve.oip`."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from plimsoll.serve.grpc import oip_pb2
from plimsoll.serve.messages import RequestError
from plimsoll.serve.oip.binary import classes
from plimsoll.serve.oip.inference import Answer
from plimsoll.serve.oip.request import InferRequest, InputTensor, Parameters, WantedOutput, bad_request, shown, unique
from plimsoll.serve.oip.tensors import shape_of, to_bytes

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
"""Where a tensor's elements stand that are not sent as bytes. FP16 has no field: it goes as bytes."""

MOST_FIELDS = 10_000
"""In a request; an empty input takes two bytes of a message, and forty times that once it is parsed."""


def parse(body: bytes) -> oip_pb2.ModelInferRequest:
    """Parse a request for inference; raises RequestError where that is none, or where its fields are too many."""
    if not _few_fields(body):
        raise bad_request(f"the message can't be read, or has more than {MOST_FIELDS:,} fields")
    message = oip_pb2.ModelInferRequest()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise bad_request("the message is no ModelInferRequest") from error
    return message


def identity(body: bytes) -> str:
    """Return the id of a request for inference, empty where it can't be read."""
    try:
        return parse(body).id
    except RequestError:
        return ""


def _few_fields(body: bytes) -> bool:
    """Walk over the message's fields without reading them. https://protobuf.dev/programming-guides/encoding/"""
    at = fields = 0
    try:
        while at < len(body):
            fields += 1
            tag, at = _varint(body, at)
            match tag & 7:
                case 0:
                    _, at = _varint(body, at)
                case 2:
                    length, at = _varint(body, at)
                    at += length
                case kind:
                    at += {1: 8, 5: 4}[kind]
            if fields > MOST_FIELDS:
                return False
    except (IndexError, KeyError):
        return False
    return at == len(body)


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Return a number of up to ten bytes, and where it ends; raises IndexError where the message ends before it does."""
    value = 0
    for place in range(10):
        byte = body[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
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
    inputs = tuple(
        _input(one, message.raw_input_contents[place] if count else None) for place, one in enumerate(message.inputs)
    )
    unique([one.name for one in inputs], "input")
    outputs = tuple(
        WantedOutput(one.name, classes=classes(parameters_of(one.parameters), f"output {shown(one.name)}"))
        for one in message.outputs
    )
    unique([one.name for one in outputs], "output")
    return InferRequest(inputs, outputs, message.id or None, parameters_of(message.parameters), binary=True)


def write_answer(answer: Answer) -> oip_pb2.ModelInferResponse:
    """Return the response; its tensors go as bytes, as Triton's do."""
    message = oip_pb2.ModelInferResponse(model_name=answer.model, model_version=answer.version, id=answer.id or "")
    for output in answer.outputs:
        message.outputs.add(name=output.name, datatype=output.datatype, shape=output.value.shape)
        message.raw_output_contents.append(to_bytes(output.value))
    return message


def parameters_of(parameters: Mapping[str, oip_pb2.InferParameter]) -> Parameters:
    """Return parameters as plain values; one that says nothing is left out."""
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in chosen.items() if choice is not None}


def _input(message: oip_pb2.ModelInferRequest.InferInputTensor, raw: bytes | None) -> InputTensor:
    where = f"input {shown(message.name)}"
    if "shared_memory_region" in message.parameters:
        raise bad_request(
            f"{where} names a region of shared memory, which is not served", "Send tensors in the request."
        )
    shape = shape_of(list(message.shape), where)
    if raw is not None:
        if message.HasField("contents"):
            raise bad_request(f"{where} has both 'contents' and 'raw_input_contents'", "Send the tensor once.")
        return InputTensor(message.name, message.datatype, shape, raw)
    field = _FIELDS.get(message.datatype)
    if field is None and message.datatype == "FP16":
        raise bad_request(f"{where} is FP16 and not sent as bytes", "Put it into 'raw_input_contents'.")
    return InputTensor(
        message.name,
        message.datatype,
        shape,
        values=list(getattr(message.contents, field)) if field is not None else (),
    )

"""HTTP bodies of the Open Inference Protocol: JSON alone, JSON with the tensors' bytes behind it, or one bare tensor;
compressed or not.

The binary tensor extension: the header `Inference-Header-Content-Length` says how long the JSON at the body's start is.
An input whose `parameters.binary_data_size` is set has so many bytes behind it, in the inputs' order. The header's
value 0 means that there is no JSON at all: the body is the one input of the model, as a batch of one, and the outputs
go back as bytes.
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel

from plimsoll.core.wording import location
from plimsoll.serve.messages import validated
from plimsoll.serve.oip.datatypes import bad_request, quoted
from plimsoll.serve.oip.inference import Inference, to_bytes, to_values
from plimsoll.serve.oip.schema import BinarySize, InferInput, InferOutput, InferRequest, InferResponse
from plimsoll.serve.parsing import MAX_JSON_BYTES, json_numbers, off_loop, read_json

LENGTH_HEADER = "Inference-Header-Content-Length"
_MARK = f"data-{os.urandom(16).hex()}"
"""Stands in a response's JSON where a list of values goes, which is written piece by piece."""
_MARKED = b'"' + _MARK.encode() + b'"'
_HINT = (
    "Tensors and files travel as bytes with the binary tensor extension; one of them alone with the header"
    f" {LENGTH_HEADER}: 0."
)
_Model = TypeVar("_Model", bound=BaseModel)


def header_length(values: Sequence[str], body: int) -> int | None:
    """Return what the header's values in a request with `body` bytes say; None where the body is JSON alone. Raises
    RequestError."""
    if not values:
        return None
    text = values[0].strip()
    if len(values) > 1 or not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise bad_request(f"the header {LENGTH_HEADER} is {quoted(', '.join(values))}; expected one number of bytes")
    length = int(text)
    if length > body:
        raise bad_request(f"the header {LENGTH_HEADER} says {length:,} bytes of JSON, and the whole body has {body:,}")
    return length


async def read_model(model: type[_Model], body: bytes, limit: int = MAX_JSON_BYTES) -> _Model:
    """Return a body of at most `limit` bytes of JSON as a model, an empty body as an empty object; raises
    RequestError."""
    if len(body) > limit:
        raise bad_request(f"the body has {len(body):,} bytes; at most {limit:,} are expected here")
    data = await read_json(body, _HINT) if body else {}

    def locate(parts: tuple[str | int, ...]) -> str:
        """Write `input 'pixels': shape[0]`, where the tensor has a name."""
        match parts:
            case ("inputs" | "outputs" as key, int(index), *rest) if _name(data, key, index) is not None:
                return f"{key.removesuffix('s')} {quoted(_name(data, key, index))}: {location(rest)}".removesuffix(": ")
        return location(parts)

    return await off_loop(len(body), partial(validated, model, data, status=400, locate=locate))


async def read_request(body: bytes, length: int | None) -> InferRequest:
    """Read a body whose first `length` bytes are JSON (None: all of it; not 0); raises RequestError."""
    end = len(body) if length is None else length
    request = await read_model(InferRequest, body if end == len(body) else body[:end])
    behind = memoryview(body)[end:]
    start = 0
    for tensor in request.inputs:
        start += _take_bytes(tensor, behind[start:])
    if start != len(behind):
        raise bad_request(
            f"behind the JSON are {len(behind):,} bytes, and the inputs' 'binary_data_size' add up to {start:,}"
        )
    return request


def _take_bytes(tensor: InferInput, behind: memoryview) -> int:
    """Give a tensor its bytes, where it has some, and return how many; raises RequestError."""
    where, size = f"input {quoted(tensor.name)}", tensor.binary_data_size
    if size is None:
        if tensor.data is None:
            raise bad_request(f"{where}: its 'data' is missing; expected a list, or bytes behind the JSON")
        return 0
    if "data" in tensor.model_fields_set:
        raise bad_request(
            f"{where} has both 'data' and 'binary_data_size'",
            "Send the tensor once: in the JSON, or as bytes behind it.",
        )
    if size > len(behind):
        raise bad_request(f"{where} is said to have {size:,} bytes behind the JSON, and {len(behind):,} are left")
    tensor.with_raw(behind[:size])
    return size


async def write_response(inference: Inference) -> tuple[bytes, int | None]:
    """Return a response's body, and the length of its JSON where tensors follow it."""
    return await off_loop(sum(tensor.value.nbytes for tensor in inference.outputs), _written, inference)


def _written(inference: Inference) -> tuple[bytes, int | None]:
    outputs, behind, lists = [], [], []
    for tensor in inference.outputs:
        value: dict[str, Any] = {}
        if tensor.binary:
            behind.append(to_bytes(tensor.value))
            value = {"parameters": BinarySize(binary_data_size=len(behind[-1]))}
        else:
            lists.append(json_numbers(to_values(tensor.value)))
            value = {"data": _MARK}
        shape = list(tensor.value.shape)
        outputs.append(InferOutput(name=tensor.name, datatype=tensor.datatype, shape=shape, **value))
    identity = {} if inference.id is None else {"id": inference.id}
    response = InferResponse(model_name=inference.model, model_version=inference.version, outputs=outputs, **identity)
    head = response.__pydantic_serializer__.to_json(response, exclude_unset=True)
    if lists:
        parts = head.split(_MARKED)
        head = b"".join(part for pair in zip(parts, [*lists, b""], strict=True) for part in pair)
    return (b"".join([head, *behind]), len(head)) if behind else (head, None)


def _name(data: Any, key: str, index: int) -> str | None:
    name = data[key][index].get("name") if isinstance(data[key][index], dict) else None
    return name if isinstance(name, str) else None

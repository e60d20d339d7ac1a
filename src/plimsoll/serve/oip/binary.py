"""HTTP bodies of the protocol: JSON alone, JSON with the tensors' bytes behind it, or one bare tensor.

The binary tensor extension: the header `Inference-Header-Content-Length` says how long the JSON at the body's start is.
An input whose `parameters.binary_data_size` is set has so many bytes behind it, in the inputs' order. The header's
value 0 means that there is no JSON at all: the body is the one input of the model, as a batch of one, and the outputs
go back as bytes.
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from plimsoll.serve import json_body
from plimsoll.serve.oip.inference import Answer
from plimsoll.serve.oip.request import InferRequest, InputTensor, Parameters, WantedOutput, bad_request, shown, unique
from plimsoll.serve.oip.tensors import shape_of, to_bytes, to_values

HEADER = "Inference-Header-Content-Length"

_SHARED_MEMORY = "shared_memory_region"


def header_length(values: Sequence[str], body: int) -> int | None:
    """Return what the header's values in a request with `body` bytes say; None where the body is JSON alone. Raises
    RequestError."""
    if not values:
        return None
    text = values[0].strip()
    if len(values) > 1 or not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise bad_request(f"the header {HEADER} is {shown(', '.join(values))}; expected one whole number of bytes")
    length = int(text)
    if length > body:
        raise bad_request(f"the header {HEADER} says {length:,} bytes of JSON, and the whole body has {body:,}")
    return length


def read_json(body: bytes, most: int = 64 * 1024 * 1024) -> dict[str, Any]:
    """Return the object that a body of at most `most` bytes holds as JSON, an empty one for none; raises RequestError."""
    if not body:
        return {}
    if len(body) > most:
        raise bad_request(f"the body has {len(body):,} bytes; at most {most:,} are expected here")
    data = json_body.read_json(
        body,
        "Tensors and files travel as bytes with the binary tensor extension; one of them alone with the header"
        f" {HEADER}: 0.",
    )
    if not isinstance(data, dict):
        raise bad_request(f"the body is JSON, but {shown(data)}; expected an object")
    return data


def read_request(body: bytes, length: int | None) -> InferRequest:
    """Read a body whose first `length` bytes are JSON (None: all of it; not 0); raises RequestError."""
    alone = length is None or length == len(body)
    data = read_json(body if alone else body[:length])
    behind = memoryview(body)[len(body) if alone else length :]
    inputs = _inputs(data, behind)
    parameters = parameters_of(data, "the request")
    identity = data.get("id")
    if not isinstance(identity, (str, type(None))):
        raise bad_request(f"the request's id is {shown(identity)}; expected text")
    return InferRequest(
        inputs, _outputs(data), identity, parameters, _flag(parameters, "binary_data_output", "the request") or False
    )


def write_answer(answer: Answer) -> tuple[bytes, int | None]:
    """Return a response's body, and the length of its JSON where tensors follow it."""
    outputs = []
    behind = []
    for output in answer.outputs:
        told: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.value.shape}
        if output.binary:
            behind.append(to_bytes(output.value))
            told["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            told["data"] = to_values(output.value)
        outputs.append(told)
    told = {"model_name": answer.model, "model_version": answer.version, "outputs": outputs}
    if answer.id is not None:
        told["id"] = answer.id
    head = to_json(told, inf_nan_mode="null")
    return (b"".join([head, *behind]), len(head)) if behind else (head, None)


def _inputs(data: Mapping[str, Any], behind: memoryview) -> tuple[InputTensor, ...]:
    inputs = []
    at = 0
    for one in _objects(data, "inputs"):
        name = _text(one, "name", "an input")
        where = f"input {shown(name)}"
        size = _size(parameters_of(one, where), where)
        if size is None:
            raw, values = None, _data(one, where)
        else:
            if "data" in one:
                raise bad_request(
                    f"{where} has both 'data' and 'binary_data_size'",
                    "Send the tensor once: in the JSON, or as bytes behind it.",
                )
            if size > len(behind) - at:
                raise bad_request(
                    f"{where} is said to have {size:,} bytes behind the JSON, and {len(behind) - at:,} are left"
                )
            raw, values = behind[at : at + size], None
            at += size
        inputs.append(InputTensor(name, _text(one, "datatype", where), shape_of(one.get("shape"), where), raw, values))
    if not inputs:
        raise bad_request("the request has no inputs", 'Give "inputs": [{"name", "shape", "datatype", "data"}].')
    if at != len(behind):
        raise bad_request(
            f"behind the JSON are {len(behind):,} bytes, and the inputs' 'binary_data_size' add up to {at:,}"
        )
    unique([one.name for one in inputs], "input")
    return tuple(inputs)


def _outputs(data: Mapping[str, Any]) -> tuple[WantedOutput, ...]:
    outputs = []
    for one in _objects(data, "outputs"):
        name = _text(one, "name", "an output")
        parameters = parameters_of(one, f"output {shown(name)}")
        outputs.append(
            WantedOutput(
                name,
                _flag(parameters, "binary_data", f"output {shown(name)}"),
                classes(parameters, f"output {shown(name)}"),
            )
        )
    unique([one.name for one in outputs], "output")
    return tuple(outputs)


def classes(parameters: Parameters, where: str) -> int:
    """Return how many classes an output's parameters ask for, 0 for the plain tensor; raises RequestError, also where
    shared memory is asked for."""
    if _SHARED_MEMORY in parameters:
        raise bad_request(
            f"{where} names a region of shared memory, which is not served", "Send tensors in the request."
        )
    count = parameters.get("classification", 0)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise bad_request(
            f"{where}: the parameter 'classification' is {shown(count)}; expected how many of the best classes are"
            " wanted"
        )
    return count


def _objects(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = data.get(key)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise bad_request(f"'{key}' is {shown(found)}; expected a list of objects")
    return found


def _text(data: Mapping[str, Any], key: str, where: str) -> str:
    found = data.get(key)
    if not isinstance(found, str):
        raise bad_request(f"{where}: its '{key}' is {'missing' if found is None else shown(found)}; expected text")
    return found


def _data(data: Mapping[str, Any], where: str) -> list[object]:
    found = data.get("data")
    if not isinstance(found, list):
        raise bad_request(
            f"{where}: its 'data' is {'missing' if found is None else shown(found)}; expected a list, or bytes behind"
            " the JSON"
        )
    return found


def parameters_of(data: Mapping[str, Any], where: str) -> Parameters:
    """Return the object's parameters, none where it says nothing of them; raises RequestError."""
    found = data.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise bad_request(f"{where}: its 'parameters' are {shown(found)}; expected an object")
    return found


def _flag(parameters: Parameters, name: str, where: str) -> bool | None:
    found = parameters.get(name)
    if not isinstance(found, (bool, type(None))):
        raise bad_request(f"{where}: the parameter '{name}' is {shown(found)}; expected true or false")
    return found


def _size(parameters: Parameters, where: str) -> int | None:
    if _SHARED_MEMORY in parameters:
        raise bad_request(
            f"{where} names a region of shared memory, which is not served", "Send tensors in the request."
        )
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise bad_request(
            f"{where}: the parameter 'binary_data_size' is {shown(size)}; expected a whole number of bytes"
        )
    return size

"""Run a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.serve.messages import RequestOptions
from plimsoll.serve.oip.datatypes import DATATYPES, datatype_of, dtype_of
from plimsoll.serve.oip.models import Served
from plimsoll.serve.oip.ranking import best
from plimsoll.serve.oip.request import InferRequest, InputTensor, WantedOutput, bad_request, shown
from plimsoll.serve.oip.tensors import array, pictures

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor of an answer."""

    name: str
    datatype: str
    value: Array
    binary: bool
    """Whether it goes as bytes behind the JSON."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets."""

    model: str
    version: str
    id: str | None
    outputs: tuple[Output, ...]
    milliseconds: tuple[Mapping[str, float], ...] = ()
    """How long each picture, or each part of a tensor, took in each stage."""


async def infer(served: Served, request: InferRequest, asked: RequestOptions, most: int) -> Answer:
    """Run a request of at most `most` pictures or rows; raises RequestError."""
    facts = served.metadata
    _check_names(request.outputs, [fact.name for fact in facts.outputs], "output")
    if served.bare:
        parts = await served.deployment.infer(_feeds(served, request.inputs, most), asked)
    else:
        parts = await served.deployment.raw_outputs(_pictures(request.inputs, most), asked)
    wanted = request.outputs or [WantedOutput(fact.name) for fact in facts.outputs]
    outputs = tuple(
        _output(one, _joined([part.outputs[one.name] for part in parts]), request.binary, facts.labels)
        for one in wanted
    )
    return Answer(
        served.name, served.deployment.version, request.id, outputs, tuple(part.milliseconds for part in parts)
    )


def whole_body(served: Served, body: bytes) -> InferRequest:
    """Return the request that a body without JSON means: the model's one input, as a batch of one; the outputs go back
    as bytes. Raises RequestError."""
    inputs = served.inputs
    if len(inputs) != 1:
        raise bad_request(
            f"a body without JSON means one input, and '{served.name}' has {len(inputs)}",
            "Say in JSON which bytes are whose.",
        )
    fact = inputs[0]
    if not served.bare:
        return InferRequest((InputTensor(fact.name, "BYTES", (1,), values=(body,)),), binary=True)
    datatype = datatype_of(fact.dtype)
    shape = _shape_of_one(fact.shape, len(body) // dtype_of(datatype, f"input '{fact.name}'").itemsize)
    return InferRequest((InputTensor(fact.name, datatype, shape, raw=body),), binary=True)


def _shape_of_one(shape: Sequence[int | None], elements: int) -> tuple[int, ...]:
    """Return the shape with one row; an axis that is free beside the first takes what the elements say."""
    free = [place for place, size in enumerate(shape) if size is None and place > 0]
    if len(free) > 1:
        raise bad_request(
            f"a body without JSON doesn't say its shape, and {len(free)} axes of the network's input are free",
            "Say the shape in JSON.",
        )
    known = 1
    for size in shape[1:]:
        known *= size or 1
    sizes = [1, *(size if size is not None else elements // known for size in shape[1:])]
    return tuple(sizes)


def _pictures(inputs: Sequence[InputTensor], most: int) -> list[bytes]:
    _check_names(inputs, ["image"], "input")
    return pictures(inputs[0], most)


def _feeds(served: Served, inputs: Sequence[InputTensor], most: int) -> Mapping[str, Array]:
    facts = {fact.name: fact for fact in served.inputs}
    _check_names(inputs, list(facts), "input")
    missing = facts.keys() - {one.name for one in inputs}
    if missing:
        raise bad_request(f"there is no input {shown(min(missing))}; '{served.name}' takes {_listed(list(facts))}")
    feeds = {one.name: array(one, facts[one.name], most) for one in inputs}
    rows = {len(value) for value in feeds.values()}
    if len(rows) > 1:
        raise bad_request(f"the inputs have {', '.join(map(str, sorted(rows)))} rows; all need the same number")
    return feeds


def _check_names(found: Sequence[InputTensor | WantedOutput], known: Sequence[str], what: str) -> None:
    for one in found:
        if one.name not in known:
            raise bad_request(f"there is no {what} {shown(one.name)}; the {what}s are {_listed(known)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _joined(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _output(wanted: WantedOutput, value: Array, binary: bool, labels: Sequence[str]) -> Output:
    binary = binary if wanted.binary is None else wanted.binary
    if wanted.classes:
        return Output(wanted.name, "BYTES", best(value, wanted.classes, labels), binary)
    return Output(wanted.name, DATATYPES.get(value.dtype) or datatype_of(value.dtype.name), value, binary)

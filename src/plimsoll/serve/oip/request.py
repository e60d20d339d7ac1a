"""What a caller asks for, whichever way it came."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from plimsoll.serve.messages import Problem, RequestError, RequestOptions

Parameters = Mapping[str, object]

LONGEST_TIMEOUT_US = 86_400_000_000
"""A day; whoever says more means no limit of his own, and the service's holds."""


@dataclass(frozen=True, slots=True)
class InputTensor:
    """A tensor as it was sent: its bytes (`raw`) or its elements (`values`), never both."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: memoryview | bytes | None = None
    """Row-major and little-endian; an element of BYTES follows its length in four bytes."""
    values: Sequence[object] | None = None
    """From JSON flat or nested, an element of BYTES as text; from gRPC flat, and as bytes."""


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output that the caller named."""

    name: str
    binary: bool | None = None
    """None: as the request says for all."""
    classes: int = 0
    """With the classification extension: the best so many."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One request for inference."""

    inputs: tuple[InputTensor, ...]
    outputs: tuple[WantedOutput, ...] = ()
    """None named: all of them."""
    id: str | None = None
    parameters: Parameters = field(default_factory=dict)
    binary: bool = False
    """Whether outputs that say nothing themselves go as bytes behind the JSON."""

    def rows(self, most: int) -> int:
        """Return how many pictures or rows it says it has, at most `most`: what it is charged for where pictures are
        counted."""
        first = self.inputs[0]
        return min(most, math.prod(first.shape) if first.datatype == "BYTES" else first.shape[0] if first.shape else 1)


def bad_request(message: str, hint: str = "") -> RequestError:
    """Return the refusal of what the caller could have done right."""
    return RequestError(Problem("input", message, hint, 400))


def unique(names: Sequence[str], what: str) -> None:
    """Raise RequestError where a name stands there twice."""
    if len(set(names)) != len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise bad_request(f"{what} {shown(twice)} stands there twice", "Name each once.")


def shown(value: object) -> str:
    """Return a caller's value for an error message: quoted, and short."""
    text = (
        repr(value[:80])
        if isinstance(value, str)
        else repr(value)
        if isinstance(value, (bool, int, float, type(None)))
        else f"a {type(value).__name__}"
    )
    return text if len(text) <= 90 else f"{text[:80]} …"


def asked(parameters: Parameters, remaining: float | None = None) -> RequestOptions:
    """Read priority and timeout; `remaining` is how many seconds the transport leaves. Raises RequestError.

    Triton's `priority`: 1 is the highest, larger is lower, 0 means the default; here 1 is high, 2 normal and 3 or more
    low. Triton's `timeout` is in microseconds, 0 meaning none.
    """
    priority = _whole(parameters, "priority")
    microseconds = _whole(parameters, "timeout")
    timeout = microseconds / 1e6 if 0 < microseconds <= LONGEST_TIMEOUT_US else None
    if remaining is not None:
        timeout = max(remaining, 1e-3) if timeout is None else min(timeout, max(remaining, 1e-3))
    return RequestOptions(priority=_priority(priority), timeout=timeout)


def _priority(value: int) -> Literal[-1, 0, 1]:
    return 1 if value == 1 else 0 if value in (0, 2) else -1


def _whole(parameters: Parameters, name: str) -> int:
    value = parameters.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise bad_request(f"parameter '{name}' is {shown(value)}; expected a whole number, 0 or more")
    return value

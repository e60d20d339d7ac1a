"""The shapes of the native interface's answers, for its description; the endpoints write them without the detour over
these classes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from plimsoll.core.check import Check
from plimsoll.report.report import Measurement


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Scores(_Shape):
    """Of a classifier."""

    label: str | None = Field(description="The decision; null where no score reaches the threshold.")
    score: float = Field(description="Of the positive label, or of the best one.")
    scores: dict[str, float] = Field(description="By label, best first.")


class Box(_Shape):
    """Something that was detected."""

    label: str
    score: float
    box: list[float] = Field(
        description="x0, y0, x1, y1 in pixels of the picture as it was sent.", min_length=4, max_length=4
    )


class Boxes(_Shape):
    """Of a detector, best first."""

    boxes: list[Box]


class Points(_Shape):
    """Of a network that finds landmarks."""

    points: list[list[float]] = Field(description="x, y (and z) each, in pixels of the picture as it was sent.")
    presence: float | None = Field(None, description="How sure the network is that the object is there at all.")


class Mask(_Shape):
    """Of a network that gives a class to every pixel."""

    mask: dict[str, Any]


class Outputs(_Shape):
    """The raw outputs of a network without a task."""

    outputs: dict[str, Any]


class Wrongness(_Shape):
    """A problem. None of its kinds says anything about what the picture shows."""

    kind: Literal["input", "image", "overloaded", "unavailable", "deadline", "failed"]
    message: str
    hint: str


class Result(_Shape):
    """What came of a picture: an answer or an error."""

    name: str | None = Field(description="As it was sent.")
    answer: Scores | Boxes | Points | Mask | Outputs | None
    error: Wrongness | None
    milliseconds: dict[str, float] = Field(
        description="queue: until a worker took it; decode, infer, answer: what its batch took."
    )
    batch: int = Field(description="How many pictures were computed together.")


class Predicted(_Shape):
    """The answer of `POST /v1/predict`."""

    model: str
    version: str
    results: list[Result]


class Wrong(_Shape):
    """An answer with an error status: the request's own problem, or that of its only picture beside its entry."""

    error: Wrongness | None = None
    model: str | None = None
    version: str | None = None
    results: list[Result] | None = None


class ModelShape(BaseModel):
    """A model; what it is is known once it has been loaded."""

    model_config = ConfigDict(extra="allow", title="Model")

    name: str
    version: str
    state: Literal["loading", "ready", "unavailable", "unloaded"]
    reason: str


class Models(_Shape):
    """The answer of `GET /v1/models`."""

    models: list[ModelShape]


class Alive(_Shape):
    """The answer of `GET /healthz`."""

    status: Literal["alive"]


class State(_Shape):
    """Of a model."""

    state: Literal["loading", "ready", "unavailable", "unloaded"]
    reason: str


class Readiness(_Shape):
    """The answer of `GET /readyz`."""

    status: Literal["ready", "not ready", "draining"]
    models: dict[str, State]


class Proof(_Shape):
    """The answer of `GET /v1/models/{name}/proof`."""

    kind: str = Field(description="The verb that measured: prove, ship …")
    subject: str
    created: AwareDatetime
    plimsoll: str = Field(description="The version that measured.")
    checks: tuple[Check, ...]
    measurements: dict[str, Measurement]
    passed: bool
    page: bool = Field(description="Whether the report is there as a page, too.")

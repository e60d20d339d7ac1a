"""What a service answers, typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from plimsoll.client.errors import ItemError


@dataclass(frozen=True)
class Box:
    """An object detected in a picture."""

    label: str
    score: float
    corners: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels of the picture as it was sent."""
    track: int | None = None
    """The object's number in its clip, where that was asked for."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read a box as the service writes it."""
        left, top, right, bottom = map(float, data["box"])
        return cls(str(data["label"]), float(data["score"]), (left, top, right, bottom), data.get("track"))


@dataclass(frozen=True)
class Answer:
    """A model's answer for one picture.

    `row` is all of it, as plain data. The properties read from it what the model's task has: `label`, `score` and
    `scores` of a classification; `boxes` of a detection; `points` and `presence` of landmarks; `mask` of a
    segmentation; `text`, `score` and `symbols` of a line of text; `outputs` of a bare network; `frame` where a file had
    several. Another task's property is an AttributeError that says so.
    """

    row: Mapping[str, Any]
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """How long it took the service: `queue`, `decode`, `infer`, `answer`."""
    batch: int = 1
    """How many pictures were computed together."""
    model: str = ""
    version: str = ""

    def _of(self, name: str) -> Any:
        if name not in self.row:
            raise AttributeError(
                f"this answer has no `{name}`: {self.model or 'the model'} answers with"
                f" {', '.join(self.row) or 'nothing'}"
            )
        return self.row[name]

    @property
    def label(self) -> str | None:
        """The decision; None where no score reaches the threshold."""
        value = self._of("label")
        return None if value is None else str(value)

    @property
    def score(self) -> float:
        """The positive label's score, or the best one."""
        return float(self._of("score"))

    @property
    def scores(self) -> dict[str, float]:
        """Label → score, best first."""
        return {str(label): float(score) for label, score in self._of("scores").items()}

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Detected objects, best first."""
        return tuple(map(Box.of, self._of("boxes")))

    @property
    def points(self) -> tuple[tuple[float, ...], ...]:
        """Landmarks (x, y) or (x, y, z), in pixels of the picture as it was sent."""
        return tuple(tuple(map(float, point)) for point in self._of("points"))

    @property
    def presence(self) -> float | None:
        """The score for the presence of what has the landmarks; None where the model has none."""
        value = self._of("presence")
        return None if value is None else float(value)

    @property
    def mask(self) -> Mapping[str, Any]:
        """The mask as the service writes it."""
        mask: Mapping[str, Any] = self._of("mask")
        return mask

    @property
    def text(self) -> str:
        """The text that was read."""
        return str(self._of("text"))

    @property
    def symbols(self) -> tuple[tuple[str, float | None], ...]:
        """Each symbol of the text with its probability; None where the network gives none."""
        return tuple((str(symbol), score) for symbol, score in self._of("symbols"))

    @property
    def frame(self) -> int:
        """The number, from 0, of the frame that the answer is of: the worst of a file with several."""
        return int(self._of("frame"))

    @property
    def outputs(self) -> Mapping[str, Any]:
        """A bare network's outputs: name → nested lists."""
        outputs: Mapping[str, Any] = self._of("outputs")
        return outputs


@dataclass(frozen=True)
class Result:
    """What came of one picture: an answer or an error, never both."""

    name: str
    """A path as it was given, a file object's name, or the picture's number from 0. It is never sent to the service."""
    answer: Answer | None = None
    error: ItemError | None = None

    def unwrap(self) -> Answer:
        """Return the answer; raises the error if there is no answer."""
        if self.answer is None:
            raise self.error or ItemError(f"{self.name}: no answer")
        return self.answer


@dataclass(frozen=True)
class FrameResult(Result):
    """What came of one frame of a clip; a last one without a number may say what is wrong with the clip."""

    frame: int | None = None
    """Which frame of the clip, from 0."""
    time: float | None = None
    """Seconds since the clip began."""


@dataclass(frozen=True)
class ModelInfo:
    """A model of the service, as `GET /v1/models` describes it."""

    name: str
    version: str
    state: str
    """ready, loading, unavailable or unloaded."""
    details: Mapping[str, Any]
    """All that the service says of it."""

    @property
    def ready(self) -> bool:
        """Whether it answers now."""
        return self.state == "ready"

    @property
    def labels(self) -> Sequence[str]:
        """The classes that it tells apart; empty where the service doesn't say."""
        labels: Sequence[str] = self.details.get("labels") or ()
        return labels

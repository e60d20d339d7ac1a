"""What `/v1/predict` answers: the rows of each task, and what they come in."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from plimsoll.serve.http.endpoints import ErrorInfo, ErrorResponse
from plimsoll.serve.messages import DescribedAs, ReplyModel


class ClassifyAnswer(ReplyModel):
    """Of a classifier."""

    label: str | None = Field(description="The decision; null where no score reaches the threshold.")
    score: float = Field(description="Of the positive label, or of the best one.")
    scores: dict[str, float] = Field(description="By label, best first.")


class DetectedBox(ReplyModel):
    """Something that was detected."""

    label: str
    score: float
    box: list[float] = Field(
        description="x0, y0, x1, y1 in pixels of the picture as it was sent.", min_length=4, max_length=4
    )
    points: list[list[float]] | None = Field(
        None, description="x, y (and a third value) each; absent where the model gives none."
    )
    mask: dict[str, Any] | None = Field(None, description="The object's pixels; absent where the model gives none.")
    corners: list[list[float]] | None = Field(None, description="Of a turned box, its four corners; else absent.")
    track: int | None = Field(
        None, description="With `track`: the object's number, from 1; null for what was seen once so far."
    )


class DetectAnswer(ReplyModel):
    """Of a detector, best first."""

    boxes: list[DetectedBox]


class LandmarksAnswer(ReplyModel):
    """Of a network that finds landmarks."""

    points: list[list[float]] = Field(description="x, y (and z) each, in pixels of the picture as it was sent.")
    presence: float | None = Field(None, description="How sure the network is that the object is there at all.")


class SegmentAnswer(ReplyModel):
    """Of a network that gives a class to every pixel."""

    mask: dict[str, Any]


class TextAnswer(ReplyModel):
    """Of a network that reads a line of text."""

    text: str = Field(description="Empty where the score is below the threshold.")
    score: float | None = Field(None, description="As the model's Spec says: of its symbols, or of the whole text.")
    symbols: list[list[Any]] = Field(description="Each symbol with its probability.")


class TensorAnswer(ReplyModel):
    """The raw outputs of a network without a task."""

    outputs: dict[str, Any]


class ClipSegment(ReplyModel):
    """A part of a clip whose frames reach the threshold."""

    start: float
    end: float = Field(description="Seconds since the clip began.")
    score: float = Field(description="Of its worst frame.")


class ClipScoreAnswer(ReplyModel):
    """Of a whole clip, with `clip_score`."""

    score: float = Field(description="By the rule: a frame's score, or the share of time that reaches the threshold.")
    flagged: bool
    rule: str = Field(description="`worst`, `nth=N` or `share=S`.")
    frame: int | None = Field(description="The frame that decided; of a share, the worst one.")
    time: float | None
    frames: int = Field(description="How many were answered.")
    duration: float = Field(description="Seconds that they stand for.")
    stopped: bool = Field(description="Whether the rest was left out, with `early_exit`.")
    segments: list[ClipSegment]


Row = ClassifyAnswer | DetectAnswer | LandmarksAnswer | SegmentAnswer | TextAnswer | TensorAnswer | None


class PictureResult(ReplyModel):
    """What came of a picture: an answer or an error."""

    name: str | None = Field(description="As it was sent.")
    answer: Annotated[Any, DescribedAs(Row)]
    error: ErrorInfo | None
    milliseconds: dict[str, float] = Field(
        description="queue: until a worker took it; decode, infer, answer: what its batch took."
    )
    batch: int = Field(description="How many pictures were computed together.")


class PredictResponse(ReplyModel):
    """The answers."""

    model: str
    version: str
    results: list[PictureResult]


class StreamedResult(PictureResult):
    """What came of a picture, as a line of its own: each as soon as it is known."""

    number: int = Field(description="Which picture, counted from 0 in the order in which they were sent.")
    model: str
    version: str


class ClipResult(PictureResult):
    """What came of a frame of a clip; or, as the last row, what is wrong with the clip; or the clip's score."""

    answer: Annotated[Any, DescribedAs(Row | ClipScoreAnswer)]
    frame: int | None = Field(
        description="Which frame of the clip, from 0; null where the answer, or the error, is the clip's."
    )
    time: float | None = Field(description="Seconds since the clip began.")
    model: str
    version: str


class FrameResult(ReplyModel):
    """What came of a frame that came over a WebSocket."""

    number: int = Field(description="Which message of the connection it was, from 0.")
    dropped: int = Field(description="How many messages of the connection were dropped until now.")
    answer: Annotated[Any, DescribedAs(Row)]
    error: ErrorInfo | None
    retry_after: int | None = Field(description="Seconds until it is worth sending another one, where that is known.")
    milliseconds: dict[str, float]
    batch: int = Field(description="How many pictures were computed together.")
    model: str
    version: str


class PredictError(ErrorResponse):
    """The problem of a request's only picture, beside its entry."""

    model: str
    version: str
    results: list[PictureResult]

"""The shapes of the contracts' answers, for their description; the contracts write them without the detour over these
classes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from plimsoll.serve.compat.settings import Class

Probability = Annotated[float, Field(ge=0, le=1)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Prediction(_Shape):
    """A class and its probability."""

    class_name: Class = Field(alias="className")
    probability: Probability


class Detection(_Shape):
    """A picture that was looked at: all five classes, the most probable first."""

    success: Literal[True]
    predictions: list[Prediction] = Field(min_length=5, max_length=5)


class DetectionError(_Shape):
    """Why."""

    code: Literal[
        "INVALID_REQUEST", "IMAGE_DECODE_FAILED", "MODEL_UNAVAILABLE", "DETECTION_FAILED", "UNSUPPORTED_MEDIA_TYPE", "REQUEST_TOO_LARGE"
    ]  # fmt: skip
    message: str


class Undetected(_Shape):
    """A picture, or a whole request, of which nothing is known."""

    success: Literal[False]
    error: DetectionError


class Detections(_Shape):
    """An entry for each part, in their order."""

    results: list[Detection | Undetected]


class Detected(_Shape):
    """The answer to Misskey."""

    success: Literal[True]
    result: Detections


class VisionJudged(_Shape):
    """A picture that was looked at."""

    status: Literal["safe", "unsafe"]
    score: Probability = Field(description="How sure the model is that it is not safe.")
    threshold: Probability = Field(description="From this score on it is unsafe.")
    Drawing: Probability
    Hentai: Probability
    Neutral: Probability
    Porn: Probability
    Sexy: Probability


class VisionUnavailable(_Shape):
    """A picture of which nothing is known: neither a score nor a class, as PhotoPrism would decide by them."""

    status: Literal["unavailable"]
    reason: str


class VisionModel(_Shape):
    """What answered."""

    type: Literal["nsfw"]
    name: str
    version: str


class VisionResult(_Shape):
    """An entry for each picture, in their order."""

    nsfw: list[VisionJudged | VisionUnavailable]


class VisionAnswer(_Shape):
    """The answer to PhotoPrism."""

    id: str
    code: Literal[200]
    model: VisionModel
    result: VisionResult


class VisionNothing(_Shape):
    """An entry for each picture that could be counted, none with an answer."""

    nsfw: list[VisionUnavailable]


class VisionRefusal(_Shape):
    """The answer to PhotoPrism where there is none for the whole request."""

    id: str
    code: int = Field(description="The status.")
    error: str
    result: VisionNothing


class Accepted(_Shape):
    """Looked at, and safe."""

    status: Literal["accepted"]
    score: Probability
    threshold: Probability


class Rejected(_Shape):
    """Looked at, and not safe."""

    status: Literal["rejected"]
    score: Probability
    threshold: Probability


class Unknown(_Shape):
    """Nothing is known of the picture."""

    status: Literal["unknown"]
    reason: str

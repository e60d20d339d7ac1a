"""What a cascade's file says: a network for each stage, of the zoo, a bundle or a file beside it; and how each later
one's pictures are cut out."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from plimsoll.bundle.manifest import MAX_STAGES
from plimsoll.core.wording import explain
from plimsoll.errors import SpecError
from plimsoll.spec.spec import Landmarks
from plimsoll.system import files

MAX_BYTES = 1_000_000


class Crop(BaseModel):
    """How an object is cut out for the next stage: a square around its box, turned and shifted.

    MediaPipe's `DetectionsToRectsCalculator` and `RectTransformationCalculator` with `square_long`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: Annotated[FiniteFloat, Field(gt=0.0, le=20.0)] = 1.0
    """The square's side, in the longer sides of the box."""
    shift: tuple[FiniteFloat, FiniteFloat] = (0.0, 0.0)
    """How far its centre is moved, in widths and heights of the box, in the turned object's own directions."""
    upright: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = None
    """Two of the box's points: the line from the first to the second has the direction `angle` in the crop."""
    angle: FiniteFloat = 0.0
    """In degrees: 0 points to the right, 90 up."""


class Stage(BaseModel):
    """One network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """A network of the zoo, a bundle, or a file; relative paths start beside the cascade's file."""
    spec: str | None = None
    """The Spec's file, for a bare model file."""
    crop: Crop | None = None
    """How its pictures are cut out of the picture; the first stage takes all of it."""
    sampling: Literal["spec", "corners"] = "spec"
    """How the first stage's picture is made: by its Spec's input steps; or as MediaPipe does, whose `ImageToTensor`
    lays the picture's corner on the corner pixel's place. Its positions then lie half an input pixel further left and
    up, which its networks were made with."""
    presence: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Objects that a later stage is less sure of are dropped."""
    points: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=1000)] = ()
    """From the third stage on: which points of those so far this one gives anew, in its network's order. Its square is
    then cut around their centre, as large as the box around all points. Empty: its points take the place of all."""


class CascadeSpec(BaseModel):
    """A cascade, as its file says it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    description: str = ""
    labels: Literal["detector", "gestures"] = "detector"
    """What a box is called: as the first stage calls it, or the gesture of a hand of 21 points."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=2, max_length=MAX_STAGES)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stages[0].crop is not None:
            raise ValueError("stages: the first takes the whole picture, and has no crop")
        if any(stage.crop is None for stage in self.stages[1:]):
            raise ValueError("stages: all but the first need a crop")
        if any(stage.points for stage in self.stages[:2]):
            raise ValueError("stages: the first two have no points to give anew")
        return self


def check_points(where: str, stage: Stage, output: Landmarks, known: int) -> None:
    """Raise SpecError where a stage refers to points that those before it don't give."""
    upright = stage.crop.upright if stage.crop is not None else None
    if upright is not None and max(upright) >= known:
        raise SpecError(f"{where}: crop.upright = {list(upright)}, of {known} points so far", "They count from 0.")
    if stage.points and (max(stage.points) >= known or len(set(stage.points)) != output.points):
        raise SpecError(
            f"{where}: points = {list(stage.points)}, of {known} points so far; its network gives {output.points}",
            "Name as many as it gives, each once; they count from 0.",
        )


def read_cascade(path: Path) -> CascadeSpec:
    """Read a cascade's file; raises SpecError."""
    try:
        return CascadeSpec.model_validate(tomllib.loads(files.read_text(path, MAX_BYTES)))
    except OSError as error:
        raise SpecError(f"{path}: can't read the cascade: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not a TOML file: {error}") from error
    except ValidationError as error:
        raise SpecError(f"{path}: not a cascade: {explain(error)}", "docs/tasks.md says what one holds.") from error


def is_cascade(path: Path) -> bool:
    """Tell whether a TOML file is a cascade's, not a Spec's."""
    try:
        return "stages" in tomllib.loads(files.read_text(path, MAX_BYTES))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False


def write_cascade(cascade: CascadeSpec) -> str:
    """Return a cascade as TOML."""
    return tomli_w.dumps(cascade.model_dump(mode="json", exclude_none=True))

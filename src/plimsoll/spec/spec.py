"""`Spec`: the contract of a model, from the bytes of a picture to the meaning of the answer.

A Spec is a TOML file:

```toml
name = "open_nsfw"

[[input.steps]]
step = "decode"

[[input.steps]]
step = "resize"
width = 256
height = 256

[output]
task = "classify"
labels = ["sfw", "nsfw"]
```
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from plimsoll.spec.steps import Decode, ImageSpec, Step, StepOrderError


def _no_repeats(labels: tuple[str, ...]) -> tuple[str, ...]:
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise ValueError(f"duplicate label '{label}'")
        seen.add(label)
    return labels


MAX_ANCHORS = 40_000
"""As many as fit into a Spec file."""

Anchor = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
CoderScale = Annotated[FiniteFloat, Field(gt=0.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Labels = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_no_repeats)]


class _Output(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Band(BaseModel):
    """A reading of the score: `label` for scores from the previous band's end up to, not including, `below`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    below: Annotated[FiniteFloat, Field(gt=0.0)] | None = None
    """The band's upper end; the last band has none."""


class Classify(_Output):
    """One score a label; the network's output is `[N, labels]` (or `[N, 1]` for a lone sigmoid)."""

    task: Literal["classify"] = "classify"
    tensor: str | None = None
    """The output's name; needed only if the network has several."""
    labels: Labels
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    """What turns the output into scores; `none` if the network has applied it already."""
    positive: str | None = None
    """The label whose score is *the* score of a picture (moderation, defect …). Without one, the best label's."""
    threshold: Probability | None = None
    """With `positive`: its label from this score on (default 0.5). Without: a best score below this gives no label."""
    bands: tuple[Band, ...] = ()
    """How people read the positive score, in rising order."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.positive is not None and self.positive not in self.labels:
            raise ValueError(f"positive: unknown label '{self.positive}'; choose from {', '.join(self.labels)}")
        if self.bands and self.positive is None:
            raise ValueError("bands: they need a 'positive' label, whose score they read")
        edges = [band.below for band in self.bands[:-1] if band.below is not None]
        rising = edges == sorted(set(edges)) and len(edges) == len(self.bands[:-1])
        if self.bands and (not rising or self.bands[-1].below is not None):
            raise ValueError("bands: 'below' must rise from band to band, and only the last band has none")
        return self


class Detect(_Output):
    """Boxes with a label and a score."""

    task: Literal["detect"] = "detect"
    head: Literal["yolov5", "yolov8", "ssd", "tflite_postprocess"]
    """How the output tensors hold boxes: see docs/tasks.md."""
    tensors: tuple[str, ...] = ()
    """The outputs that the head reads, in its order; all of the network's if none is named."""
    labels: Labels
    confidence: Probability = 0.25
    iou: Probability = 0.45
    """Boxes of one class that overlap more than this are one object."""
    class_agnostic_iou: Probability | None = None
    """A second suppression across classes."""
    max_boxes: Annotated[int, Field(ge=1)] = 300
    normalized: bool = False
    """Whether coordinates are fractions of the network's input size (always so for `tflite_postprocess`)."""
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    """SSD: what turns the network's scores into probabilities; `none` if the network has applied it already."""
    anchors_file: str | None = None
    """SSD: a file of anchors `[N, 4]` (centre y, centre x, h, w) beside the Spec, .npy or text. It becomes `anchors`
    when the Spec's file is read."""
    anchors: Annotated[tuple[Anchor, ...], Field(max_length=MAX_ANCHORS)] = ()
    """SSD: the anchors themselves, so that a Spec travels in one piece. Fractions of the input where `normalized`, else
    its pixels."""
    variances: tuple[CoderScale, CoderScale, CoderScale, CoderScale] = (10.0, 10.0, 5.0, 5.0)
    """SSD: the box coder's scales (y, x, h, w), which divide the network's values (10 is Caffe's variance of 0.1)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.head != "ssd" and (self.anchors or self.anchors_file is not None or self.activation != "none"):
            raise ValueError(
                f"anchors, anchors_file, activation: allowed only with head = 'ssd', but head is '{self.head}'"
            )
        if self.anchors and self.anchors_file is not None:
            raise ValueError("give either anchors or anchors_file, not both")
        return self


class Landmarks(_Output):
    """Named points."""

    task: Literal["landmarks"] = "landmarks"
    tensor: str | None = None
    """The output's name; needed only if the network has several."""
    points: Annotated[int, Field(ge=1)]
    dimensions: Literal[2, 3] = 2
    """x, y; or x, y, z, with z on the scale of x."""
    normalized: bool = False
    """Whether coordinates are fractions of the network's input size."""
    presence: str | None = None
    """The output that says how sure the network is that the object is there at all."""


class Segment(_Output):
    """A class for every pixel."""

    task: Literal["segment"] = "segment"
    tensor: str | None = None
    """The output's name; needed only if the network has several."""
    labels: Labels
    """One a plane, in their order. A single plane goes with one label (what reaches the threshold) or two (below it,
    and from it on)."""
    layout: Literal["NHWC", "NCHW"] = "NCHW"
    """Where the planes are in the output."""
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    """What turns the output into probabilities; `none` if the network has applied it already. It matters for a
    single plane alone."""
    threshold: Probability = 0.5
    """For a single sigmoid plane: foreground from this value on."""


class Tensors(_Output):
    """The raw output tensors."""

    task: Literal["tensor"] = "tensor"
    tensors: tuple[str, ...] = ()
    """Which outputs to give; all if none is named."""


Output = Annotated[Classify | Detect | Landmarks | Segment | Tensors, Field(discriminator="task")]


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Input(BaseModel):
    """How a picture becomes the network's input tensor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensor: str | None = None
    """The input's name; needed only if the network has several."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    """From the file's bytes to the tensor, in order; the first is `decode`."""

    @field_validator("steps")
    @classmethod
    def _check_order(cls, steps: tuple[Step, ...], info: ValidationInfo) -> tuple[Step, ...]:
        del info
        _result_of(steps)
        return steps

    @property
    def tensor_spec(self) -> ImageSpec:
        """What the tensor of one picture looks like after the last step."""
        return _result_of(self.steps)

    @property
    def decode(self) -> Decode:
        first = self.steps[0]
        assert isinstance(first, Decode)  # noqa: S101 - _follow has refused every other Spec
        return first


def _result_of(steps: tuple[Step, ...]) -> ImageSpec:
    """Return the result of the steps; raises ValueError, naming the step, if one can't follow those before it."""
    image = ImageSpec()
    for number, step in enumerate(steps, start=1):
        if isinstance(step, Decode) != (number == 1):
            raise ValueError(
                "the first step, and only the first, must be 'decode'"
                if number == 1
                else f"step {number} is a second 'decode'"
            )
        try:
            image = step.after(image)
        except StepOrderError as error:
            raise ValueError(f"step {number}: {error}") from error
    return image


class Spec(BaseModel):
    """The contract of a model. Frozen; two equal Specs give equal answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    name: Name
    """A short name: letters, digits, dot, dash, underscore."""
    description: str = ""
    input: Input
    output: Output

    def renamed(self, name: str) -> Self:
        return self.model_copy(update={"name": name})


__all__ = ["Input", "Spec"]

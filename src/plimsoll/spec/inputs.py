"""The input side of a Spec: how a picture becomes the network's tensors."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from plimsoll.spec.steps import Decode, ImageSpec, Step, StepOrderError

MAX_EXTRA_VALUES = 100_000


def no_repeats(labels: tuple[str, ...], what: str = "label") -> tuple[str, ...]:
    """Return the labels; raises ValueError for one that is there twice."""
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise ValueError(f"duplicate {what} '{label}'")
        seen.add(label)
    return labels


def _check_batch_axis(value: Any) -> Any:
    """Refuse anything but an axis, or a table of axes, in one sentence: a union would list each of its members."""
    axes = list(value.values()) if isinstance(value, dict) else [value]
    for axis in axes:
        if axis != "none" and not (isinstance(axis, int) and not isinstance(axis, bool) and 0 <= axis <= 7):
            raise ValueError(f"found {axis!r}, expected an axis from 0 to 7, 'none', or a table of these by outputs")
    return value


BatchAxis = Annotated[int, Field(ge=0, le=7)] | Literal["none"]
OptionalBatchAxis = Annotated[BatchAxis | None, BeforeValidator(lambda v: v if v is None else _check_batch_axis(v))]
BatchAxes = Annotated[
    BatchAxis | dict[str, BatchAxis] | None, BeforeValidator(lambda v: v if v is None else _check_batch_axis(v))
]


class Extra(BaseModel):
    """A further input of the network, the same for every picture. Its dtype is the network's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensor: str
    """The input's name."""
    value: FiniteFloat | None = None
    """One number for all of its elements; `true` is 1."""
    values: Annotated[tuple[FiniteFloat, ...], Field(max_length=MAX_EXTRA_VALUES)] = ()
    """Its elements, in the order of rows."""
    values_file: str | None = None
    """A file of its elements beside the Spec, .npy or text. It becomes `values` and `shape` when the Spec's file is
    read."""
    shape: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """The shape of the values; needed only where the network leaves a size open. Without the axis of the pictures where
    `batch_axis` says which it is."""
    source: Literal["picture", "input_size"] | None = None
    """Instead of values: `picture`, the tensor that the first input gets, or the same picture through `steps` of its
    own; `input_size`, the first input's height and width in pixels."""
    steps: tuple[Step, ...] = ()
    """With `source = "picture"`: from the file's bytes to this input's tensor, in order; the first is `decode`. Every
    picture has to get the same size."""
    order: Literal["hw", "wh"] = "hw"
    """With `source = "input_size"`: height or width first."""
    batch_axis: OptionalBatchAxis = None
    """Which axis of it holds the pictures; where nothing is said, the first if its size is free, else none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [self.value is not None, bool(self.values), self.values_file is not None, self.source is not None]
        if sum(given) != 1:
            raise ValueError("give one of value, values, values_file and source")
        if self.values and self.shape is not None and math.prod(self.shape) != len(self.values):
            raise ValueError(
                f"values: {len(self.values):,}, but shape {list(self.shape)} has {math.prod(self.shape):,}"
            )
        if self.source is not None and self.shape is not None:
            raise ValueError("shape: allowed only with value, values or values_file")
        if self.source != "input_size" and self.order != "hw":
            raise ValueError("order: allowed only with source = 'input_size'")
        if self.steps and self.source != "picture":
            raise ValueError("steps: allowed only with source = 'picture'")
        if self.steps and None in self.view.tensor_spec.shape:
            raise ValueError("steps: every picture has to get the same size; add a resize step")
        return self

    @property
    def view(self) -> Input:
        """Its own input steps, as the input side of a Spec."""
        return Input(tensor=self.tensor, steps=self.steps)


class Input(BaseModel):
    """How a picture becomes the network's input tensor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensor: str | None = None
    """The input's name; needed only if the network has several."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    """From the file's bytes to the tensor, in order; the first is `decode`."""
    extra: tuple[Extra, ...] = ()
    """The network's further inputs, one table each."""

    @field_validator("extra")
    @classmethod
    def _check_names(cls, extra: tuple[Extra, ...]) -> tuple[Extra, ...]:
        no_repeats(tuple(further.tensor for further in extra), "input")
        return extra

    @field_validator("steps")
    @classmethod
    def _check_order(cls, steps: tuple[Step, ...], info: ValidationInfo) -> tuple[Step, ...]:
        del info
        _result_of(steps)
        return steps

    @model_validator(mode="after")
    def _has_known_sizes(self) -> Self:
        if self.is_packed and None in self.tensor_spec.shape:
            raise ValueError("steps: every picture has to get the same size, since a further input has steps too")
        if self.is_packed and any(view.decode.frames != "first" for view in self.views):
            raise ValueError("frames: only the first frame of a file, since a further input has steps too")
        return self

    @property
    def tensor_spec(self) -> ImageSpec:
        """What the tensor of one picture looks like after the last step."""
        return _result_of(self.steps)

    @property
    def views(self) -> tuple[Input, ...]:
        """What is made of a picture: for this input, then for each further one that has steps of its own."""
        return (Input(tensor=self.tensor, steps=self.steps), *(further.view for further in self.extra if further.steps))

    @property
    def is_packed(self) -> bool:
        """Whether several views of a picture are one tensor, one after another, on their way to the network."""
        return any(further.steps for further in self.extra)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of the tensor of one picture, without the batch axis: of all views together where there are
        several."""
        if self.is_packed:
            return (sum(math.prod(size or 1 for size in view.tensor_spec.shape) for view in self.views),)
        return self.tensor_spec.shape

    @property
    def dtype(self) -> str:
        """The dtype of the tensor of one picture."""
        return "float32" if self.is_packed else self.tensor_spec.dtype

    @property
    def decode(self) -> Decode:
        first = self.steps[0]
        assert isinstance(first, Decode)  # noqa: S101 - _check_order has refused every other Spec
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

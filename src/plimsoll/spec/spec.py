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

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from plimsoll.spec.output import Output
from plimsoll.spec.steps import Decode, ImageSpec, Step, StepOrderError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Input(BaseModel):
    """How a picture becomes the network's input tensor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensor: str | None = None
    """The input's name; needed only where the network has several."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    """From the file's bytes to the tensor, in order; the first is `decode`."""

    @field_validator("steps")
    @classmethod
    def _possible(cls, steps: tuple[Step, ...], info: ValidationInfo) -> tuple[Step, ...]:
        del info
        _follow(steps)
        return steps

    @property
    def tensor_spec(self) -> ImageSpec:
        """What the tensor of one picture looks like after the last step."""
        return _follow(self.steps)

    @property
    def decode(self) -> Decode:
        first = self.steps[0]
        assert isinstance(first, Decode)  # noqa: S101 - _follow has refused every other Spec
        return first


def _follow(steps: tuple[Step, ...]) -> ImageSpec:
    """Return what the steps make; raise ValueError, naming the step, where one can't follow the others."""
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

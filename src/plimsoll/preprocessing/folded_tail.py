"""Which input steps can become part of a network, and what they compute together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.spec import Input, Spec
from plimsoll.spec.steps import Cast, Channels, Crop, Decode, ImageSpec, Jpeg, Mean, Resize, Scale, Std, Step

_PIXEL_STEPS = (Decode, Resize, Jpeg, Crop)

Row = NDArray[np.float64]


def split(spec: Spec) -> tuple[tuple[Step, ...], Tail]:
    """Return the steps that stay outside, and what those after them compute; raises ModelError where that can't be
    folded.

    A `channels` step between steps on pixels moves behind them: all of these treat every channel alike.
    """
    steps = spec.input.steps
    at = next(
        (place for place, step in enumerate(steps) if not isinstance(step, (*_PIXEL_STEPS, Channels))), len(steps)
    )
    outside = ", ".join(f"'{step.step}'" for step in steps)
    if late := next((step for step in steps[at:] if isinstance(step, _PIXEL_STEPS)), None):
        raise ModelError(
            f"{spec.name}: its input steps can't be folded: '{late.step}' works on pixels after '{steps[at].step}';"
            f" left outside are all: {outside}",
            f"Put '{late.step}' before '{steps[at].step}' where the network allows it.",
        )
    pixels = tuple(step for step in steps[:at] if not isinstance(step, Channels))
    form = Input(steps=pixels).form
    if form.dtype != "uint8":
        problem = f"after '{pixels[-1].step}' the values are {form.dtype}, not 8-bit pixels"
        hint = "A resize with rounding = 'nearest' gives 8-bit pixels."
        raise ModelError(
            f"{spec.name}: its input steps can't be folded: {problem}; left outside are all: {outside}", hint
        )
    tail = Tail.of(form, (*(step for step in steps[:at] if isinstance(step, Channels)), *steps[at:]))
    if tail.is_nothing:
        raise ModelError(
            f"{spec.name}: nothing to fold: the network takes the picture as it is; outside are: {outside}",
            "Use it as it is.",
        )
    return pixels, tail


@dataclass(frozen=True)
class Affine:
    """`(value - mean) * factor`, each a value a channel in the order that the network takes them."""

    mean: Row
    factor: Row


@dataclass(frozen=True)
class Tail:
    """What the steps after the pixels compute."""

    reversed: bool = False
    """Whether the network takes BGR."""
    parts: tuple[Affine | Cast, ...] = ()
    """In order; a cast stands between two affine parts only where it loses something."""
    layout: str = "NHWC"
    dtype: str = "uint8"

    @classmethod
    def of(cls, form: ImageSpec, steps: Iterable[Step]) -> Tail:
        """Sum up steps that follow the pixels of `form`."""
        parts: list[Affine | Cast] = []
        first = form
        for step in steps:
            if isinstance(step, Channels) and step.order != form.colour:
                parts = [Affine(one.mean[::-1], one.factor[::-1]) if isinstance(one, Affine) else one for one in parts]
            elif isinstance(step, Cast) and step.to != form.dtype:
                parts.append(step)
            elif isinstance(step, (Scale, Mean, Std)):
                last = (
                    parts.pop()
                    if parts and isinstance(parts[-1], Affine)
                    else Affine(np.zeros(form.channels), np.ones(form.channels))
                )
                assert isinstance(last, Affine)  # noqa: S101 - as the line above has it
                parts.append(_extended(last, step))
            form = step.after(form)
        return cls(form.colour != first.colour, tuple(parts), form.layout, form.dtype)

    @property
    def is_nothing(self) -> bool:
        """Whether the network takes the pixels as they are."""
        return not self.reversed and not self.parts and self.layout == "NHWC"


def _extended(before: Affine, step: Scale | Mean | Std) -> Affine:
    """Return `before` followed by one more step."""
    if isinstance(step, Mean):
        return Affine(before.mean + np.asarray(step.values) / before.factor, before.factor)
    if isinstance(step, Std):
        return Affine(before.mean, before.factor / np.asarray(step.values))
    return Affine(before.mean, before.factor * (step.factor if step.factor is not None else 1 / (step.divisor or 1.0)))

"""What the input steps behind the last one on pixels compute: one affine map for each channel, order, layout and dtype.

`Normalization` sums these steps up once, for both who use it: fast preprocessing applies it in a single pass over the
pixels, and folding writes it into the network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from plimsoll.spec.steps import Cast, Channels, Crop, Decode, ImageSpec, Jpeg, Mean, Resize, Scale, Std, Step

PIXEL_STEPS = (Decode, Resize, Jpeg, Crop)
"""The steps that work on rows and columns of 8-bit pixels; all others but `Channels` are arithmetic or layout."""

PerChannel = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """`value * factor + offset`, both `[channels]` in the order in which the network takes them."""

    factor: PerChannel
    offset: PerChannel

    @classmethod
    def identity(cls, channels: int) -> Self:
        """Return the map that changes nothing."""
        return cls(np.ones(channels), np.zeros(channels))

    @property
    def mean(self) -> PerChannel:
        """`[channels]`: the same map is `(value - mean) * factor`."""
        return np.asarray(0.0 - self.offset / self.factor)

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return bool(np.all(self.factor == 1) and np.all(self.offset == 0))

    def then(self, step: Scale | Mean | Std) -> Affine:
        """Return this map followed by one more step."""
        if isinstance(step, Mean):
            return Affine(self.factor, self.offset - np.asarray(step.values))
        if isinstance(step, Std):
            return Affine(self.factor / np.asarray(step.values), self.offset / np.asarray(step.values))
        factor = step.factor if step.factor is not None else 1 / (step.divisor or 1.0)
        return Affine(self.factor * factor, self.offset * factor)

    def reversed(self) -> Affine:
        """Return the map for the opposite order of channels."""
        return Affine(self.factor[::-1], self.offset[::-1])


@dataclass(frozen=True)
class Normalization:
    """What the steps behind the pixels compute, summed up."""

    reverses_channels: bool = False
    """Whether the network takes BGR of RGB pixels, or the other way round."""
    parts: tuple[Affine | Cast, ...] = ()
    """In order; a cast separates two affine parts only where it loses something."""
    layout: str = "NHWC"
    dtype: str = "uint8"

    @classmethod
    def of(cls, pixels: ImageSpec, steps: Iterable[Step]) -> Normalization:
        """Sum up the steps that follow `pixels`."""
        parts: list[Affine | Cast] = []
        image = pixels
        for step in steps:
            if isinstance(step, Channels) and step.order != image.colour:
                parts = [part.reversed() if isinstance(part, Affine) else part for part in parts]
            elif isinstance(step, Cast) and step.to != image.dtype:
                parts.append(step)
            elif isinstance(step, (Scale, Mean, Std)):
                last = parts[-1] if parts else None
                if isinstance(last, Affine):
                    parts[-1] = last.then(step)
                else:
                    parts.append(Affine.identity(image.channels).then(step))
            image = step.after(image)
        return cls(image.colour != pixels.colour, tuple(parts), image.layout, image.dtype)

    @property
    def is_identity(self) -> bool:
        """Whether the network takes the pixels as they are."""
        return not self.reverses_channels and not self.parts and self.layout == "NHWC"

"""`Preprocessor`: a Spec's input steps, ready to run on one picture after another in any thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from plimsoll.preprocessing import fast, reference
from plimsoll.preprocessing.decode import Array, Pixels, as_array, decode, orientation, read, size_of, translate_errors
from plimsoll.preprocessing.geometry import ImageGeometry, geometry_of
from plimsoll.spec import Input
from plimsoll.spec.steps import Channels, Crop, ImageSpec, Jpeg, Resize, Step

Preprocessing = Literal["reference", "fast"]
ImageSource = bytes | Path

Stage = tuple[str, Callable[..., Pixels]]
"""A stage's name, and its function: the first stage's takes bytes, every other one what the stage before returned."""


class Preprocessor:
    """Turns a picture file into the tensor that the network takes, without its batch axis.

    `preprocessing` is "reference" (Pillow + NumPy, the truth) or "fast" (libjpeg-turbo + OpenCV, needs the extra
    `fast`; BackendMissingError without it). It holds no state between pictures, so threads may share it.
    """

    def __init__(self, spec: Input, preprocessing: Preprocessing = "reference") -> None:
        self.spec = spec
        self.preprocessing = preprocessing
        self.tensor_spec = spec.tensor_spec
        """Shape, dtype, layout and colour order of each tensor."""
        self.stages: tuple[Stage, ...] = _fast_stages(spec) if preprocessing == "fast" else _reference_stages(spec)
        """In order."""

    def __call__(self, source: ImageSource) -> Array:
        """Return the tensor of a picture given as bytes or as a path: C-contiguous, of `tensor_spec`'s shape and dtype.

        Raises ImageError for everything that is wrong with the picture.
        """
        return self._run(read(source))[0]

    def with_geometry(self, source: ImageSource) -> tuple[Array, ImageGeometry]:
        """Return a picture's tensor, and where its pixels lie in the picture; raises ImageError."""
        data = read(source)
        tensor, size = self._run(data)
        step = self.spec.decode
        followed = orientation(data, fill=step.truncated == "fill") if step.exif_orientation else 1
        return tensor, geometry_of(self.spec, size, followed)

    def _run(self, data: bytes) -> tuple[Array, tuple[int, int]]:
        """Return the tensor, and (width, height) of the picture after decoding."""
        with translate_errors():
            pixels: Pixels = self.stages[0][1](data)
            size = size_of(pixels)
            for _, stage in self.stages[1:]:
                pixels = stage(pixels)
        return np.ascontiguousarray(as_array(pixels)), size


def _reference_stages(spec: Input) -> tuple[Stage, ...]:
    first = spec.decode
    stages: list[Stage] = [("decode", lambda data: decode(data, first))]
    image = first.after(ImageSpec())
    for step in spec.steps[1:]:
        stages.append((step.step, _bind(reference.FUNCTIONS[type(step)], step, image)))
        image = step.after(image)
    return tuple(stages)


def _fast_stages(spec: Input) -> tuple[Stage, ...]:
    """Pixels in the network's own channel order from the start, then everything arithmetical in one pass.

    A Spec that mixes arithmetic and work on pixels can't be folded so: it runs step by step in its own order.
    """
    fast.require_opencv()
    first, rest = spec.decode, spec.steps[1:]
    end = next(
        (index for index, step in enumerate(rest) if not isinstance(step, (Resize, Jpeg, Crop, Channels))), len(rest)
    )
    image = first.after(ImageSpec())
    for step in rest[:end]:
        image = step.after(image)
    normalize = fast.Normalize.of(image, rest[end:])
    order = first.colour if normalize is None else spec.tensor_spec.colour
    stages: list[Stage] = [("decode", lambda data: fast.decode(data, first, order))]
    image = first.after(ImageSpec())
    for step in rest if normalize is None else rest[:end]:
        if normalize is None or not isinstance(step, Channels):
            function = fast.FUNCTIONS.get(type(step), reference.FUNCTIONS[type(step)])
            stages.append(
                (step.step, _bind(function, step, image if normalize is None else replace(image, colour=order)))
            )
        image = step.after(image)
    if normalize is not None:
        stages.append(("normalize", normalize))
    return tuple(stages)


def _bind(function: reference.StepFunction, step: Step, image: ImageSpec) -> Callable[[Pixels], Pixels]:
    return lambda pixels: function(pixels, step, image)

"""`Preprocessor`: a Spec's input steps, ready to run on one picture after another in any thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from plimsoll.preprocessing import decode as reference_decode
from plimsoll.preprocessing import fast, reference
from plimsoll.preprocessing.formats import read
from plimsoll.preprocessing.geometry import ImageGeometry, view
from plimsoll.preprocessing.pixels import Array, Pixels, as_array, size_of
from plimsoll.spec import Input
from plimsoll.spec.steps import Channels, Crop, ImageSpec, Jpeg, Resize, Step

Preprocessing = Literal["reference", "fast"]
ImageSource = bytes | Path


class Preprocessor:
    """Turns a picture file into the tensor that the network takes, without its batch axis.

    `preprocessing` is "reference" (Pillow + NumPy, the truth) or "fast" (libjpeg-turbo + OpenCV, needs the extra
    `fast`). A plan holds no state between pictures, so threads may share it.
    """

    def __init__(self, spec: Input, preprocessing: Preprocessing = "reference") -> None:
        self.spec = spec
        self.preprocessing = preprocessing
        self.form = spec.form
        """What each tensor looks like."""
        self._stages = _fast_stages(spec) if preprocessing == "fast" else _reference_stages(spec)

    def __call__(self, source: ImageSource) -> Array:
        """Return the tensor of a picture given as bytes or as a path: C-contiguous, `form.shape`, `form.dtype`.

        Raises ImageError for everything that is wrong with the picture.
        """
        return self._run(read(source))[0]

    def viewed(self, source: ImageSource) -> tuple[Array, ImageGeometry]:
        """Return the tensor of a picture, and where its pixels lie in the picture; raises ImageError."""
        data = read(source)
        tensor, size = self._run(data)
        decode = self.spec.decode
        orientation = (
            reference_decode.orientation(data, fill=decode.truncated == "fill") if decode.exif_orientation else 1
        )
        return tensor, view(self.spec, size, orientation)

    def _run(self, data: bytes) -> tuple[Array, tuple[int, int]]:
        """Return the tensor, and (width, height) of the picture after decoding."""
        with reference_decode.translated():
            pixels: Pixels = self._stages[0][1](data)
            size = size_of(pixels)
            for _, stage in self._stages[1:]:
                pixels = stage(pixels)
        return np.ascontiguousarray(as_array(pixels)), size

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The names and functions of the stages, in order; the first takes bytes, each other one what the last
        returned."""
        return self._stages


Stage = tuple[str, Callable[..., Pixels]]
_Stages = tuple[Stage, ...]


def _reference_stages(spec: Input) -> _Stages:
    first = spec.decode
    stages: list[Stage] = [("decode", lambda data: reference_decode.decode(data, first))]
    form = first.after(ImageSpec())
    for step in spec.steps[1:]:
        stages.append((step.step, _bound(reference.STEPS[type(step)], step, form)))
        form = step.after(form)
    return tuple(stages)


def _fast_stages(spec: Input) -> _Stages:
    """Pixels in the network's own channel order from the start, then everything arithmetical in one pass.

    A Spec that mixes arithmetic and work on pixels can't be folded so: it runs step by step in its own order.
    """
    fast.require_opencv()
    first, rest = spec.decode, spec.steps[1:]
    at = next(
        (place for place, step in enumerate(rest) if not isinstance(step, (Resize, Jpeg, Crop, Channels))), len(rest)
    )
    form = first.after(ImageSpec())
    for step in rest[:at]:
        form = step.after(form)
    order = spec.form.colour
    affine = fast.Affine.of(rest[at:], form, order)
    if affine is None:
        order = first.colour
    stages: list[Stage] = [("decode", lambda data: fast.decode(data, first, order))]
    form = first.after(ImageSpec())
    for step in rest if affine is None else rest[:at]:
        held = form if affine is None else replace(form, colour=order)
        if affine is None or not isinstance(step, Channels):
            stages.append(
                (step.step, _bound(fast.PIXEL_STEPS.get(type(step), reference.STEPS[type(step)]), step, held))
            )
        form = step.after(form)
    if affine is not None:
        stages.append(("normalize", affine))
    return tuple(stages)


def _bound(function: reference.StepFunction, step: Step, form: ImageSpec) -> Callable[[Pixels], Pixels]:
    return lambda pixels: function(pixels, step, form)

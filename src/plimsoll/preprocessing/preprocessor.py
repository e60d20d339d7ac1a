"""`Preprocessor`: a Spec's input steps, ready to run on one picture after another in any thread; and `ImageGeometry`:
what part of a picture the network sees, and where each of its pixels lies in the picture as it was sent.

Positions are continuous and count from the outer corner of the first pixel: pixel 0 covers 0 … 1 and its centre lies at
0.5; a picture of W x H pixels covers 0 … W and 0 … H. A resize that keeps the borders in place (half-pixel centres:
Pillow, OpenCV, TensorFlow's `half_pixel`) is then a plain product; TensorFlow's older coordinates shift it by a part of
a pixel, and so does a `nearest` that takes the first pixel of those it could take. The real sizes count, not the ratio
that was asked for: a letterbox of 427 / 640 rounds its sides, and the two axes differ in the last digits.

The picture *as it was sent* is what the file stores, before its EXIF orientation. `ImageGeometry.upright` serves
drawing on the picture as a browser shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plimsoll.core.extra_inputs import pack
from plimsoll.core.target import Preprocessing
from plimsoll.errors import ImageError
from plimsoll.preprocessing import fast, fast_decode, jpeg_file, memory, metadata, reference
from plimsoll.preprocessing.decode import (
    FLIPPED_X,
    FLIPPED_Y,
    SWAPPED,
    Array,
    Pixels,
    Reduced,
    as_array,
    decode,
    orientation,
    read,
    size_of,
)
from plimsoll.preprocessing.decoded import DecodedPicture, decoded_pixels
from plimsoll.preprocessing.formats import sniff
from plimsoll.preprocessing.frames import frames
from plimsoll.preprocessing.pillow_file import translate_errors
from plimsoll.preprocessing.reference import padding, resized_size, square_around
from plimsoll.spec import Input
from plimsoll.spec.steps import Channels, Crop, Decode, ImageSpec, Jpeg, Resize, Step

Positions = NDArray[np.float64]


@dataclass(frozen=True)
class _Axis:
    """One axis: position in the picture = `scale` * position in the input + `origin`."""

    scale: float = 1.0
    origin: float = 0.0

    def after(self, scale: float, origin: float) -> _Axis:
        """Return this axis behind another step, for which `position before = scale * position after + origin`."""
        return _Axis(self.scale * scale, self.scale * origin + self.origin)


@dataclass(frozen=True)
class ImageGeometry:
    """The way back from a network's input to one picture. All positions are (x, y), in pixels."""

    width: int
    height: int
    """The picture's size as it was sent."""
    input_width: int
    input_height: int
    """The size of the network's input."""
    scale: tuple[float, float]
    """How many of the upright picture's pixels one pixel of the input is, along x and along y."""
    origin: tuple[float, float]
    """Where the input's corner (0, 0) lies in the upright picture; negative where padding begins there."""
    visible: tuple[float, float, float, float]
    """What the network sees of the upright picture: x0, y0, x1, y1; the rest was cropped away."""
    orientation: int = 1
    """The EXIF orientation that the input steps have followed, 1 to 8; 1 also where they follow none."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) of the picture after its orientation was followed."""
        return (self.height, self.width) if self.orientation in SWAPPED else (self.width, self.height)

    def upright(self) -> ImageGeometry:
        """Return the same geometry for the picture as it is shown, turned by its orientation."""
        width, height = self.upright_size
        return replace(self, width=width, height=height, orientation=1)

    def points(self, points: Positions) -> Positions:
        """Return where positions `[…, 2]` in the input's pixels lie in the picture; they may lie outside of it."""
        x, y = np.moveaxis(np.asarray(points, np.float64) * self.scale + self.origin, -1, 0)
        first, second = (y, x) if self.orientation in SWAPPED else (x, y)
        return np.stack(
            [
                self.width - first if self.orientation in FLIPPED_X else first,
                self.height - second if self.orientation in FLIPPED_Y else second,
            ],
            axis=-1,
        )

    def boxes(self, boxes: Positions) -> Positions:
        """Return boxes `[N, 4]` (x0, y0, x1, y1) in the input's pixels as boxes in the picture, clipped to it."""
        corners = self.points(np.asarray(boxes, np.float64).reshape(-1, 2, 2))
        limits = np.array([self.width, self.height], np.float64)
        return np.asarray(
            np.clip(np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1), 0.0, np.tile(limits, 2))
        )

    def pixel_centres(self) -> tuple[Positions, Positions]:
        """Return where the centres of the upright picture's columns and rows lie in the input, in its pixels; NaN for
        what was cropped away."""
        x, y = (
            np.where((first <= at) & (at <= last), (at - origin) / scale, np.nan)
            for at, scale, origin, first, last in zip(
                (np.arange(size) + 0.5 for size in self.upright_size),
                self.scale,
                self.origin,
                self.visible[:2],
                self.visible[2:],
                strict=True,
            )
        )
        return x, y

    def as_sent(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """Turn an array [height, width] that lies over the upright picture back to lie over the picture as it was sent;
        no copy."""
        turned = pixels.T if self.orientation in SWAPPED else pixels
        return turned[:: -1 if self.orientation in FLIPPED_Y else 1, :: -1 if self.orientation in FLIPPED_X else 1]


def geometry_of(spec: Input, size: tuple[int, int], orientation: int = 1) -> ImageGeometry:
    """Return the geometry that the input steps give a picture.

    `size` is (width, height) after decoding, with the orientation followed where the steps follow it; `orientation` is
    the one they have followed. Raises ImageError where the steps refuse such a size.
    """
    width, height = size
    x, y = _Axis(), _Axis()
    visible = (0.0, 0.0, float(width), float(height))
    for step in spec.steps[1:]:
        if isinstance(step, Resize):
            if step.pad_first:
                left, top, side = square_around(width, height, step)
                x, y, width, height = x.after(1.0, -left), y.after(1.0, -top), side, side
            across, down = resized_size(width, height, step)
            x, y = x.after(*_resize_axis(width, across, step)), y.after(*_resize_axis(height, down, step))
            left, top, width, height = padding(across, down, step)
            x, y = x.after(1.0, -left), y.after(1.0, -top)
        elif isinstance(step, Crop):
            left, top = step.origin(width, height)
            x, y = x.after(1.0, left), y.after(1.0, top)
            width, height = step.width, step.height
            last_x, last_y = x.scale * width + x.origin, y.scale * height + y.origin
            visible = (
                max(visible[0], x.origin),
                max(visible[1], y.origin),
                min(visible[2], last_x),
                min(visible[3], last_y),
            )
    sent = (size[1], size[0]) if orientation in SWAPPED else size
    return ImageGeometry(*sent, width, height, (x.scale, y.scale), (x.origin, y.origin), visible, orientation)


def _resize_axis(before: int, after: int, step: Resize) -> tuple[float, float]:
    """Return (scale, origin) of a resize along one axis: position before = scale * position after + origin.

    With `nearest`, where the first of several pixels is taken (OpenCV; TensorFlow's asymmetric), every one that is left
    stands for what follows it; when such a resize enlarges, pixels are repeated and the borders stay in place.
    """
    scale = before / after
    first_taken = step.filter == "nearest" and (step.convention == "opencv" or step.coordinates == "asymmetric")
    if first_taken:
        return scale, 0.5 - 0.5 * max(scale, 1.0)
    if step.coordinates == "half_pixel":
        return scale, 0.0
    if step.coordinates == "align_corners" and before > 1 and after > 1:
        scale = (before - 1) / (after - 1)
    return scale, 0.0 if step.filter == "area" else 0.5 - 0.5 * scale


ImageSource = bytes | Path
PictureSource = ImageSource | DecodedPicture
"""A file's bytes or path, or a picture that is decoded already."""

_ANY_SIDE = 1 << 31

Stage = tuple[str, Callable[..., Pixels]]
"""A stage's name, and its function: the first stage's takes bytes, every other one what the stage before returned."""


class Preprocessor:
    """Turns a picture file into the tensor that the network takes, without its batch axis.

    `preprocessing` is "reference" (Pillow + NumPy, the truth), "fast" (libjpeg-turbo + OpenCV, needs the extra `fast`;
    BackendMissingError without it) or "scaled" (fast, and large JPEG files are decoded at a half, a quarter or an
    eighth of their size where a resize follows). `scaled_sides` limits the latter to pictures whose shorter side, in
    pixels, is in that range: those it was proven on; all others are prepared as in "fast". It holds no state between
    pictures, so threads may share it.
    """

    def __init__(
        self,
        spec: Input,
        preprocessing: Preprocessing = "reference",
        scaled_sides: tuple[int, int] | None = None,
    ) -> None:
        memory.keep_pillow_blocks()
        self.spec = spec
        self.preprocessing = preprocessing
        self.scaled_sides = scaled_sides
        self.tensor_spec = spec.tensor_spec
        """Shape, dtype, layout and colour order of each tensor; of the first view where the Spec has several."""
        self.stages: tuple[Stage, ...] = (
            _reference_stages(spec)
            if preprocessing == "reference"
            else _fast_stages(spec, scaled_sides or (0, _ANY_SIDE) if preprocessing == "scaled" else None)
        )
        """In order; of the first view where the Spec has several."""
        self._bgr = preprocessing != "reference" and _folds_into_bgr(spec)
        self._others = tuple(Preprocessor(view, preprocessing, scaled_sides) for view in spec.views[1:])

    @property
    def takes_bgr(self) -> bool:
        """Whether an array in the order BGR is taken as it is, without a copy."""
        return self._bgr

    def __call__(self, source: PictureSource) -> Array:
        """Return the tensor of a picture: C-contiguous, of the shape and dtype that the Spec's input says. Where
        further inputs have steps of their own, it is all of their tensors in one.

        Raises ImageError for everything that is wrong with the picture.
        """
        return self._run(source)[0]

    def with_geometry(self, source: PictureSource) -> tuple[Array, ImageGeometry]:
        """Return a picture's tensor, and where its pixels lie in the picture; raises ImageError."""
        tensor, size, followed = self._run(source, geometry=True)
        return tensor, geometry_of(self.spec, size, followed)

    def frames(self, source: PictureSource) -> Iterator[tuple[int, Array, ImageGeometry]]:
        """Yield each frame that the decode step selects: its number from 0, its tensor, and where its pixels lie in
        the picture. Raises ImageError, also in the midst of a file.

        A call of the Preprocessor itself takes the first frame, whatever the decode step selects.
        """
        if isinstance(source, DecodedPicture):
            yield 0, *self.with_geometry(source)
            return
        data, step = read(source), self.spec.decode
        followed = orientation(data, fill=step.truncated == "fill") if step.exif_orientation else 1
        remaining = frames(data, step)
        while True:
            with memory.budget().picture(), translate_errors():
                frame = next(remaining, None)
                if frame is None:
                    return
                number, pixels = frame
                tensor, size = self._after_decoding(self._in_order(pixels)), size_of(pixels)
            yield number, self._with_others(tensor, data), geometry_of(self.spec, size, followed)

    def _run(self, source: PictureSource, *, geometry: bool = False) -> tuple[Array, tuple[int, int], int]:
        """Return the tensor, (width, height) of the picture after decoding and, for a geometry, the EXIF orientation
        that was followed."""
        step, followed = self.spec.decode, 1
        with translate_errors(), memory.budget().picture():
            pixels: Pixels
            if isinstance(source, DecodedPicture):
                pixels, followed = decoded_pixels(source, step)
                pixels = self._in_order(pixels)
            else:
                source = read(source)
                pixels = self.stages[0][1](source)
                if geometry and step.exif_orientation:
                    followed = orientation(source, fill=step.truncated == "fill")
            tensor, size = self._after_decoding(pixels), size_of(pixels)
        return self._with_others(tensor, source), size, followed

    def _in_order(self, pixels: Pixels) -> Pixels:
        """Return RGB or grey pixels as the stages behind the first take them."""
        if self.preprocessing == "reference":
            return pixels
        if isinstance(pixels, Image.Image) and any(isinstance(step, Resize) for step in self.spec.steps[1:2]):
            return Reduced(pixels, pixels.size)
        array = as_array(pixels)
        if self._bgr and (bgr := array[:, :, ::-1]).flags.c_contiguous:
            return bgr  # as it was given
        return fast_decode.in_order(np.ascontiguousarray(array), "BGR" if self._bgr else "RGB")

    def _after_decoding(self, pixels: Pixels) -> Array:
        for _, stage in self.stages[1:]:
            pixels = stage(pixels)
        return np.ascontiguousarray(as_array(pixels))

    def _with_others(self, tensor: Array, source: PictureSource) -> Array:
        return pack([tensor, *(other._run(source)[0] for other in self._others)]) if self._others else tensor


def _reference_stages(spec: Input) -> tuple[Stage, ...]:
    first = spec.decode
    stages: list[Stage] = [("decode", lambda data: decode(data, first))]
    image = first.after(ImageSpec())
    for step in spec.steps[1:]:
        stages.append((step.step, _bind(reference.FUNCTIONS[type(step)], step, image)))
        image = step.after(image)
    return tuple(stages)


def _pixel_steps(spec: Input) -> tuple[Sequence[Step], fast.Normalize | None]:
    """Return the steps on pixels behind `decode`, and those after them summed up, where they can be."""
    rest = spec.steps[1:]
    end = next(
        (index for index, step in enumerate(rest) if not isinstance(step, (Resize, Jpeg, Crop, Channels))), len(rest)
    )
    image = spec.decode.after(ImageSpec())
    for step in rest[:end]:
        image = step.after(image)
    return rest[:end], fast.Normalize.of(image, rest[end:])


def _folds_into_bgr(spec: Input) -> bool:
    """Tell whether fast preprocessing has pixels in the order BGR from the start."""
    return _pixel_steps(spec)[1] is not None and spec.tensor_spec.colour == "BGR"


def _fast_stages(spec: Input, scaled_sides: tuple[int, int] | None) -> tuple[Stage, ...]:
    """Pixels in the network's own channel order from the start, then everything arithmetical in one pass.

    With `scaled_sides`, pictures whose shorter side is in that range are shrunk by their decoder. A Spec that mixes
    arithmetic and work on pixels can't be folded so: it runs step by step in its own order.
    """
    fast_decode.require_opencv()
    first, rest = spec.decode, spec.steps[1:]
    on_pixels, normalize = _pixel_steps(spec)
    order = first.colour if normalize is None else spec.tensor_spec.colour
    stages: list[Stage] = [("decode", _fast_decoder(first, rest, order, scaled_sides))]
    image = first.after(ImageSpec())
    for step in rest if normalize is None else on_pixels:
        if normalize is None or not isinstance(step, Channels):
            function = fast.FUNCTIONS.get(type(step), reference.FUNCTIONS[type(step)])
            stages.append(
                (step.step, _bind(function, step, image if normalize is None else replace(image, colour=order)))
            )
        image = step.after(image)
    if normalize is not None:
        stages.append(("normalize", normalize))
    return tuple(stages)


def _fast_decoder(
    first: Decode, rest: Sequence[Step], order: str, scaled_sides: tuple[int, int] | None
) -> Callable[[bytes], Pixels]:
    resize = rest[0] if rest else None
    if not isinstance(resize, Resize):
        return lambda data: fast_decode.decode(data, first, order)

    def scale_for(width: int, height: int) -> int:
        proven = scaled_sides is not None and scaled_sides[0] <= min(width, height) <= scaled_sides[1]
        return fast.decoder_scale(width, height, resize) if proven else 1

    return lambda data: fast_decode.decode_for_resize(data, first, order, scale_for)


def scaled_side(spec: Input, data: bytes) -> int | None:
    """Return the shorter side, in pixels, of a picture that scaled preprocessing shrinks while it decodes it; None for
    all others. The first megabyte of the file is enough."""
    resize = spec.steps[1] if len(spec.steps) > 1 else None
    header = jpeg_file.read_header(data) if sniff(data) == "jpeg" and isinstance(resize, Resize) else None
    if header is None or not isinstance(resize, Resize) or min(header.width, header.height) < 1:
        return None
    size = header.width, header.height
    if spec.decode.exif_orientation and metadata.orientation(data, "jpeg") in SWAPPED:
        size = size[1], size[0]
    try:
        return min(size) if fast.decoder_scale(*size, resize) > 1 else None
    except ImageError:
        return None


def _bind(function: reference.StepFunction, step: Step, image: ImageSpec) -> Callable[[Pixels], Pixels]:
    return lambda pixels: function(pixels, step, image)

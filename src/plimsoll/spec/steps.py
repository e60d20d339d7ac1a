"""The input steps that a Spec can name, each with its parameters and what it does to the picture.

A step is a value: it says what happens, not how. `plimsoll.preprocessing` implements each twice: the reference (Pillow
and NumPy, which defines the correct result) and the fast one.

`ImageSpec` follows a picture through the steps (its size, channels, value type …), so that an impossible
sequence is refused when the Spec is read and not at the first photo.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Dtype = Literal["uint8", "float16", "float32"]
ColourOrder = Literal["RGB", "BGR", "grey"]
ImageFormat = Literal["jpeg", "png", "webp", "bmp", "gif", "tiff", "avif", "heif"]
Level = Annotated[int, Field(ge=0, le=255)]
PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
Side = Annotated[int, Field(ge=1, le=65_535)]
Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]


class StepOrderError(ValueError):
    """A step can't follow the ones before it."""


@dataclass(frozen=True)
class ImageSpec:
    """What a picture looks like between two steps; `None` means that it depends on the picture."""

    width: int | None = None
    height: int | None = None
    colour: ColourOrder = "RGB"
    dtype: Dtype = "uint8"
    layout: Literal["NHWC", "NCHW"] = "NHWC"

    @property
    def channels(self) -> int:
        return 1 if self.colour == "grey" else 3

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of one picture, without the batch axis."""
        if self.layout == "NCHW":
            return (self.channels, self.height, self.width)
        return (self.height, self.width, self.channels)

    def need_picture(self, step: str) -> None:
        """Refuse a step that works on rows and columns of pixels if the layout is channels-first."""
        if self.layout != "NHWC":
            raise StepOrderError(f"'{step}' works on height x width x channels; put it before the 'layout' step")

    def need_uint8(self, step: str) -> None:
        if self.dtype != "uint8":
            raise StepOrderError(
                f"'{step}' needs uint8 values, but they are {self.dtype} here; put it before the step that changes them"
            )


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Decode(_Step):
    """Decode the file into 8-bit pixels, height x width x channels."""

    step: Literal["decode"] = "decode"
    colour: Literal["RGB", "grey"] = "RGB"
    """Colour order after decoding; grey is ITU-R 601 luma, as Pillow's mode L."""
    alpha: Literal["drop", "composite"] = "drop"
    """What becomes of transparency: the stored colours as they are, or blended over `background`."""
    background: tuple[Level, Level, Level] = (255, 255, 255)
    """The colour (R, G, B) under a picture whose alpha is composited."""
    exif_orientation: bool = False
    """Whether to turn the picture as its EXIF orientation says."""
    colour_profile: Literal["ignore", "srgb"] = "ignore"
    """What becomes of an embedded ICC profile: nothing, or the colours are converted to sRGB. A damaged profile, and
    one for other colours than the file's, are ignored."""
    formats: tuple[ImageFormat, ...] = ("jpeg", "png", "webp", "bmp", "gif")
    """The accepted file formats; others are refused without decoding. HEIC is `heif`, and needs the extra `heif`."""
    frames: Annotated[str, Field(pattern=r"^(first|all|every [1-9][0-9]{0,3})$")] = "first"
    """Which frames of an animation (GIF, WebP, PNG, AVIF), pages of a TIFF or pictures of a HEIC file are answered:
    `first`, `all`, or `every 5` (the first, the sixth …). The answer to the file is that of its worst frame: the one
    with the highest score of `positive`, or with the surest box."""
    max_frames: Annotated[int, Field(ge=1, le=10_000)] = 200
    """How many frames of a file are answered at most; a file that has more of them is refused. All frames together may
    have ten times `max_megapixels`."""
    max_megapixels: Annotated[float, Field(gt=0, le=1000)] = 50.0
    """The largest width x height, in millions of pixels, checked before anything is decoded. Phones reach
    200; scaled preprocessing needs little memory for them."""
    truncated: Literal["error", "fill"] = "error"
    """A file that ends early is an error, or what is missing stays grey or black."""
    dct: Literal["accurate", "fast"] = "accurate"
    """JPEG: which inverse cosine transform (libjpeg's ISLOW or IFAST)."""
    upsampling: Literal["fancy", "plain"] = "fancy"
    """JPEG: chroma by triangle filter (fancy) or by repetition (plain)."""

    @property
    def frame_stride(self) -> int | None:
        """How many frames lie between those that are answered; None where only the first counts."""
        if self.frames == "first":
            return None
        return 1 if self.frames == "all" else int(self.frames.removeprefix("every "))

    def after(self, image: ImageSpec) -> ImageSpec:
        return replace(image, colour=self.colour)


_PADDING_KEYS = ("pad_value", "pad_position", "pad_first", "stride", "enlarge")


class Resize(_Step):
    """Resize the picture."""

    step: Literal["resize"] = "resize"
    fit: Literal["stretch", "short_edge", "letterbox", "height"] = "stretch"
    """stretch: to width x height, whatever the aspect ratio. short_edge: the shorter side becomes `size`, the longer
    `floor(long * size / short)` as in torchvision. letterbox: as large as fits into width x height, the rest padded.
    height: for lines of text, as PaddleOCR's recognizers do it: to `height`, and the width that keeps the aspect ratio,
    rounded up. With `width`, that is the most, and narrower pictures are padded on the right."""
    width: Side | None = None
    height: Side | None = None
    size: Side | None = None
    """short_edge only: the shorter side, in pixels."""
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos", "area"] = "bilinear"
    convention: Literal["pillow", "opencv", "tensorflow"] = "pillow"
    """Whose arithmetic: kernels, borders and rounding differ."""
    antialias: bool | None = None
    """Whether the filter widens when it shrinks a picture. Pillow always does, OpenCV never (except `area`), TensorFlow
    does if asked."""
    coordinates: Literal["half_pixel", "align_corners", "asymmetric"] = "half_pixel"
    """Where pixel centres lie (ONNX's names). TensorFlow only; the two others always use half_pixel."""
    rounding: Literal["nearest", "tensorflow", "none"] = "nearest"
    """To uint8 by rounding; by TensorFlow's convert_image_dtype, floor(v / 255 * 255.5); or kept as float32 in 0…255.
    """
    pad_value: Level = 114
    """letterbox and height only: the level of the padding."""
    pad_position: Literal["centre", "end"] = "centre"
    """letterbox only: padding on both sides, or on the right and bottom alone."""
    pad_first: bool = False
    """letterbox only: the picture is padded to a square of its longer side before it is resized (as NudeNet's program
    does), so that its edge may lie within a pixel."""
    stride: Annotated[int, Field(ge=0, le=4096)] = 0
    """letterbox and height only: 0 pads to the full width x height; else only to the next multiple of `stride` (as
    YOLOv5's `auto`)."""
    enlarge: bool = True
    """letterbox only: whether a picture smaller than the box is enlarged."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fit == "short_edge":
            if self.size is None or self.width is not None or self.height is not None:
                raise ValueError("fit = 'short_edge' takes 'size' (pixels of the shorter side), not width and height")
        elif self.fit == "height":
            if self.height is None or self.size is not None:
                raise ValueError(
                    "fit = 'height' takes 'height', and 'width' for the most that it may become, not 'size'"
                )
        elif self.width is None or self.height is None or self.size is not None:
            raise ValueError(f"fit = '{self.fit}' takes 'width' and 'height', not 'size'")
        # A key at its default is harmless, and a Spec dumped with all defaults must be readable.
        changed = {key for key in _PADDING_KEYS if getattr(self, key) != type(self).model_fields[key].default}
        if self.fit != "letterbox" and (only := changed - ({"pad_value", "stride"} if self.fit == "height" else set())):
            raise ValueError(f"{', '.join(sorted(only))}: allowed only with fit = 'letterbox', but fit is '{self.fit}'")
        self._check_convention()
        return self

    def _check_convention(self) -> None:
        if self.convention != "tensorflow" and self.coordinates != "half_pixel":
            raise ValueError(
                f"coordinates = '{self.coordinates}' is for convention = 'tensorflow'; '{self.convention}' always uses"
                " half_pixel"
            )
        if self.convention == "pillow" and self.rounding != "nearest":
            raise ValueError("convention = 'pillow' always rounds to uint8; use rounding = 'nearest'")
        if self.antialias is not None and self.convention != "tensorflow" and self.antialias != self.antialiased:
            always = "always" if self.antialiased else "never"
            raise ValueError(
                f"convention = '{self.convention}' with filter = '{self.filter}' {always} anti-aliases; leave"
                " 'antialias' out, or choose another convention"
            )
        if self.convention == "tensorflow" and self.antialias and self.coordinates != "half_pixel":
            raise ValueError("TensorFlow anti-aliases with coordinates = 'half_pixel' only")
        if self.convention == "tensorflow" and self.filter == "lanczos" and self.coordinates != "half_pixel":
            raise ValueError("TensorFlow has lanczos with coordinates = 'half_pixel' only")

    @property
    def pads(self) -> bool:
        """Whether something may be added to the resized picture."""
        return self.fit in ("letterbox", "height")

    @property
    def antialiased(self) -> bool:
        """Whether the filter's support grows with the reduction."""
        if self.filter == "nearest":
            return False
        if self.convention == "tensorflow":
            return bool(self.antialias) or self.filter == "area"
        return self.convention == "pillow" or self.filter == "area"

    def after(self, image: ImageSpec) -> ImageSpec:
        image.need_picture("resize")
        image.need_uint8("resize")
        fixed = self.fit == "stretch" or (self.pads and self.stride == 0)
        height = self.height if fixed or self.fit == "height" else None
        dtype: Dtype = "float32" if self.rounding == "none" else "uint8"
        return replace(image, width=self.width if fixed else None, height=height, dtype=dtype)


class Jpeg(_Step):
    """Encode as JPEG and decode again, for networks trained on pictures that were stored that way."""

    step: Literal["jpeg"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100)] = 75
    subsampling: Subsampling = "4:2:0"
    dct: Literal["accurate", "fast"] = "accurate"
    """The inverse cosine transform of the decoding (encoding is always accurate)."""
    upsampling: Literal["fancy", "plain"] = "fancy"

    def after(self, image: ImageSpec) -> ImageSpec:
        image.need_picture("jpeg")
        image.need_uint8("jpeg")
        return image


class Crop(_Step):
    """Cut out a rectangle."""

    step: Literal["crop"] = "crop"
    width: Side
    height: Side
    x: Annotated[int, Field(ge=0)] | None = None
    """Left edge in pixels; without x and y the crop is centred."""
    y: Annotated[int, Field(ge=0)] | None = None
    centre: Literal["floor", "round"] = "floor"
    """How half a pixel is rounded when the margin is odd: down, or half to even as torchvision does."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.x is None) != (self.y is None):
            raise ValueError("give both x and y, or neither for a centred crop")
        return self

    def origin(self, width: int, height: int) -> tuple[int, int]:
        """Return (x, y) of the crop's corner in a picture of width x height; raises ValueError if it doesn't fit."""
        if self.x is not None and self.y is not None:
            x, y = self.x, self.y
        elif self.centre == "round":
            x, y = round((width - self.width) / 2), round((height - self.height) / 2)
        else:
            x, y = (width - self.width) // 2, (height - self.height) // 2
        if x < 0 or y < 0 or x + self.width > width or y + self.height > height:
            raise ValueError(
                f"the crop of {self.width}x{self.height} at ({x}, {y}) does not fit into {width}x{height} pixels"
            )
        return x, y

    def after(self, image: ImageSpec) -> ImageSpec:
        image.need_picture("crop")
        if image.width is not None and image.height is not None:
            try:
                self.origin(image.width, image.height)
            except ValueError as error:
                raise StepOrderError(str(error)) from error
        return replace(image, width=self.width, height=self.height)


class Channels(_Step):
    """Reorder the colour channels."""

    step: Literal["channels"] = "channels"
    order: Literal["RGB", "BGR"]

    def after(self, image: ImageSpec) -> ImageSpec:
        image.need_picture("channels")
        if image.colour == "grey":
            raise StepOrderError("'channels' needs a colour picture, but the 'decode' step makes it grey")
        return replace(image, colour=self.order)


class Scale(_Step):
    """Multiply every value by `factor`, or divide it by `divisor` (1/255 is not exact, 255 is)."""

    step: Literal["scale"] = "scale"
    factor: FiniteFloat | None = None
    divisor: FiniteFloat | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.factor is None) == (self.divisor is None):
            raise ValueError("give either 'factor' or 'divisor'")
        if not (self.factor or self.divisor):
            raise ValueError("a scale of zero erases the picture")
        return self

    def after(self, image: ImageSpec) -> ImageSpec:
        return replace(image, dtype="float32")


def _per_channel(step: str, values: tuple[float, ...], image: ImageSpec) -> None:
    if len(values) not in (1, image.channels):
        raise StepOrderError(
            f"'{step}' has {len(values)} values, expected 1 or {image.channels} (in the current channel order,"
            f" {image.colour})"
        )


class Mean(_Step):
    """Subtract a mean from every value: one for all channels, or one per channel in the current order."""

    step: Literal["mean"] = "mean"
    values: Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=3)]

    def after(self, image: ImageSpec) -> ImageSpec:
        _per_channel("mean", self.values, image)
        return replace(image, dtype="float32")


class Std(_Step):
    """Divide every value by a standard deviation: one for all channels, or one per channel in the current order."""

    step: Literal["std"] = "std"
    values: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, max_length=3)]

    def after(self, image: ImageSpec) -> ImageSpec:
        _per_channel("std", self.values, image)
        return replace(image, dtype="float32")


class Layout(_Step):
    """Choose channels-last (NHWC) or channels-first (NCHW)."""

    step: Literal["layout"] = "layout"
    order: Literal["NHWC", "NCHW"]

    def after(self, image: ImageSpec) -> ImageSpec:
        return replace(image, layout=self.order)


class Cast(_Step):
    """Convert the values to the dtype that the network takes; to uint8 by rounding and clipping to 0…255."""

    step: Literal["dtype"] = "dtype"
    to: Dtype

    def after(self, image: ImageSpec) -> ImageSpec:
        return replace(image, dtype=self.to)


Step = Annotated[
    Decode | Resize | Jpeg | Crop | Channels | Scale | Mean | Std | Layout | Cast, Field(discriminator="step")
]

__all__ = [
    "Cast",
    "Channels",
    "ColourOrder",
    "Crop",
    "Decode",
    "Dtype",
    "ImageFormat",
    "ImageSpec",
    "Jpeg",
    "Layout",
    "Mean",
    "Resize",
    "Scale",
    "Std",
    "Step",
    "StepOrderError",
]  # fmt: skip

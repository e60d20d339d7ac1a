"""The JSON file that MNN's quantizer (`quantized.out`, `mnnquant`) reads: which pictures calibrate, and how they become
the network's input.

A value is `(src − mean) × normal`, per channel, in the order of `format`. The picture is cut to its centre
(`center_crop_h`, `center_crop_w`: shares of its sides), then resized to `width` × `height` with bilinear interpolation.
There is no field for a letterbox, nor for another filter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from plimsoll.core.wording import explain
from plimsoll.errors import InputError, SpecError
from plimsoll.spec import Input, Spec
from plimsoll.spec.steps import Cast, Channels, Crop, Decode, Jpeg, Layout, Mean, Resize, Scale, Std, Step

Share = Annotated[float, Field(gt=0, le=1)]
Clamp = Annotated[float, Field(gt=0, le=127)]
Side = Annotated[int, Field(ge=1, le=65_535)]
Channelwise = Annotated[tuple[FiniteFloat, ...], Field(max_length=4)]

_HINT = "MNN's guide to its quantizer lists the keys; `plimsoll spec export --for mnn` writes such a file."


class Quantization(BaseModel):
    """The file's keys. Those that are not known here are kept as they are. Frozen."""

    model_config = ConfigDict(extra="allow", frozen=True)

    format: Literal["RGB", "BGR", "RGBA", "BGRA", "GRAY"] = "BGR"
    mean: Channelwise = ()
    normal: Channelwise = ()
    width: Side
    height: Side
    center_crop_h: Share = 1.0
    center_crop_w: Share = 1.0
    path: str
    used_image_num: Annotated[int, Field(ge=0)] = 0
    """0: all."""
    feature_quantize_method: Literal["KL", "ADMM", "EMA"] = "KL"
    weight_quantize_method: Literal["MAX_ABS", "ADMM"] = "MAX_ABS"
    feature_clamp_value: Clamp = 127
    weight_clamp_value: Clamp = 127
    batch_size: Annotated[int, Field(ge=1)] = 32
    quant_bits: Annotated[int, Field(ge=2, le=8)] = 8
    skip_quant_op_names: tuple[str, ...] = ()
    input_type: Literal["image", "sequence"] = "image"
    debug: bool = False

    @classmethod
    def loads(cls, text: str, where: str = "file") -> Self:
        """Read the text of the file; raises InputError that names every key that is wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(f"{where}: not a file that MNN's quantizer reads: {explain(error)}", _HINT) from error

    def dumps(self) -> str:
        """Return the text; what stands at its default is left out, but for the methods and the format."""
        always = {"format", "feature_quantize_method", "weight_quantize_method"}
        fields = type(self).model_fields
        data = {
            key: value
            for key, value in self.model_dump().items()
            if key in always or key not in fields or value != fields[key].default
        }
        return json.dumps(data, indent=4) + "\n"

    def input(self) -> Input:
        """Return the input steps that the file means, for a picture that MNN's tool reads; raises InputError for
        formats that no Spec has."""
        if self.format in ("RGBA", "BGRA") or self.input_type != "image":
            raise InputError(
                f"format {self.format}, input_type {self.input_type}: no Spec can say that",
                "A Spec has RGB, BGR or grey pictures.",
            )
        channels = 1 if self.format == "GRAY" else 3
        steps: list[Step] = [Decode(colour="grey" if channels == 1 else "RGB")]
        wide, high = round(self.width / self.center_crop_w), round(self.height / self.center_crop_h)
        steps.append(Resize(width=wide, height=high, filter="bilinear", convention="opencv"))
        if (wide, high) != (self.width, self.height):
            steps.append(Crop(width=self.width, height=self.height))
        if self.format == "BGR":
            steps.append(Channels(order="BGR"))
        if any(self.mean):
            steps.append(Mean(values=_padded(self.mean, channels, 0.0)))
        normal = _padded(self.normal, channels, 1.0)
        if any(value <= 0 for value in normal):
            raise InputError(f"normal {list(self.normal)}: expected numbers above 0", _HINT)
        if set(normal) != {1.0}:
            steps.append(
                Scale(factor=normal[0]) if len(set(normal)) == 1 else Std(values=tuple(1 / value for value in normal))
            )
        return Input(steps=(*steps, Cast(to="float32"), Layout(order="NCHW")))


@dataclass
class _Affine:
    """What was done to each channel so far: `factor × value + offset`."""

    factor: list[float]
    offset: list[float]
    warnings: list[str] = field(default_factory=list)

    def scale(self, factors: list[float]) -> None:
        self.factor = [value * by for value, by in zip(self.factor, factors, strict=True)]
        self.offset = [value * by for value, by in zip(self.offset, factors, strict=True)]

    def add(self, values: list[float]) -> None:
        self.offset = [offset + value for offset, value in zip(self.offset, values, strict=True)]


def export(spec: Spec, images: str, method: Literal["KL", "ADMM", "EMA"] = "KL") -> tuple[Quantization, list[str]]:
    """Return the file that gives MNN's quantizer a Spec's input steps, and in words what it does otherwise all the
    same.

    Raises SpecError for steps that the file can't say.
    """
    form = spec.input.tensor_spec
    if form.width is None or form.height is None:
        raise SpecError(
            f"{spec.name}: its input steps leave the picture's size open; MNN's quantizer needs width and height",
            "Resize or crop to a fixed size.",
        )
    work = _Affine([1.0] * form.channels, [0.0] * form.channels)
    size: tuple[int, int] | None = None
    crop: Crop | None = None
    for step in spec.input.steps[1:]:
        if isinstance(step, Resize):
            size = _resized(step, size or crop, work)
        elif isinstance(step, Crop):
            if size is None or crop is not None:
                raise SpecError(
                    f"{spec.name}: MNN's quantizer crops once, around the resize; this Spec crops otherwise",
                    "Use `plimsoll convert`.",
                )
            crop = step
        else:
            _follow(step, work)
    if size is None:
        raise SpecError(
            f"{spec.name}: its input steps don't resize the picture; MNN's quantizer always does",
            "Use `plimsoll convert`.",
        )
    if crop is not None and crop.x is not None:
        raise SpecError(
            f"{spec.name}: its crop is not around the centre, which is all that MNN's quantizer knows",
            "Use `plimsoll convert`.",
        )
    shares = (form.width / size[0], form.height / size[1])
    layout = "NHWC" if form.layout == "NHWC" else "NCHW"
    if layout == "NHWC":
        work.warnings.append(
            "the network reads [N, H, W, C]; from ONNX, MNN's tool feeds pictures as [N, C, H, W] alone, and calibrates"
            " on nonsense. `plimsoll convert --target mnn:cpu:int8` gives it the tensors themselves"
        )
    quantization = Quantization(
        format="GRAY" if form.colour == "grey" else form.colour,
        mean=tuple(-offset / factor for offset, factor in zip(work.offset, work.factor, strict=True)),
        normal=tuple(work.factor),
        width=form.width,
        height=form.height,
        center_crop_w=shares[0],
        center_crop_h=shares[1],
        path=images,
        feature_quantize_method=method,
    )
    return quantization, work.warnings


def _resized(step: Resize, before: object, work: _Affine) -> tuple[int, int]:
    if before is not None:
        raise SpecError(
            "MNN's quantizer resizes once, before anything else but the crop; this Spec does otherwise",
            "Use `plimsoll convert`.",
        )
    if step.fit != "stretch" or step.width is None or step.height is None:
        raise SpecError(
            f"resize with fit = '{step.fit}': MNN's quantizer knows no other than stretching to width x height",
            "Use `plimsoll convert`.",
        )
    if step.filter != "bilinear" or step.antialiased:
        kind = f"{step.filter}, {'' if step.antialiased else 'not '}anti-aliased, as {step.convention} does"
        work.warnings.append(
            f"the Spec resizes by {kind}; MNN's tool by bilinear interpolation that is not anti-aliased"
        )
    return step.width, step.height


def _follow(step: Step, work: _Affine) -> None:
    """Take a step that is neither a resize nor a crop into account."""
    count = len(work.factor)
    if isinstance(step, Jpeg):
        work.warnings.append("the Spec stores the picture as JPEG and reads it again; MNN's tool does not")
    elif isinstance(step, Channels):
        # RGB and BGR are each other's reverse, and a Spec has no step to the order that there is already.
        work.factor.reverse()
        work.offset.reverse()
    elif isinstance(step, Scale):
        work.scale([step.factor if step.factor is not None else 1 / (step.divisor or 1.0)] * count)
    elif isinstance(step, Mean):
        work.add([-value for value in _padded(step.values, count, step.values[0])])
    elif isinstance(step, Std):
        work.scale([1 / value for value in _padded(step.values, count, step.values[0])])
    elif isinstance(step, Cast) and step.to == "uint8" and any(work.offset):
        raise SpecError(
            "the Spec rounds to uint8 after it changed the values, which MNN's quantizer can't",
            "Use `plimsoll convert`.",
        )


def _padded(values: tuple[float, ...], count: int, default: float) -> tuple[Any, ...]:
    """Return a value for each channel."""
    return (*values[:count], *[default] * (count - len(values)))

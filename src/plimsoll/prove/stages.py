"""Preprocessing, step by step: each step on pixels is compared alone, on the same pixels; then channel order, mean and
scale, as each network's first convolution sees them.

The arithmetic between pixels and network may be in the Spec, in the graph, or half in each, and the first convolution's
weights may have been reordered or scaled to fit. So nothing is read off the Spec: pictures of one colour go through the
preprocessing and the graph up to the first convolution, which shows its channel order, mean and scale exactly. Two
networks are compared in the reference's terms: the channels of their first convolutions are matched by their weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ImageError, PlimsollError
from plimsoll.onnx import graph
from plimsoll.preprocessing.decode import Reduced, read
from plimsoll.preprocessing.preprocessor import ImageSource
from plimsoll.prove.layers import open_with_outputs
from plimsoll.prove.paired_answers import Array, ComparedModel, PixelStage
from plimsoll.spec.steps import Step

PICTURES = 8
"""How many are looked at; a step that differs shows on the first."""


@dataclass(frozen=True)
class StageDifference:
    """How a step on pixels differs when both models' steps get the same pixels: the reference's."""

    stage: str
    mean_levels: float
    """Mean absolute difference, in levels of 255; infinite where the sizes differ."""
    max_levels: float
    pictures: int
    note: str = ""
    """How the Specs differ there; empty where only the implementation differs, or nothing."""


@dataclass
class _RunningDifference:
    note: str
    pictures: int = 0
    total: float = 0.0
    largest: float = 0.0

    def add(self, first: Array, second: Array) -> None:
        self.pictures += 1
        if first.shape != second.shape:
            self.total = self.largest = float("inf")
            self.note = self.note or f"sizes differ: {_size(second)} where the reference has {_size(first)}"
            return
        difference = np.abs(first.astype(np.float32) - second.astype(np.float32))
        self.total += float(difference.mean(dtype=np.float64))
        self.largest = max(self.largest, float(difference.max(initial=0.0)))


def compare(
    reference: ComparedModel, other: ComparedModel, pictures: Iterable[ImageSource]
) -> tuple[StageDifference, ...]:
    """Run both models' steps on pixels side by side over a few pictures and return one row per step, in the reference's
    order.

    Each step gets the output of the reference's steps before it, so a difference is counted where it arises and nowhere
    else. A step that only one model has is a row as well. Where a decoder has begun to resize the picture, what that
    changes shows in the resize. Pictures that can't be decoded are left out.
    """
    aligned = list(_aligned(reference.pixel_stages, other.pixel_stages))
    sums = [_RunningDifference(_note(first, second)) for first, second in aligned]
    for count, picture in enumerate(pictures):
        if count >= PICTURES:
            break
        try:
            _add(picture, aligned, sums)
        except ImageError:
            continue
    names = [stage.step.step for first, second in aligned if (stage := first or second) is not None]
    return tuple(
        StageDifference(name, running.total / max(running.pictures, 1), running.largest, running.pictures, running.note)
        for name, running in zip(names, sums, strict=True)
    )


_Pair = tuple[PixelStage | None, PixelStage | None]


def _aligned(reference: tuple[PixelStage, ...], other: tuple[PixelStage, ...]) -> Iterator[_Pair]:
    names, other_names = ([stage.step.step for stage in stages] for stages in (reference, other))
    matcher = SequenceMatcher(None, names, other_names, autojunk=False)
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        if kind == "equal":
            yield from zip(reference[start:end], other[other_start:other_end], strict=True)
        else:
            yield from ((stage, None) for stage in reference[start:end])
            yield from ((None, stage) for stage in other[other_start:other_end])


def _add(picture: ImageSource, aligned: list[_Pair], sums: list[_RunningDifference]) -> None:
    current: bytes | Array = read(picture)
    begun: list[Reduced | None] = [None, None]
    for pair, running in zip(aligned, sums, strict=True):
        after = [
            stage(current if own is None else own) if stage is not None else current
            for stage, own in zip(pair, begun, strict=True)
        ]
        begun = [pixels if isinstance(pixels, Reduced) else None for pixels in after]
        arrays = [pixels for pixels in after if isinstance(pixels, np.ndarray)]
        if len(arrays) == len(after):
            running.add(*arrays)
        current = after[0] if begun[0] is None else after[1]


def _note(first: PixelStage | None, second: PixelStage | None) -> str:
    if second is None:
        return f"it has no '{first.step.step}' step here, the reference has one" if first is not None else ""
    if first is None:
        return f"it has a '{second.step.step}' step here, the reference has none"
    return "; ".join(_settings(first.step, second.step))


def _settings(first: Step, second: Step) -> Iterator[str]:
    for key in type(first).model_fields:
        value, other_value = getattr(first, key), getattr(second, key)
        if value != other_value and key not in {"formats", "max_megapixels"}:
            yield f"{key} = {_in_words(other_value)}, the reference has {_in_words(value)}"


def _in_words(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _size(pixels: Array) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


Matrix = NDArray[np.float64]

_FREE_SIDE = 256
"""Height and width of the plain pictures where the network takes any size: a multiple of every usual stride."""
_SAME_WEIGHTS = 0.98
"""From this cosine on, two channels of first-convolution weights are the same; int8 leaves 0.9999, two channels of one
network are below 0.95."""
_MEAN_LEVELS = 0.25
_SCALE_SHARE = 0.01
"""From these differences on, mean and scale differ: float16 rounds a mean by 0.06 levels, and a scale by 0.05 %."""


@dataclass(frozen=True)
class Normalization:
    """`seen = gain @ colour + offset`, colour in 0 … 255, RGB (or grey)."""

    gain: Matrix
    """[channels seen, channels of the picture]."""
    offset: Matrix
    """[channels seen]."""
    weights: NDArray[Any] | None
    """The first convolution's `[outputs, channels, …]`; None where the network's input itself was measured."""


@dataclass(frozen=True)
class Mismatch:
    """A way in which the other model normalizes unlike the reference."""

    stage: str
    """The step of a Spec: channels, mean or scale."""
    text: str


def normalization_of(model: ComparedModel) -> Normalization | None:
    """Measure what a model's first convolution gets; None where the graph can't be run up to there, or isn't linear."""
    try:
        colours, seen, weights = _measure(model)
    except PlimsollError:
        return None
    black, probe = seen[0], seen[-1]
    gain = (seen[1:-1] - black).T / 255
    expected = gain @ colours[-1] + black
    if not np.isfinite(seen).all() or np.abs(probe - expected).max() > _SCALE_SHARE * max(
        float(np.abs(seen).max()), 1e-6
    ):
        return None
    return Normalization(gain, black, weights)


def mismatches(reference: Normalization, other: Normalization, where: str) -> tuple[Mismatch, ...] | None:
    """Compare two normalizations; None where they can't be expressed in the same terms. `where` says where the other's
    is."""
    matched = _in_terms_of(reference, other)
    if matched is None or matched.gain.shape != reference.gain.shape:
        return None
    orders = [np.abs(gain).argmax(axis=1) for gain in (reference.gain, matched.gain)]
    if not all(map(_is_one_colour_each, (reference.gain, matched.gain))):
        return None
    differences = []
    if not np.array_equal(*orders):
        differences.append(
            Mismatch(
                "channels",
                f"it gives the network {_colours(orders[1])} where the reference gives {_colours(orders[0])} ({where})",
            )
        )
    gains = [
        np.take_along_axis(normalization.gain, order[:, np.newaxis], axis=1)[:, 0]
        for normalization, order in zip((reference, matched), orders, strict=True)
    ]
    means = [-offset / gain for offset, gain in zip((reference.offset, matched.offset), gains, strict=True)]
    if np.abs(means[1] - means[0]).max() > _MEAN_LEVELS:
        differences.append(
            Mismatch(
                "mean", f"it subtracts {_listed(means[1])}, the reference {_listed(means[0])} (levels of 255, {where})"
            )
        )
    if np.abs(gains[1] / gains[0] - 1).max() > _SCALE_SHARE:
        differences.append(
            Mismatch("scale", f"it multiplies by {_listed(gains[1])}, the reference by {_listed(gains[0])} ({where})")
        )
    return tuple(differences)


def agree(reference: Normalization | None, other: Normalization | None) -> bool:
    """Return whether both are known to normalize alike."""
    return reference is not None and other is not None and mismatches(reference, other, "") == ()


def _measure(model: ComparedModel) -> tuple[Matrix, Matrix, NDArray[Any] | None]:
    """Return plain colours [colours, channels], what the network sees of each [colours, channels seen], and the first
    convolution's weights."""
    form = model.preprocessor.tensor_spec
    shape = (form.height or _FREE_SIDE, form.width or _FREE_SIDE)
    channels = form.channels
    colours = np.concatenate([np.zeros((1, channels)), 255 * np.eye(channels), [[200, 100, 50][:channels]]])
    tensors = [model.tensor(np.broadcast_to(colour.astype(np.uint8), (*shape, channels))) for colour in colours]
    source = model.resolved.model
    convolution = None
    if source.format == "onnx":
        proto = graph.load(source)
        name = model.runner.picture_input
        convolution = graph.first_convolution(proto, name)
    if convolution is None:
        images = [tensor if form.layout == "NHWC" else tensor.transpose(1, 2, 0) for tensor in tensors]
        return (
            colours,
            np.array([image[image.shape[0] // 2, image.shape[1] // 2] for image in images], np.float64),
            None,
        )
    if convolution.source == name:
        seen = tensors
    else:
        with TemporaryDirectory(prefix="plimsoll-normalization-") as folder:
            # A quantized input is rounded to whole steps, which is no other mean.
            exact = graph.without_quantization(source, Path(folder) / "exact.onnx")
            with open_with_outputs(exact, [convolution.source], Path(folder) / "exposed.onnx") as runner:
                seen = [runner.run({name: tensor[np.newaxis]})[convolution.source][0] for tensor in tensors]
    return (
        colours,
        np.array([image[:, image.shape[1] // 2, image.shape[2] // 2] for image in seen], np.float64),
        convolution.weights,
    )


def _in_terms_of(reference: Normalization, other: Normalization) -> Normalization | None:
    """Return the other's normalization with its channels in the reference's order and scale, matched by their
    weights."""
    if reference.weights is None or other.weights is None:
        return other if reference.weights is None and other.weights is None else None
    if reference.weights.shape != other.weights.shape:
        return None
    channels, other_channels = (_by_channel(weights) for weights in (reference.weights, other.weights))
    products = other_channels @ channels.T
    lengths = np.linalg.norm(channels, axis=1)
    cosines = products / np.maximum(np.outer(np.linalg.norm(other_channels, axis=1), lengths), 1e-30)
    matches = np.abs(cosines).argmax(axis=1)
    if sorted(matches) != list(range(len(matches))) or np.abs(cosines).max(axis=1).min() < _SAME_WEIGHTS:
        return None
    factor = products[np.arange(len(matches)), matches] / np.square(lengths[matches])
    gain, offset = np.empty_like(other.gain), np.empty_like(other.offset)
    gain[matches], offset[matches] = other.gain * factor[:, np.newaxis], other.offset * factor
    return Normalization(gain, offset, reference.weights)


def _by_channel(weights: NDArray[Any]) -> Matrix:
    return np.moveaxis(weights.astype(np.float64), 1, 0).reshape(weights.shape[1], -1)


def _is_one_colour_each(gain: Matrix) -> bool:
    size = np.abs(gain)
    largest = size.max(axis=1)
    return bool((largest > 0).all() and (size.sum(axis=1) - largest <= _SCALE_SHARE * largest).all())


def _colours(order: NDArray[Any]) -> str:
    return "".join("RGB"[channel] for channel in order) if len(order) > 1 else "grey"


def _listed(values: Matrix) -> str:
    same = np.allclose(values, values[0], rtol=1e-4, atol=1e-4)
    return ", ".join(f"{value:.5g}" for value in (np.round(values, 6) + 0.0)[: 1 if same else None])

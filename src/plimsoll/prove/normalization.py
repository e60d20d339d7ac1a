"""What a network's first convolution really gets to see of a colour: found by feeding it plain ones.

The arithmetic between pixels and network may stand in the Spec, in the graph, or half in each, and the first
convolution's weights may have been turned or scaled to fit. So nothing is read off the Spec: pictures of one colour go
through the steps and the graph up to the first convolution, which tells its channel order, mean and scale exactly. Two
networks are compared in the reference's terms: the channels of their first convolutions are matched by their weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import PlimsollError
from plimsoll.onnx import graph
from plimsoll.prove.inside import open_inside
from plimsoll.prove.side import Side

Matrix = NDArray[np.float64]

_FREE_SIDE = 256
"""Height and width of the plain pictures where the network takes any: a multiple of every usual stride."""
_SAME_WEIGHTS = 0.98
"""Cosine from which two channels of first-convolution weights are the same one; int8 leaves 0.9999, two of one network
have below 0.95."""
_MEAN_LEVELS = 0.25
_SCALE_SHARE = 0.01
"""From these differences on something is another: float16 rounds a mean by 0.06 levels, and a scale by 0.05 %."""


@dataclass(frozen=True)
class Normalization:
    """`seen = gain @ colour + offset`, colour in 0 … 255, RGB (or grey)."""

    gain: Matrix
    """[channels seen, channels of the picture]."""
    offset: Matrix
    """[channels seen]."""
    weights: NDArray[Any] | None
    """The first convolution's `[outputs, channels, …]`; None where the network's input itself was looked at."""


@dataclass(frozen=True)
class Mistake:
    """A way in which the other model normalizes unlike the reference."""

    stage: str
    """The step of a Spec that does it: channels, mean or scale."""
    text: str


def normalization_of(side: Side) -> Normalization | None:
    """Look at what a model's first convolution gets; None where the graph can't be looked into, or isn't linear up to
    there."""
    try:
        colours, seen, weights = _look(side)
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


def mistakes(reference: Normalization, other: Normalization, where: str) -> tuple[Mistake, ...] | None:
    """Compare two normalizations; None where they can't be brought into the same terms. `where` says where the other's
    lies."""
    matched = _in_terms_of(reference, other)
    if matched is None or matched.gain.shape != reference.gain.shape:
        return None
    orders = [np.abs(one.gain).argmax(axis=1) for one in (reference, matched)]
    if any(not _is_one_colour_each(one.gain) for one in (reference, matched)):
        return None
    found = []
    if not np.array_equal(*orders):
        found.append(
            Mistake(
                "channels",
                f"it gives the network {_colours(orders[1])} where the reference gives {_colours(orders[0])} ({where})",
            )
        )
    gains = [
        np.take_along_axis(one.gain, order[:, np.newaxis], axis=1)[:, 0]
        for one, order in zip((reference, matched), orders, strict=True)
    ]
    means = [-one.offset / gain for one, gain in zip((reference, matched), gains, strict=True)]
    if np.abs(means[1] - means[0]).max() > _MEAN_LEVELS:
        found.append(
            Mistake(
                "mean", f"it subtracts {_listed(means[1])}, the reference {_listed(means[0])} (levels of 255, {where})"
            )
        )
    if np.abs(gains[1] / gains[0] - 1).max() > _SCALE_SHARE:
        found.append(
            Mistake("scale", f"it multiplies by {_listed(gains[1])}, the reference by {_listed(gains[0])} ({where})")
        )
    return tuple(found)


def agree(reference: Normalization | None, other: Normalization | None) -> bool:
    """Tell whether both are known to normalize alike."""
    return reference is not None and other is not None and mistakes(reference, other, "") == ()


def _look(side: Side) -> tuple[Matrix, Matrix, NDArray[Any] | None]:
    """Return plain colours [colours, channels], what is seen of each [colours, channels seen], and the first
    convolution's weights."""
    form = side.preprocessor.form
    shape = (form.height or _FREE_SIDE, form.width or _FREE_SIDE)
    channels = form.channels
    colours = np.concatenate([np.zeros((1, channels)), 255 * np.eye(channels), [[200, 100, 50][:channels]]])
    tensors = [side.tensor(np.broadcast_to(colour.astype(np.uint8), (*shape, channels))) for colour in colours]
    model = side.opened.model
    convolution = None
    if model.format == "onnx":
        proto = graph.load(model)
        name = side.runner.picture_input
        convolution = graph.first_convolution(proto, name)
    if convolution is None:
        middle = [tensor if form.layout == "NHWC" else tensor.transpose(1, 2, 0) for tensor in tensors]
        return colours, np.array([one[one.shape[0] // 2, one.shape[1] // 2] for one in middle], np.float64), None
    if convolution.source == name:
        seen = tensors
    else:
        with (
            TemporaryDirectory(prefix="plimsoll-look-") as folder,
            open_inside(model, [convolution.source], Path(folder) / "exposed.onnx") as runner,
        ):
            seen = [runner.run({name: tensor[np.newaxis]})[convolution.source][0] for tensor in tensors]
    return (
        colours,
        np.array([one[:, one.shape[1] // 2, one.shape[2] // 2] for one in seen], np.float64),
        convolution.weights,
    )


def _in_terms_of(reference: Normalization, other: Normalization) -> Normalization | None:
    """Return the other's normalization with its channels in the reference's order and scale, by the weights that read
    them."""
    if reference.weights is None or other.weights is None:
        return other if reference.weights is None and other.weights is None else None
    if reference.weights.shape != other.weights.shape:
        return None
    ours, theirs = (_by_channel(weights) for weights in (reference.weights, other.weights))
    products = theirs @ ours.T
    lengths = np.linalg.norm(ours, axis=1)
    cosines = products / np.maximum(np.outer(np.linalg.norm(theirs, axis=1), lengths), 1e-30)
    place = np.abs(cosines).argmax(axis=1)
    if sorted(place) != list(range(len(place))) or np.abs(cosines).max(axis=1).min() < _SAME_WEIGHTS:
        return None
    factor = products[np.arange(len(place)), place] / np.square(lengths[place])
    gain, offset = np.empty_like(other.gain), np.empty_like(other.offset)
    gain[place], offset[place] = other.gain * factor[:, np.newaxis], other.offset * factor
    return Normalization(gain, offset, reference.weights)


def _by_channel(weights: NDArray[Any]) -> Matrix:
    return np.moveaxis(weights.astype(np.float64), 1, 0).reshape(weights.shape[1], -1)


def _is_one_colour_each(gain: Matrix) -> bool:
    size = np.abs(gain)
    largest = size.max(axis=1)
    return bool((largest > 0).all() and (size.sum(axis=1) - largest <= _SCALE_SHARE * largest).all())


def _colours(order: NDArray[Any]) -> str:
    return "".join("RGB"[place] for place in order) if len(order) > 1 else "grey"


def _listed(values: Matrix) -> str:
    same = np.allclose(values, values[0], rtol=1e-4, atol=1e-4)
    return ", ".join(f"{value:.5g}" for value in (np.round(values, 6) + 0.0)[: 1 if same else None])

"""Whether masks and points lie where people marked them, and which other reading of them would: another order of the
points or labels, masks turned or mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.metrics.masks import overlap
from plimsoll.prove.marked import TrueMask, TruePoints, confusion
from plimsoll.prove.masks import Map, thinned, turned
from plimsoll.tasks import Answer
from plimsoll.tasks.landmarks import Points
from plimsoll.tasks.segment import Segmentation

LEAST_IOU = 0.5
"""A picture's masks are right from this mean IoU of the labels that are marked in it."""

Flags = NDArray[np.bool_]
Pair = tuple[Any, Answer | None]
"""What is marked in a picture, and the answer; None where there is none."""


def right(pairs: Sequence[Pair]) -> Flags:
    """Return for each picture whether its points lie within the limit from which on a picture has failed, or its masks
    overlap those that are marked by half."""
    return np.array([_is_right(truth, answer) for truth, answer in pairs], np.bool_)


def _is_right(truth: Any, answer: Answer | None) -> bool:
    if isinstance(truth, TruePoints) and isinstance(answer, Points) and len(answer.points) == len(truth.points):
        return truth.errors(_places(answer)) <= truth.limit
    if isinstance(truth, TrueMask) and isinstance(answer, Segmentation):
        return _mean_iou(*_maps(truth, answer), len(answer.labels)) >= LEAST_IOU
    return False


def readings(pairs: Sequence[Pair]) -> Iterator[tuple[str, Flags]]:
    """Yield other readings of the answers, in words, and which pictures would be right by each."""
    points = [
        (at, truth, _places(answer))
        for at, (truth, answer) in enumerate(pairs)
        if isinstance(truth, TruePoints) and isinstance(answer, Points) and len(answer.points) == len(truth.points)
    ]
    if points:
        yield from _ordered(points, len(pairs))
    masks = [
        (at, *_maps(truth, answer), len(answer.labels))
        for at, (truth, answer) in enumerate(pairs)
        if isinstance(truth, TrueMask) and isinstance(answer, Segmentation)
    ]
    if masks:
        yield from _turned(masks, len(pairs))
        yield from _renamed(masks, len(pairs))


def _places(answer: Points) -> NDArray[np.float64]:
    return np.array(answer.points, np.float64)[:, :2]


def _maps(truth: TrueMask, answer: Segmentation) -> tuple[Map, Map]:
    return thinned(truth.labels(len(answer.labels))), thinned(answer.pixels())


def _mean_iou(own: Map, other: Map, count: int) -> float:
    if own.shape != other.shape:
        return 0.0
    shared, union = overlap(confusion(own, other, count))
    marked = np.bincount(own[own < count], minlength=count) > 0
    return float((shared[marked] / union[marked]).mean()) if marked.any() else 0.0


def _ordered(points: Sequence[tuple[int, TruePoints, NDArray[np.float64]]], count: int) -> Iterator[tuple[str, Flags]]:
    """Yield the order in which every marked point is another one's nearest, if there is one such order."""
    distances = []
    for _, truth, places in points:
        own = np.array([point or (np.nan, np.nan) for point in truth.points], np.float64)
        between = np.linalg.norm(own[:, np.newaxis] - places[np.newaxis], axis=2)
        distances.append(between / (np.nanmean(between) or 1.0))
    known = np.array([[point is not None for point in truth.points] for _, truth, _ in points]).any(axis=0)
    if not known.all():
        return
    order = np.nanmean(distances, axis=0).argmin(axis=1)
    changed = np.flatnonzero(order != np.arange(len(order)))
    if not changed.size or len(set(order.tolist())) < len(order):
        return
    flags = np.zeros(count, np.bool_)
    for at, truth, places in points:
        flags[at] = truth.errors(places[order]) <= truth.limit
    first = int(changed[0])
    yield f"its points in another order (where point {first} is marked lies its point {order[first]})", flags


def _turned(masks: Sequence[tuple[int, Map, Map, int]], count: int) -> Iterator[tuple[str, Flags]]:
    by_name: dict[str, Flags] = {}
    for at, own, other, labels in masks:
        for name, pixels in turned(other).items():
            by_name.setdefault(name, np.zeros(count, np.bool_))[at] = _mean_iou(own, pixels, labels) >= LEAST_IOU
    for name, flags in by_name.items():
        yield f"its masks {name}", flags


def _renamed(masks: Sequence[tuple[int, Map, Map, int]], count: int) -> Iterator[tuple[str, Flags]]:
    """Yield the exchange of labels by which each marked one is what most of its pixels are answered as."""
    labels = masks[0][3]
    table = sum(confusion(own, other, labels) for _, own, other, _ in masks if own.shape == other.shape)
    if not isinstance(table, np.ndarray):
        return
    answered = np.where(table[:labels].any(axis=1), table[:labels, :labels].argmax(axis=1), np.arange(labels))
    changed = np.flatnonzero(answered != np.arange(labels))
    if not changed.size or len(set(answered.tolist())) < labels:
        return
    renumbered = np.arange(2**16, dtype=np.uint16)
    renumbered[answered] = np.arange(labels)
    flags = np.zeros(count, np.bool_)
    for at, own, other, _ in masks:
        flags[at] = _mean_iou(own, renumbered[other], labels) >= LEAST_IOU
    yield f"its labels exchanged (where {changed[0]} is marked it answers {answered[changed[0]]})", flags

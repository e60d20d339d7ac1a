"""Pictures on which people marked points, or the label of each pixel, and what models have against these.

Sources: 300-W's annotations (Sagonas et al. 2013: pixels counted from 1; errors as shares of the distance between the
outer corners of the eyes); COCO's key points (pixels counted from 0, as Detectron2 reads them); PASCAL VOC's masks
(pixels of 255 don't count).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, FiniteFloat, ValidationError

from plimsoll.errors import InputError
from plimsoll.metrics.decisions import CONFIDENCE, bounds, upper_bound
from plimsoll.metrics.distances import extent, point_errors
from plimsoll.metrics.labelled import MetricChange
from plimsoll.metrics.masks import overlap
from plimsoll.system import files
from plimsoll.tasks.segment import LabelMap

Floats = NDArray[np.float64]

_MAX_BYTES = 1_000_000_000
_MAX_FILE_BYTES = 64_000_000
_MAX_PIXELS = 100_000_000
_VOID = 255
_FACE, _EYES = 68, (36, 45)
"""The outer corners of the eyes among the 68 points of a face."""
FACE_FAILED_FROM, FAILED_FROM = 0.08, 0.07
"""From this error on a picture has failed: 300-W's of the eyes' distance; of the points' extent as without labels."""


@dataclass(frozen=True)
class TruePoints:
    """The points that somebody marked on one object."""

    points: tuple[tuple[float, float] | None, ...]
    """x, y in the picture's pixels from its outer left and top edge; None for one that is not marked."""

    @property
    def marked(self) -> NDArray[np.bool_]:
        """Which points are marked."""
        return np.array([point is not None for point in self.points])

    def errors(self, points: Floats) -> float:
        """Return the mean distance of `[N, 2]` from the marked points: of 68, as a share of the distance between the
        eyes' outer corners; of others, of the extent of those that are marked."""
        marked = self.marked
        own = np.array([point for point in self.points if point is not None], np.float64)
        size = extent(own)
        if self.is_face:
            eyes = np.array([self.points[at] for at in _EYES], np.float64)
            size = float(np.linalg.norm(eyes[1] - eyes[0]))
        return float(point_errors(own, points[marked]).mean()) / size

    @property
    def limit(self) -> float:
        """From which error on a picture has failed."""
        return FACE_FAILED_FROM if self.is_face else FAILED_FROM

    @property
    def is_face(self) -> bool:
        """Whether errors are shares of the distance between the eyes."""
        return len(self.points) == _FACE and all(self.points[at] is not None for at in _EYES)


@dataclass(frozen=True)
class TrueMask:
    """A file with the number of the label of each pixel."""

    mask: Path

    def labels(self, count: int) -> NDArray[np.uint16]:
        """Return `[height, width]`; `count` and above is no label. Raises InputError."""
        try:
            with Image.open(self.mask) as image:
                if image.mode not in ("L", "P", "1", "I;16") or image.width * image.height > _MAX_PIXELS:
                    raise InputError(
                        f"{self.mask}: a picture of {image.width} x {image.height} in mode {image.mode}; a mask has one"
                        f" channel, with the label's number in each pixel, and at most {_MAX_PIXELS:,} pixels"
                    )
                values = np.asarray(image).astype(np.uint16)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"{self.mask}: can't be read as a mask: {error}") from error
        void = 65_535 if count > _VOID else _VOID
        wrong = values[(values >= count) & (values != void)]
        if wrong.size:
            raise InputError(
                f"{self.mask}: a pixel has the label {int(wrong[0])}; the model's labels are numbered from 0 to"
                f" {count - 1}, and {void} is none"
            )
        return values


def read_masks(source: Path, pictures: Mapping[str, Path], count: int) -> dict[str, TrueMask]:
    """Return picture path (absolute) → mask, for the PNG files in a folder that are named after pictures. Raises
    InputError, also for a label beyond the model's."""
    truths = {}
    for file, picture in _beside(source, pictures, ".png"):
        truths[str(picture.resolve())] = mask = TrueMask(file.resolve())
        mask.labels(count)
    return truths


def _beside(source: Path, pictures: Mapping[str, Path], suffix: str) -> list[tuple[Path, Path]]:
    """Return the files in a folder that are named after pictures, with these."""
    matches = []
    for file in sorted(source.rglob(f"*{suffix}")) if source.is_dir() else []:
        inside = file.relative_to(source).with_suffix("").as_posix()
        picture = pictures.get(inside) or pictures.get(file.stem)
        if picture is not None and picture.resolve() != file.resolve():
            matches.append((file, picture))
    return matches


class _Image(BaseModel):
    id: int
    file_name: str


class _Annotation(BaseModel):
    image_id: int
    keypoints: list[FiniteFloat] = []


class _Coco(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]


def read_points(source: Path, pictures: Mapping[str, Path], count: int) -> dict[str, TruePoints]:
    """Return picture path (absolute) → its points, from COCO's JSON file, or from the .pts files in a folder that are
    named after pictures. Raises InputError, also for another number of points than the model's."""
    if source.is_file():
        return _coco_points(source, pictures, count)
    return {str(picture.resolve()): _pts(file, count) for file, picture in _beside(source, pictures, ".pts")}


def _coco_points(file: Path, pictures: Mapping[str, Path], count: int) -> dict[str, TruePoints]:
    try:
        data = _Coco.model_validate_json(files.read_text(file, _MAX_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{file}: not COCO's key points: {where}: {first['msg']}") from error
    except OSError as error:
        raise InputError(f"{file}: can't read the labels: {error.strerror or error}") from error
    truths = {}
    for image in data.images:
        picture = pictures.get(image.file_name) or pictures.get(Path(image.file_name).name)
        own = [each.keypoints for each in data.annotations if each.image_id == image.id and any(each.keypoints[2::3])]
        if picture is None or not own:
            continue
        if len(own) > 1 or len(own[0]) != 3 * count:
            raise InputError(
                f"{file}: {image.file_name} has {len(own)} objects with {len(own[0]) / 3:g} points; the model finds"
                f" {count} points on one",
                "Cut out one object a picture.",
            )
        x, y, visibility = (own[0][at::3] for at in range(3))
        points = [(a + 0.5, b + 0.5) if seen else None for a, b, seen in zip(x, y, visibility, strict=True)]
        truths[str(picture.resolve())] = _usable(f"{file}: {image.file_name}", points)
    return truths


def _pts(file: Path, count: int) -> TruePoints:
    text = files.read_text(file, _MAX_FILE_BYTES)
    inside = re.fullmatch(r"\s*version:\s*1\s+n_points:\s*(\d+)\s*\{([^{}]*)\}\s*", text)
    try:
        numbers = [float(word) for word in inside[2].split()] if inside else []
    except ValueError:
        numbers = []
    if inside is None or len(numbers) != 2 * int(inside[1]) or not all(map(math.isfinite, numbers)):
        raise InputError(
            f"{file}: not a file of points: expected version: 1, n_points: N, and N lines of x y in braces"
        )
    if len(numbers) != 2 * count:
        raise InputError(f"{file}: {len(numbers) // 2} points; the model finds {count}")
    points = [(x - 0.5, y - 0.5) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
    return _usable(str(file), points)


def _usable(where: str, points: Sequence[tuple[float, float] | None]) -> TruePoints:
    truth = TruePoints(tuple(points))
    own = np.array([point for point in points if point is not None], np.float64)
    if extent(own) == 0 or (truth.is_face and truth.points[_EYES[0]] == truth.points[_EYES[1]]):
        raise InputError(f"{where}: its points are all in one place, so that errors have no size to be compared with")
    return truth


def point_changes(
    truths: Sequence[Any], points: Sequence[tuple[Floats, Floats] | None]
) -> tuple[tuple[MetricChange, ...], int]:
    """Return normalized mean error, failure rate and area under the curve of errors of the reference and the other
    against marked points, and on how many pictures."""
    known = [
        (truth, pair)
        for truth, pair in zip(truths, points, strict=False)
        if isinstance(truth, TruePoints) and pair is not None
    ]
    if not known:
        return (), 0
    errors = [np.array([truth.errors(pair[side]) for truth, pair in known]) for side in (0, 1)]
    limits = np.array([truth.limit for truth, _ in known])
    failed = [(own > limits).astype(np.float64) for own in errors]
    areas = [np.maximum(0.0, 1.0 - own / limits) for own in errors]
    count = len(known)
    return (
        _change("nme", count, *(partial(_mean, own) for own in errors), rises=True),
        _change("failure_rate", count, *(partial(_mean, own) for own in failed), rises=True, rare=True),
        _change("point_auc", count, *(partial(_mean, own) for own in areas)),
    ), count


def mask_changes(
    truths: Sequence[Any],
    masks: Sequence[tuple[LabelMap, LabelMap] | None],
    count: int,
    thinned: Callable[[NDArray[np.uint16]], NDArray[np.uint16]],
) -> tuple[tuple[MetricChange, ...], int]:
    """Return the mean IoU of the reference and the other against marked masks, over the labels that are marked at all,
    and on how many pictures; pixels without a label don't count. `thinned` brings a marked mask to the grid of
    `masks`, which have `count` labels. Raises InputError for a mask of another size than its picture."""
    rows, marked_pixels = [], np.zeros(count, np.int64)
    for truth, pair in zip(truths, masks, strict=False):
        if not isinstance(truth, TrueMask) or pair is None:
            continue
        own = thinned(truth.labels(count))
        if own.shape != (pair[0].height, pair[0].width):
            raise InputError(
                f"{truth.mask}: {own.shape[1]} x {own.shape[0]} pixels are compared with {pair[0].width} x"
                f" {pair[0].height} of the answer",
                "A mask is as large as its picture's file, before it is turned.",
            )
        rows.append([np.stack(overlap(confusion(own, mask.pixels(), count))) for mask in pair])
        marked_pixels += np.bincount(own[own < count], minlength=count)
    if not marked_pixels.any():
        return (), len(rows)
    table, occurring = np.array(rows, np.float64), marked_pixels > 0
    sides = [partial(_mean_iou, table[:, side][:, :, occurring]) for side in (0, 1)]
    return (_change("miou", len(rows), *sides),), len(rows)


def confusion(own: NDArray[np.uint16], other: NDArray[np.uint16], count: int) -> NDArray[np.int64]:
    """Return `[labels + 1, labels + 1]`: the marked label x the answer's, of the pixels that are marked."""
    marked, size = own < count, count + 1
    pairs = own[marked].astype(np.int64) * size + np.minimum(other[marked], count)
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def _mean_iou(table: Floats, weights: Floats) -> float:
    shared, union = np.tensordot(weights, table, 1)
    return float((shared[union > 0] / union[union > 0]).mean()) if union.any() else math.nan


def _mean(values: Floats, weights: Floats) -> float:
    return float(weights @ values / weights.sum())


def _change(
    name: str,
    count: int,
    reference: Callable[[Floats], float],
    other: Callable[[Floats], float],
    *,
    rises: bool = False,
    rare: bool = False,
) -> MetricChange:
    """Bound a change by the bootstrap over pictures, on the side of a loss; one that is `rare` in a picture also by
    what none of so many pictures leaves possible."""
    ones, sign = np.ones(count), -1.0 if rises else 1.0
    lower, low, high = bounds(lambda weights: sign * (other(weights) - reference(weights)), count, CONFIDENCE)
    lower = min(lower, -upper_bound(0, count)) if rare else lower
    interval = (low, high) if not rises else (-high, -low)
    return MetricChange(name, reference(ones), other(ones), sign * lower, interval, count)

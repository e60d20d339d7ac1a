"""Segmentation: a label for every pixel.

A map is stored as runs, since a photograph's worth of pixels would fill the memory. The runs go down the columns, one
column after another, as COCO's masks do.

Sampling: values are interpolated bilinearly to the pixel's centre (half-pixel centres, replicated border), and then the
label is decided. Training frameworks that enlarge the logits before the argmax do the same, and it gives smooth edges
where the nearest cell's label gives stairs. It costs next to nothing: where the four cells around a pixel have one
label, that is the pixel's label, since what is largest at all four is largest in every mean of them (and what reaches a
threshold at all four reaches it in between). Values are interpolated along the edges alone.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import InputError, ModelError, SpecError
from plimsoll.spec.spec import Segment
from plimsoll.tasks.base import Answer, Outputs, Task, activate, along, geometry_at, output, require_finite

if TYPE_CHECKING:
    from plimsoll.preprocessing import ImageGeometry


NO_LABEL = 65_535
"""The value of pixels without a label: cropped away, or unnamed background."""
MAX_LABELS = 65_000
PNG_NO_LABEL = 255
"""The same in a PNG file; PASCAL VOC's value for ignored pixels."""

Decide = Callable[[NDArray[np.float32]], NDArray[np.uint16]]
"""From values `[…, planes]` to labels `[…]`."""

_MIXED = NO_LABEL - 1
_AT_ONCE = 1 << 16
"""Pixels whose values are interpolated together: 64 MB for 256 planes."""


@dataclass(frozen=True)
class LabelMap:
    """The index of a label for every pixel, or NO_LABEL."""

    height: int
    width: int
    values: NDArray[np.uint16]
    """`[runs]`"""
    lengths: NDArray[np.int64]
    """`[runs]`, in pixels; their sum is height x width."""

    @classmethod
    def of(cls, pixels: NDArray[np.uint16]) -> LabelMap:
        """Make one of `[height, width]`."""
        flat = pixels.T.ravel()
        starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
        return cls(len(pixels), pixels.shape[1], flat[starts], np.diff(starts, append=flat.size))

    def pixels(self) -> NDArray[np.uint16]:
        """Return `[height, width]`."""
        return np.repeat(self.values, self.lengths).reshape(self.width, self.height).T

    def areas(self) -> dict[int, int]:
        """Return the labels that occur, with how many pixels each has, most first."""
        sums = np.bincount(self.values, weights=self.lengths)
        sums[NO_LABEL:] = 0
        order = np.argsort(-sums, kind="stable")[: np.count_nonzero(sums)]
        return {int(label): int(sums[label]) for label in order}

    def counts(self, label: int) -> list[int]:
        """Return one label's mask as COCO's uncompressed run lengths: pixels without it, with it, without it … down the
        columns."""
        ends = np.cumsum(self.lengths)
        own = self.values == label
        edges = np.stack([ends[own] - self.lengths[own], ends[own]], axis=1).ravel()
        runs = np.diff(edges, prepend=0, append=self.height * self.width)
        return [int(run) for run in (runs if runs[-1] else runs[:-1])]

    def png(self) -> bytes:
        """Return a PNG file of 8 bits a pixel with PASCAL VOC's colours: the pixel's value is the label's index, 255
        if it has none.

        Raises ValueError if a label's index is above 254.
        """
        from PIL import Image

        named = self.values[self.values != NO_LABEL]
        if named.size and int(named.max()) >= PNG_NO_LABEL:
            raise ValueError(
                f"label {int(named.max())} doesn't fit into a PNG file of 8 bits a pixel, which has room for"
                f" {PNG_NO_LABEL}"
            )
        small = np.where(self.values == NO_LABEL, PNG_NO_LABEL, self.values).astype(np.uint8)
        image = Image.fromarray(np.ascontiguousarray(np.repeat(small, self.lengths).reshape(self.width, self.height).T))
        image.putpalette(_palette())
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()


def _palette() -> bytes:
    """Return 256 colours R, G, B: the bits of a label's index dealt out to the three, highest first (PASCAL VOC's
    development kit)."""
    indices = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((indices >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours.tobytes()


@dataclass(frozen=True)
class _Axis:
    """For each pixel along one axis: the cells before and after it, and its relative position between them."""

    between: NDArray[np.intp]
    """0 … cells: the gap that it is in; gap k is between the cells k - 1 and k, and the border repeats."""
    before: NDArray[np.intp]
    after: NDArray[np.intp]
    share: NDArray[np.float32]

    @classmethod
    def of(cls, positions: NDArray[np.float64], cells: int) -> _Axis:
        """Locate positions, in cells from the outer edge; the location of NaN is arbitrary."""
        centred = np.clip(np.nan_to_num(positions) - 0.5, -1.0, float(cells))
        first = np.minimum(np.floor(centred).astype(np.intp), cells - 1)
        share = np.asarray(centred - first, np.float32)
        return cls(first + 1, np.maximum(first, 0), np.minimum(first + 1, cells - 1), share)


def labels_at(
    values: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64], decide: Decide
) -> NDArray[np.uint16]:
    """Return `[len(y), len(x)]`: the label at each position, NO_LABEL if a position is NaN.

    `values` is `[height, width, planes]`; x and y are in its cells, counted from its outer left and top edge.
    """
    height, width, _ = values.shape
    columns, rows = _Axis.of(x, width), _Axis.of(y, height)
    sampled = _gaps(decide(values)).take(rows.between, axis=0).take(columns.between, axis=1)
    row, column = np.divmod(np.flatnonzero(sampled == _MIXED), len(x))
    for start in range(0, len(row), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        sampled[row[part], column[part]] = decide(_interpolated(values, rows, columns, row[part], column[part]))
    sampled[np.isnan(y)] = NO_LABEL
    sampled[:, np.isnan(x)] = NO_LABEL
    return sampled


def nearest_labels(labels: NDArray[np.uint16], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Return the label of the cell at each position: for networks whose output is labels, not scores."""
    height, width = labels.shape
    column, row = (
        np.clip(np.floor(np.nan_to_num(at)), 0, size - 1).astype(np.intp) for at, size in ((x, width), (y, height))
    )
    sampled = labels.take(row, axis=0).take(column, axis=1)
    sampled[np.isnan(y)] = NO_LABEL
    sampled[:, np.isnan(x)] = NO_LABEL
    return sampled


def _gaps(labels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return, for each gap between four cells `[height + 1, width + 1]`, the label that all four have, or _MIXED."""
    padded = np.pad(labels, 1, mode="edge")
    first, others = padded[:-1, :-1], (padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:])
    return np.where(np.logical_and.reduce([first == other for other in others]), first, np.uint16(_MIXED))


def _interpolated(
    values: NDArray[np.float32], rows: _Axis, columns: _Axis, row: NDArray[np.intp], column: NDArray[np.intp]
) -> NDArray[np.float32]:
    x, y = columns.share[column, np.newaxis], rows.share[row, np.newaxis]
    left, right = columns.before[column], columns.after[column]

    def along_x(line: NDArray[np.intp]) -> NDArray[np.float32]:
        first = values[line, left]
        return np.asarray(first + (values[line, right] - first) * x)

    top = along_x(rows.before[row])
    return np.asarray(top + (along_x(rows.after[row]) - top) * y)


Masks = Literal["rle", "png"]


@dataclass(frozen=True)
class Segmentation(Answer):
    """The labels of one picture's pixels."""

    labels: tuple[str, ...]
    """All labels of the Spec, whether they occur or not."""
    map: LabelMap

    @cached_property
    def shares(self) -> Mapping[str, float]:
        """Label → its share of the picture's pixels, largest first; pixels without a label count among all, so the sum
        may stay below 1."""
        total = self.map.height * self.map.width
        return {self.labels[label]: area / total for label, area in self.map.areas().items()}

    def row(self, top: int | None = None, masks: Masks = "rle") -> dict[str, Any]:
        """Return `mask` with `size` [height, width], `labels` with their shares, and either `rle` or `png`.

        `rle` has one mask a label in COCO's uncompressed form, `{"size": size, "counts": rle[label]}` for pycocotools;
        `png` is the file of `png()` in base64. `top` keeps the labels with the largest shares, in `labels` and `rle`.
        """
        shares = dict(list(self.shares.items())[:top])
        mask: dict[str, Any] = {
            "size": [self.map.height, self.map.width],
            "labels": [{"label": label, "share": round(share, 6)} for label, share in shares.items()],
        }
        if masks == "png":
            return {"mask": {**mask, "png": base64.b64encode(self.png()).decode()}}
        return {"mask": {**mask, "rle": {label: self.map.counts(self.labels.index(label)) for label in shares}}}

    def png(self) -> bytes:
        """Return a PNG file, 8 bits a pixel: the index of the label in the Spec, 255 for none; the palette is
        PASCAL VOC's.

        Raises InputError if a label's index is above 254.
        """
        try:
            return self.map.png()
        except ValueError as error:
            raise InputError(f"no PNG mask: {error}", "Ask for run lengths (rle) instead.") from error

    def pixels(self) -> NDArray[np.uint16]:
        """Return `[height, width]`: each pixel's label index, 65,535 for none."""
        return self.map.pixels()

    def brief(self) -> str:
        return ", ".join(f"{label} {100 * share:.1f} %" for label, share in self.shares.items()) or "no label"

    def readings(self) -> Sequence[str]:
        return list(self.shares)[:1] or ("without a label",)


class SegmentTask(Task):
    """Decodes planes `[N, planes, h, w]` or `[N, h, w, planes]` (`layout`), or whole numbers `[N, h, w]`, which are
    labels already."""

    needs_geometry: ClassVar[bool] = True

    def __init__(self, spec: Segment) -> None:
        if len(spec.labels) > MAX_LABELS:
            raise SpecError(f"output.labels: {len(spec.labels):,} labels; a mask can hold {MAX_LABELS:,}")
        self.spec = spec
        self.threshold = spec.threshold

    def decode(
        self,
        outputs: Outputs,
        threshold: float | None = None,
        geometries: Sequence[ImageGeometry | None] | None = None,
    ) -> list[Segmentation]:
        raw = output(outputs, self.spec.tensor)
        limit = self.spec.threshold if threshold is None else threshold
        if raw.dtype.kind in "iu":
            return [
                Segmentation(self.spec.labels, self._from_labels(labels, geometry_at(geometries, index)))
                for index, labels in enumerate(self._as_labels(raw))
            ]
        return [
            Segmentation(self.spec.labels, self._from_planes(planes, limit, geometry_at(geometries, index)))
            for index, planes in enumerate(self._as_planes(raw))
        ]

    def _as_labels(self, raw: NDArray[Any]) -> NDArray[np.uint16]:
        """Return `[N, h, w]` of a network whose output is labels."""
        squeezed = (
            raw.reshape(len(raw), *(size for size in raw.shape[1:] if size != 1))
            if raw.ndim == 4 and 1 in raw.shape[1:]
            else raw
        )
        if squeezed.ndim != 3:
            raise ModelError(
                f"the network's output is whole numbers {list(raw.shape)}; labels are read from [N, height, width]",
                "Correct `output.tensor`.",
            )
        if squeezed.size and (squeezed.min() < 0 or squeezed.max() >= len(self.spec.labels)):
            raise ModelError(
                f"the network gives labels from {squeezed.min()} to {squeezed.max()}, the Spec has"
                f" {len(self.spec.labels)}",
                "Correct `output.labels` in the Spec.",
            )
        return np.asarray(squeezed, np.uint16)

    def _as_planes(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Return `[N, h, w, planes]`."""
        axis = 1 if self.spec.layout == "NCHW" else 3
        count = len(self.spec.labels)
        shaped = np.expand_dims(raw, axis) if raw.ndim == 3 else raw
        if shaped.ndim != 4 or shaped.shape[axis] not in ({1, count} if count <= 2 else {count}) or 0 in shaped.shape:
            expected = f"[N, {count}, height, width]" if axis == 1 else f"[N, height, width, {count}]"
            raise ModelError(
                f"the network's output is {list(raw.shape)}; the Spec has {count} labels and layout {self.spec.layout},"
                f" so {expected} is expected",
                "Correct `output.labels` or `output.layout` in the Spec; one plane alone goes with one or two labels.",
            )
        require_finite(shaped, "values")
        return np.ascontiguousarray(np.moveaxis(shaped, axis, 3), np.float32)

    def _from_labels(self, labels: NDArray[np.uint16], geometry: ImageGeometry | None) -> LabelMap:
        x, y = _positions(geometry, *labels.shape)
        return _as_sent(nearest_labels(labels, x, y), geometry)

    def _from_planes(self, planes: NDArray[np.float32], threshold: float, geometry: ImageGeometry | None) -> LabelMap:
        x, y = _positions(geometry, *planes.shape[:2])

        def decide(values: NDArray[np.float32]) -> NDArray[np.uint16]:
            if values.shape[-1] > 1:
                return np.asarray(
                    values.argmax(axis=-1), np.uint16
                )  # Softmax and sigmoid rise with their values: they change no argmax.
            scores = activate(values[..., 0], "sigmoid" if self.spec.activation == "sigmoid" else "none")
            below, above = (0, 1) if len(self.spec.labels) == 2 else (NO_LABEL, 0)
            return np.asarray(np.where(scores >= threshold, np.uint16(above), np.uint16(below)))

        return _as_sent(labels_at(planes, x, y, decide), geometry)

    def columns(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        columns: dict[str, NDArray[Any]] = {}
        planes, axis = output(outputs, self.spec.tensor), 1 if self.spec.layout == "NCHW" else 3
        for name, values in outputs.items():
            if values is planes and values.ndim == 4 and values.shape[axis] == len(self.spec.labels):
                columns |= along(values, axis, name, [f"plane of {label!r}" for label in self.spec.labels])
            else:
                columns[name] = values
        return columns

    def empty_row(self) -> dict[str, Any]:
        return {"mask": None}


def _positions(
    geometry: ImageGeometry | None, height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centres of the upright picture's columns and rows, in a grid of height x width cells over the
    network's input."""
    if geometry is None:
        return np.arange(0.5, width), np.arange(0.5, height)
    x, y = geometry.pixel_centres()
    return np.asarray(x * (width / geometry.input_width)), np.asarray(y * (height / geometry.input_height))


def _as_sent(labels: NDArray[np.uint16], geometry: ImageGeometry | None) -> LabelMap:
    return LabelMap.of(labels if geometry is None else np.asarray(geometry.as_sent(labels), np.uint16))


DECODER = SegmentTask

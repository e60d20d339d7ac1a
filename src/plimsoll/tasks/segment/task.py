"""Segmentation: a label for every pixel."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import InputError, ModelError, SpecError
from plimsoll.spec.output import Segment
from plimsoll.tasks.base import Answer, Outputs, Task, activate, geometry_at, output, require_finite
from plimsoll.tasks.segment.label_map import MAX_LABELS, NO_LABEL, LabelMap, labels_at, nearest_labels

if TYPE_CHECKING:
    from plimsoll.preprocessing import ImageGeometry

Masks = Literal["rle", "png"]


@dataclass(frozen=True)
class Segmentation(Answer):
    """The labels of one picture's pixels."""

    labels: tuple[str, ...]
    """All that the Spec has, whether they occur or not."""
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

        Raises InputError where a label's index is above 254.
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
        """Return `[N, h, w]` of a network that decides itself."""
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

    def empty_row(self) -> dict[str, Any]:
        return {"mask": None}


def _positions(
    geometry: ImageGeometry | None, height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the centres of the upright picture's columns and rows lie in a grid of height x width cells over the
    network's input."""
    if geometry is None:
        return np.arange(0.5, width), np.arange(0.5, height)
    x, y = geometry.pixel_centres()
    return np.asarray(x * (width / geometry.input_width)), np.asarray(y * (height / geometry.input_height))


def _as_sent(labels: NDArray[np.uint16], geometry: ImageGeometry | None) -> LabelMap:
    return LabelMap.of(labels if geometry is None else np.asarray(geometry.as_sent(labels), np.uint16))


DECODER = SegmentTask

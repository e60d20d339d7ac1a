"""Detectors' boxes, compared: which are found by both, and how far apart they lie."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from plimsoll.core.budget import BoundedFigure, Evidence, Limit
from plimsoll.metrics.boxes import LEAST_IOU, BoxChanges, box_overlaps, compare_boxes, lowered, match, overlaps
from plimsoll.metrics.decisions import pictures_needed
from plimsoll.metrics.labelled import MetricChange
from plimsoll.prove.average_precision import LEAST_SCORE, MOST_BOXES, ScoredBoxes, changes_against
from plimsoll.prove.comparison import (
    Change,
    Comparer,
    Comparison,
    bias_figure,
    change_details,
    change_figure,
    changed_figure,
    complement,
    label_notes,
    mean_figure,
    settings_that_differ,
    share_figure,
)
from plimsoll.prove.labels import Truth
from plimsoll.spec.spec import Detect
from plimsoll.tasks import Answer, Task
from plimsoll.tasks.detect import Box, Detection

_EXAMPLES = 4
_NAMES = frozenset({"tensors", "anchors_file", "batch_axis"})

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class PictureBoxes:
    """What is kept of a picture."""

    changes: BoxChanges
    labels: Counter[tuple[str, str]]
    """(reference's label, other's label) of boxes that lie on one another."""
    shown: frozenset[str] = frozenset()
    """The labels of the reference's boxes."""
    examples: tuple[tuple[Corners, Corners], ...] = ()
    """The boxes of both of one label, best first, where both have equally many: they show shifts and turns."""
    scale: tuple[float, float] = (1.0, 1.0)
    """The picture's pixels for one of the network's input, along x and y."""
    point_error: float = math.nan
    """Of networks that give points: the mean distance of matched boxes' points, as a share of the box's size, summed up
    over them."""
    mask_error: float = math.nan
    """Of networks that give masks: 1 - IoU of matched boxes' masks, summed up."""
    scored: tuple[ScoredBoxes, ScoredBoxes] | None = None
    """All boxes of both, where pictures are labelled."""


class BoxComparer(Comparer):
    """Matches boxes; each model has the threshold of its own Spec."""

    answer_type: ClassVar[type[Answer]] = Detection

    def __init__(self, output: Detect, other: Detect, *, labelled: bool = False) -> None:
        """`labelled`: boxes of any score are decoded, as the precision against labels needs them."""
        self._labels = {label: at for at, label in enumerate(output.labels)}
        self._labelled, self._blends, self._outlined = labelled, output.suppression == "blend", output.has_outlines
        self._points, self._has_masks = output.points, output.has_masks
        self._thresholds = (output.confidence, other.confidence)
        self._settings = tuple(settings_that_differ(output, other, _NAMES))

    def threshold(self, task: Task) -> float | None:
        near = lowered(task.threshold or 0.0)
        # A blended box moves with every box below it: what is decoded from a lower score on is another answer.
        return min(near, LEAST_SCORE) if self._labelled and not self._blends else near

    def dump(self, answer: Detection) -> JsonValue:
        """Store the boxes that are compared, and as many below them as COCO counts."""
        near = sum(box.score >= lowered(min(self._thresholds)) for box in answer.boxes)
        return super().dump(Detection(answer.boxes[: max(near, MOST_BOXES)]))

    def measure(self, reference: Detection, other: Detection, scale: tuple[float, float] = (1.0, 1.0)) -> PictureBoxes:
        if not self._labelled:
            return self._measure(reference, other, scale)
        scored = [ScoredBoxes.of(answer.boxes, self._labels, masks=self._outlined) for answer in (reference, other)]
        near = [
            Detection(tuple(box for box in answer.boxes if box.score >= lowered(least)))
            for answer, least in zip((reference, other), self._thresholds, strict=True)
        ]
        return replace(self._measure(near[0], near[1], scale), scored=(scored[0], scored[1]))

    def _measure(self, reference: Detection, other: Detection, scale: tuple[float, float]) -> PictureBoxes:
        first, second = (
            [box for box in answer.boxes if box.score >= least]
            for answer, least in zip((reference, other), self._thresholds, strict=True)
        )
        labels: Counter[tuple[str, str]] = Counter()
        if first and second:
            overlap = box_overlaps(first, second)
            for index, box in enumerate(first):
                same = [other_index for other_index, other_box in enumerate(second) if other_box.label == box.label]
                if same and overlap[index, same].max() >= LEAST_IOU:
                    labels[box.label, box.label] += 1
                elif overlap[index].max() >= LEAST_IOU:
                    labels[box.label, second[int(overlap[index].argmax())].label] += 1
        changes = compare_boxes(reference.boxes, other.boxes, self._thresholds)
        shown = frozenset(box.label for box in first)
        examples = tuple(_same_rank(first, second)) if changes.changed else ()
        return PictureBoxes(changes, labels, shown, examples, scale, *self._inner_errors(reference, other))

    def _inner_errors(self, reference: Detection, other: Detection) -> tuple[float, float]:
        """Return the sums of the errors of points and of masks in matched boxes; NaN where the network gives none."""
        first, second = reference.boxes, other.boxes
        reaching = [box.score >= self._thresholds[0] for box in first]
        pairs = [
            (first[i], second[j])
            for i, j, _ in match(first, second, reaching)
            if reaching[i] or second[j].score >= self._thresholds[1]
        ]
        points = [_point_error(box, partner) for box, partner in pairs] if self._points else [math.nan]
        masks = [1.0 - box.mask.iou(partner.mask) for box, partner in pairs if box.mask and partner.mask]
        return sum(points), sum(masks) if self._has_masks else math.nan

    def change(self, measured: PictureBoxes) -> Change:
        changes = measured.changes
        # A box that is there or not weighs more than any that moved.
        lost, added = changes.reference - changes.matched, changes.other - changes.matched
        moved = lost + added + (changes.score_difference + changes.error) / max(changes.pairs, 1) / 2
        counts = [f"{count} {word}" for count, word in ((lost, "lost"), (added, "added")) if count]
        moves = f"scores moved by {changes.largest_score_difference:.2g} at most, IoU ≥ {1 - changes.largest_error:.2g}"
        boxes = f"{changes.reference} box{'' if changes.reference == 1 else 'es'}"
        return Change(moved, ", ".join([boxes, *counts, *([moves] if changes.pairs else [])]))

    def comparison(
        self, measured: Sequence[PictureBoxes], failed: int, truths: Sequence[Truth | None] | None = None
    ) -> BoxComparison:
        rows = [picture.scored for picture in measured]
        changes, labelled = changes_against(truths or (), rows, tuple(self._labels), self._points, masks=self._outlined)
        return BoxComparison(
            len(measured) + failed, failed, tuple(measured), len(self._labels), self._settings, changes, labelled
        )


def _point_error(reference: Box, other: Box) -> float:
    first, second = (np.array(box.points, np.float64)[:, :2] for box in (reference, other))
    x0, y0, x1, y1 = reference.box
    return float(np.linalg.norm(second - first, axis=1).mean() / max(math.sqrt((x1 - x0) * (y1 - y0)), 1e-6))


def _same_rank(first: Sequence[Any], second: Sequence[Any]) -> list[tuple[Corners, Corners]]:
    counts = [Counter(box.label for box in boxes) for boxes in (first, second)]
    pairs = []
    for label in counts[0]:
        if counts[0][label] == counts[1][label]:
            own = [[box.box for box in boxes if box.label == label] for boxes in (first, second)]
            pairs += list(zip(*own, strict=True))
    return pairs[:_EXAMPLES]


@dataclass(frozen=True)
class BoxComparison(Comparison):
    """How the other model's boxes differ from the reference's."""

    pictures: int
    failed: int
    measured: tuple[PictureBoxes, ...]
    labels: int
    """How many the reference knows."""
    settings: tuple[str, ...] = ()
    """How the Specs read the outputs otherwise."""
    changes: tuple[MetricChange, ...] = ()
    labelled: int = 0

    def total(self, name: str) -> float:
        """Return a count or a sum of `BoxChanges` over all pictures."""
        return float(sum(getattr(picture.changes, name) for picture in self.measured))

    @property
    def nothing_compared(self) -> str:
        if self.total("reference") or not self.measured:
            return ""
        others = self.total("other")
        more = f", the other {others:,.0f}" if others else ""
        pictures = f"{len(self.measured):,} pictures{more}"
        return f"the reference finds no box in {pictures}: give pictures that hold what it detects"

    @property
    def headline(self) -> str:
        if self.nothing_compared:
            return f"nothing was compared: {self.nothing_compared}"
        recall, precision = self._recall(), self._precision()
        changed = sum(picture.changes.changed for picture in self.measured)
        return (
            f"{self.total('matched'):,.0f} of the reference's {self.total('reference'):,.0f} boxes found again, with"
            f" 95 % confidence at least {_percent(recall.bound)} are; precision {_percent(precision.value)};"
            f" {changed:,} of {len(self.measured):,} pictures changed"
        )

    def evidence(self) -> Evidence:
        changes = [picture.changes for picture in self.measured]
        pairs = [change.pairs for change in changes]
        largest = max((change.largest_score_difference for change in changes), default=0.0)
        worst = max((change.largest_error for change in changes), default=0.0)
        counted = f"{sum(pairs):,} matched boxes"
        scores = [change.score_difference for change in changes]
        against_labels = {change.name: [change_figure(change)] for change in self.changes}
        return (
            self._inner_evidence(pairs)
            | against_labels
            | {
                "agreement": [
                    share_figure(
                        "boxes that agree",
                        [change.matched for change in changes],
                        [change.reference + change.other - change.matched for change in changes],
                        "found by both, of those that either finds",
                    )
                ],
                "box_recall": [self._recall()],
                "box_precision": [self._precision()],
                "box_score_deviation": [
                    mean_figure("mean score deviation of boxes", scores, pairs, f"{counted}; largest {largest:.2g}")
                ],
                "box_error": [
                    mean_figure(
                        "mean box error (1 - IoU)",
                        [change.error for change in changes],
                        pairs,
                        f"{counted}; largest {worst:.2g}",
                    )
                ],
                "box_shift": [
                    bias_figure(
                        "shift of all boxes",
                        [change.bias for change in changes],
                        pairs,
                        "of centres and sizes, as a share of the sizes: what does not cancel out",
                    )
                ],
                "box_changes": [
                    changed_figure("pictures whose boxes changed", sum(each.changed for each in changes), len(changes))
                ],
            }
        )

    def _inner_evidence(self, pairs: Sequence[int]) -> dict[str, list[BoundedFigure]]:
        """Return the figures for points and masks inside boxes, where the network gives them."""
        evidence: dict[str, list[BoundedFigure]] = {}
        points = [picture.point_error for picture in self.measured]
        masks = [picture.mask_error for picture in self.measured]
        detail = f"in {sum(pairs):,} matched boxes"
        if points and not any(map(math.isnan, points)):
            evidence["nme"] = [
                mean_figure("normalized mean error of points", points, pairs, f"{detail}, of their size")
            ]
        if masks and not any(map(math.isnan, masks)):
            evidence["mask_iou"] = [complement("mean IoU of masks", mean_figure("", masks, pairs, detail))]
        return evidence

    def _recall(self) -> BoundedFigure:
        changes = [picture.changes for picture in self.measured]
        detail = self.nothing_compared or (
            f"{self.total('matched'):,.0f} of {self.total('reference'):,.0f} boxes: {self.total('lost'):,.0f} not"
            f" found, {self.total('fallen'):,.0f} found just below the threshold"
        )
        return share_figure(
            "recall of the reference's boxes",
            [change.matched for change in changes],
            [change.reference for change in changes],
            detail,
        )

    def _precision(self) -> BoundedFigure:
        changes = [picture.changes for picture in self.measured]
        detail = (
            f"{self.total('matched'):,.0f} of {self.total('other'):,.0f} boxes: {self.total('added'):,.0f} that the"
            f" reference doesn't find, {self.total('risen'):,.0f} that it finds just below the threshold"
        )
        if not self.total("other"):
            detail = "it finds no box"
        return share_figure(
            "precision against the reference's boxes",
            [change.matched for change in changes],
            [change.other for change in changes],
            detail,
        )

    def too_few(self, limit: Limit) -> str:
        counts = {"box_recall": "reference", "box_precision": "other"}
        total = self.total(counts[limit.metric]) if limit.metric in counts else 0
        if not total or self.total("matched") / total < limit.value:
            return ""
        needed = pictures_needed(1 - limit.value, int(total - self.total("matched")))
        if total >= needed:
            return ""
        return (
            f"{total:,.0f} boxes are too few to prove a {limit.metric} of {100 * limit.value:g} %: with"
            f" {total - self.total('matched'):,.0f} lost it takes {needed:,}"
        )

    @property
    def cause(self) -> str:
        causes = list(self.settings)
        if self.measured and not self.total("other") and self.total("reference"):
            causes.append(f"it finds no box, where the reference finds {self.total('reference'):,.0f}")
        causes += self._labels()
        if moved := _moved([(*pair, each.scale) for each in self.measured for pair in each.examples]):
            causes.append(moved)
        return "; ".join(causes[:3])

    def _labels(self) -> list[str]:
        counts = sum((picture.labels for picture in self.measured), Counter[tuple[str, str]]())
        swapped = []
        for (label, other), count in counts.most_common():
            total = sum(number for (first, _), number in counts.items() if first == label)
            if label != other and count > total / 2:
                swapped.append(f"label '{other}' where the reference has '{label}' ({count:,} of {total:,} boxes)")
        return swapped[:3]

    @property
    def notes(self) -> list[str]:
        shown = {label for picture in self.measured for label in picture.shown}
        if not shown:
            return label_notes(self)
        silent = f"; nothing is proven of the other {self.labels - len(shown):,}" if self.labels > len(shown) else ""
        labels = f"{len(shown):,} of {self.labels:,} labels ({', '.join(sorted(shown)[:12])})"
        return [*label_notes(self), f"These pictures show {labels}{silent}"]

    def details(self) -> dict[str, JsonValue]:
        names = ("reference", "other", "matched", "lost", "added", "fallen", "risen")
        counts: dict[str, JsonValue] = {f"{name}_boxes": int(self.total(name)) for name in names}
        return {
            "task": "detect",
            "count": self.pictures,
            "failed": self.failed,
            **counts,
            "changed_pictures": sum(picture.changes.changed for picture in self.measured),
            "largest_score_deviation": max(
                (each.changes.largest_score_difference for each in self.measured), default=0.0
            ),
            "largest_box_error": max((each.changes.largest_error for each in self.measured), default=0.0),
            **change_details(self),
        }


def _percent(share: float) -> str:
    return "unknown" if math.isnan(share) else f"{100 * share:.3g} %"


_FITS = 0.75
"""The mean IoU from which on a change of all boxes explains them."""


def _moved(examples: Sequence[tuple[Corners, Corners, tuple[float, float]]]) -> str:
    """Say how all boxes were moved, where one movement explains them."""
    if not examples:
        return ""
    reference, other = (np.array([example[side] for example in examples]) for side in (0, 1))
    per_pixel = np.tile([example[2] for example in examples], 2)
    own = _mean_overlap(reference, other)
    centres, other_centres = ((boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (reference, other))
    sizes, other_sizes = (np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6) for boxes in (reference, other))
    shift = np.median(other_centres - centres, axis=0)
    scale = np.median(other_sizes / sizes, axis=0)
    spread = np.median(other_centres / np.maximum(centres, 1e-6), axis=0)
    half = other_sizes / scale / 2
    readings = {
        "x and y are exchanged": (other / per_pixel)[:, [1, 0, 3, 2]] * per_pixel,
        f"boxes lie {_pixels(shift)} the reference's": other - np.tile(shift, 2),
        f"boxes are {scale[0]:.2g} times as wide and {scale[1]:.2g} times as high": np.concatenate(
            [other_centres - half, other_centres + half], axis=1
        ),
        f"positions are {spread[0]:.2g} times (x) and {spread[1]:.2g} times (y) the reference's": other
        / np.tile(np.maximum(spread, 1e-6), 2),
    }
    name, fit = max(
        ((name, _mean_overlap(reference, boxes)) for name, boxes in readings.items()), key=lambda item: item[1]
    )
    return name if fit >= _FITS and fit > own + 0.05 else ""


def _mean_overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(np.diagonal(overlaps(first, second)).mean())


def _pixels(shift: NDArray[np.float64]) -> str:
    sides = (("right of", "left of"), ("below", "above"))
    return " and ".join(
        f"{abs(by):.3g} pixels {names[by < 0]}"
        for by, names in zip(shift.tolist(), sides, strict=True)
        if abs(by) >= 0.05
    )

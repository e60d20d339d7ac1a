"""Compare two models' answers to the same pictures, from their scores alone: what changed, what the sample says of all
other pictures, and which answers are right by the labels of a CSV file or of folders named after the classes."""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from plimsoll.core.budget import BoundedFigure, Evidence
from plimsoll.errors import InputError
from plimsoll.metrics.decisions import Flips, Floats, ScoreDeviation, flips, pictures_needed, score_deviation, spearman
from plimsoll.metrics.labelled import MetricChange, binary, multiclass
from plimsoll.spec.spec import Classify
from plimsoll.system import files

Scores = Mapping[str, float]
Pair = tuple[Scores, Scores | None]
"""The reference's scores, label → score, and the other's; None where it has no answer."""

_TOP = 5
_ALIASES = {"top1": "accuracy", "accuracy": "top1"}
"""With a positive label the accuracy is that of its threshold; elsewhere it is top-1."""


@dataclass(frozen=True)
class Comparison:
    """How the other model's answers differ from the reference's."""

    pictures: int
    """The pictures that the reference answered."""
    failed: int
    """Of these, how many the other has no answer to: each counts as a flipped decision."""
    flips: tuple[tuple[float | None, Flips], ...]
    """(threshold, flips); the threshold is None where the decision is the best label."""
    deviation: ScoreDeviation | None
    """Of the positive label's score, else of the label that the reference finds best. None where nothing was answered
    by both."""
    rank_correlation: float | None
    """Spearman's; None where it is not defined."""
    changes: tuple[MetricChange, ...] = ()
    """With labels: each metric."""
    labelled: int = 0

    @property
    def headline(self) -> str:
        """The verdict on the decisions with its sample, in one line: the threshold with the most flips."""
        if not self.flips or not self.pictures:
            return "no decision was compared"
        threshold, worst = max(self.flips, key=lambda item: item[1].count)
        several = len(self.flips) > 1
        where = "" if threshold is None else f" at {threshold:g}" if worst.count or not several else " at any threshold"
        return f"{worst.count:,} of {worst.total:,} decisions flipped{where}; {confidence_in_words(worst)}"

    def evidence(self) -> Evidence:
        """Return the figures with the bounds that a budget is judged by."""
        evidence: dict[str, list[BoundedFigure]] = {
            "flips": [_bounded_flips(threshold, flipped) for threshold, flipped in self.flips]
        }
        if self.deviation is not None:
            mean = BoundedFigure(
                "mean score deviation",
                self.deviation.mean,
                self.deviation.mean_upper,
                f"{self.deviation.mean:.2g} in the sample",
            )
            covered = 0.05 ** (1 / self.deviation.count)
            detail = f"with 95 % confidence {100 * covered:.3g} % of all pictures deviate no more"
            largest = BoundedFigure("largest score deviation", self.deviation.maximum, self.deviation.maximum, detail)
            evidence |= {"mean_deviation": [mean], "max_deviation": [largest]}
        for change in self.changes:
            figures = [_bounded_change(change)]
            evidence[change.name] = figures
            if (alias := _ALIASES.get(change.name)) is not None:
                evidence.setdefault(alias, figures)
        return evidence

    def details(self) -> dict[str, JsonValue]:
        """Return everything as plain data."""
        deviation = self.deviation
        return {
            "count": self.pictures,
            "failed": self.failed,
            "deviation": (
                None
                if deviation is None
                else {
                    "max": deviation.maximum,
                    "mean": deviation.mean,
                    "mean_upper": deviation.mean_upper,
                    "p99": deviation.p99,
                }
            ),
            "flips": [
                {
                    "threshold": threshold,
                    "count": flipped.total,
                    "flipped": flipped.count,
                    "up": flipped.up,
                    "down": flipped.down,
                    "upper": flipped.upper_bound() if flipped.total else None,
                }
                for threshold, flipped in self.flips
            ],
            "rank_correlation": self.rank_correlation,
            "labelled": {
                change.name: {
                    "reference": change.reference,
                    "other": change.other,
                    "change": change.change,
                    "lower": change.lower,
                    "low": change.interval[0] if change.interval else None,
                    "high": change.interval[1] if change.interval else None,
                }
                for change in self.changes
            },
            "labelled_count": self.labelled,
        }


def default_thresholds(output: Classify) -> tuple[float, ...]:
    """Return the scores at which decisions are compared: the Spec's threshold first, then 0.5 and the edges of the
    bands, each once."""
    if output.positive is None:
        return ()
    first = 0.5 if output.threshold is None else output.threshold
    return tuple(dict.fromkeys((first, 0.5, *(band.below for band in output.bands if band.below is not None))))


def compare(
    output: Classify,
    pairs: Sequence[Pair],
    *,
    truths: Sequence[str | None] | None = None,
    thresholds: Iterable[float] | None = None,
) -> Comparison:
    """Compare answers picture by picture; `truths` holds each picture's right label or None.

    `thresholds` replace those of the Spec, for Specs with a positive label; labelled metrics are taken at the first.
    """
    if thresholds is None or output.positive is None:
        thresholds = default_thresholds(output)
    thresholds = tuple(thresholds)
    both = [(first, second) for first, second in pairs if second is not None]
    failed = len(pairs) - len(both)
    reference, other = compared_scores(output, both)
    if output.positive is not None:
        answered: list[tuple[float | None, Flips]] = [
            (threshold, flips(reference, other, threshold)) for threshold in thresholds
        ]
    else:
        changed = sum(
            _decision(first, output.threshold) != _decision(second, output.threshold) for first, second in both
        )
        answered = [(None, Flips(changed, len(both)))]
    with_failed = tuple(
        (threshold, Flips(flipped.count + failed, flipped.total + failed, flipped.up, flipped.down))
        for threshold, flipped in answered
    )
    changes, labelled = _labelled(output, pairs, truths, thresholds)
    return Comparison(
        pictures=len(pairs),
        failed=failed,
        flips=with_failed,
        deviation=score_deviation(reference, other) if both else None,
        rank_correlation=spearman(reference, other),
        changes=changes,
        labelled=labelled,
    )


def compared_scores(output: Classify, both: Sequence[tuple[Scores, Scores]]) -> tuple[Floats, Floats]:
    """Return reference and other `[N]`: the positive label's score, else that of the label which the reference finds
    best."""
    labels = [output.positive or _best(first) for first, _ in both]
    return (
        np.array([first[label] for label, (first, _) in zip(labels, both, strict=True)], np.float64),
        np.array([second[label] for label, (_, second) in zip(labels, both, strict=True)], np.float64),
    )


def _best(scores: Scores) -> str:
    return max(scores, key=lambda label: scores[label])


def _decision(scores: Scores, threshold: float | None) -> str | None:
    best = _best(scores)
    return best if threshold is None or scores[best] >= threshold else None


def _labelled(
    output: Classify, pairs: Sequence[Pair], truths: Sequence[str | None] | None, thresholds: tuple[float, ...]
) -> tuple[tuple[MetricChange, ...], int]:
    known = [
        (first, second, truth)
        for (first, second), truth in zip(pairs, truths or (), strict=False)
        if second is not None and truth is not None
    ]
    if not known:
        return (), 0
    if output.positive is not None:
        positive = output.positive
        is_positive = np.array([label == positive for _, _, label in known])
        reference = np.array([scores[positive] for scores, _, _ in known])
        other = np.array([scores[positive] for _, scores, _ in known])
        return binary(is_positive, reference, other, thresholds[0]), len(known)
    index = {label: number for number, label in enumerate(output.labels)}
    both = [[scores for scores, _, _ in known], [scores for _, scores, _ in known]]
    labels = [label for _, _, label in known]
    chosen = [np.array([index.get(_decision(scores, output.threshold) or "", -1) for scores in rows]) for rows in both]
    hits = [
        np.array([_is_among_best(scores, label, _TOP) for scores, label in zip(rows, labels, strict=True)])
        for rows in both
    ]
    truth = np.array([index[label] for label in labels])
    return multiclass(truth, chosen[0], chosen[1], {_TOP: hits} if len(output.labels) > _TOP else {}), len(known)


def _is_among_best(scores: Scores, label: str, best: int) -> bool:
    return sum(value > scores[label] for value in scores.values()) < best


def _bounded_flips(threshold: float | None, flipped: Flips) -> BoundedFigure:
    name = "flips of the label" if threshold is None else f"flips at {threshold:g}"
    if not flipped.total:
        return BoundedFigure(name, math.nan, math.nan, "no decision was compared")
    moved = f": {flipped.up:,} up, {flipped.down:,} down" if flipped.up or flipped.down else ""
    return BoundedFigure(name, flipped.share, flipped.upper_bound(), f"{flipped.count:,} of {flipped.total:,}{moved}")


def _bounded_change(change: MetricChange) -> BoundedFigure:
    if change.change is None or change.lower is None or change.reference is None or change.other is None:
        reason = f"not defined on these {change.count:,} labelled pictures: too few of a class, or none flagged"
        return BoundedFigure(f"change of {change.name}", math.nan, math.nan, reason)
    detail = f"{change.reference:.4g} → {change.other:.4g} on {change.count:,} labelled pictures"
    return BoundedFigure(f"change of {change.name}", change.change, change.lower, detail)


def confidence_in_words(flipped: Flips) -> str:
    """Say what a sample of decisions proves of all others: `with 95 % confidence fewer than 0.6 % do`."""
    return f"with 95 % confidence fewer than {percent_above(flipped.upper_bound())} do"


def percent_above(share: float) -> str:
    """Write a share in percent with two digits, rounded up: it is a bound."""
    if share <= 0:
        return "0 %"
    step = 10 ** (math.floor(math.log10(100 * share)) - 1)
    return f"{math.ceil(100 * share / step - 1e-9) * step:.3g} %"


def too_few(limit: float, flipped: Flips) -> str:
    """Say how many pictures it takes to prove the limit, where the sample keeps it and only its bound does not; else
    nothing."""
    if not flipped.share <= limit < flipped.upper_bound():
        return ""
    return (
        f"{flipped.total:,} pictures are too few to prove {100 * limit:g} %: with {flipped.count:,} flipped it takes"
        f" {pictures_needed(limit, flipped.count):,}"
    )


MAX_BYTES = 256_000_000


def read_labels(source: Path, known: Iterable[str], images: Path | None = None) -> dict[str, str]:
    """Return picture path (absolute) → label.

    A CSV file has `path,label` on each line, with or without that heading; a relative path is looked up in `images`,
    then in the file's own folder. A folder holds one folder per class. Raises InputError for labels that the model
    doesn't have (`known`) and for a file that can't be read.
    """
    labels = _read_folder(source) if source.is_dir() else _read_csv(source, images)
    if not labels:
        raise InputError(
            f"{source}: no labels",
            "Give a CSV file with path,label on each line, or a folder with one folder per class.",
        )
    allowed = list(known)
    for path, label in labels.items():
        if label not in allowed:
            near = difflib.get_close_matches(label, allowed, n=1)
            suggestion = f"; did you mean '{near[0]}'?" if near else ""
            raise InputError(
                f"{source}: {path} has the label '{label}', which the model doesn't know{suggestion}",
                f"It knows: {', '.join(allowed[:20])}.",
            )
    return labels


def label_of(labels: Mapping[str, str], picture: str) -> str | None:
    """Return a picture's label, or None."""
    return labels.get(str(Path(picture).resolve()))


def _read_folder(folder: Path) -> dict[str, str]:
    return {
        str(path.resolve()): class_folder.name
        for class_folder in sorted(folder.iterdir())
        if class_folder.is_dir()
        for path in class_folder.rglob("*")
        if path.is_file()
    }


def _read_csv(file: Path, images: Path | None) -> dict[str, str]:
    try:
        text = files.read_text(file, MAX_BYTES).removeprefix("\ufeff")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(field.strip() for field in row)]
    except (OSError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise InputError(
            f"{file}: can't read the labels: {reason}", "Give a CSV file with path,label on each line."
        ) from error
    if rows and [field.strip().lower() for field in rows[0][:2]] == ["path", "label"]:
        rows = rows[1:]
    labels: dict[str, str] = {}
    for count, row in enumerate(rows, 1):
        if len(row) < 2:
            raise InputError(f"{file}: row {count} is {','.join(row)!r}, expected path,label")
        path = str(_picture_path(row[0].strip(), images, file.parent))
        label = row[1].strip()
        if labels.setdefault(path, label) != label:
            raise InputError(f"{file}: {row[0]} has two labels, '{labels[path]}' and '{label}'")
    return labels


def _picture_path(name: str, images: Path | None, folder: Path) -> Path:
    for parent in (images, folder):
        if parent is not None and (parent / name).exists():
            return (parent / name).resolve()
    return ((images or folder) / name).resolve()

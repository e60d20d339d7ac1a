"""`Judge`: compares candidates' answers with the reference's, and holds what it finds against the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plimsoll.core.budget import Budget, Check
from plimsoll.core.model import Model
from plimsoll.errors import InputError
from plimsoll.prove.classifications import ClassificationComparison
from plimsoll.prove.comparison import Change, Comparison
from plimsoll.prove.labels import Truths, label_of
from plimsoll.prove.run import budget_for
from plimsoll.report.measurements import Deviations, Evaluation, FlippedDecisions, LabelledMetric
from plimsoll.report.ship_result import PictureChange
from plimsoll.report.trial import share_used
from plimsoll.ship.jobs import Answer, comparer_of


@dataclass(frozen=True)
class ComparedPicture:
    """A picture that the reference answered."""

    path: str
    measured: Any = None
    """What the task's `Comparer` measured; None where the candidate has no answer."""
    error: str = ""
    """Why it has none."""


@dataclass(frozen=True)
class JudgedTest:
    """A candidate on the test part."""

    evaluation: Evaluation
    pictures: tuple[ComparedPicture, ...]
    notes: tuple[str, ...]


class Judge:
    """Knows the reference's answers, the right labels and the budget."""

    def __init__(self, model: Model, budget: Budget, truths: Truths | None) -> None:
        """`truths`: picture path (absolute) → right answer. Raises InputError for a budget that the task's answers
        don't have."""
        output = model.require_spec().output
        budget.require_task(output.task)
        if "snr" in budget.metrics and output.task != "tensor":
            raise InputError(
                f"the budget limits snr, which ship does not measure for the task '{output.task}': it judges answers",
                f"For example {budget_for(output)}. `plimsoll prove` measures the outputs, too.",
            )
        self.reference: dict[str, Answer] = {}
        """The reference's answer to each picture."""
        self._comparer = comparer_of(model, labelled=bool(truths))
        self._budget, self._truths = budget, truths

    def validate(self, answers: Sequence[Answer]) -> Evaluation:
        """Evaluate a candidate on the validation part: on its few pictures the figures count as they are, on the test
        part their bounds."""
        comparison, _ = self._compare(answers)
        evidence = {
            metric: [replace(figure, bound=figure.value) for figure in figures]
            for metric, figures in comparison.evidence().items()
        }
        return evaluation(comparison, [c.model_copy(update={"bound": None}) for c in self._budget.verdict(evidence)])

    def test(self, answers: Sequence[Answer]) -> JudgedTest:
        """Evaluate a candidate on the test part."""
        comparison, pictures = self._compare(answers)
        notes = (comparison.nothing_compared, *map(comparison.too_few, self._budget.limits))
        judged = evaluation(comparison, self._budget.verdict(comparison.evidence()))
        return JudgedTest(judged, tuple(pictures), tuple(note for note in notes if note))

    def changes(self, pictures: Sequence[ComparedPicture]) -> tuple[PictureChange, ...]:
        """Return how far the answer to each picture moved."""
        return picture_changes(pictures, self._comparer.change)

    def _compare(self, answers: Sequence[Answer]) -> tuple[Comparison, list[ComparedPicture]]:
        """Compare answers with the reference's; pictures that the reference can't answer prove nothing."""
        comparer, pictures = self._comparer, []
        for answer in answers:
            reference = self.reference[answer.path]
            if reference.error is not None:
                continue
            if answer.error is not None:
                pictures.append(ComparedPicture(answer.path, error=answer.error))
                continue
            measured = comparer.measure(comparer.load(reference.answer), comparer.load(answer.answer))
            pictures.append(ComparedPicture(answer.path, measured))
        answered = [picture for picture in pictures if picture.measured is not None]
        measures, failed = [picture.measured for picture in answered], len(pictures) - len(answered)
        truths = [label_of(self._truths or {}, picture.path) for picture in answered]
        return comparer.comparison(measures, failed, truths), pictures


def evaluation(comparison: Comparison, checks: Sequence[Check] = ()) -> Evaluation:
    """Return a comparison of answers as it is stored and shown, with the budget's checks."""
    used = Deviations(budget=share_used(checks))
    if not isinstance(comparison, ClassificationComparison):
        return Evaluation(
            count=comparison.pictures,
            failed=comparison.failed,
            deviation=used,
            labelled=_labelled(comparison),
            labelled_count=comparison.labelled,
            headline=comparison.headline,
            checks=tuple(checks),
        )
    deviation = comparison.deviation
    return Evaluation(
        count=comparison.pictures,
        failed=comparison.failed,
        deviation=used
        if deviation is None
        else Deviations(
            max=deviation.maximum,
            mean=deviation.mean,
            mean_upper=deviation.mean_upper,
            p99=_figure(deviation.p99),
            budget=used.budget,
        ),
        flips=tuple(
            FlippedDecisions(
                threshold=threshold,
                count=flips.total,
                flipped=flips.count,
                up=flips.up,
                down=flips.down,
                upper=flips.upper_bound() if flips.total else math.nan,
            )
            for threshold, flips in comparison.flips
        ),
        rank_correlation=_figure(comparison.rank_correlation),
        labelled=_labelled(comparison),
        labelled_count=comparison.labelled,
        headline=comparison.headline,
        checks=tuple(checks),
    )


def _labelled(comparison: Comparison) -> dict[str, LabelledMetric]:
    return {
        change.name: LabelledMetric(
            reference=_figure(change.reference),
            candidate=_figure(change.other),
            drop=-_figure(change.change),
            low=-change.interval[1] if change.interval else math.nan,
            high=-change.interval[0] if change.interval else math.nan,
        )
        for change in comparison.changes
    }


def _figure(value: float | None) -> float:
    return math.nan if value is None else value


def picture_changes(pictures: Sequence[ComparedPicture], change: Callable[[Any], Change]) -> tuple[PictureChange, ...]:
    """Return how far the answer to each picture moved."""
    changes = []
    for picture in pictures:
        if picture.measured is None:
            changes.append(PictureChange(path=picture.path, moved=math.nan, change=f"no answer: {picture.error}"))
        else:
            moved = change(picture.measured)
            changes.append(PictureChange(path=picture.path, moved=moved.moved, change=moved.words))
    return tuple(changes)

"""The mean average precision against labels: by hand, against pycocotools' own sum, and what it proves."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from plimsoll.core.budget import Budget
from plimsoll.metrics.average_precision import mean_average_precision
from plimsoll.prove import average_precision
from plimsoll.prove.annotations import TrueBox
from plimsoll.prove.average_precision import ScoredBoxes, changes_against
from plimsoll.tasks.detect import Box, BoxMask

cocoeval = pytest.importorskip("pycocotools.cocoeval")
LABELS = ("cat", "dog")
WHOLE = (0.0, 0.0, 10.0, 10.0)
CAT = TrueBox("cat", WHOLE)


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds are of no interest."""
    monkeypatch.setattr("plimsoll.metrics.decisions.RESAMPLES", 50)


def scored(*boxes: Box, masks: bool = False) -> ScoredBoxes:
    return ScoredBoxes.of(boxes, {label: at for at, label in enumerate(LABELS)}, masks=masks)


def figures(truths: list[tuple[TrueBox, ...]], answers: list[ScoredBoxes]) -> dict[str, float]:
    changes, labelled = changes_against(truths, [(answer, answer) for answer in answers], LABELS, masks=False)
    assert labelled == len(truths)
    assert all(change.change == 0 for change in changes)
    return {change.name: float(change.reference or 0) for change in changes}


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(
    ("truths", "answers", "expected"),
    [
        ([(CAT,)], [(Box("cat", 0.9, WHOLE),)], 1.0),
        ([(CAT,)], [()], 0.0),
        ([(CAT,)], [(Box("dog", 0.9, WHOLE),)], 0.0),
        # IoU 0.72: a hit at 0.5, 0.55, 0.6, 0.65 and 0.7, five of the ten overlaps.
        ([(CAT,)], [(Box("cat", 0.9, (0, 0, 10, 7.2)),)], 0.5),
        # A better box on nothing: one of two is right wherever something is found.
        ([(CAT,)], [(Box("cat", 0.9, (50, 50, 60, 60)), Box("cat", 0.8, WHOLE))], 0.5),
        # A worse box on nothing changes nothing.
        ([(CAT,)], [(Box("cat", 0.9, WHOLE), Box("cat", 0.8, (50, 50, 60, 60)))], 1.0),
        # One of two objects: the recalls from 0 to 0.5, 51 of 101.
        ([(CAT,), (CAT,)], [(Box("cat", 0.9, WHOLE),), ()], 51 / 101),
        # The mean over the labels that occur.
        ([(CAT, TrueBox("dog", (50, 50, 60, 60)))], [(Box("cat", 0.9, WHOLE),)], 0.5),
        # What lies on a crowd is neither right nor wrong.
        ([(CAT, TrueBox("cat", (50, 50, 90, 90), crowd=True))],
         [(Box("cat", 0.9, (50, 50, 60, 60)), Box("cat", 0.8, WHOLE))], 1.0),
    ],
)  # fmt: skip
def test_known_by_hand(truths: list[tuple[TrueBox, ...]], answers: list[tuple[Box, ...]], expected: float) -> None:
    assert figures(truths, [scored(*boxes) for boxes in answers])["map"] == pytest.approx(expected)


def _random(
    seed: int, pictures: int = 40, digits: int = 6
) -> tuple[list[tuple[TrueBox, ...]], list[tuple[ScoredBoxes, ScoredBoxes]]]:
    """Return objects, and boxes of two models that lie on some of them: the second more badly than the first."""
    generator = np.random.default_rng(seed)
    truths, pairs = [], []
    for _ in range(pictures):
        objects, answers = [], ([], [])  # type: ignore[var-annotated]
        for _ in range(int(generator.integers(0, 6))):
            label = LABELS[int(generator.integers(2))]
            x, y = generator.uniform(0, 80, 2)
            width, height = generator.uniform(5, 40, 2)
            objects.append(TrueBox(label, (x, y, x + width, y + height), bool(generator.random() < 0.1)))
            for side, noise in enumerate((1.0, 5.0)):
                for _ in range(int(generator.integers(0, 3))):
                    moved = [float(value + generator.normal(0, noise)) for value in (x, y, x + width, y + height)]
                    score = round(float(generator.uniform(0.01, 1)), digits)
                    answers[side].append(Box(label, score, (moved[0], moved[1], moved[2], moved[3])))
        truths.append(tuple(objects))
        pairs.append(tuple(scored(*sorted(boxes, key=lambda box: -box.score)) for boxes in answers))
    return truths, pairs  # type: ignore[return-value]


@pytest.mark.usefixtures("few_draws")
def test_it_is_what_pycocotools_sums_up(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations: list[Any] = []

    class Recorded(cocoeval.COCOeval):  # type: ignore[misc, name-defined]
        def evaluate(self) -> None:
            super().evaluate()
            evaluations.append(self)

    monkeypatch.setattr(cocoeval, "COCOeval", Recorded)
    for seed in (0, 1):
        truths, pairs = _random(seed, digits=1)
        changes, _ = changes_against(truths, pairs, LABELS, masks=False)
        for side, evaluation in enumerate(evaluations[-2:]):
            with contextlib.redirect_stdout(io.StringIO()):
                evaluation.accumulate()
            precision = evaluation.eval["precision"][:, :, :, 0, 0]
            own = [(change.reference, change.other)[side] for change in changes]
            assert own == [pytest.approx(precision.mean(), abs=1e-12), pytest.approx(precision[0].mean(), abs=1e-12)]


def test_weights_are_pictures_drawn_again() -> None:
    truths, pairs = _random(2, pictures=8)
    drawn = np.array([0, 0, 3, 5, 5, 5, 6, 7])
    side = average_precision._matches(truths, [pair[1] for pair in pairs], LABELS, "bbox")
    again = average_precision._matches([truths[at] for at in drawn], [pairs[at][1] for at in drawn], LABELS, "bbox")
    weights = np.bincount(drawn, minlength=8).astype(np.float64)
    assert mean_average_precision(side, weights) == pytest.approx(mean_average_precision(again, np.ones(8)), abs=1e-3)


def test_a_loss_is_bounded_and_none_is_bounded_by_the_sample() -> None:
    truths, pairs = _random(3, pictures=60)
    changes, labelled = changes_against(truths, pairs, LABELS, masks=False)
    worse = changes[0]
    assert labelled == 60
    assert worse.change is not None
    assert worse.lower is not None
    assert worse.interval is not None
    assert worse.lower < worse.change < -0.05
    assert worse.interval[0] < worse.change < worse.interval[1] < 0
    same, _ = changes_against(truths, [(first, first) for first, _ in pairs], LABELS, masks=False)
    objects = sum(not box.crowd for boxes in truths for box in boxes)
    assert same[0].lower == pytest.approx(0.05 ** (1 / objects) - 1), "none of n lost: Clopper and Pearson"


@pytest.mark.usefixtures("few_draws")
def test_masks_have_a_precision_of_their_own() -> None:
    square = (0.0, 0.0, 10.0, 0.0, 10.0, 10.0, 0.0, 10.0)
    truths = [(TrueBox("cat", WHOLE, outline=(square,)),)]
    half = np.ones((10, 10), bool)
    half[:, 6:] = False
    answers = [
        scored(Box("cat", 0.9, WHOLE, mask=BoxMask.of(pixels, 0, 0, (20, 30))), masks=True)
        for pixels in (np.ones((10, 10), bool), half)
    ]
    changes, _ = changes_against(truths, [(answers[0], answers[1])], LABELS, masks=True)
    by_name = {change.name: [change.reference, change.other] for change in changes}
    assert by_name["map"] == [pytest.approx(1.0), pytest.approx(1.0)], "the boxes are the same"
    assert by_name["mask_map"] == [pytest.approx(1.0), pytest.approx(0.3)], "IoU 0.6 is three of ten overlaps"


@pytest.mark.usefixtures("few_draws")
def test_points_have_the_precision_of_their_similarity() -> None:
    """exp(-d² / (2 area (2 sigma)²)): sigma is 1 / 4 for four points, as in Ultralytics' validation."""
    marked = ((1.0, 1.0, 2), (9.0, 1.0, 2), (9.0, 9.0, 1), (90.0, 90.0, 0))
    truths = [(TrueBox("cat", WHOLE, points=marked, area=100.0), TrueBox("cat", (50, 50, 60, 60)))]
    off = float(np.sqrt(-np.log(0.72) * 2 * 100 * 0.25))
    sides = [
        scored(Box("cat", 0.9, WHOLE, points=(*((x + by, y, 0.5) for x, y, _ in marked[:3]), (0.0, 0.0, 0.1))))
        for by in (0.0, off)
    ]
    changes, _ = changes_against(truths, [(sides[0], sides[1])], LABELS, 4, masks=False)
    by_name = {change.name: [change.reference, change.other] for change in changes}
    assert by_name["point_map"] == [pytest.approx(1.0), pytest.approx(0.5)], "0.72 is five of ten thresholds"
    assert by_name["map"] == [pytest.approx(51 / 101)] * 2
    assert Budget.parse("point_map=-0.5").limits[0].value == pytest.approx(-0.005)
    seventeen = TrueBox("cat", WHOLE, points=((1.0, 1.0, 2),) * 17, area=100.0)
    box = scored(Box("cat", 0.9, WHOLE, points=((1.0, 1.0),) * 17))
    changes, _ = changes_against([(seventeen,)], [(box, box)], LABELS, 17, masks=False)
    assert changes[-1].name == "point_map"
    assert changes[-1].reference == pytest.approx(1.0)


def test_limits_are_points() -> None:
    assert Budget.parse("map=-0.5").limits == Budget.parse("map=-0.5%").limits
    assert Budget.parse("map=-0.5").limits[0].value == pytest.approx(-0.005)
    assert str(Budget.parse("map=-0.5 map50=-1%")) == "map=-0.5 map50=-1"
    with pytest.raises(Exception, match="points of 100"):
        Budget.parse("map=-0.005")

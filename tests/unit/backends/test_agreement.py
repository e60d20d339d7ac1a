"""How near a converted network's outputs are to the original's: what counts as noise, and what is an answer lost."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from plimsoll.backends.agreement import Agreement, limits_of
from plimsoll.spec import files as spec_files
from plimsoll.tasks import decoder

BOXES, PICTURES = 8400, 20
SPEC = """
name = "finder"

[[input.steps]]
step = "decode"

[[input.steps]]
step = "resize"
width = 320
height = 320

[output]
task = "detect"
head = "yolov8"
labels = ["cat", "dog", "horse", "sheep", "cow"]
"""
Head = NDArray[np.float32]


@pytest.fixture
def head() -> Head:
    """A head's answer `[N, 4 + labels, boxes]` to pictures: a dog in one of them; hardly a score elsewhere."""
    chance = np.random.default_rng(5)
    parts = [chance.uniform(0, 320, (PICTURES, 4, BOXES)), chance.uniform(0, 2e-4, (PICTURES, 5, BOXES))]
    values = np.concatenate(parts, axis=1)
    values[0, 5, 4200] = 0.5
    return values.astype(np.float32)


def faults(reference: Head, other: Head, precision: str) -> list[str]:
    agreed = Agreement(limits_of(precision), decoder(spec_files.loads(SPEC)))
    agreed.add({"output0": reference}, {"output0": other})
    return [figure.name for figure in agreed.figures() if figure.fault]


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "int8"])
def test_the_only_box_is_not_lost_unseen(head: Head, precision: str) -> None:
    lost = head.copy()
    lost[0, 5, 4200] = 0
    assert faults(head, lost, precision) == ["output0, score of 'dog'"]


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "int8"])
def test_a_box_that_was_not_there_is_named(head: Head, precision: str) -> None:
    more = head.copy()
    more[0, 7, 77] = 0.6
    assert faults(head, more, precision) == ["output0, score of 'sheep'"]


def test_rounding_to_a_step_is_no_fault_where_a_label_is_not_seen(head: Head) -> None:
    rounded = head.copy()
    rounded[:, :4] = np.round(head[:, :4])
    rounded[:, 4:] = np.round(head[:, 4:] * 255 / 0.5) * 0.5 / 255
    assert faults(head, rounded, "int8") == []


def test_a_faint_score_may_waver_at_8_bits(head: Head) -> None:
    faint = head.copy()
    faint[0, 4, 100:110] = 0.02
    wavering = faint.copy()
    wavering[0, 4, 100:110] = 0.05
    assert faults(faint, wavering, "int8") == []


@pytest.mark.parametrize(
    ("rounding_db", "snr_db", "is_wrong"),
    [
        *((60, 25, True), (60, 27, False), (40, 14, True), (40, 18, False), (30, 13, False), (30, 11, True)),
        *((6, 11, True), (6, 13, False), (2, 20, True), (2, 27, False)),
    ],
)
def test_an_output_may_lose_what_rounding_to_8_bits_loses_and_some_more(
    rounding_db: float, snr_db: float, is_wrong: bool
) -> None:
    chance = np.random.default_rng(5)
    reference = chance.normal(size=(PICTURES, 3, 40, 40)).astype(np.float32)
    noise = chance.normal(size=reference.shape).astype(np.float32)
    agreed, rounding = (Agreement(limits_of("int8")) for _ in range(2))
    for compared, decibels in ((agreed, snr_db), (rounding, rounding_db)):
        compared.add({"output0": reference}, {"output0": reference + noise * 10 ** (-decibels / 20)})
    (figure,) = agreed.figures(rounding)
    assert bool(figure.fault) is is_wrong
    assert figure.rounding_db == pytest.approx(rounding_db, abs=0.2)


def test_a_component_may_be_as_faint_as_rounding_has_it() -> None:
    chance = np.random.default_rng(5)
    reference = chance.normal(size=(PICTURES, 12)).astype(np.float32)
    reference[:, 7] *= 0.02
    noise = chance.normal(size=reference.shape).astype(np.float32) * 0.05
    noise[:, 7] *= 6
    agreed, rounding = (Agreement(limits_of("int8")) for _ in range(2))
    agreed.add({"vector": reference}, {"vector": reference + noise})
    assert [figure.name for figure in agreed.figures() if figure.fault] == ["vector, value of index 7"]
    rounding.add({"vector": reference}, {"vector": reference - 0.5 * noise})
    assert not [figure for figure in agreed.figures(rounding) if figure.fault]


def test_of_a_picture_unlike_those_that_calibrated_only_what_is_not_finite_counts(head: Head) -> None:
    agreed = Agreement(limits_of("int8"), decoder(spec_files.loads(SPEC)))
    agreed.add({"output0": head}, {"output0": head})
    agreed.add({"output0": head}, {"output0": 0 * head}, unlike=True)
    assert not [figure for figure in agreed.figures() if figure.fault]
    agreed.add({"output0": head}, {"output0": np.full_like(head, np.nan)}, unlike=True)
    assert [figure.name for figure in agreed.figures() if figure.fault] == ["output0"]

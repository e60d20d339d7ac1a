"""Which differences from stored tensors are allowed, and which is the worst."""

from __future__ import annotations

import math

import pytest

from helpers.answer_networks import spec_of
from helpers.small_models import HERE, SPEC
from plimsoll.bundle import golden
from plimsoll.bundle.golden import Difference, level, tolerance_for, worst
from plimsoll.core.target import Target
from plimsoll.spec.files import loads


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("", 1.0),
        ('[[input.steps]]\nstep = "scale"\ndivisor = 255', 1 / 255),
        ('[[input.steps]]\nstep = "scale"\nfactor = -2.0', 2.0),
        (
            '[[input.steps]]\nstep = "scale"\ndivisor = 255\n[[input.steps]]\nstep = "std"\nvalues = [0.25, 0.2, 0.5]',
            1 / 255 / 0.2,
        ),
        ('[[input.steps]]\nstep = "mean"\nvalues = [104.0, 117.0, 123.0]', 1.0),
    ],
)
def test_level(steps: str, expected: float) -> None:
    text = f'name = "x"\n[[input.steps]]\nstep = "decode"\n{steps}\n[output]\ntask = "tensor"'
    assert level(loads(text).input) == pytest.approx(expected)


def test_tolerances_follow_precision_and_jpeg_steps() -> None:
    spec = loads(SPEC)
    assert tolerance_for(spec, HERE).model_dump() == {
        "input_max": 2.0,
        "input_mean": 0.25,
        "network": 1e-4,
        "end_to_end": 1e-3,
        "columns": False,
        "answers": None,
    }
    coarse = tolerance_for(spec, Target("onnxruntime", "cpu", "int8"))
    assert (coarse.network, coarse.end_to_end) == (2e-2, 2e-2)
    boxes = tolerance_for(spec_of("detect"), HERE)
    assert (boxes.network, boxes.columns, boxes.answers) == (1e-4, True, 0.01)
    through = loads(SPEC.replace("height = 5", 'height = 5\n[[input.steps]]\nstep = "jpeg"'))
    assert tolerance_for(through, HERE).input_max == 32.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], math.nan),
        ([1, 3, 2], 3),
        ([3, math.nan], math.nan),
        ([math.nan, 3], math.nan),
        ([3, math.inf, 1], math.inf),
        ([0.0], 0.0),
    ],
)
def test_worst(values: list[float], expected: float) -> None:
    actual = worst(Difference(value, str(value)) for value in values).value
    assert actual == expected or (math.isnan(actual) and math.isnan(expected))


def test_the_file_says_where_its_figures_are_from() -> None:
    assert golden._INPUT_THROUGH_JPEG[1] < 1.18, "the mean difference that a wrong filter made"

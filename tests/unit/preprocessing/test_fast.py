"""What `docs/fast-preprocessing.md` says holds: every row of its table, on the same photographs."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from plimsoll.preprocessing import fast, reference
from plimsoll.preprocessing.decode import Array, as_array
from plimsoll.spec.steps import ImageSpec, Resize

ROOT = Path(__file__).parents[3]


def _benchmark() -> ModuleType:
    module_spec = importlib.util.spec_from_file_location(
        "fast_preprocessing", ROOT / "benchmarks" / "fast_preprocessing.py"
    )
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules["fast_preprocessing"] = module
    module_spec.loader.exec_module(module)
    return module


BENCHMARK = _benchmark()
PHOTOS: list[bytes] = BENCHMARK.load(ROOT / "examples" / "photos", 1_000)[::8]


def documented() -> dict[str, tuple[float, float]]:
    """Return (largest, mean) of each row between the page's markers `examples`."""
    text = (ROOT / "docs" / "fast-preprocessing.md").read_text(encoding="utf-8")
    section = re.search(r"<!-- examples -->(.*?)<!-- /examples -->", text, re.DOTALL)
    assert section is not None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section[1].strip().splitlines()[2:]]
    return {name: (float(largest), float(mean)) for name, largest, mean, _ in rows}


DOCUMENTED = documented()


def test_the_page_has_every_row() -> None:
    assert list(DOCUMENTED) == [case.name for case in BENCHMARK.cases()]


@pytest.mark.parametrize("case", BENCHMARK.cases(), ids=lambda case: case.name)
def test_a_step_is_as_near_as_documented(case: object) -> None:
    """Every eighth photograph: none may differ more than the worst of all; the mean may scatter a little."""
    row = BENCHMARK.measure(case, PHOTOS, 0)
    largest, mean = DOCUMENTED[row.name]
    assert np.isfinite(row.largest)
    if largest == 0:
        assert row.largest == 0
    else:
        assert row.largest <= largest * 1.01
        assert row.mean <= mean * 1.3 + min(0.05, largest)


def test_the_differences_have_no_excuse_elsewhere() -> None:
    """Of all steps only the widened bilinear shrink, and what stands behind it, is more than a level away."""
    beyond = {name for name, (largest, _) in DOCUMENTED.items() if largest > 1}
    assert beyond == {
        "resize, pillow bilinear, shrink",
        "resize, tensorflow bilinear, anti-aliased, shrink",
        "open_nsfw, end to end",
    }


def difference(size: tuple[int, int], out: tuple[int, int]) -> Array:
    """Mean and largest difference of the approximated shrink on one photograph."""
    with BENCHMARK.Image.open(ROOT / "examples" / "photos" / "coffee_cup.jpg") as opened:
        image = opened.convert("RGB").resize(size)
    step = Resize(width=out[0], height=out[1])
    differences = np.abs(
        as_array(fast.resize(as_array(image), step, ImageSpec())).astype(float)
        - as_array(reference.resize(image, step, ImageSpec()))
    )
    return np.array([differences.mean(), differences.max()])


@pytest.mark.parametrize("odd", [0, 1])
@pytest.mark.parametrize("factor", [1.05, 1.2, 1.5, 2.0, 2.5, 3.0, 3.7, 4.0, 5.3, 7.9, 12.0])
def test_the_approximated_shrink_is_near_at_every_reduction(factor: float, odd: int) -> None:
    mean, largest = difference((round(200 * factor) + odd, round(150 * factor) + odd), (200, 150))
    assert mean < 0.75
    assert largest < 20


@pytest.mark.parametrize("factor", [2, 3])
def test_smoothing_and_sampling_is_the_triangle_itself_where_the_reduction_is_whole(factor: int) -> None:
    """Up to the rounding of bytes between the two, and OpenCV's of positions to a 32nd of a pixel."""
    mean, largest = difference((200 * factor, 150 * factor), (200, 150))
    assert mean < 0.25
    assert largest <= 4


def test_a_picture_that_shrinks_far_more_one_way_than_the_other_is_not_approximated() -> None:
    assert not difference((3000, 450), (200, 150)).any()


def test_a_picture_that_shrinks_one_way_and_grows_the_other_is_not_approximated() -> None:
    assert not difference((300, 100), (200, 150)).any()

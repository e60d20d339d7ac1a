"""TensorDeviation: every place where a comparison of numbers can pass by accident."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from plimsoll.core.deviation import ABSOLUTE_FLOOR, RELATIVE_FLOOR, RunningDeviation, TensorDeviation, deviation
from plimsoll.errors import CheckError

NAN, INF = math.nan, math.inf
SAME = TensorDeviation(0.0, 0.0, 0.0, 1.0, INF, finite=True)


def of(*values: float, dtype: str = "float32") -> NDArray[Any]:
    return np.array(values, dtype)


def assert_fails_every_limit(difference: TensorDeviation) -> None:
    assert not difference.finite
    for error in (difference.max_abs, difference.mean_abs, difference.max_rel):
        assert error > 1e30
        assert not error <= 1e30
    assert not difference.cosine >= 0.5
    assert not difference.snr_db >= -1e30


def test_equal_tensors() -> None:
    tensor = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert deviation(tensor, tensor.copy()) == SAME


def test_figures_by_hand() -> None:
    difference = deviation(of(1, 2, 4, 0), of(1, 2.5, 3, 0))
    assert difference.max_abs == 1.0
    assert difference.mean_abs == pytest.approx(1.5 / 4)
    assert difference.max_rel == pytest.approx(0.25)
    assert difference.cosine == pytest.approx((1 + 5 + 12) / math.sqrt(21 * (1 + 6.25 + 9)))
    assert difference.snr_db == pytest.approx(10 * math.log10(21 / 1.25))
    assert difference.finite


@pytest.mark.parametrize(
    ("reference", "other"),
    [
        ((1, 2), (1, NAN)),
        ((1, NAN), (1, 2)),
        ((1, 2), (1, INF)),
        ((1, INF), (1, 2)),
        ((1, INF), (1, -INF)),
        ((1, INF), (1, NAN)),
        ((NAN, 1), (1, NAN)),
        ((NAN, NAN), (NAN, 0)),
    ],
)
def test_nan_and_infinity_on_one_side_fail_every_limit(reference: tuple[float, ...], other: tuple[float, ...]) -> None:
    assert_fails_every_limit(deviation(of(*reference), of(*other)))


@pytest.mark.parametrize("odd", [NAN, INF, -INF])
def test_the_same_on_both_sides_is_no_difference(odd: float) -> None:
    assert deviation(of(1, odd, 3), of(1, odd, 3)) == SAME
    difference = deviation(of(1, odd, 3), of(1, odd, 4))
    assert (difference.max_abs, difference.mean_abs, difference.finite) == (1.0, 0.5, True)
    assert deviation(of(odd), of(odd)) == SAME


def test_zero_reference() -> None:
    assert deviation(of(0, 0), of(0, 0)) == SAME
    difference = deviation(of(0, 0), of(0, 0.5))
    assert difference.max_abs == 0.5
    assert difference.max_rel == 0.5 / ABSOLUTE_FLOOR
    assert difference.cosine == 0.0
    assert difference.snr_db == -INF
    assert deviation(of(0, 0.5), of(0, 0)).cosine == 0.0
    assert deviation(of(0, 0.5), of(0, 0)).snr_db == pytest.approx(0.0)


def test_relative_error_has_a_floor() -> None:
    difference = deviation(of(1000, 1e-9), of(1000, 2e-3))
    assert difference.max_rel == pytest.approx(2e-3 / (1000 * RELATIVE_FLOOR))


def test_empty_tensors_agree() -> None:
    empty = np.zeros((0, 3), np.float32)
    assert deviation(empty, empty) == SAME


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int8", "int32", "bool"])
def test_dtypes(dtype: str) -> None:
    difference = deviation(of(0, 1, 0, dtype=dtype), of(1, 1, 0, dtype=dtype))
    assert difference.max_abs == 1.0
    assert difference.mean_abs == pytest.approx(1 / 3)


def test_unsigned_differences_do_not_wrap() -> None:
    assert deviation(of(0, 255, dtype="uint8"), of(255, 254, dtype="uint8")).max_abs == 255.0


def test_extremes_neither_overflow_nor_vanish() -> None:
    top = float(np.finfo(np.float64).max)
    difference = deviation(of(top, top, dtype="float64"), of(-top, -top, dtype="float64"))
    assert difference.max_abs == INF
    assert difference.cosine == -1.0
    assert difference.snr_db == -INF
    assert deviation(of(top, dtype="float64"), of(top * 0.9, dtype="float64")).snr_db == pytest.approx(20.0)
    assert deviation(of(1e-300, 0, dtype="float64"), of(2e-300, 0, dtype="float64")).cosine == 1.0
    assert deviation(of(1e30), of(1.1e30)).max_rel == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize(
    ("reference", "other"),
    [(of(1, 2), of(1)), (of(1, 2), of(1, 2).reshape(1, 2)), (of(1), of(1, dtype="float64")), (of(), of(1))],
)
def test_other_shape_or_dtype_is_refused(reference: NDArray[Any], other: NDArray[Any]) -> None:
    with pytest.raises(CheckError, match="expected float32"):
        deviation(reference, other)


def test_message_names_both_forms() -> None:
    with pytest.raises(CheckError, match=r"a tensor of float16 \[1, 2\], expected float32 \[2\]"):
        deviation(of(1, 2), of(1, 2, dtype="float16").reshape(1, 2))


any_float = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(any_float, any_float), max_size=6))
def test_no_figure_is_ever_nan(pairs: list[tuple[float, float]]) -> None:
    difference = deviation(of(*(a for a, _ in pairs)), of(*(b for _, b in pairs)))
    assert not any(
        math.isnan(figure)
        for figure in (
            difference.max_abs,
            difference.mean_abs,
            difference.max_rel,
            difference.cosine,
            difference.snr_db,
        )
    )
    assert -1.0 <= difference.cosine <= 1.0
    assert difference.mean_abs <= difference.max_abs or math.isclose(difference.mean_abs, difference.max_abs)


def running(*pairs: tuple[NDArray[Any], NDArray[Any]]) -> TensorDeviation:
    sums = RunningDeviation()
    for reference, other in pairs:
        sums.add(reference, other)
    return sums.deviation


def test_running_over_parts_equals_the_whole() -> None:
    generator = np.random.default_rng(1)
    first = generator.normal(size=(6, 40)).astype(np.float32)
    second = first + generator.normal(size=first.shape).astype(np.float32) / 50
    whole, parts = deviation(first, second), running(*zip(first, second, strict=True))
    assert parts.max_abs == whole.max_abs
    assert (parts.mean_abs, parts.cosine, parts.snr_db) == pytest.approx(
        (whole.mean_abs, whole.cosine, whole.snr_db), rel=1e-9
    )


def test_running_never_forgets_a_nan() -> None:
    good = (of(1, 2), of(1, 2))
    assert running(good, (of(1, 2), of(1, NAN)), good) == deviation(of(1), of(NAN))
    assert running((of(1, NAN), of(1, NAN)), good) == SAME


def test_running_over_nothing_and_zeros() -> None:
    assert running() == SAME
    assert running((of(0, 0), of(0, 0))) == SAME
    assert running((of(0, 0), of(0, 1))).snr_db == -INF


def test_running_compares_across_dtypes_and_refuses_other_sizes() -> None:
    difference = running((of(1, 2), of(1, 2, dtype="float16")))
    assert (difference.max_abs, difference.snr_db) == (0.0, INF)
    with pytest.raises(CheckError, match="expected float32"):
        running((of(1, 2), of(1)))

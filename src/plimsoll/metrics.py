"""How far two tensors lie apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import CheckFailed

RELATIVE_FLOOR = 1e-3
"""Relative error is taken of the reference's values, but of no less than this share of its largest one.

A network's output that happens to be 1e-9 beside others of 1.0 is noise, and dividing by it would show a
difference of 1e-7 as 100. The share of 0.1 % leaves three decimal orders in which relative error means something."""

ABSOLUTE_FLOOR = 1e-6
"""The least that is divided by, also where the whole reference is zero: a single float32 sum of values near 1 is off by 1e-7."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """How far a tensor lies from its reference.

    Where both hold NaN, or the same infinity, at the same place, they agree there and that place counts as no
    difference. Where only one of them does, `finite` is False, the three errors are infinite and the cosine is 0, so
    that no comparison with a limit can pass by accident (`nan > limit` is False).
    """

    max_abs: float
    """The largest absolute difference, in the tensors' unit."""
    mean_abs: float
    """The mean absolute difference."""
    max_rel: float
    """The largest of |other - reference| / max(|reference|, floor); see RELATIVE_FLOOR and ABSOLUTE_FLOOR."""
    cosine: float
    """The cosine between both, -1 … 1; 1 for two zero tensors, 0 where only one is zero."""
    finite: bool
    """Whether NaN and infinities, if any, stand at the same places in both."""


_APART = Drift(math.inf, math.inf, math.inf, 0.0, finite=False)
_SAME = Drift(0.0, 0.0, 0.0, 1.0, finite=True)


def drift(reference: NDArray[Any], other: NDArray[Any]) -> Drift:
    """Compare two tensors of equal shape and dtype, in float64; raises CheckFailed where shape or dtype differ.

    Two empty tensors agree. Whole numbers beyond 2^53 are compared as the nearest float64.
    """
    if reference.shape != other.shape or reference.dtype != other.dtype:
        raise CheckFailed(f"a tensor of {_form(other)}, expected {_form(reference)}", "They can't be compared: is this the same network?")
    expected, found = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    usable = np.isfinite(expected) & np.isfinite(found)
    odd_expected, odd_found = expected[~usable], found[~usable]
    if not np.array_equal(odd_expected, odd_found, equal_nan=True):
        return _APART
    expected, found = expected[usable], found[usable]
    return _finite_drift(expected, found) if expected.size else _SAME


def _finite_drift(reference: Floats, other: Floats) -> Drift:
    size = np.abs(reference)
    with np.errstate(over="ignore"):  # The difference of two huge float64 values may overflow to infinity, which then stands in the result.
        difference = np.abs(other - reference)
        floor = max(ABSOLUTE_FLOOR, RELATIVE_FLOOR * float(size.max()))
        return Drift(
            max_abs=float(difference.max()),
            mean_abs=float(difference.mean()),
            max_rel=float((difference / np.maximum(size, floor)).max()),
            cosine=_cosine(reference, other),
            finite=True,
        )


def _cosine(first: Floats, second: Floats) -> float:
    largest = float(np.abs(first).max()), float(np.abs(second).max())
    if 0.0 in largest:
        return 1.0 if largest == (0.0, 0.0) else 0.0
    # Scaled to 1 first: the squares of float64's extremes overflow or vanish.
    first, second = first / largest[0], second / largest[1]
    value = float(first @ second) / math.sqrt(float(first @ first) * float(second @ second))
    return min(1.0, max(-1.0, value))


def _form(tensor: NDArray[Any]) -> str:
    return f"{tensor.dtype} [{', '.join(map(str, tensor.shape))}]"

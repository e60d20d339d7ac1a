"""How far two tensors lie apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import CheckError

RELATIVE_FLOOR = 1e-3
"""Relative error is taken of the reference's values, but of no less than this share of its largest one.

A network's output that happens to be 1e-9 beside others of 1.0 is noise, and dividing by it would show a
difference of 1e-7 as 100. The share of 0.1 % leaves three decimal orders in which relative error means something."""

ABSOLUTE_FLOOR = 1e-6
"""The least that is divided by, also where the whole reference is zero: a single float32 sum of values near 1 is off by
1e-7."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TensorDeviation:
    """How far a tensor lies from its reference.

    Where both hold NaN, or the same infinity, at the same index, they agree there and that element counts as no
    difference. Where only one of them does, `finite` is False, the three errors are infinite, the cosine is 0 and the
    signal to noise minus infinity, so that no comparison with a limit can pass by accident (`nan > limit` is False).
    """

    max_abs: float
    """The largest absolute difference, in the tensors' unit."""
    mean_abs: float
    """The mean absolute difference."""
    max_rel: float
    """The largest of |other - reference| / max(|reference|, floor); see RELATIVE_FLOOR and ABSOLUTE_FLOOR."""
    cosine: float
    """The cosine between both, -1 … 1; 1 for two zero tensors, 0 where only one is zero."""
    snr_db: float
    """Signal to noise in decibels: 10 log10(sum of squares of the reference / of the difference). Infinite where
    nothing differs, minus infinity where the reference is zero and the other is not."""
    finite: bool
    """Whether NaN and infinities, if any, are at the same indices in both."""


_NOT_FINITE = TensorDeviation(math.inf, math.inf, math.inf, 0.0, -math.inf, finite=False)
_EQUAL = TensorDeviation(0.0, 0.0, 0.0, 1.0, math.inf, finite=True)


def deviation(reference: NDArray[Any], other: NDArray[Any]) -> TensorDeviation:
    """Compare two tensors of equal shape and dtype, in float64; raises CheckError where shape or dtype differ.

    Two empty tensors agree. Whole numbers beyond 2^53 are compared as the nearest float64.
    """
    if reference.shape != other.shape or reference.dtype != other.dtype:
        raise CheckError(
            f"a tensor of {_form(other)}, expected {_form(reference)}",
            "They can't be compared: is this the same network?",
        )
    pair = _usable(reference, other)
    if pair is None:
        return _NOT_FINITE
    return _finite_deviation(*pair) if pair[0].size else _EQUAL


def _usable(reference: NDArray[Any], other: NDArray[Any]) -> tuple[Floats, Floats] | None:
    """Return both flat, as float64, without the elements where both hold the same NaN or infinity; None where only one
    does."""
    first, second = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    usable = np.isfinite(first) & np.isfinite(second)
    if usable.all():
        return first, second
    if not np.array_equal(first[~usable], second[~usable], equal_nan=True):
        return None
    return first[usable], second[usable]


def _finite_deviation(reference: Floats, other: Floats) -> TensorDeviation:
    size = np.abs(reference)
    with np.errstate(
        over="ignore"
    ):  # The difference of two huge float64 values may overflow to infinity, which the result then holds.
        difference = np.abs(other - reference)
        floor = max(ABSOLUTE_FLOOR, RELATIVE_FLOOR * float(size.max()))
        return TensorDeviation(
            max_abs=float(difference.max()),
            mean_abs=float(difference.mean()),
            max_rel=float((difference / np.maximum(size, floor)).max()),
            cosine=_cosine(reference, other),
            snr_db=_snr(reference, difference),
            finite=True,
        )


def _snr(reference: Floats, difference: Floats) -> float:
    signal, noise = float(np.abs(reference).max()), float(difference.max())
    if noise == 0.0 or signal == 0.0 or math.isinf(noise):
        return math.inf if noise == 0.0 else -math.inf
    # Scaled as in _cosine.
    scaled = float(np.square(reference / signal).sum()) / float(np.square(difference / noise).sum())
    return 10 * math.log10(scaled) + 20 * (math.log10(signal) - math.log10(noise))


def _cosine(first: Floats, second: Floats) -> float:
    largest = float(np.abs(first).max()), float(np.abs(second).max())
    if 0.0 in largest:
        return 1.0 if largest == (0.0, 0.0) else 0.0
    # Scaled to 1 first: the squares of float64's extremes overflow or vanish.
    first, second = first / largest[0], second / largest[1]
    value = float(first @ second) / math.sqrt(float(first @ first) * float(second @ second))
    return min(1.0, max(-1.0, value))


class RunningDeviation:
    """The deviation between many pairs of tensors, as if each side were one long tensor; holds sums, no tensors.

    `max_rel` has each pair's own floor. The two tensors of a pair need the same number of elements; dtypes may differ,
    so that an output in float16 can be compared with its reference in float32.
    """

    def __init__(self) -> None:
        self.count = 0
        """Elements compared."""
        self._not_finite = False
        self._max_abs = self._max_rel = 0.0
        self._sum_abs = self._dot = self._signal = self._power = self._noise = 0.0

    def add(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Add a pair; raises CheckError where the sizes differ."""
        if reference.size != other.size:
            raise CheckError(
                f"a tensor of {_form(other)}, expected {_form(reference)}",
                "They can't be compared: is this the same network?",
            )
        pair = _usable(reference, other)
        if pair is None:
            self._not_finite = True
            return
        first, second = pair
        self.count += reference.size
        if not first.size:
            return
        size = np.abs(first)
        with np.errstate(over="ignore"):
            difference = np.abs(second - first)
            floor = max(ABSOLUTE_FLOOR, RELATIVE_FLOOR * float(size.max()))
            self._max_abs = max(self._max_abs, float(difference.max()))
            self._max_rel = max(self._max_rel, float((difference / np.maximum(size, floor)).max()))
            self._sum_abs += float(difference.sum())
            self._dot += _product(first, second)
            self._signal += _product(first, first)
            self._power += _product(second, second)
            self._noise += _product(difference, difference)

    @property
    def deviation(self) -> TensorDeviation:
        """The deviation of all pairs so far; of none, as of two empty tensors."""
        if self._not_finite or not math.isfinite(self._signal + self._power + self._noise):
            return _NOT_FINITE
        if self.count == 0:
            return _EQUAL
        both = math.sqrt(self._signal) * math.sqrt(self._power)
        cosine = min(1.0, max(-1.0, self._dot / both)) if both else float(self._signal == self._power)
        snr = (
            math.inf
            if self._noise == 0.0
            else -math.inf
            if self._signal == 0.0
            else 10 * math.log10(self._signal / self._noise)
        )
        return TensorDeviation(self._max_abs, self._sum_abs / self.count, self._max_rel, cosine, snr, finite=True)


def _product(first: Floats, second: Floats) -> float:
    # Not `@`: BLAS would start threads of its own, which would only wait for the runtime's.
    return float(np.einsum("i,i->", first, second))


def _form(tensor: NDArray[Any]) -> str:
    return f"{tensor.dtype} [{', '.join(map(str, tensor.shape))}]"

"""How near the outputs of a converted network are to the original's: a figure and a limit for each output and for each
quantity in it (a coordinate, a label's score).

The figure is the signal-to-noise ratio over all pictures. A quantity that hardly occurs in them (the score of a label
that none of them shows) can't have the ratio of the others after it was rounded to 8 bits. So noise always passes that
is no more than a step of the precision: the share `step` of the largest value among quantities of the same kind. And
where there are many of a kind, noise passes that is no more than usual among them: their output as a whole is held to
the limit too, and a scale, a channel or a bias that was lost stands out. Neither lets a value pass that is off by many
steps: one box among ten thousand is lost without much noise on the whole.

What 8 bits can hold differs from network to network, and from quantity to quantity. So a quantized network is held
against the original rounded to 8 bits, too (`plimsoll.onnx.eight_bits`): where that loses little, little may be lost.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import PlimsollError
from plimsoll.tasks import Task

Array = NDArray[Any]
Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Limits:
    """What the outputs of a converted network must keep."""

    snr_db: float
    """The least signal-to-noise ratio, in decibels."""
    step: float
    """Noise whose root mean square is no more than this share of the largest value of its kind always passes."""
    equal: float
    """The least share of whole numbers and truth values that are the same."""
    ranked_share: float
    """Rows that are sorted by a score are compared down to this share of the range of scores: near its end, which rows
    are in the list is left to rounding."""
    calibrated: bool = False
    """Whether it has ranges that hold for pictures like those that it was calibrated on."""


_FLOAT32 = Limits(60.0, 1e-5, 0.999, 0.01)
_COARSE = {
    "float16": Limits(35.0, 2.0**-11, 0.99, 0.05),
    "bfloat16": Limits(20.0, 2.0**-8, 0.95, 0.1),
}
_QUANTIZED = Limits(12.0, 1 / 255, 0.8, 0.25, calibrated=True)

STATE = Limits(60.0, 1e-5, 0.999, 0.0)
"""For the same picture in the same session, whatever was computed in between."""


def limits_of(precision: str) -> Limits:
    """Return the limits of a precision; those of 8 bits for every quantized one.

    float32 kernels that sum in another order leave 90 to 140 dB. float16 leaves 45 to 65 dB and bfloat16 30 to 45,
    until something overflows. What is right in int8 leaves 12 to 50 dB: of a quantized network, more is asked where
    rounding to 8 bits takes little.
    """
    return _FLOAT32 if precision == "float32" else _COARSE.get(precision, _QUANTIZED)


@dataclass(frozen=True)
class Figure:
    """An output, or a quantity in it, against its limit."""

    name: str
    snr_db: float
    """Decibels; for whole numbers, the share that is the same."""
    limit: float
    fault: str = ""
    """What is wrong, in words; empty where nothing is."""
    rounding_db: float = math.inf
    """What rounding to 8 bits leaves of it at best; infinite where that isn't known."""
    whole: bool = False
    """Whether it is about whole numbers: `snr_db` and `limit` are shares then."""


@dataclass
class _Sums:
    """One quantity, summed over pictures."""

    signal: float = 0.0
    noise: float = 0.0
    count: int = 0
    largest: float = 0.0
    largest_other: float = 0.0
    largest_error: float = 0.0


@dataclass
class Agreement:
    """Compares outputs picture by picture; `figures` says how near they are."""

    limits: Limits
    task: Task | None = None
    """Cuts outputs into quantities; without it, each output is compared as a whole."""
    _sums: dict[str, _Sums] = field(default_factory=dict)
    _equal: dict[str, list[int]] = field(default_factory=dict)
    _faults: dict[str, str] = field(default_factory=dict)

    def add(self, reference: Outputs, other: Outputs, *, unlike: bool = False) -> None:
        """Compare the outputs for one picture, or for one batch, by their names. Of a picture `unlike` those that
        calibrated, shapes count, and whether values are finite; not how near they are."""
        pairs = {}
        for name, value in reference.items():
            if name not in other:
                self._faults.setdefault(name, "is missing")
            elif (pair := self._comparable(name, np.asarray(value), np.asarray(other[name]))) is not None:
                pairs[name] = pair
        if unlike:
            for name, pair in pairs.items():
                self._finite(name, *pair)
            return
        if not pairs:
            return
        pairs = self._in_the_same_order(pairs)
        references, others = ({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
        quantities = [self._quantities(outputs) for outputs in (references, others)]
        for name in references.keys() | quantities[0].keys():
            first = references[name] if name in references else quantities[0][name]
            second = others[name] if name in references else quantities[1].get(name)
            if second is not None and first.shape == second.shape:
                self._add(name, first, second)

    def _comparable(self, name: str, reference: Array, other: Array) -> tuple[Array, Array] | None:
        """Return a pair that can be compared value by value, and note what is wrong with one that can't."""
        if reference.dtype.kind not in "fiub":
            return None
        if _kind(reference) != _kind(other):
            self._faults.setdefault(name, f"is {other.dtype}, it was {reference.dtype}")
            return None
        if reference.shape != other.shape:
            if self.limits is not _FLOAT32 and reference.shape[1:] == other.shape[1:] and name not in self._sums:
                return None  # So many rows were found; how many are, a coarser precision may see otherwise.
            self._faults.setdefault(name, f"has the shape {list(other.shape)}, it was {list(reference.shape)}")
            return None
        return reference, other

    def _quantities(self, outputs: dict[str, Array]) -> dict[str, Array]:
        quantities: dict[str, Array] = {}
        if self.task is not None and all(value.ndim for value in outputs.values()):
            with contextlib.suppress(PlimsollError):
                quantities = self.task.columns(outputs)
        for name, value in outputs.items():
            if value.ndim == 2 and value.dtype.kind == "f" and _MANY <= value.shape[1] <= _MOST_COLUMNS:
                quantities |= {f"{name}, value of index {index}": value[:, index] for index in range(value.shape[1])}
        return quantities

    def _add(self, name: str, reference: Array, other: Array) -> None:
        if reference.dtype.kind != "f":
            counts = self._equal.setdefault(name, [0, 0])
            counts[0] += int((reference == other).sum())
            counts[1] += reference.size
            return
        finite = self._finite(name, reference, other)
        if finite is None:
            return
        first, second = finite
        sums = self._sums.setdefault(name, _Sums())
        if not first.size:
            return
        with np.errstate(over="ignore"):
            difference = second - first
            sums.signal += float(np.einsum("i,i->", first, first))
            sums.noise += float(np.einsum("i,i->", difference, difference))
        sums.count += first.size
        sums.largest = max(sums.largest, float(np.abs(first).max()))
        sums.largest_other = max(sums.largest_other, float(np.abs(second).max()))
        sums.largest_error = max(sums.largest_error, float(np.abs(difference).max()))

    def _finite(self, name: str, reference: Array, other: Array) -> tuple[Array, Array] | None:
        """Return the values that are finite in both; None where others differ, which is noted."""
        first, second = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
        usable = np.isfinite(first) & np.isfinite(second)
        if np.array_equal(first[~usable], second[~usable], equal_nan=True):
            return first[usable], second[usable]
        self._faults.setdefault(name, "has NaN or infinities that the other doesn't have")
        return None

    def _in_the_same_order(self, pairs: dict[str, tuple[Array, Array]]) -> dict[str, tuple[Array, Array]]:
        """Return the pairs with rows that are sorted by a score (of a detector that ends in TopK or NMS) in the order
        of the reference: of rows with nearly the same score, either may come first."""
        sizes = [value.shape[:2] for value, _ in pairs.values() if value.ndim in (2, 3)]
        for shape in {size for size in sizes if _LEAST_ROWS <= size[1] <= _MOST_ROWS}:
            names = [name for name, (value, _) in pairs.items() if value.ndim in (2, 3) and value.shape[:2] == shape]
            stacked = [_rows([pairs[name][side] for name in names]) for side in (0, 1)]
            scores = [_ranking(rows) for rows in stacked[0]]
            if any(score is None for score in scores) or np.allclose(stacked[0], stacked[1], rtol=1e-4, equal_nan=True):
                continue
            for index, score in enumerate(scores):
                first, second = stacked[0][index], stacked[1][index]
                values = first[:, score]
                last = values[-1] + self.limits.ranked_share * (values[0] - values[-1])
                order = _nearest(first, second)
                dropped = values <= last
                for name in names:
                    reference, other = pairs[name][0], pairs[name][1].copy()
                    other[index] = pairs[name][1][index][order]
                    other[index][dropped] = reference[index][dropped]
                    pairs[name] = reference, other
        return pairs

    def figures(self, rounding: Agreement | None = None) -> tuple[Figure, ...]:
        """Return a figure for every output and quantity, in the order in which they came. `rounding` has compared the
        reference with itself, rounded to 8 bits."""
        kinds: dict[str, list[_Sums]] = {}
        for name, sums in self._sums.items():
            kinds.setdefault(_kind_of(name), []).append(sums)
        wrong = [Figure(name, -math.inf, self.limits.snr_db, fault) for name, fault in self._faults.items()]
        usual = {kind: _usual(same) for kind, same in kinds.items()}
        largest = {kind: max(sums.largest for sums in same) for kind, same in kinds.items()}
        floats = [
            self._figure(name, sums, usual[_kind_of(name)], largest[_kind_of(name)], rounding)
            for name, sums in self._sums.items()
            if name not in self._faults
        ]
        whole = [
            self._whole(name, *counts) for name, counts in self._equal.items() if name not in self._faults and counts[1]
        ]
        return (*wrong, *floats, *whole)

    def _figure(
        self, name: str, sums: _Sums, usual: tuple[float, float], largest: float, rounding: Agreement | None
    ) -> Figure:
        if not sums.count:
            return Figure(name, math.inf, self.limits.snr_db)
        rounded = rounding._sums.get(name) if rounding is not None else None
        rounding_db = _decibels(rounded.signal, rounded.noise) if rounded is not None else math.inf
        limit = self.limits.snr_db if rounded is None else self._limit_beside(rounding_db, name)
        whole = self._sums.get(name.partition(", ")[0], sums).largest
        snr = _decibels(sums.signal, sums.noise)
        step = self.limits.step * max(largest, _LEAST_SHARE * whole, _LEAST)
        passes = _noise(sums) <= max(step, usual[0]) and sums.largest_error <= max(_MOST_STEPS * step, usual[1])
        shown = math.floor(snr) if math.isfinite(snr) else snr  # Never as much as the limit.
        fault = "" if snr >= limit or passes else f"has a signal-to-noise ratio of {shown} dB"
        if fault and not sums.largest:
            fault = f"is zero throughout, and up to {sums.largest_other:.2g} now"
        elif fault and not sums.largest_other:
            fault = "is zero throughout now"
        return Figure(name, snr, limit, fault, rounding_db)

    def _limit_beside(self, rounding_db: float, name: str) -> float:
        """Return the limit where it is known what rounding alone leaves: more than this class's where that is much;
        less for a quantity, but the most for an output as a whole, where that is hardly anything."""
        if ", " in name:
            least = min(self.limits.snr_db, rounding_db - _LEAST_GAP_DB)
        else:
            least = self.limits.snr_db if rounding_db >= _LEAST_ROUNDED_DB else _MOST_REQUIRED_DB
        return max(least, min(rounding_db - _MOST_GAP_DB, _MOST_REQUIRED_DB))

    def _whole(self, name: str, equal: int, count: int) -> Figure:
        share = equal / count
        # A single different value in a short list is a matter of rounding.
        passes = share >= self.limits.equal or (count - equal <= 1 and count > 1 and self.limits is not STATE)
        fault = "" if passes else f"has only {share:.0%} of its {count:,} whole numbers as they were"
        return Figure(name, share, self.limits.equal, fault, whole=True)


_LEAST_ROWS, _MOST_ROWS = 10, 1000
_MANY, _MOST_COLUMNS = 4, 2000
_USUAL = 4.0
"""How many quantities of a kind are many, and how many times the median of their noise is usual."""
_MOST_STEPS = 64
"""So many steps a value may be off where noise passes since there is little of it: at 8 bits, a quarter of the largest
value."""
_LEAST_GAP_DB, _MOST_GAP_DB = 12.0, 24.0
"""So much more than rounding takes may int8 always lose, and never: for ranges that hold for all pictures and clip some
values, and for layers that round what came rounded. Up to 21 were measured on real networks."""
_MOST_REQUIRED_DB = 26.0
"""No quantity needs more at int8: a good minimum and maximum of few pictures leaves as little in a small network."""
_LEAST_ROUNDED_DB = 3.0
"""Where rounding takes half of an output's power, a good figure on a few pictures is luck: a hand's presence had 20 dB
on 45 photographs, 6 on 29 others."""
_LEAST_SHARE = 1e-3
_LEAST = 1e-6
"""Nothing is compared on a finer scale than these: a share of the whole output's largest value, and an absolute one."""


def _kind(array: Array) -> str:
    return "f" if array.dtype.kind == "f" else "whole"


def _kind_of(name: str) -> str:
    """Return what a quantity has in common with others: all labels' scores are one kind, each coordinate is its own."""
    kind, of, _ = name.rpartition(" of ")
    return kind if of and ", " in kind else name


def _usual(same_kind: list[_Sums]) -> tuple[float, float]:
    """Return the noise and the largest error that are usual among quantities of a kind; zero where they are few."""
    if len(same_kind) < _MANY:
        return 0.0, 0.0
    return _USUAL * median(map(_noise, same_kind)), _USUAL * median(sums.largest_error for sums in same_kind)


def _noise(sums: _Sums) -> float:
    """Return the root mean square of the noise."""
    return math.sqrt(sums.noise / sums.count) if sums.count else 0.0


def _decibels(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    if signal == 0.0 or math.isinf(noise):
        return -math.inf
    return 10.0 * (math.log10(signal) - math.log10(noise))


def _rows(values: list[Array]) -> NDArray[np.float64]:
    """Return outputs `[N, rows]` and `[N, rows, …]` as one array `[N, rows, columns]`."""
    return np.concatenate([np.atleast_3d(value).astype(np.float64) for value in values], axis=2)


def _ranking(rows: NDArray[np.float64]) -> int | None:
    """Return the column of scores from 0 to 1 by which rows are sorted, the largest first; None where there is none."""
    falling = (np.diff(rows, axis=0) <= 0).all(axis=0) & (rows[0] > rows[-1]) & (rows[0] <= 1.01) & (rows[-1] >= -0.01)
    return int(np.argmax(falling)) if falling.any() and rows.shape[1] > 1 else None


def _nearest(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return, for each row of the first, the nearest row of the second that isn't taken yet."""
    scale = np.maximum(np.abs(first).max(axis=0), 1e-12)
    order = np.arange(len(first))
    free = np.ones(len(second), np.bool_)
    for index, row in enumerate(first):
        distance = np.abs((second - row) / scale).sum(axis=1)
        distance[~free] = np.inf
        order[index] = int(np.nanargmin(distance)) if np.isfinite(distance).any() else index
        free[order[index]] = False
    return order

"""Text: one line of it, read by connectionist temporal classification (CTC).

A network gives, for each of T steps from left to right, the probability of each symbol and of the blank. A text is what
is left of one symbol a step when repeats are merged and blanks are dropped. Greedy reading takes the best symbol of
each step. Prefix beam search (Hannun and others 2014, "First-Pass Large Vocabulary Continuous Speech Recognition using
Bi-Directional Recurrent DNNs", algorithm 1, without a language model) adds up all the ways to spell a text, for as many
texts at once as the beam is wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError, SpecError
from plimsoll.spec.spec import Text
from plimsoll.tasks.base import Answer, Outputs, Task, activate, decimal, output, require_finite

if TYPE_CHECKING:
    from plimsoll.preprocessing import ImageGeometry

Floats = NDArray[np.float32]
_SLACK = 0.02
"""How far a step's probabilities may be from a sum of 1: 8-bit networks round each."""


@dataclass(frozen=True)
class Line(Answer):
    """The text in one picture."""

    text: str
    """Empty where the score is below the threshold."""
    score: float | None
    """As the Spec says: the mean of the symbols' probabilities (0 for an empty text), or the probability of the whole
    text; None for a network that gives no probabilities."""
    symbols: tuple[tuple[str, float | None], ...]
    """Each symbol of the text with its probability at the step where it is read."""

    def row(self, top: int | None = None) -> dict[str, Any]:
        del top
        return {"text": self.text, "score": self.score, "symbols": [list(symbol) for symbol in self.symbols]}

    def brief(self) -> str:
        text = repr(self.text) if self.text else "no text"
        return text if self.score is None else f"{text} {self.score:.4f}"

    def readings(self) -> Sequence[str]:
        return ("with text" if self.text else "without text",)


@dataclass(frozen=True)
class Reading:
    """A text as indices of its symbols."""

    symbols: tuple[int, ...]
    scores: tuple[float | None, ...]
    """The probability of each symbol, at the step where it is read; None where the network gives none."""
    probability: float
    """Of the whole text: of its best path (greedy), or of all paths that the beam followed."""


class TextTask(Task):
    """Decodes `[N, T, symbols + 1]` or `[N, symbols + 1, T]`, or whole numbers `[N, T]`, which are symbols already."""

    def __init__(self, spec: Text) -> None:
        if not spec.alphabet:
            raise SpecError(
                f"output.alphabet_file: '{spec.alphabet_file}' was not read: it is read together with the Spec's file",
                "Put the file beside the Spec, or give `output.alphabet`.",
            )
        self.spec = spec
        self.threshold = spec.threshold
        self._symbols = (*spec.alphabet, " ") if spec.space else spec.alphabet
        self._blank = 0 if spec.blank == "first" else len(self._symbols)

    def decode(
        self,
        outputs: Outputs,
        threshold: float | None = None,
        geometries: Sequence[ImageGeometry | None] | None = None,
    ) -> list[Line]:
        del geometries
        raw = output(outputs, self.spec.tensor)
        limit = self.spec.threshold if threshold is None else threshold
        if raw.dtype.kind in "iu":
            return [self._line(reading, None, limit) for reading in self._paths(raw)]
        return [self._read(steps, limit) for steps in self._probabilities(raw)]

    def _paths(self, raw: NDArray[Any]) -> list[Reading]:
        """Read the networks that choose each step's symbol themselves."""
        if raw.ndim != 2 or self.spec.beam_width > 1:
            raise ModelError(
                f"the network's output is whole numbers {list(raw.shape)}; symbols are read from [N, T], greedily",
                "Correct `output.tensor`, `output.batch_axis` or `output.beam_width` in the Spec.",
            )
        if raw.size and (raw.min() < 0 or raw.max() > len(self._symbols)):
            raise ModelError(
                f"the network gives symbols from {raw.min()} to {raw.max()}; with the blank the Spec has"
                f" {len(self._symbols) + 1:,}",
                "Correct `output.alphabet` in the Spec.",
            )
        texts = [merged(path, self._blank)[0] for path in raw]
        return [Reading(symbols, (None,) * len(symbols), 1.0) for symbols in texts]

    def _probabilities(self, raw: NDArray[Any]) -> Floats:
        """Return `[N, T, symbols + 1]`."""
        count = len(self._symbols) + 1
        if raw.ndim != 3 or count not in raw.shape[1:]:
            raise ModelError(
                f"the network's output is {list(raw.shape)}; the Spec has {count - 1:,} symbols and the blank, so"
                f" [N, T, {count}] is expected",
                "Correct `output.alphabet` or `output.space` in the Spec; where the pictures are the second axis, write"
                " batch_axis = 1.",
            )
        steps = raw if raw.shape[2] == count else np.moveaxis(raw, 1, 2)
        require_finite(steps, "scores")
        shares = activate(np.asarray(steps, np.float32), self.spec.activation)
        sums = shares.sum(axis=2)
        if shares.size and (shares.min() < -_SLACK or np.abs(sums - 1).max() > _SLACK):
            raise ModelError(
                f"the network's scores of a step go from {shares.min():.3g} to {shares.max():.3g} and sum up to"
                f" {sums.min():.3g} … {sums.max():.3g}; expected probabilities with the sum 1",
                "Set `output.activation` to 'softmax' in the Spec where they are logits.",
            )
        return np.clip(shares, 0, 1)

    def _read(self, steps: Floats, threshold: float | None) -> Line:
        width = self.spec.beam_width
        reading = greedy(steps, self._blank) if width == 1 else beam_search(steps, self._blank, width)
        if self.spec.score == "probability":
            score = reading.probability
        else:
            scores = [score for score in reading.scores if score is not None]
            score = math.fsum(scores) / len(scores) if scores else 0.0
        return self._line(reading, score, threshold)

    def _line(self, reading: Reading, score: float | None, threshold: float | None) -> Line:
        shown = None if score is None else decimal(np.float32(score))
        if threshold is not None and shown is not None and shown < threshold:
            return Line("", shown, ())
        # The blank takes an index of its own: those after it are one too high.
        letters = [self._symbols[index - (index > self._blank)] for index in reading.symbols]
        scores = [None if value is None else decimal(np.float32(value)) for value in reading.scores]
        return Line("".join(letters), shown, tuple(zip(letters, scores, strict=True)))

    def columns(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        """Return the blank's scores apart: they are high where the symbols' are low, and would hide them."""
        columns: dict[str, NDArray[Any]] = {}
        read, count = output(outputs, self.spec.tensor), len(self._symbols) + 1
        for name, values in outputs.items():
            axis = 2 if values.shape[-1:] == (count,) else 1
            if values is not read or values.dtype.kind in "iu" or values.ndim != 3 or values.shape[axis] != count:
                columns[name] = values
            else:
                columns[f"{name}, score of the blank"] = values.take(self._blank, axis=axis)
                columns[f"{name}, scores of the symbols"] = np.delete(values, self._blank, axis=axis)
        return columns

    def empty_row(self) -> dict[str, Any]:
        return {"text": None, "score": None, "symbols": None}


def merged(path: NDArray[Any], blank: int) -> tuple[tuple[int, ...], NDArray[np.intp]]:
    """Return the symbols of a path `[T]`, repeats merged and blanks dropped, and the steps where each begins."""
    first = np.flatnonzero((path != blank) & np.concatenate([[True], path[1:] != path[:-1]])[: len(path)])
    return tuple(int(symbol) for symbol in path[first]), first


def greedy(steps: Floats, blank: int) -> Reading:
    """Read the best symbol of each step of probabilities `[T, symbols + 1]`; of equal ones the first counts."""
    path = steps.argmax(axis=1)
    symbols, first = merged(path, blank)
    best = steps.max(axis=1).astype(np.float64)
    with np.errstate(divide="ignore"):
        probability = float(np.exp(np.log(best).sum()))
    return Reading(symbols, tuple(float(value) for value in best[first]), probability)


@dataclass
class _Prefix:
    """A text that the beam follows."""

    symbols: tuple[int, ...]
    ends_blank: float
    """The probability of its paths whose last step is a blank, relative to the beam's scale."""
    ends_symbol: float

    @property
    def total(self) -> float:
        return self.ends_blank + self.ends_symbol


def beam_search(steps: Floats, blank: int, width: int) -> Reading:
    """Return the most probable text of probabilities `[T, symbols + 1]` that a beam of `width` texts finds; a beam that
    is wide enough finds the most probable of all."""
    beam, scale = [_Prefix((), 1.0, 0.0)], 0.0
    for step in steps.astype(np.float64):
        beam = _advanced(beam, step, blank, width)
        largest = max(prefix.total for prefix in beam)
        if largest <= 0:
            return Reading((), (), 0.0)
        scale += math.log(largest)  # The probabilities of many steps would become 0.
        for prefix in beam:
            prefix.ends_blank, prefix.ends_symbol = prefix.ends_blank / largest, prefix.ends_symbol / largest
    best = beam[0]
    scores = (
        float(steps[at, symbol]) for at, symbol in zip(begins(steps, best.symbols, blank), best.symbols, strict=True)
    )
    return Reading(best.symbols, tuple(scores), math.exp(scale + math.log(best.total)))


def begins(steps: Floats, symbols: Sequence[int], blank: int) -> list[int]:
    """Return the step where each symbol of a text begins on the most probable path that spells it (Viterbi's algorithm,
    over the symbols with a blank before, between and after them)."""
    if not symbols:
        return []
    states = [blank, *(state for symbol in symbols for state in (symbol, blank))]
    with np.errstate(divide="ignore"):
        logs = np.log(steps.astype(np.float64))[:, states]
    # A state may be skipped to only over a blank between two different symbols.
    skips = [at > 2 and state != blank and state != states[at - 2] for at, state in enumerate(states)]
    penalty = np.where(skips, 0.0, -np.inf)
    best = np.full(len(states), -np.inf)
    best[:2] = logs[0, :2]
    came = np.zeros((len(steps), len(states)), np.intp)
    for at in range(1, len(steps)):
        before = np.stack([best, np.r_[-np.inf, best[:-1]], np.r_[-np.inf, -np.inf, best[:-2]][: len(best)] + penalty])
        came[at] = before.argmax(axis=0)
        best = before.max(axis=0) + logs[at]
    state = len(states) - 1 - int(best[-2] > best[-1])
    first = [0] * len(symbols)
    for at in range(len(steps) - 1, -1, -1):
        if state % 2:
            first[state // 2] = at
        state -= int(came[at, state])
    return first


def _advanced(beam: list[_Prefix], step: NDArray[np.float64], blank: int, width: int) -> list[_Prefix]:
    """Return the best texts after one more step, best first; of equal ones the earlier counts."""
    totals = np.array([prefix.total for prefix in beam])
    longer = totals[:, np.newaxis] * step
    longer[:, blank] = 0
    stay = []
    for row, prefix in enumerate(beam):
        repeated = 0.0
        if prefix.symbols:
            last = prefix.symbols[-1]
            repeated = prefix.ends_symbol * step[last]
            longer[row, last] = prefix.ends_blank * step[last]  # The same symbol again needs a blank between.
        stay.append(_Prefix(prefix.symbols, prefix.total * step[blank], repeated))
    rows = {prefix.symbols: row for row, prefix in enumerate(beam)}
    for row, prefix in enumerate(beam):
        parent = rows.get(prefix.symbols[:-1]) if prefix.symbols else None
        if parent is not None:  # Another way to a text that is followed already.
            stay[row].ends_symbol += longer[parent, prefix.symbols[-1]]
            longer[parent, prefix.symbols[-1]] = 0
    flat = longer.ravel()
    chosen = np.argsort(-flat, kind="stable")[:width] if flat.size <= width else _largest(flat, width)
    fresh = []
    for at in chosen:
        row, symbol = divmod(int(at), len(step))
        if flat[at] > 0:
            fresh.append(_Prefix((*beam[row].symbols, symbol), 0.0, float(flat[at])))
    return sorted([*stay, *fresh], key=lambda prefix: -prefix.total)[:width]


def _largest(values: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Return the indices of the largest values, largest first; of equal ones the earlier counts."""
    limit = np.partition(values, -count)[-count]
    candidates = np.flatnonzero(values >= limit)
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]


DECODER = TextTask

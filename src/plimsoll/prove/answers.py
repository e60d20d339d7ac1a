"""Let both models answer every picture, and each the other's input as well; keep scores and sums, no tensors."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import PlimsollError
from plimsoll.metrics import Running
from plimsoll.prove.side import Array, Side

Scores = Mapping[str, float]
Exchange = Literal["tensors", "pixels", "none"]
"""What the two models can take from one another: the network's whole input, the pixels before it, or nothing (their
sizes differ)."""


@dataclass(frozen=True)
class Row:
    """One picture's scores, label → score, by all four ways; None where the task gives none or a way is closed."""

    path: str
    reference: Scores | None
    other: Scores | None
    input_only: Scores | None
    """The reference's network behind the other's input steps."""
    network_only: Scores | None
    """The other's network behind the reference's input steps."""
    power: tuple[tuple[float, float], ...] = ()
    """For each output, the sums of squares of the reference and of the difference."""


@dataclass(frozen=True)
class Failure:
    """A picture that at least one side could not answer."""

    path: str
    reference: str = ""
    other: str = ""
    """Why; empty where that side has answered."""


@dataclass
class Sums:
    """Running comparisons over all pictures."""

    outputs: dict[str, Running] = field(default_factory=dict)
    """By the reference's output names."""
    input_only: Running = field(default_factory=Running)
    network_only: Running = field(default_factory=Running)
    """Both over all outputs together."""


@dataclass(frozen=True)
class Answered:
    """What the two models answered, each with the other's input too as far as `exchange` allows."""

    exchange: Exchange
    sums: Sums
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    """Both in the pictures' order."""

    @property
    def lost(self) -> tuple[Failure, ...]:
        """The pictures that the reference answers and the other doesn't."""
        return tuple(one for one in self.failures if not one.reference)


def collect(
    sides: tuple[Side, Side], pictures: Iterable[str], exchange: Exchange, cores: int, advance: Callable[[], None]
) -> Answered:
    """Let both models answer all pictures; `advance` is called after each."""
    sums = Sums()
    rows, failures = list[Row](), list[Failure]()
    for made in _each(pictures, _Work(*sides, exchange, sums), cores):
        if isinstance(made, Row):
            rows.append(made)
        else:
            failures.append(made)
        advance()
    return Answered(exchange, sums, tuple(rows), tuple(failures))


def _each(pictures: Iterable[str], work: _Work, cores: int) -> Iterator[Row | Failure]:
    """Yield a row or a failure for every picture, in order.

    So many pictures are under way as there are cores, each read, prepared and answered in one thread.
    """
    waiting: deque[Future[Row | Failure]] = deque()
    source = iter(pictures)
    with ThreadPoolExecutor(cores, "plimsoll-prove") as pool:
        try:
            for picture in islice(source, 2 * cores):
                waiting.append(pool.submit(work, picture))
            while waiting:
                done = waiting.popleft().result()
                for picture in islice(source, 1):
                    waiting.append(pool.submit(work, picture))
                yield done
        finally:
            for future in waiting:
                future.cancel()


class _Work:
    def __init__(self, reference: Side, other: Side, exchange: Exchange, sums: Sums) -> None:
        self._reference, self._other, self._exchange, self._sums = reference, other, exchange, sums
        self._lock = threading.Lock()
        self._same_steps = (
            reference.preprocessor.spec.steps == other.preprocessor.spec.steps
            and reference.preprocessor.preprocessing == other.preprocessor.preprocessing
        )

    def __call__(self, picture: str) -> Row | Failure:
        ours, theirs, why, their_why = None, None, "", ""
        try:
            ours = self._read(self._reference, picture)
        except PlimsollError as error:
            why = error.message
        try:
            theirs = ours if self._same_steps and ours is not None else self._read(self._other, picture)
        except PlimsollError as error:
            their_why = error.message
        answered = [self._answer(side, made) for side, made in ((self._reference, ours), (self._other, theirs))]
        why, their_why = why or answered[0][1], their_why or answered[1][1]
        if ours is None or theirs is None or why or their_why:
            return Failure(picture, why, their_why)
        return self._compared(picture, ours, theirs, (answered[0][0], answered[1][0]))

    def _read(self, side: Side, picture: str) -> _Made:
        pixels = side.pixels(Path(picture))
        return _Made(pixels, side.tensor(pixels))

    def _answer(self, side: Side, made: _Made | None) -> tuple[dict[str, Array], str]:
        """Return outputs, or why there are none: scores that are no numbers count as no answer."""
        if made is None:
            return {}, ""
        try:
            outputs = side.infer(made.tensor)
            side.scores(outputs)
        except PlimsollError as error:
            return {}, error.message
        return outputs, ""

    def _compared(
        self, picture: str, ours: _Made, theirs: _Made, answered: tuple[dict[str, Array], dict[str, Array]]
    ) -> Row:
        outputs, others = answered
        input_only = outputs if self._same_steps else self._crossed(self._reference, theirs)
        network_only = others if self._same_steps else self._crossed(self._other, ours)
        names = _matched(outputs, others)
        with self._lock:
            for name, theirs_name in names.items():
                self._sums.outputs.setdefault(name, Running()).add(outputs[name], others[theirs_name])
                if input_only is not None:
                    self._sums.input_only.add(outputs[name], input_only[name])
                if network_only is not None:
                    self._sums.network_only.add(outputs[name], network_only[theirs_name])
        return Row(
            path=picture,
            reference=self._reference.scores(outputs),
            other=self._other.scores(others),
            input_only=None if input_only is None else self._reference.scores(input_only),
            network_only=None if network_only is None else self._other.scores(network_only),
            power=tuple(_power(outputs[name], others[their_name]) for name, their_name in names.items()),
        )

    def _crossed(self, side: Side, made: _Made) -> dict[str, Array] | None:
        """Return what a side's network answers behind the other side's input steps; None where it can't take them."""
        if self._exchange == "none":
            return None
        try:
            outputs = side.infer(made.tensor if self._exchange == "tensors" else side.tensor(made.pixels))
            side.scores(outputs)
        except PlimsollError:
            return None
        return outputs


@dataclass(frozen=True)
class _Made:
    pixels: Array
    tensor: Array


def _matched(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> dict[str, str]:
    """Return our output name → theirs: by name, or by place where no name is shared; only those of equal size."""
    shared = {name: name for name in ours if name in theirs} or dict(zip(ours, theirs, strict=False))
    return {name: other for name, other in shared.items() if ours[name].size == theirs[other].size}


def _power(reference: NDArray[Any], other: NDArray[Any]) -> tuple[float, float]:
    first, second = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    return float(first @ first), float(np.square(second - first).sum())

"""Run both models on every picture, and each network behind the other's preprocessing as well; scores and sums are
kept, tensors are not."""

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
from plimsoll.metrics import RunningDeviation
from plimsoll.prove.compared_model import Array, ComparedModel

Scores = Mapping[str, float]
Outputs = dict[str, Array]
Exchange = Literal["tensors", "pixels", "none"]
"""What the two models can take from one another: the network's whole input, the pixels before it, or nothing (their
sizes differ)."""


@dataclass(frozen=True)
class PictureAnswers:
    """One picture's scores, label → score, in all four combinations; None where the task gives none or the combination
    is not possible."""

    path: str
    reference: Scores | None
    other: Scores | None
    preprocessing_only: Scores | None
    """The reference's network behind the other's preprocessing."""
    network_only: Scores | None
    """The other's network behind the reference's preprocessing."""
    power: tuple[tuple[float, float], ...] = ()
    """For each output, the sums of squares of the reference and of the difference."""


@dataclass(frozen=True)
class Failure:
    """A picture that at least one model could not answer."""

    path: str
    reference: str = ""
    other: str = ""
    """Why; empty for a model that answered."""


@dataclass
class OutputDeviations:
    """The deviation of outputs over all pictures so far."""

    outputs: dict[str, RunningDeviation] = field(default_factory=dict)
    """By the reference's output names."""
    preprocessing_only: RunningDeviation = field(default_factory=RunningDeviation)
    network_only: RunningDeviation = field(default_factory=RunningDeviation)
    """Both over all outputs together."""


@dataclass(frozen=True)
class PairedAnswers:
    """The answers of both models, each behind the other's preprocessing too as far as `exchange` allows."""

    exchange: Exchange
    deviations: OutputDeviations
    pictures: tuple[PictureAnswers, ...]
    failures: tuple[Failure, ...]
    """Both in the pictures' order."""

    @property
    def unanswered(self) -> tuple[Failure, ...]:
        """The pictures that the reference answers and the other doesn't."""
        return tuple(failure for failure in self.failures if not failure.reference)


def answer_pictures(
    reference: ComparedModel,
    other: ComparedModel,
    pictures: Iterable[str],
    exchange: Exchange,
    *,
    cores: int,
    advance: Callable[[], None],
) -> PairedAnswers:
    """Run both models on all pictures; `advance` is called after each."""
    deviations = OutputDeviations()
    answers, failures = list[PictureAnswers](), list[Failure]()
    for result in _in_parallel(_PairedInference(reference, other, exchange, deviations), pictures, cores):
        if isinstance(result, PictureAnswers):
            answers.append(result)
        else:
            failures.append(result)
        advance()
    return PairedAnswers(exchange, deviations, tuple(answers), tuple(failures))


def _in_parallel(
    inference: _PairedInference, pictures: Iterable[str], cores: int
) -> Iterator[PictureAnswers | Failure]:
    """Yield answers or a failure for every picture, in order.

    As many pictures are in progress as there are cores, each read, preprocessed and answered in one thread.
    """
    waiting: deque[Future[PictureAnswers | Failure]] = deque()
    source = iter(pictures)
    with ThreadPoolExecutor(cores, "plimsoll-prove") as pool:
        try:
            for picture in islice(source, 2 * cores):
                waiting.append(pool.submit(inference, picture))
            while waiting:
                result = waiting.popleft().result()
                for picture in islice(source, 1):
                    waiting.append(pool.submit(inference, picture))
                yield result
        finally:
            for future in waiting:
                future.cancel()


@dataclass(frozen=True)
class _Preprocessed:
    pixels: Array
    tensor: Array


class _PairedInference:
    """Answers one picture with both models; may be called from several threads."""

    def __init__(
        self, reference: ComparedModel, other: ComparedModel, exchange: Exchange, deviations: OutputDeviations
    ) -> None:
        self._reference, self._other, self._exchange, self._deviations = reference, other, exchange, deviations
        self._lock = threading.Lock()
        self._same_preprocessing = (
            reference.preprocessor.spec.steps == other.preprocessor.spec.steps
            and reference.preprocessor.preprocessing == other.preprocessor.preprocessing
        )

    def __call__(self, picture: str) -> PictureAnswers | Failure:
        preprocessed, reason = self._preprocess(self._reference, picture)
        shared = self._same_preprocessing and preprocessed is not None
        other_preprocessed, other_reason = (preprocessed, "") if shared else self._preprocess(self._other, picture)
        outputs, network_reason = self._infer(self._reference, preprocessed)
        other_outputs, other_network_reason = self._infer(self._other, other_preprocessed)
        reason, other_reason = reason or network_reason, other_reason or other_network_reason
        if preprocessed is None or other_preprocessed is None or reason or other_reason:
            return Failure(picture, reason, other_reason)
        return self._compare(picture, (preprocessed, other_preprocessed), outputs, other_outputs)

    def _preprocess(self, model: ComparedModel, picture: str) -> tuple[_Preprocessed | None, str]:
        """Return the network's input, or why there is none."""
        try:
            pixels = model.pixels(Path(picture))
            return _Preprocessed(pixels, model.tensor(pixels)), ""
        except PlimsollError as error:
            return None, error.message

    def _infer(self, model: ComparedModel, preprocessed: _Preprocessed | None) -> tuple[Outputs, str]:
        """Return outputs, or why there are none: scores that are not numbers count as no answer."""
        if preprocessed is None:
            return {}, ""
        try:
            outputs = model.infer(preprocessed.tensor)
            model.scores(outputs)
        except PlimsollError as error:
            return {}, error.message
        return outputs, ""

    def _compare(
        self, picture: str, inputs: tuple[_Preprocessed, _Preprocessed], outputs: Outputs, other_outputs: Outputs
    ) -> PictureAnswers:
        same = self._same_preprocessing
        preprocessing_only = outputs if same else self._infer_exchanged(self._reference, inputs[1])
        network_only = other_outputs if same else self._infer_exchanged(self._other, inputs[0])
        names = _matching_outputs(outputs, other_outputs)
        with self._lock:
            for name, other_name in names.items():
                sums = self._deviations.outputs.setdefault(name, RunningDeviation())
                sums.add(outputs[name], other_outputs[other_name])
                if preprocessing_only is not None:
                    self._deviations.preprocessing_only.add(outputs[name], preprocessing_only[name])
                if network_only is not None:
                    self._deviations.network_only.add(outputs[name], network_only[other_name])
        return PictureAnswers(
            path=picture,
            reference=self._reference.scores(outputs),
            other=self._other.scores(other_outputs),
            preprocessing_only=None if preprocessing_only is None else self._reference.scores(preprocessing_only),
            network_only=None if network_only is None else self._other.scores(network_only),
            power=tuple(_power(outputs[name], other_outputs[other_name]) for name, other_name in names.items()),
        )

    def _infer_exchanged(self, model: ComparedModel, preprocessed: _Preprocessed) -> Outputs | None:
        """Return a network's outputs behind the other model's preprocessing; None where it can't take its result."""
        if self._exchange == "none":
            return None
        try:
            exchanged = preprocessed.tensor if self._exchange == "tensors" else model.tensor(preprocessed.pixels)
            outputs = model.infer(exchanged)
            model.scores(outputs)
        except PlimsollError:
            return None
        return outputs


def _matching_outputs(reference: Mapping[str, Array], other: Mapping[str, Array]) -> dict[str, str]:
    """Return the reference's output name → the other's: by name, or by position where no name is shared; only those of
    equal size."""
    names = {name: name for name in reference if name in other} or dict(zip(reference, other, strict=False))
    return {name: other_name for name, other_name in names.items() if reference[name].size == other[other_name].size}


def _power(reference: NDArray[Any], other: NDArray[Any]) -> tuple[float, float]:
    first, second = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    return float(first @ first), float(np.square(second - first).sum())

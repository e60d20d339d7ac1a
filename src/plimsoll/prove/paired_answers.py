"""Two models, each with its preprocessing cut where pixels become numbers, and their answers to every picture, also
with preprocessing and network exchanged. Scores and sums are kept, tensors are not."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.runner import Runner
from plimsoll.core.model import Tensors
from plimsoll.errors import PlimsollError
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.metrics import RunningDeviation
from plimsoll.preprocessing import Preprocessor
from plimsoll.preprocessing.decode import Pixels, as_array, read, translate_errors
from plimsoll.preprocessing.preprocessor import ImageSource
from plimsoll.spec.steps import Crop, Decode, ImageSpec, Jpeg, Resize, Step
from plimsoll.tasks import Task, decoder
from plimsoll.tasks.classify import Classification

Array = NDArray[Any]


@dataclass(frozen=True)
class PixelStage:
    """A stage that still has pixels, between pictures in RGB order whatever the order it works in."""

    step: Step
    run: Callable[[Any], Pixels]
    before: str
    after: str
    """The channel order that it takes and gives."""

    def __call__(self, pixels: Any) -> Array:
        """Return the picture after the stage, RGB; the first stage takes a file's bytes, all others an RGB picture."""
        source = pixels if isinstance(pixels, bytes) else _reordered(pixels, self.before)
        with translate_errors():
            return np.asarray(_reordered(as_array(self.run(source)), self.after))


class ComparedModel:
    """A model opened for a proof. Its pixels are what a folded network takes: RGB, before any arithmetic."""

    def __init__(self, resolved: ResolvedModel, runner: Runner) -> None:
        self.resolved = resolved
        self.runner = runner
        self.spec = resolved.model.require_spec()
        self.preprocessor = Preprocessor(self.spec.input, resolved.preprocessing)
        self.task: Task = decoder(self.spec)
        self.pixel_stages, self._arithmetic, self._order = _cut(self.preprocessor)

    @property
    def name(self) -> str:
        """The model, its target and its preprocessing, in words."""
        return f"{self.resolved.model.name} on {self.resolved.target}, {self.resolved.preprocessing} preprocessing"

    @property
    def is_folded(self) -> bool:
        """Whether the network takes pixels: nothing is left to compute after them."""
        return not self._arithmetic

    def pixels(self, source: ImageSource) -> Array:
        """Return a picture as it is before any arithmetic: height x width x channels, RGB; raises ImageError."""
        pixels: Any = read(source)
        for stage in self.pixel_stages:
            pixels = stage(pixels)
        return np.asarray(pixels)

    def tensor(self, pixels: Array) -> Array:
        """Return the network's input for such pixels, without its batch axis."""
        tensor: Pixels = _reordered(pixels, self._order)
        with translate_errors():
            for _, stage in self._arithmetic:
                tensor = stage(tensor)
        return np.ascontiguousarray(as_array(tensor))

    def infer(self, tensor: Array) -> Tensors:
        """Return the outputs for one input without a batch axis; raises InputError or RunError."""
        return self.runner.infer(tensor[np.newaxis])

    def scores(self, outputs: Mapping[str, Array]) -> dict[str, float] | None:
        """Return label → score of the one picture; None where the task gives no scores. Raises ModelError for scores
        that are no numbers."""
        answer = self.task.decode(outputs)[0]
        return dict(answer.scores) if isinstance(answer, Classification) else None


def _reordered(pixels: Any, order: str) -> Any:
    """Bring RGB into `order` or back: the same reversal."""
    return as_array(pixels)[:, :, ::-1] if order == "BGR" else pixels


def _cut(
    preprocessor: Preprocessor,
) -> tuple[tuple[PixelStage, ...], tuple[tuple[str, Callable[..., Pixels]], ...], str]:
    """Return the stages on pixels, those after them, and the channel order that the latter take."""
    steps = preprocessor.spec.steps
    stages = list(preprocessor.stages)
    single_pass = preprocessor.preprocessing == "fast" and stages[-1][0] == "normalize"
    order = preprocessor.tensor_spec.colour if single_pass else ""
    form = ImageSpec()
    cut: list[PixelStage] = []
    index = 0
    for step in steps:
        if not isinstance(step, (Decode, Resize, Jpeg, Crop)) and step.step != "channels":
            break
        after = step.after(form)
        if isinstance(step, (Decode, Resize, Jpeg, Crop)):
            cut.append(PixelStage(step, stages[index][1], order or form.colour, order or after.colour))
            form, index = after, index + 1
        elif single_pass:
            form = after  # The pixels come in the network's order from the start: there is no stage for it.
        elif any(isinstance(later, (Resize, Jpeg, Crop)) for later in steps[steps.index(step) :]):
            cut[-1] = replace(cut[-1], run=_followed(cut[-1].run, stages[index][1]), after=after.colour)
            form, index = after, index + 1
        else:
            break
    return tuple(cut), tuple(stages[index:]), order or form.colour


def _followed(first: Callable[[Any], Pixels], second: Callable[[Any], Pixels]) -> Callable[[Any], Pixels]:
    return lambda pixels: second(first(pixels))


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
        """Return the network's input, or why it can't be computed."""
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

"""Two models, each with its preprocessing cut where pixels become numbers, and their answers to every picture, also
with preprocessing and network exchanged. Scores and sums are kept, tensors are not."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.runner import Runner
from plimsoll.core.deviation import RunningDeviation
from plimsoll.core.model import Tensors
from plimsoll.errors import PlimsollError
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.preprocessing import ImageGeometry, Preprocessor
from plimsoll.preprocessing.decode import Pixels, Reduced, as_array, orientation, read, size_of
from plimsoll.preprocessing.pillow_file import translate_errors
from plimsoll.preprocessing.preprocessor import ImageSource, geometry_of
from plimsoll.prove.comparison import Comparer
from plimsoll.prove.outputs import OutputSums, Power, matching, not_finite
from plimsoll.spec.steps import Crop, Decode, ImageSpec, Jpeg, Resize, Step
from plimsoll.tasks import Answer, Task, decoder

Array = NDArray[Any]


@dataclass(frozen=True)
class PixelStage:
    """A stage that still has pixels, between pictures in RGB order whatever the order it works in."""

    step: Step
    run: Callable[[Any], Pixels]
    before: str
    after: str
    """The channel order that it takes and gives."""

    def __call__(self, pixels: Any) -> Any:
        """Return the picture after the stage, RGB; the first stage takes a file's bytes, all others an RGB picture. A
        picture that its decoder has begun to resize goes from the first to the second stage as it is."""
        source = pixels if isinstance(pixels, (bytes, Reduced)) else _reordered(pixels, self.before)
        with translate_errors():
            after = self.run(source)
        if isinstance(after, Reduced):
            if after.mean > 1:
                return after
            after = after.pixels if isinstance(after.pixels, np.ndarray) else _reordered(after.pixels, self.after)
        return np.asarray(_reordered(as_array(after), self.after))


class ComparedModel:
    """A model opened for a proof. Its pixels are what a folded network takes: RGB, before any arithmetic."""

    def __init__(self, resolved: ResolvedModel, runner: Runner) -> None:
        self.resolved = resolved
        self.runner = runner
        self.spec = resolved.model.require_spec()
        self.preprocessor = Preprocessor(self.spec.input, resolved.preprocessing, resolved.scaled_sides)
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

    def prepared(self, source: ImageSource) -> tuple[Array, ImageGeometry | None]:
        """Return a picture as it is before any arithmetic, height x width x channels, RGB, and its geometry where the
        task needs it; raises ImageError."""
        data = read(source)
        with translate_errors():
            value = self.pixel_stages[0].run(data)
            size = size_of(value)
            for stage in self.pixel_stages[1:]:
                value = stage.run(value)
        pixels = np.asarray(_reordered(as_array(value), self.pixel_stages[-1].after))
        if not self.task.needs_geometry:
            return pixels, None
        step = self.spec.input.decode
        followed = orientation(data, fill=step.truncated == "fill") if step.exif_orientation else 1
        return pixels, geometry_of(self.spec.input, size, followed)

    def pixels(self, source: ImageSource) -> Array:
        """Return a picture as it is before any arithmetic: height x width x channels, RGB; raises ImageError."""
        return self.prepared(source)[0]

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


def _reordered(pixels: Any, order: str) -> Any:
    """Bring RGB into `order` or back: the same reversal."""
    return as_array(pixels)[:, :, ::-1] if order == "BGR" else pixels


def _cut(
    preprocessor: Preprocessor,
) -> tuple[tuple[PixelStage, ...], tuple[tuple[str, Callable[..., Pixels]], ...], str]:
    """Return the stages on pixels, those after them, and the channel order that the latter take."""
    steps = preprocessor.spec.steps
    stages = list(preprocessor.stages)
    single_pass = preprocessor.preprocessing != "reference" and stages[-1][0] == "normalize"
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


Outputs = dict[str, Array]
Exchange = Literal["tensors", "pixels", "none"]
"""What the two models can take from one another: the network's whole input, the pixels before it, or nothing (their
sizes differ)."""


@dataclass(frozen=True)
class PictureAnswers:
    """What is kept of one picture: how the other's answer differs, and how it does with one part exchanged; None where
    the task's answers are not compared, or the combination is not possible."""

    path: str
    measured: Any
    """What the task's `Comparer` keeps."""
    preprocessing_only: Any
    """The reference's network behind the other's preprocessing."""
    network_only: Any
    """The other's network behind the reference's preprocessing."""
    power: Power


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

    outputs: OutputSums = field(default_factory=OutputSums)
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
    models: tuple[ComparedModel, ComparedModel],
    pictures: Iterable[str],
    exchange: Exchange,
    comparer: Comparer | None,
    *,
    cores: int,
    advance: Callable[[], None],
) -> PairedAnswers:
    """Run both models on all pictures; `comparer` compares their answers, `advance` is called after each."""
    deviations = OutputDeviations()
    answers, failures = list[PictureAnswers](), list[Failure]()
    for result in _in_parallel(_PairedInference(*models, exchange, deviations, comparer), pictures, cores):
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
    geometry: ImageGeometry | None


@dataclass(frozen=True)
class _Inference:
    outputs: Outputs
    answer: Answer | None
    """None where the task's answers are not compared."""


class _PairedInference:
    """Answers one picture with both models; may be called from several threads."""

    def __init__(
        self,
        reference: ComparedModel,
        other: ComparedModel,
        exchange: Exchange,
        deviations: OutputDeviations,
        comparer: Comparer | None,
    ) -> None:
        self._reference, self._other, self._exchange, self._deviations = reference, other, exchange, deviations
        self._comparer = comparer
        self._lock = threading.Lock()
        self._same_preprocessing = (
            reference.preprocessor.spec.steps == other.preprocessor.spec.steps
            and reference.preprocessor.preprocessing == other.preprocessor.preprocessing
        )

    def __call__(self, picture: str) -> PictureAnswers | Failure:
        preprocessed, reason = self._preprocess(self._reference, picture)
        shared = self._same_preprocessing and preprocessed is not None
        other_preprocessed, other_reason = (preprocessed, "") if shared else self._preprocess(self._other, picture)
        answered, network_reason = self._infer(self._reference, preprocessed)
        other_answered, other_network_reason = self._infer(self._other, other_preprocessed)
        if answered is not None and other_answered is not None:
            names = self._names(answered.outputs, other_answered.outputs)
            other_network_reason = not_finite(answered.outputs, other_answered.outputs, names)
        reason, other_reason = reason or network_reason, other_reason or other_network_reason
        if preprocessed is None or other_preprocessed is None or answered is None or other_answered is None:
            return Failure(picture, reason, other_reason)
        if other_reason:
            return Failure(picture, "", other_reason)
        return self._compare(picture, (preprocessed, other_preprocessed), answered, other_answered)

    def _names(self, outputs: Outputs, other_outputs: Outputs) -> dict[str, str]:
        return matching(outputs, other_outputs, (self._reference.spec, self._other.spec))

    def _preprocess(self, model: ComparedModel, picture: str) -> tuple[_Preprocessed | None, str]:
        """Return the network's input, or why it can't be computed."""
        try:
            pixels, geometry = model.prepared(Path(picture))
            return _Preprocessed(pixels, model.tensor(pixels), geometry), ""
        except PlimsollError as error:
            return None, error.message

    def _infer(self, model: ComparedModel, preprocessed: _Preprocessed | None) -> tuple[_Inference | None, str]:
        """Return outputs and answer, or why there are none: scores that are not numbers count as no answer."""
        if preprocessed is None:
            return None, ""
        try:
            return self._answer(model, preprocessed.tensor, preprocessed.geometry), ""
        except PlimsollError as error:
            return None, error.message

    def _answer(self, model: ComparedModel, tensor: Array, geometry: ImageGeometry | None) -> _Inference:
        outputs = model.infer(tensor)
        if self._comparer is None:
            model.task.decode(outputs, None, [geometry])
            return _Inference(outputs, None)
        answer = model.task.decode(outputs, self._comparer.threshold(model.task), [geometry])[0]
        return _Inference(outputs, answer)

    def _compare(
        self, picture: str, inputs: tuple[_Preprocessed, _Preprocessed], answered: _Inference, other: _Inference
    ) -> PictureAnswers:
        same = self._same_preprocessing
        preprocessing_only = answered if same else self._infer_exchanged(self._reference, inputs[1])
        network_only = other if same else self._infer_exchanged(self._other, inputs[0])
        names = self._names(answered.outputs, other.outputs)
        with self._lock:
            power = self._deviations.outputs.add(self._reference.task, answered.outputs, other.outputs, names)
            for name, other_name in names.items():
                if name in self._deviations.outputs.missing:
                    continue
                if preprocessing_only is not None:
                    self._deviations.preprocessing_only.add(answered.outputs[name], preprocessing_only.outputs[name])
                if network_only is not None:
                    self._deviations.network_only.add(answered.outputs[name], network_only.outputs[other_name])
        return PictureAnswers(
            picture,
            self._measure(answered, other, inputs[0].geometry),
            self._measure_part(answered, preprocessing_only),
            self._measure_part(answered, network_only),
            power,
        )

    def _measure(self, reference: _Inference, other: _Inference, geometry: ImageGeometry | None) -> Any:
        scale = (1.0, 1.0) if geometry is None else geometry.scale
        return None if self._comparer is None else self._comparer.measure(reference.answer, other.answer, scale)

    def _measure_part(self, reference: _Inference, part: _Inference | None) -> Any:
        if part is None or self._comparer is None or not self._comparer.measures_parts:
            return None
        return self._measure(reference, part, None)

    def _infer_exchanged(self, model: ComparedModel, preprocessed: _Preprocessed) -> _Inference | None:
        """Return a network's answer behind the other model's preprocessing; None where it can't take its result."""
        if self._exchange == "none":
            return None
        try:
            exchanged = preprocessed.tensor if self._exchange == "tensors" else model.tensor(preprocessed.pixels)
            return self._answer(model, exchanged, preprocessed.geometry)
        except PlimsollError:
            return None

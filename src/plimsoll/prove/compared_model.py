"""`ComparedModel`: one of the two models in a proof, with its preprocessing cut where pixels become numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.runner import Runner
from plimsoll.core.model import Tensors
from plimsoll.inference.predictor import ResolvedModel
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
        self.spec = resolved.model.contract()
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

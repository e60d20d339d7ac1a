"""Whether a Spec and its network do together what the Spec says: the network runs on two sample pictures, alone, twice
and together, and what doesn't fit is said in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.runner import Runner
from plimsoll.core.fit import only_input
from plimsoll.errors import ImageError, PlimsollError
from plimsoll.inference.predictor import Predictor
from plimsoll.preprocessing import ImageGeometry
from plimsoll.preprocessing.decode import sample_pictures
from plimsoll.spec.spec import Classify, Detect, Landmarks, Segment
from plimsoll.tasks import Answer

Outputs = Mapping[str, NDArray[Any]]
_TOLERANCE = 1e-3
"""Of the largest value: batches are computed in another order than single pictures."""
_LOW = 0.01
"""A threshold that a detector reaches somewhere in almost any photograph."""
_FRACTION = 2.0
"""Coordinates below this are fractions of the input, and those of pixels aren't."""


@dataclass(frozen=True)
class Finding:
    """Something that doesn't fit, or that is seldom meant."""

    message: str
    hint: str = ""
    is_error: bool = True
    """Whether answers would be wrong or missing; else it is a warning."""


@dataclass(frozen=True)
class Trial:
    """What came of the sample pictures."""

    pictures: tuple[str, ...]
    answers: tuple[Answer, ...]
    """One a picture; empty where there are none."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Sample:
    name: str
    tensor: NDArray[Any]
    geometry: ImageGeometry


def try_out(predictor: Predictor) -> Trial:
    """Run sample pictures through a model as its users would, and compare; raises what loading it raises."""
    runner = predictor.runner("latency")
    only_input(predictor.spec, runner.inputs, predictor.model.path.name)
    samples, problem = _samples(predictor)
    if not samples:
        return Trial((), (), (problem,) if problem is not None else ())
    names = tuple(sample.name for sample in samples)
    try:
        alone = [runner.infer(sample.tensor[np.newaxis]) for sample in samples]
        answers = tuple(
            predictor.task.decode(outputs, None, [sample.geometry])[0]
            for outputs, sample in zip(alone, samples, strict=True)
        )
        findings = [*_compared(runner, samples, alone), *_values(predictor, alone, samples)]
    except PlimsollError as error:
        return Trial(names, (), (Finding(error.message, error.hint or ""),))
    return Trial(names, answers, tuple(findings))


def _samples(predictor: Predictor) -> tuple[list[_Sample], Finding | None]:
    """Return two sample pictures whose tensors have one shape, or as many as there are; and why there are none."""
    samples: list[_Sample] = []
    problem = Finding(
        "no sample picture has a format that the Spec accepts, so the network was not run", is_error=False
    )
    for name, data in sample_pictures(predictor.spec.input.decode):
        try:
            tensor, geometry = predictor.preprocessor.with_geometry(data)
        except ImageError as error:
            problem = Finding(f"the sample picture {name}: {error.message}", error.hint or "", is_error=False)
            continue
        if not samples or samples[0].tensor.shape == tensor.shape:
            samples.append(_Sample(name, tensor, geometry))
        if len(samples) == 2:
            break
    return samples, problem


def _compared(runner: Runner, samples: Sequence[_Sample], alone: Sequence[Outputs]) -> Iterator[Finding]:
    """Compare the answers to the same pictures: a second time, and together."""
    again = [runner.infer(sample.tensor[np.newaxis]) for sample in samples]
    for name in alone[0]:
        if not all(_same(first[name], second[name]) for first, second in zip(alone, again, strict=True)):
            yield Finding(
                f"the output '{name}' is another the second time for the same picture: the network keeps a state, or"
                " draws random numbers",
                "Export it in inference mode (in PyTorch: `model.eval()`), with its state as an input or output.",
            )
            return
    if len(samples) < 2:
        return
    if runner.batches:
        was_free = runner.fixed_count is None
        together = runner.infer(np.stack([sample.tensor for sample in samples]))
        if was_free and runner.fixed_count is not None:
            yield Finding(
                "the network says that it takes any number of pictures, and fails with two: it gets one a call",
                "Export it with a free batch size (in PyTorch: `x.flatten(1)` instead of `x.view(1, -1)`).",
                is_error=False,
            )
        for name, values in together.items():
            if not all(_same(outputs[name], values[row : row + 1]) for row, outputs in enumerate(alone)):
                yield Finding(
                    f"the output '{name}' of two pictures together is another than of each alone",
                    "Export the network in inference mode; where it has another axis for pictures, correct"
                    " `batch_axis` under [output] of the Spec.",
                )
    for name, values in alone[0].items():
        if values.size and values.dtype.kind == "f" and np.array_equal(values, alone[1][name]):
            yield Finding(
                f"the output '{name}' is the same for two different pictures",
                "Do the input steps give the network the range of values that it was trained with?",
                is_error=False,
            )


def _same(first: NDArray[Any], second: NDArray[Any]) -> bool:
    if first.shape != second.shape:
        return False
    if first.dtype.kind != "f":
        return bool(np.array_equal(first, second))
    largest = float(np.abs(first[np.isfinite(first)].astype(np.float64)).max(initial=0.0))
    wide = first.astype(np.float64), second.astype(np.float64)
    return bool(np.allclose(wide[0], wide[1], rtol=0.0, atol=_TOLERANCE * largest, equal_nan=True))


def _values(predictor: Predictor, alone: Sequence[Outputs], samples: Sequence[_Sample]) -> Iterator[Finding]:
    """Look at what the outputs hold: NaN, logits for probabilities, fractions for pixels."""
    for name in alone[0]:
        if any(values[name].dtype.kind == "f" and not np.isfinite(values[name]).all() for values in alone):
            yield Finding(f"the output '{name}' has NaN or infinity in it", "Check the input steps, and the network.")
            return
    output = predictor.spec.output
    if isinstance(output, Classify):
        yield from _of_classifier(output, alone)
    elif isinstance(output, Detect):
        yield from _of_detector(predictor, output, alone, samples)
    elif isinstance(output, Landmarks):
        points = _only(alone, output.tensor)
        yield from _units(output.normalized, np.abs(points), samples)
    elif isinstance(output, Segment):
        planes = _only(alone, output.tensor)
        single = planes.dtype.kind == "f" and planes.size == planes.shape[0] * planes.shape[-1] * planes.shape[-2]
        if single and output.activation == "none" and not _within(planes):
            yield _logits("plane's values", planes, "sigmoid")


def _only(alone: Sequence[Outputs], name: str | None) -> NDArray[Any]:
    """Return an output's values for all pictures."""
    return np.concatenate([outputs[name] if name is not None else next(iter(outputs.values())) for outputs in alone])


def _within(values: NDArray[Any]) -> bool:
    return not values.size or bool(values.min() >= -0.01 and values.max() <= 1.01)


def _logits(what: str, values: NDArray[Any], activation: str) -> Finding:
    return Finding(
        f"the {what} go from {values.min():.3g} to {values.max():.3g}; scores are read as they are, and should be"
        " probabilities",
        f"Set activation = '{activation}' under [output] of the Spec.",
    )


def _of_classifier(output: Classify, alone: Sequence[Outputs]) -> Iterator[Finding]:
    raw = _only(alone, output.tensor)
    scores = raw.reshape(len(raw), -1).astype(np.float64)
    sums = scores.sum(axis=1)
    if output.activation == "none":
        if not _within(scores):
            yield _logits("scores", scores, "softmax" if scores.shape[1] > 1 else "sigmoid")
        elif scores.shape[1] > 1 and np.abs(sums - 1).max() > 0.05:
            yield Finding(
                f"the scores of a picture sum up to {sums.min():.3g} … {sums.max():.3g}; that is right for labels that"
                " don't exclude each other",
                "Else set activation = 'softmax' under [output] of the Spec, or correct the input steps.",
                is_error=False,
            )
    elif scores.shape[1] > 1 and _within(scores) and np.abs(sums - 1).max() < 1e-3:
        yield Finding(
            f"the network's scores are probabilities already, and activation = '{output.activation}' is applied once"
            " more",
            "Set activation = 'none' under [output] of the Spec.",
        )


def _of_detector(
    predictor: Predictor, output: Detect, alone: Sequence[Outputs], samples: Sequence[_Sample]
) -> Iterator[Finding]:
    """Look at the boxes from a low threshold on: their units, and whether they lie in the picture."""
    low = [predictor.task.decode(outputs, _LOW)[0].row()["boxes"] for outputs in alone]
    in_order = np.array([box["box"] for boxes in low for box in boxes], np.float64).reshape(-1, 4)
    located = [
        predictor.task.decode(outputs, _LOW, [sample.geometry])[0].row()["boxes"]
        for outputs, sample in zip(alone, samples, strict=True)
    ]
    if not len(in_order):
        yield Finding(
            f"no box reaches a score of {_LOW} in the sample pictures, or none has an area",
            "Are the input steps, `head` and `box_format` right? A network for rare objects may find none here.",
            is_error=False,
        )
        return
    units = list(_units(output.normalized or output.head == "tflite_postprocess", in_order, samples))
    yield from units
    if not units and not any(located):
        yield Finding("every box lies outside the picture", "Check `box_format`, `normalized` and the input steps.")


def _units(normalized: bool, values: NDArray[Any], samples: Sequence[_Sample]) -> Iterator[Finding]:
    """Tell whether coordinates are fractions or pixels, other than the Spec says."""
    largest = float(np.abs(values).max(initial=0.0))
    side = min(samples[0].geometry.input_width, samples[0].geometry.input_height)
    if normalized and largest > max(_FRACTION, side / 4):
        yield Finding(
            f"coordinates go up to {largest:.4g}, and the Spec says that they are fractions (normalized = true)",
            "Remove `normalized` from [output] of the Spec.",
        )
    if not normalized and 0 < largest <= _FRACTION and side > 8 * _FRACTION:
        yield Finding(
            f"coordinates go up to {largest:.3g} only: they look like fractions of the input, which is"
            f" {samples[0].geometry.input_width:g} x {samples[0].geometry.input_height:g} pixels large",
            "Set normalized = true under [output] of the Spec.",
        )

"""The range of every value that a TFLite file computes.

A converter fuses, pads and turns around, and gives the result a name of ONNX's that it may not be. A range that
Plimsoll's calibrator chose therefore holds for the tensors that have the same values on calibration pictures, whatever
they are called; for all others, what is observed holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.litert.tflite_file import INSTALL, TfliteFile
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import graph, load

MATCHED_CALLS = 2
"""Calls whose values are compared: two values that agree on one picture by chance don't on another."""
_ALIKE = 2e-3
"""By how much of their largest value two tensors' statistics may differ, since kernels add up in another order."""

Array = NDArray[Any]
Range = tuple[float, float]
Fingerprint = Array
"""Lowest and highest value, mean and root mean square of a tensor, for each call: the same in any layout."""


def observe(file: TfliteFile, tensors: Array) -> dict[str, Range]:
    """Return the lowest and the highest value of every float32 tensor that the file computes from `tensors` [N, …].

    Raises BuildError where a value is not finite, or the file has several inputs.
    """
    ranges: dict[str, Range] = {}
    for values in _computed(file, tensors):
        for name, value in values.items():
            low, high = float(value.min()), float(value.max())
            before = ranges.get(name, (low, high))
            ranges[name] = (min(low, before[0]), max(high, before[1]))
    infinite = [name for name, bounds in ranges.items() if not np.isfinite(bounds).all()]
    if infinite:
        raise BuildError(
            f"{file.path.name}: '{infinite[0]}' holds values that are not finite for a calibration picture",
            "Check the network in float32 with `plimsoll prove`, and that the input steps are those of its training.",
        )
    return ranges


def transfer(source: Model, file: TfliteFile, tensors: Array, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the ranges of an ONNX network's values for the tensors of a TFLite file that have the same values.

    `source`: the ONNX network that the file was made from, its sizes fixed; `tensors`: `[N, …]`, calibration pictures;
    `ranges`: by the values' names in ONNX. Raises BuildError.
    """
    size = batch_of(file)
    shown = tensors[: MATCHED_CALLS * size]
    known = _fingerprints(_answers(source, list(ranges), shown, size))
    by_size: dict[int, list[tuple[Fingerprint, Range]]] = {}
    for name, (count, fingerprint) in known.items():
        by_size.setdefault(count, []).append((fingerprint, ranges[name]))
    out: dict[str, Range] = {}
    for name, (count, fingerprint) in _fingerprints(_computed(file, shown)).items():
        candidates = [(_distance(fingerprint, other), bounds) for other, bounds in by_size.get(count, [])]
        distance, bounds = min(candidates, default=(np.inf, (0.0, 0.0)), key=lambda candidate: candidate[0])
        if distance <= _ALIKE:
            out[name] = bounds
    return out


def batch_of(file: TfliteFile) -> int:
    """Return how many pictures a call takes."""
    return (file.inputs[0].shape[0] if file.inputs[0].shape else None) or 1


def _computed(file: TfliteFile, tensors: Array) -> Iterator[dict[str, Array]]:
    """Yield every float32 tensor that the file computes, for one call after another."""
    if len(file.inputs) != 1:
        raise BuildError(
            f"{file.path.name} has {len(file.inputs)} inputs; calibration pictures feed one",
            "Choose float32, float16 or dynamic, which need no calibration.",
        )
    litert = require("ai_edge_litert.interpreter", INSTALL)
    with translate(BuildError, f"{file.path.name} can't be calibrated"):
        interpreter = litert.Interpreter(
            model_content=file.path.read_bytes(),
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        (detail,) = interpreter.get_input_details()
        size = batch_of(file)
        if tuple(detail["shape"]) != (size, *tensors.shape[1:]):
            interpreter.resize_tensor_input(detail["index"], (size, *tensors.shape[1:]), strict=True)
        interpreter.allocate_tensors()
        indices = [
            index for index, tensor in enumerate(file.tensors) if tensor.dtype == "float32" and not tensor.stored
        ]
        for call in _calls(tensors, size):
            interpreter.set_tensor(detail["index"], call)
            if file.stateful:
                interpreter.reset_all_variables()
            interpreter.invoke()
            values: dict[str, Array] = {}
            for index in indices:
                try:
                    value = interpreter.get_tensor(index)
                except ValueError:  # Nothing computes it.
                    continue
                if value.size:
                    values[file.tensors[index].name] = value
            yield values


def _answers(source: Model, names: list[str], tensors: Array, size: int) -> Iterator[dict[str, Array]]:
    """Yield values of an ONNX network, those of them that it has, for one call after another."""
    runtime = require("onnxruntime", "pip install onnxruntime")
    proto = load.read(source.path).proto
    computed = [
        *(value.name for value in load.inputs(proto.graph)),
        *(name for node in proto.graph.node for name in node.output),
    ]
    shown = [name for name in names if name in set(computed)]
    exposed = graph.expose(source, shown, source.path.with_name("exposed.onnx"))
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with translate(BuildError, f"{source.path.name}: ONNX Runtime can't show its values"):
        session = runtime.InferenceSession(str(exposed.path), settings, providers=["CPUExecutionProvider"])
        (taken,) = session.get_inputs()
        for call in _calls(tensors, size):
            answers = zip(shown, session.run(shown, {taken.name: call}), strict=True)
            yield {name: value for name, value in answers if value.dtype == np.float32 and value.size}


def _calls(tensors: Array, size: int) -> Iterator[Array]:
    """Cut pictures into calls of `size`, the last filled up with repeats."""
    for start in range(0, len(tensors), size):
        call = tensors[start : start + size]
        yield np.concatenate([call, np.repeat(call[-1:], size - len(call), axis=0)]) if len(call) < size else call


def _fingerprints(calls: Iterator[dict[str, Array]]) -> dict[str, tuple[int, Fingerprint]]:
    """Return each value's size and fingerprint."""
    sizes: dict[str, int] = {}
    prints: dict[str, list[list[float]]] = {}
    for values in calls:
        for name, value in values.items():
            exact = value.astype(np.float64)
            sizes[name] = value.size
            prints.setdefault(name, []).append(
                [exact.min(), exact.max(), exact.mean(), float(np.sqrt(np.mean(exact * exact)))]
            )
    return {name: (sizes[name], np.array(rows)) for name, rows in prints.items()}


def _distance(first: Fingerprint, second: Fingerprint) -> float:
    """Return the largest difference between two fingerprints, as a share of the largest value; inf where one is not
    finite."""
    if first.shape != second.shape or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return float("inf")
    largest = max(float(np.abs(first).max()), float(np.abs(second).max()))
    return float(np.abs(first - second).max()) / largest if largest else 0.0

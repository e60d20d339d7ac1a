"""A cell of docs/support.md, in a process of its own: a network converted for a target as `plimsoll convert` does it,
and its answers to photographs held against ONNX Runtime's.

`run` is a job for `plimsoll.system.subprocesses`. The reference is a bare ONNX Runtime session over the source's file:
nothing of Plimsoll's takes part but the input steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.runner import Runner
from plimsoll.cli.convert import convert
from plimsoll.core.deviation import RunningDeviation
from plimsoll.core.target import Target
from plimsoll.errors import PlimsollError
from plimsoll.inference.predictor import open_model
from plimsoll.preprocessing import Preprocessor
from plimsoll.prove.run import comparer_for
from plimsoll.spec import Spec
from plimsoll.spec import files as spec_files
from plimsoll.tasks import decoder

Answers = dict[str, NDArray[Any]]
"""Output → `[pictures, …]`."""


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Do what the payload's `action` says: `reference` writes the reference's answers, `cells` judges targets."""
    return reference(**payload) if payload.pop("action") == "reference" else cells(**payload)


def reference(network: str, spec: str, photos: Sequence[str], answers: str) -> dict[str, Any]:
    """Write ONNX Runtime's float32 answers to the photographs to the .npz file `answers`."""
    import onnxruntime

    contract = spec_files.read(Path(spec))
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    name = contract.input.tensor or session.get_inputs()[0].name
    outputs = [output.name for output in session.get_outputs()]
    rows = [
        dict(zip(outputs, session.run(outputs, {name: tensor[None]}), strict=True))
        for tensor in tensors(contract, photos)
    ]
    np.savez(answers, **stacked(rows))  # type: ignore[arg-type]  # its first parameter is a flag
    return {"outputs": {output: list(row.shape) for output, row in rows[0].items()}}


def cells(bundles: dict[str, str], **given: Any) -> dict[str, Any]:
    """Judge targets one after another; `bundles` says where the bundle of each is written."""
    return {target: cell(target=target, bundle=bundle, **given) for target, bundle in bundles.items()}


def cell(
    network: str, spec: str, target: str, photos: Sequence[str], calibration: Sequence[str], answers: str, bundle: str
) -> dict[str, Any]:
    """Convert and judge. Returns `refused` with the message that the user reads, or `decibels`: a column of the
    network's answers → its signal to noise."""
    started = time.perf_counter()
    try:
        convert(network, Target.parse(target), Path(bundle), Path(spec), list(calibration), force=True)
        seconds = time.perf_counter() - started
        with open_model(bundle) as opened, Runner.open(opened.model, opened.target) as runner:
            rows = [runner.infer(tensor[None]) for tensor in tensors(opened.model.require_spec(), photos)]
    except PlimsollError as error:
        return {"refused": f"{type(error).__name__}: {error.message.rstrip('.')}. {error.hint}".strip()}
    contract, given = spec_files.read(Path(spec)), stacked(rows)
    with np.load(answers) as stored:
        expected = dict(stored)
    return {
        "decibels": decibels(contract, expected, given),
        "answers": decoded(contract, expected, given),
        "seconds": seconds,
    }


def tensors(spec: Spec, photos: Sequence[str]) -> list[NDArray[Any]]:
    """Return what the network reads of each photograph, without a batch axis."""
    preprocess = Preprocessor(spec.input)
    return [preprocess(Path(photo)) for photo in photos]


def stacked(rows: Sequence[Answers]) -> Answers:
    """Return answers picture by picture, whatever the outputs' first axis means."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def decibels(spec: Spec, reference: Answers, answers: Answers) -> dict[str, float]:
    """Return the signal to noise of each column, over all photographs; minus infinity where shapes or finite values
    differ."""
    if len(reference) != len(answers):
        return {"outputs": float("-inf")}
    if reference.keys() != answers.keys():  # A runtime's file may rename outputs; it keeps their order.
        answers = dict(zip(reference, answers.values(), strict=True))
    reference = {name: _alike(values, answers[name]) for name, values in reference.items()}
    if any(values.shape != answers[name].shape for name, values in reference.items()):
        return {name: float("-inf") for name, values in reference.items() if values.shape != answers[name].shape}
    task = decoder(spec)
    signals, others = task.columns(batch(reference)), task.columns(batch(answers))
    loudest: dict[str, float] = {}
    for name, values in signals.items():
        loudest[siblings(name)] = max(loudest.get(siblings(name), 0.0), root_mean_square(values))
    result = {}
    for name, values in signals.items():
        running = RunningDeviation()
        running.add(values, others[name])
        deviation, own = running.deviation, root_mean_square(values)
        gain = 20 * math.log10(loudest[siblings(name)] / own) if own and deviation.finite else 0.0
        result[name] = deviation.snr_db + gain
    return result


SHOWN = {
    "flips": "flips {:.0%}",
    "box_recall": "recall {:.0%}",
    "miou": "mIoU {:.2f}",
    "nme": "error {:.1%}",
    "text_changes": "texts {:.0%}",
}
"""The figure of each task that the page shows."""


def decoded(spec: Spec, reference: Answers, answers: Answers) -> str:
    """Return in short what became of the decoded answers; nothing for raw outputs, or where none could be lost."""
    compare = comparer_for(spec.output, spec.output, None)
    if compare is None:
        return ""
    if reference.keys() != answers.keys():
        answers = dict(zip(reference, answers.values(), strict=False))
    task, measured, failed = decoder(spec), [], 0
    for index in range(len(next(iter(reference.values())))):
        first = {name: _alike(values, answers[name])[index] for name, values in reference.items()}
        try:
            outputs = (first, {name: values[index] for name, values in answers.items()})
            reference_answer, answer = (task.decode(values, compare.threshold(task))[0] for values in outputs)
            measured.append(compare.measure(reference_answer, answer))
        except PlimsollError:
            failed += 1
    comparison = compare.comparison(measured, failed)
    evidence = comparison.evidence()
    shown = [SHOWN[name].format(evidence[name][0].value) for name in SHOWN if name in evidence]
    if failed:
        shown = [f"{failed} of {comparison.pictures} not answered"]
    return "" if comparison.nothing_compared and not failed else ", ".join(shown)


def siblings(column: str) -> str:
    """Return the name that columns share whose noise is judged against the loudest of them: the scores of a head, since
    the scores of a label that no photograph shows are all but zero, and so are the symbols' where no text is read."""
    output, _, quantity = column.partition(", ")
    return f"{output}, score" if quantity.startswith(("score of", "scores of")) else column


def root_mean_square(values: NDArray[Any]) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _alike(values: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """Return values in the others' shape where axes of one element are all that differs: an answer to one picture is
    `[1, T, C]` or `[T, 1, C]`."""
    same = values.squeeze().shape == others.squeeze().shape
    return values.reshape(others.shape) if same else values


def batch(answers: Answers) -> Answers:
    """Return answers with the pictures as the batch axis, where the network has one."""
    return {
        name: values[:, 0] if values.ndim > 1 and values.shape[1] == 1 else values for name, values in answers.items()
    }

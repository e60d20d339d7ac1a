"""What a worker computes: pictures or tensors in, rows or tensors out; one that fails, fails alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.target import Target
from plimsoll.errors import CheckError, PlimsollError
from plimsoll.inference.predictor import Predictor
from plimsoll.inference.resolve import ResolvedModel, open_model
from plimsoll.preprocessing import ImageGeometry
from plimsoll.serve.messages import Problem
from plimsoll.tasks import Answer
from plimsoll.tasks.segment import Segmentation

Array = NDArray[Any]
Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Prepared:
    """A picture that was read: its tensor, or what is wrong with it."""

    tensor: Array | None
    view: ImageGeometry | None
    """Where the network's input lies in the picture, for answers that hold positions."""
    problem: Problem | None
    seconds: float


@dataclass
class Result:
    """What came of one item: a row, outputs, or a problem."""

    row: Mapping[str, Any] | None = None
    outputs: Outputs | None = None
    problem: Problem | None = None


@dataclass
class Seconds:
    """How long a batch took inside the runtime, and with reading its outputs."""

    infer: float = 0.0
    answer: float = 0.0


@dataclass
class Wanted:
    """A picture of a batch, and in which form its answer is wanted."""

    prepared: Prepared
    raw: bool = False
    """Whether the network's outputs are wanted in place of a row."""
    top: int | None = None
    threshold: float | None = None
    masks: Literal["rle", "png"] = "rle"
    result: Result = field(default_factory=Result)


class ModelExecutor:
    """A model that is open, in the one process that uses it."""

    def __init__(self, opened: ResolvedModel, threads: int, options: Mapping[str, str]) -> None:
        self._opened = opened
        self._predictor = Predictor(opened, options=options, cores=threads)
        self._runner = self._predictor.runner("latency")

    @classmethod
    def open(cls, config: Mapping[str, Any]) -> ModelExecutor:
        """Open the model that a worker was told to own; with `verify`, its golden vectors must pass first. Raises what
        opening it raises."""
        spec = config["spec"]
        opened = open_model(config["model"], Path(spec) if spec else None)
        try:
            if config["target"]:
                opened.target = Target.parse(config["target"])
            if config["preprocessing"]:
                opened.preprocessing = config["preprocessing"]
            if config["verify"]:
                _verify(opened)
            return cls(opened, config["threads"], config["options"])
        except PlimsollError:
            opened.close()
            raise

    def metadata(self) -> dict[str, Any]:
        """Return what the model is; `ModelMetadata.from_dict` reads it."""
        predictor, output = self._predictor, self._predictor.spec.output
        return {
            "spec": predictor.spec.model_dump(mode="json"),
            "task": output.task,
            "labels": list(getattr(output, "labels", ())),
            "positive": getattr(output, "positive", None),
            "threshold": predictor.task.threshold,
            "bands": [band.model_dump(mode="json") for band in getattr(output, "bands", ())],
            "inputs": [asdict(one) for one in self._runner.inputs],
            "outputs": [asdict(one) for one in self._runner.outputs],
            "target": str(predictor.target),
            "preprocessing": predictor.plan.preprocessing,
            "picture_input": predictor.spec.input.tensor or self._runner.inputs[0].name,
            "origin": dict(self._opened.origin or {}),
            "bundle": str(self._opened.bundle.folder) if self._opened.bundle is not None else None,
        }

    def warm_up(self, size: int) -> None:
        """Run empty tensors of a batch size, so that nobody waits for what a runtime does the first time."""
        if any(extent is None for one in self._runner.inputs for extent in one.shape[1:]):
            return
        self._runner.run(
            {
                one.name: np.zeros((size, *(extent or 1 for extent in one.shape[1:])), one.dtype)
                for one in self._runner.inputs
            }
        )

    def prepare(self, data: bytes) -> Prepared:
        """Read a picture and run the input steps; any thread may call."""
        started = time.perf_counter()
        try:
            (tensor, view), problem = self._predictor.prepare(data), None
        except PlimsollError as error:
            tensor, view, problem = None, None, Problem.of(error)
        return Prepared(tensor, view, problem, time.perf_counter() - started)

    def pictures(self, batch: Sequence[Wanted]) -> Seconds:
        """Compute a batch of pictures that were prepared, and put into each what came of it. Tensors of one shape go
        together."""
        took = Seconds()
        groups: dict[tuple[int, ...], list[Wanted]] = {}
        for one in batch:
            if one.prepared.tensor is None:
                one.result.problem = one.prepared.problem
            else:
                groups.setdefault(one.prepared.tensor.shape, []).append(one)
        for group in groups.values():
            _each_alone_if_needed(group, lambda part: self._together(part, took), _fail)
        return took

    def _together(self, group: Sequence[Wanted], took: Seconds) -> None:
        started = time.perf_counter()
        outputs = self._runner.infer(
            np.stack([one.prepared.tensor for one in group if one.prepared.tensor is not None])
        )
        computed = time.perf_counter()
        took.infer += computed - started
        for threshold in {one.threshold for one in group if not one.raw}:
            places = [place for place, one in enumerate(group) if not one.raw and one.threshold == threshold]
            part = outputs if len(places) == len(group) else {name: value[places] for name, value in outputs.items()}
            answers = self._predictor.task.decode(part, threshold, [group[place].prepared.view for place in places])
            for place, answer in zip(places, answers, strict=True):
                group[place].result.row = _row(answer, group[place])
        for place, one in enumerate(group):
            if one.raw:
                one.result.outputs = {name: value[place : place + 1] for name, value in outputs.items()}
        took.answer += time.perf_counter() - computed

    def tensors(self, batch: Sequence[Mapping[str, Array]]) -> tuple[list[Result], Seconds]:
        """Run feeds of the bare network, those of one shape together; returns a result each."""
        took = Seconds()
        results = [Result() for _ in batch]
        groups: dict[object, list[tuple[Mapping[str, Array], Result]]] = {}
        for pair in zip(batch, results, strict=True):
            groups.setdefault(
                tuple((name, value.dtype.str, value.shape[1:]) for name, value in sorted(pair[0].items())), []
            ).append(pair)
        for group in groups.values():
            _each_alone_if_needed(
                group, lambda part: self._run(part, took), lambda pair, problem: setattr(pair[1], "problem", problem)
            )
        return results, took

    def _run(self, group: Sequence[tuple[Mapping[str, Array], Result]], took: Seconds) -> None:
        started = time.perf_counter()
        first = group[0][0]
        feeds = (
            first if len(group) == 1 else {name: np.concatenate([feeds[name] for feeds, _ in group]) for name in first}
        )
        outputs = self._runner.run(feeds)
        took.infer += time.perf_counter() - started
        start = 0
        for own, result in group:
            count = len(next(iter(own.values())))
            result.outputs = {name: value[start : start + count] for name, value in outputs.items()}
            start += count

    def close(self) -> None:
        """Give the session back."""
        self._predictor.close()


_T = TypeVar("_T")


def _each_alone_if_needed(
    group: Sequence[_T], run: Callable[[Sequence[_T]], None], fail: Callable[[_T, Problem], None]
) -> None:
    """Run a group; where that fails, its members one by one, so that one bad input harms nobody else."""
    try:
        run(group)
    except PlimsollError as error:
        if len(group) == 1:
            fail(group[0], Problem.of(error))
            return
        for one in group:
            _each_alone_if_needed([one], run, fail)


def _row(answer: Answer, one: Wanted) -> dict[str, Any]:
    return answer.row(one.top, masks=one.masks) if isinstance(answer, Segmentation) else answer.row(one.top)


def _fail(one: Wanted, problem: Problem) -> None:
    one.result = Result(problem=problem)


def _verify(opened: ResolvedModel) -> None:
    """Raise CheckError where a bundle doesn't answer here as it did where it was packed."""
    if opened.bundle is None:
        return
    from plimsoll.bundle.packing import verify

    report = verify(opened.bundle)
    if not report.passed:
        failed = [
            f"{check.name} {check.measured:.3g} (limit {check.limit:g})" for check in report.checks if not check.passed
        ]
        raise CheckError(f"its golden vectors don't pass here: {'; '.join(failed)}", "`plimsoll verify` shows more.")

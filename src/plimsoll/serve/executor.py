"""`ModelExecutor`: what a worker computes. Pictures or tensors in, rows or tensors out; a bad input fails alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from plimsoll.bundle import CascadeBundle
from plimsoll.core.target import Target
from plimsoll.errors import CheckError, ImageError, InputError, ModelError, PlimsollError
from plimsoll.inference.cascade import CascadePredictor
from plimsoll.inference.cascade_bundle import open_whole, verify_cascade
from plimsoll.inference.frames import Frame, answer_worst
from plimsoll.inference.predictor import Predictor, ResolvedModel, open_model
from plimsoll.preprocessing import ImageGeometry, PixelArray
from plimsoll.report.report import Report
from plimsoll.serve.messages import Problem
from plimsoll.tasks import Answer
from plimsoll.tasks.segment import Segmentation

Array = NDArray[Any]

MAX_FRAMES = 32
"""The most frames of a file that a service answers, whatever the Spec allows: their tensors wait in memory together."""


@dataclass(frozen=True)
class PreparedPicture:
    """A decoded and preprocessed picture: its tensor, or what is wrong with it."""

    tensor: Array | None
    geometry: ImageGeometry | None
    """Where the network's input lies in the picture, for answers that hold positions."""
    problem: Problem | None
    seconds: float
    frames: Sequence[Frame] = ()
    """All frames of a file that has several, where the Spec answers them; `tensor` is the first one's."""


@dataclass
class BatchItem:
    """One item of a batch, and what came of it: a row, outputs, or a problem."""

    row: Mapping[str, Any] | None = None
    outputs: Mapping[str, Array] | None = None
    problem: Problem | None = None

    def fail(self, problem: Problem) -> None:
        """Drop whatever was computed."""
        self.row, self.outputs, self.problem = None, None, problem


@dataclass(kw_only=True)
class PictureItem(BatchItem):
    """A picture, and the form of its answer."""

    prepared: PreparedPicture
    raw: bool = False
    """The network's outputs instead of a row."""
    top: int | None = None
    threshold: float | None = None
    masks: Literal["rle", "png"] = "rle"


@dataclass(kw_only=True)
class TensorItem(BatchItem):
    """Rows of the bare network's inputs."""

    feeds: Mapping[str, Array]


@dataclass
class StageSeconds:
    """How long a batch took in the runtime, and to read its outputs."""

    infer: float = 0.0
    answer: float = 0.0


class ModelExecutor:
    """An open model, in the one process that uses it."""

    def __init__(self, opened: ResolvedModel, threads: int, options: Mapping[str, str]) -> None:
        self._opened = opened
        self._predictor = Predictor(opened, options=options, cores=threads)
        self._runner = self._predictor.runner("latency")

    @classmethod
    def open(cls, config: Mapping[str, Any]) -> ModelExecutor:
        """Open the model of a worker's configuration; with `verify`, its golden vectors must pass first. Raises what
        opening it raises."""
        spec = config["spec"]
        if not spec and (cascade := open_whole(config["model"], config["threads"])) is not None:
            return _CascadeExecutor.of(cascade, config)
        opened = open_model(
            config["model"],
            Path(spec) if spec else None,
            target=Target.parse(config["target"]) if config["target"] else None,
            preprocessing=config["preprocessing"],
            policy=Path(config["policy"]) if config.get("policy") else None,
        )
        try:
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
            "inputs": [asdict(tensor) for tensor in self._runner.inputs],
            "outputs": [asdict(tensor) for tensor in self._runner.outputs],
            "target": str(predictor.target),
            "preprocessing": predictor.preprocessor.preprocessing,
            "picture_input": self._runner.picture_input,
            "origin": dict(self._opened.origin or {}),
            "bundle": str(self._opened.bundle.folder) if self._opened.bundle is not None else None,
        }

    def warm_up(self, size: int) -> None:
        """Run a batch of zeros, so that nobody waits for what a runtime does at the first batch of a size."""
        inputs = self._runner.inputs
        if any(extent is None for tensor in inputs for extent in tensor.shape[1:]):
            return
        self._runner.run(
            {
                tensor.name: np.zeros((size, *(extent or 1 for extent in tensor.shape[1:])), tensor.dtype)
                for tensor in inputs
            }
        )

    def prepare(self, data: bytes, size: Sequence[int] | None = None) -> PreparedPicture:
        """Decode and preprocess a picture's file; or preprocess its pixels (RGB), whose height and width are `size`.
        Any thread may call."""
        started = time.perf_counter()
        try:
            frames = self._frames(data) if self._predictor.task.answers_frames and size is None else ()
            source = data if size is None else PixelArray(np.frombuffer(data, np.uint8).reshape(*size, 3), "RGB")
            tensor, geometry = frames[0][1:] if frames else self._predictor.prepare(source)
        except PlimsollError as error:
            return PreparedPicture(None, None, Problem.of(error), time.perf_counter() - started)
        return PreparedPicture(tensor, geometry, None, time.perf_counter() - started, frames)

    def _frames(self, data: bytes) -> Sequence[Frame]:
        frames = [*islice(self._predictor.frames(data), MAX_FRAMES + 1)]
        if len(frames) > MAX_FRAMES:
            raise ImageError(
                f"more than {MAX_FRAMES} frames: a service answers no more of one file",
                "Send fewer, or serve a Spec with frames = 'every n' in its decode step.",
            )
        return frames

    def run_pictures(self, batch: Sequence[PictureItem]) -> StageSeconds:
        """Compute prepared pictures, those of one shape together."""
        seconds = StageSeconds()
        groups: dict[tuple[int, ...], list[PictureItem]] = {}
        for item in batch:
            if item.prepared.tensor is None:
                item.problem = item.prepared.problem
            elif len(item.prepared.frames) > 1:
                _run_or_split([item], lambda items: self._run_frames(items[0], seconds))
            else:
                groups.setdefault(item.prepared.tensor.shape, []).append(item)
        for group in groups.values():
            for part in [group] if self._runner.batches else [[item] for item in group]:
                _run_or_split(part, lambda items: self._run_pictures(items, seconds))
        return seconds

    def _run_pictures(self, group: Sequence[PictureItem], seconds: StageSeconds) -> None:
        started = time.perf_counter()
        outputs = self._runner.infer(
            np.stack([item.prepared.tensor for item in group if item.prepared.tensor is not None])
        )
        inferred = time.perf_counter()
        seconds.infer += inferred - started
        for threshold in {item.threshold for item in group if not item.raw}:
            rows = [row for row, item in enumerate(group) if not item.raw and item.threshold == threshold]
            part = outputs if len(rows) == len(group) else {name: value[rows] for name, value in outputs.items()}
            answers = self._predictor.task.decode(part, threshold, [group[row].prepared.geometry for row in rows])
            for row, answer in zip(rows, answers, strict=True):
                group[row].row = _row(answer, group[row])
        for row, item in enumerate(group):
            if item.raw:
                item.outputs = {name: value[row : row + 1] for name, value in outputs.items()}
        seconds.answer += time.perf_counter() - inferred

    def _run_frames(self, item: PictureItem, seconds: StageSeconds) -> None:
        """Answer a file by the worst of its frames."""
        if item.raw:
            raise InputError(
                f"{len(item.prepared.frames)} frames have no outputs in common",
                "Send one frame, or ask /v1/predict, which answers by the worst frame.",
            )
        started = time.perf_counter()
        worst = answer_worst(
            item.prepared.frames,
            self._runner.infer,
            self._predictor.task,
            item.threshold,
            batches=self._runner.batches,
        )
        item.row = {**_row(worst.answer, item), "frame": worst.frame, "frames": worst.frames}
        seconds.infer += time.perf_counter() - started

    def run_tensors(self, batch: Sequence[TensorItem]) -> StageSeconds:
        """Run feeds of the bare network, those of one shape together."""
        seconds = StageSeconds()
        groups: dict[object, list[TensorItem]] = {}
        for item in batch:
            key = tuple((name, value.dtype.str, value.shape[1:]) for name, value in sorted(item.feeds.items()))
            groups.setdefault(key, []).append(item)
        for group in groups.values():
            for part in [group] if self._runner.batches else [[item] for item in group]:
                _run_or_split(part, lambda items: self._run_tensors(items, seconds))
        return seconds

    def _run_tensors(self, group: Sequence[TensorItem], seconds: StageSeconds) -> None:
        started = time.perf_counter()
        first = group[0].feeds
        feeds = (
            first if len(group) == 1 else {name: np.concatenate([item.feeds[name] for item in group]) for name in first}
        )
        outputs = self._runner.run(feeds)
        seconds.infer += time.perf_counter() - started
        start = 0
        for item in group:
            count = len(next(iter(item.feeds.values())))
            item.outputs = {name: value[start : start + count] for name, value in outputs.items()}
            start += count

    def close(self) -> None:
        """Release the session."""
        self._predictor.close()


class _CascadeExecutor(ModelExecutor):
    """An open cascade: pictures in, rows out; it has no tensors of its own."""

    _predictor: CascadePredictor

    def __init__(self, predictor: CascadePredictor) -> None:
        self._opened, self._predictor = predictor.opened, predictor
        self._runner = predictor.runner("throughput")

    @classmethod
    def of(cls, predictor: CascadePredictor, config: Mapping[str, Any]) -> Self:
        """Take an open cascade; with `verify`, the golden vectors of its bundle must pass first."""
        try:
            if config["target"] or config["preprocessing"] or config["options"] or config.get("policy"):
                raise InputError("a cascade's networks have their own targets and settings", "Give none.")
            if config["verify"] and Path(config["model"]).exists() and not config["model"].endswith(".toml"):
                with CascadeBundle.open(Path(config["model"])) as bundle:
                    _require_passed(verify_cascade(bundle))
            return cls(predictor)
        except PlimsollError:
            predictor.close()
            raise

    def metadata(self) -> dict[str, Any]:
        targets = dict.fromkeys(str(network.target) for network in self._predictor.networks)
        bundle = str(self._predictor.folder) if self._predictor.folder is not None else None
        whole = {"target": ", ".join(targets), "origin": self._predictor.origin, "bundle": bundle}
        return super().metadata() | {"inputs": [], "outputs": [], **whole}

    def warm_up(self, size: int) -> None:
        """Do nothing: its networks read one picture at a time."""
        del size

    def prepare(self, data: bytes, size: Sequence[int] | None = None) -> PreparedPicture:
        """Return the file's bytes, or the pixels: what each network reads follows from the one before."""
        given = np.frombuffer(data, np.uint8)
        return PreparedPicture(given if size is None else given.reshape(*size, 3), None, None, 0.0)

    def run_pictures(self, batch: Sequence[PictureItem]) -> StageSeconds:
        started = time.perf_counter()
        for item in batch:
            try:
                if item.raw or item.prepared.tensor is None:
                    raise InputError(_NO_TENSORS, "Ask /v1/predict for its answers.")
                given = item.prepared.tensor
                picture = given.tobytes() if given.ndim == 1 else PixelArray(given, "RGB")
                answer = self._predictor.predict(picture, threshold=item.threshold)
                item.row = _row(answer, item)
            except PlimsollError as error:
                item.fail(_problem(error))
        return StageSeconds(infer=time.perf_counter() - started)

    def run_tensors(self, batch: Sequence[TensorItem]) -> StageSeconds:
        for item in batch:
            item.fail(Problem.of(InputError(_NO_TENSORS, "Send pictures, or serve one of its networks.")))
        return StageSeconds()


_NO_TENSORS = "a cascade of networks has no input or output tensors of its own"
_Item = TypeVar("_Item", bound=BatchItem)


def _run_or_split(group: Sequence[_Item], run: Callable[[Sequence[_Item]], None]) -> None:
    """Run a group; where that fails, its members one by one, so that one bad input harms no other."""
    try:
        run(group)
    except PlimsollError as error:
        if len(group) == 1:
            group[0].fail(_problem(error))
            return
        for item in group:
            _run_or_split([item], run)


def _problem(error: PlimsollError) -> Problem:
    problem = Problem.of(error)
    if isinstance(error, ModelError):  # such as scores that are NaN: no fault of who sent the picture
        return replace(problem, kind="failed", status=500)
    return problem


def _row(answer: Answer, item: PictureItem) -> dict[str, Any]:
    return answer.row(item.top, masks=item.masks) if isinstance(answer, Segmentation) else answer.row(item.top)


def _verify(opened: ResolvedModel) -> None:
    """Raise CheckError where a bundle doesn't answer here as it did where it was packed."""
    if opened.bundle is None:
        return
    from plimsoll.bundle.golden import verify

    _require_passed(verify(opened.bundle))


def _require_passed(report: Report) -> None:
    if not report.passed:
        failed = [
            f"{check.name} {check.judged:.3g} (limit {check.limit:g})" for check in report.checks if not check.passed
        ]
        raise CheckError(
            f"the bundle's golden vectors do not pass on this machine: {'; '.join(failed)}",
            "`plimsoll verify` shows the details.",
        )

"""The jobs of a `ship`, each of which runs in a process of its own: answer pictures with a candidate, measure it,
compare its layers.

A job is a model that says what to do, its result one that says what was found; `plimsoll.ship.job_runner` runs them.
Those that prepare what candidates are built from are in `plimsoll.ship.preparation`.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from plimsoll import backends
from plimsoll.benchmark import BenchmarkResult, Offline, SingleStream, SystemUnderTest, bench, profile
from plimsoll.core.model import Model, ModelRecord
from plimsoll.errors import ImageError, PlimsollError
from plimsoll.inference.cascade import CascadePredictor
from plimsoll.inference.cascade_spec import CascadeSpec
from plimsoll.inference.drawing import thumbnail
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.preprocessing import Preprocessor
from plimsoll.prove import compare_layers
from plimsoll.prove.comparison import Comparer
from plimsoll.prove.run import comparer_for
from plimsoll.prove.tensors import TensorComparer
from plimsoll.report.measurements import Figure, Measurements, ResultModel, Speed
from plimsoll.report.ship_result import LayerSnr, Objective, StageTimes
from plimsoll.report.trial import Candidate
from plimsoll.ship import build
from plimsoll.ship.build import Artifacts
from plimsoll.ship.config import REFERENCE
from plimsoll.system import host

_BATCH = 8
_LAYER_PICTURES = 8
_PROFILE_TURNS = 3
_DRAWN_SIDE = 480
DRAWN_COLOURS = ((40, 120, 255), (255, 140, 0))
"""The reference's answers are blue, those of what ships orange, drawn on top: where both agree, orange is seen."""


class JobContext(BaseModel):
    """What all jobs know: the network, where what is built of it is stored, and how speed is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: ModelRecord
    built: Path
    artifacts: Artifacts = Artifacts()
    objective: Objective = "throughput"
    cores: int = Field(default_factory=host.cores)
    cascade: CascadeSpec | None = None
    stages: tuple[JobContext, ...] = ()
    """Of a cascade: the contexts of its networks; `network` is the first, with the whole's Spec."""

    @classmethod
    def of(
        cls, model: Model, built: Path, artifacts: Artifacts | None = None, objective: Objective = "throughput"
    ) -> Self:
        """Return the context of jobs about this network."""
        return cls(
            network=ModelRecord.of(model),
            built=built,
            artifacts=artifacts or Artifacts(),
            objective=objective,
        )

    @property
    def model(self) -> Model:
        """The trained network."""
        return self.network.model

    def calibration_file(self, name: str) -> Path:
        """Return where a table or tensors of that name go."""
        folder = self.built / "calibration"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def predictor(self, candidate: Candidate) -> Predictor:
        """Open a candidate, building its networks if need be."""
        if self.cascade is None:
            return Predictor(self.resolved(candidate), cores=self.cores)
        candidates = candidate.stages or (REFERENCE,) * len(self.stages)
        opened = [stage.resolved(own) for stage, own in zip(self.stages, candidates, strict=True)]
        return CascadePredictor(self.cascade, opened, cores=self.cores)

    def resolved(self, candidate: Candidate) -> ResolvedModel:
        """Return a candidate of a single network, built if need be."""
        network = build.network(self.model, candidate, self.built, self.artifacts)
        return ResolvedModel(network, candidate.target, candidate.preprocessing)

    def bench(self, systems: Sequence[SystemUnderTest], pictures: Sequence[str], seconds: float) -> BenchmarkResult:
        """Measure in turns what the objective asks for."""
        scenario = SingleStream() if self.objective == "latency" else Offline()
        return bench(systems, pictures, scenario=scenario, min_seconds=seconds)


Result = TypeVar("Result", bound=BaseModel)


class Job(BaseModel, Generic[Result]):
    """What to do; each kind has a model of its own, and so has its result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    result_model: ClassVar[type[Any]]

    @abstractmethod
    def run(self, context: JobContext) -> Result:
        """Do it."""

    def read_result(self, data: dict[str, Any]) -> Result:
        """Return what was found from plain data; raises ValidationError."""
        result: Result = self.result_model.model_validate(data)
        return result


class Answer(ResultModel):
    """A candidate's answer to one picture."""

    path: str
    answer: JsonValue = None
    """As the task's `Comparer` dumps it; None where there is none."""
    error: str | None = None
    """Why there is no answer."""


class Answers(ResultModel):
    """The answers to some pictures, in their order."""

    answers: tuple[Answer, ...]


class AnswerJob(Job[Answers]):
    """Answer pictures with a candidate."""

    result_model = Answers

    kind: Literal["answer"] = "answer"
    candidate: Candidate
    pictures: tuple[str, ...]
    labelled: bool = False
    """Whether the answers are also compared with labels."""

    def run(self, context: JobContext) -> Answers:
        with context.predictor(self.candidate) as predictor:
            comparer = comparer_of(context.model, labelled=self.labelled)
            return Answers(answers=_answers(predictor, self.pictures, comparer))


class TryResult(Answers):
    """A candidate's answers, and what was measured of it."""

    measured: Measurements


class TryJob(Job[TryResult]):
    """Build a candidate, answer pictures with it, and measure it in turns with the reference."""

    result_model = TryResult

    kind: Literal["try"] = "try"
    candidate: Candidate
    pictures: tuple[str, ...]
    seconds: float
    labelled: bool = False

    def run(self, context: JobContext) -> TryResult:
        name = self.candidate.key
        started = time.perf_counter()
        with context.predictor(self.candidate) as predictor:
            built = time.perf_counter()
            predictor.runner("throughput")
            loaded = time.perf_counter()
            answers = _answers(predictor, self.pictures, comparer_of(context.model, labelled=self.labelled))
            peak = host.peak_bytes()  # Before the reference is in memory too.
            system = SystemUnderTest(name, predictor)
            profiled = profile(system, self.pictures, min_seconds=self.seconds / 8)
            with context.predictor(REFERENCE) as reference:
                systems = SystemUnderTest("reference", reference), system
                result = context.bench(systems, self.pictures, self.seconds)
            measured = Measurements(
                speed=_speeds(result)[name],
                size_bytes=predictor.size,
                build_seconds=built - started,
                load_seconds=loaded - built,
                peak_bytes=peak if peak is not None else math.nan,
                stages={stage.name: 1e3 * stage.seconds for stage in profiled.stages},
                infinite_network_images_per_second=profiled.infinite_network_rate,
            )
            return TryResult(answers=answers, measured=measured)


class FinalBenchmark(ResultModel):
    """Key of a candidate → its speed."""

    speeds: dict[str, Speed]
    warnings: tuple[str, ...]


class FinalBenchmarkJob(Job[FinalBenchmark]):
    """Measure the reference and the finalists against one another, in turns."""

    result_model = FinalBenchmark

    kind: Literal["final_benchmark"] = "final_benchmark"
    candidates: tuple[Candidate, ...]
    pictures: tuple[str, ...]
    seconds: float

    def run(self, context: JobContext) -> FinalBenchmark:
        with ExitStack() as stack:
            systems = [SystemUnderTest("reference", stack.enter_context(context.predictor(REFERENCE)))]
            for candidate in self.candidates:
                systems.append(SystemUnderTest(candidate.key, stack.enter_context(context.predictor(candidate))))
            result = context.bench(systems, self.pictures, self.seconds)
        return FinalBenchmark(speeds=_speeds(result), warnings=tuple(result.warnings))


class StageProfile(ResultModel):
    """Where the time of a picture goes."""

    stages: StageTimes
    infinite_network_images_per_second: Figure


class ProfileJob(Job[StageProfile]):
    """Measure the stages of the reference and of a candidate in turns; what counts is the median of three."""

    result_model = StageProfile

    kind: Literal["profile"] = "profile"
    candidate: Candidate
    pictures: tuple[str, ...]
    seconds: float

    def run(self, context: JobContext) -> StageProfile:
        with context.predictor(REFERENCE) as reference, context.predictor(self.candidate) as winner:
            systems = SystemUnderTest("reference", reference), SystemUnderTest("winner", winner)
            turns = [
                [profile(system, self.pictures, min_seconds=self.seconds / 8) for system in systems]
                for _ in range(_PROFILE_TURNS)
            ]
        reference_stages, winner_stages = (
            {
                stage.name: 1e3 * median(turn[side].stages[index].seconds for turn in turns)
                for index, stage in enumerate(turns[0][side].stages)
            }
            for side in (0, 1)
        )
        return StageProfile(
            stages=StageTimes(reference=reference_stages, winner=winner_stages),
            infinite_network_images_per_second=median(winner.infinite_network_rate for _, winner in turns),
        )


class DrawnPictures(ResultModel):
    """Small JPEG files as data URIs, one a picture; empty for one that can't be shown."""

    thumbnails: tuple[str, ...]


class DrawJob(Job[DrawnPictures]):
    """Draw the reference's answers and a candidate's on pictures, each in its own colour."""

    result_model = DrawnPictures

    kind: Literal["draw"] = "draw"
    candidate: Candidate
    pictures: tuple[str, ...]

    def run(self, context: JobContext) -> DrawnPictures:
        with context.predictor(REFERENCE) as reference, context.predictor(self.candidate) as winner:
            return DrawnPictures(thumbnails=tuple(_drawn(path, (reference, winner)) for path in self.pictures))


def _drawn(path: str, predictors: Sequence[Predictor]) -> str:
    """Draw both answers on a picture; one without an answer draws nothing: the report says why."""
    answers = []
    for predictor, colour in zip(predictors, DRAWN_COLOURS, strict=True):
        with suppress(PlimsollError):
            answers.append((predictor.predict(Path(path)), colour))
    return thumbnail(path, predictors[0].spec.input.decode, answers, _DRAWN_SIDE)


class LayerComparison(ResultModel):
    """The values that both networks compute, in the order in which they are computed."""

    layers: tuple[LayerSnr, ...]


class CompareLayersJob(Job[LayerComparison]):
    """Compare every value that a candidate's unfolded network shares with the reference's; none where it is the
    same."""

    result_model = LayerComparison

    kind: Literal["compare_layers"] = "compare_layers"
    candidate: Candidate
    pictures: tuple[str, ...]

    def run(self, context: JobContext) -> LayerComparison:
        model, target = context.model, self.candidate.target
        if backends.get(target.runtime).onnx_form(target) == "float32":
            return LayerComparison(layers=())
        unfolded = replace(self.candidate, folded=False)
        other = build.onnx_network(model, unfolded, context.built, context.artifacts)
        pairs = ((batch, batch) for batch in batches(model, self.pictures[:_LAYER_PICTURES]))
        compared = compare_layers(model, other, pairs)
        return LayerComparison(
            layers=tuple(LayerSnr(name=layer.name, operator=layer.operator, snr_db=layer.snr_db) for layer in compared)
        )


def _speeds(result: BenchmarkResult) -> dict[str, Speed]:
    """Return the speed of every system but the first, relative to the first."""
    rates = {measured.name: measured.rate.median for measured in result.systems}
    return {
        comparison.candidate: Speed(
            ratio=comparison.speed.median,
            low=comparison.speed.low,
            high=comparison.speed.high,
            verdict=comparison.verdict,
            images_per_second=rates[comparison.candidate],
            measured_images_per_second=rates[comparison.candidate],
            reference_images_per_second=result.systems[0].rate.median,
        )
        for comparison in result.comparisons
    }


def comparer_of(model: Model, *, labelled: bool = False) -> Comparer:
    """Return what compares two answers of the model's task, with labels where there are some."""
    output = model.require_spec().output
    return comparer_for(output, output, labelled=labelled) or TensorComparer()


def _answers(predictor: Predictor, pictures: Sequence[str], comparer: Comparer) -> tuple[Answer, ...]:
    return tuple(
        Answer(
            path=prediction.path,
            answer=comparer.dump(prediction.answer) if prediction.answer is not None else None,
            error=prediction.error,
        )
        for prediction in predictor.predict_many(pictures, threshold=comparer.threshold(predictor.task))
    )


def batches(model: Model, pictures: Sequence[str]) -> Iterator[NDArray[Any]]:
    """Yield pictures `[N, …]` as the network reads them behind the reference preprocessing, N up to 8; a picture that
    can't be read is left out."""
    preprocessor = Preprocessor(model.require_spec().input, "reference")
    batch: list[NDArray[Any]] = []
    for picture in pictures:
        try:
            batch.append(preprocessor(Path(picture)))
        except ImageError:
            continue
        if len(batch) == _BATCH:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)

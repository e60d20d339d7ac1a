"""`JobRunner`: runs the jobs of a `ship` in processes of their own, stores what they find, and prepares what candidates
are built from; and `convert`, which builds one without a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plimsoll import backends
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import BuildError, InputError, PlimsollError
from plimsoll.report.trial import Candidate
from plimsoll.ship.build import Artifacts
from plimsoll.ship.config import REFERENCE, SearchConfig
from plimsoll.ship.jobs import (
    AnswerJob,
    CompareLayersJob,
    DrawJob,
    FinalBenchmarkJob,
    Job,
    JobContext,
    ProfileJob,
    TryJob,
)
from plimsoll.ship.preparation import (
    CHECKED_PICTURES,
    RANKING_PICTURES,
    AdoptTableJob,
    BuildJob,
    CalibrateJob,
    CheckContractJob,
    CropJob,
    LintJob,
    RankLayersJob,
    WriteTensorsJob,
)
from plimsoll.ship.split import Split
from plimsoll.ship.store import StoredJob, WorkFolder
from plimsoll.ship.strategy import needs_table, needs_tensors
from plimsoll.system import files, host, subprocesses
from plimsoll.system.subprocesses import JobError, ProcessDiedError, ProcessLimits

_RANKING_LIMIT = 5
"""Ranking loads the network once for each layer: it may take so many times as long as a candidate."""
_CANDIDATE_PATIENCE, _PATIENCE = 1 / 180, 1 / 18
"""Which share of its limit a job gets on top for each of its pictures: 1 s of 180 with a candidate, 10 s for what every
search needs, such as the reference's answers."""
_CONVERSION_MEMORY = 0.9
"""The share of the machine's memory that a conversion may use."""

AnyJob = Annotated[
    AnswerJob
    | TryJob
    | FinalBenchmarkJob
    | ProfileJob
    | CompareLayersJob
    | DrawJob
    | CheckContractJob
    | CalibrateJob
    | AdoptTableJob
    | LintJob
    | RankLayersJob
    | WriteTensorsJob
    | BuildJob
    | CropJob,
    Field(discriminator="kind"),
]
Result = TypeVar("Result", bound=BaseModel)


class JobRequest(BaseModel):
    """What a job's process reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: JobContext
    job: AnyJob


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Run the job of a `JobRequest`, in this process; `plimsoll.system.subprocesses` calls it in a process of its
    own."""
    request = JobRequest.model_validate(payload)
    return request.job.run(request.context).model_dump(mode="json")


def run_in_own_process(context: JobContext, job: Job[Result], folder: Path, limits: ProcessLimits) -> Result:
    """Run a job in a process of its own, with its log in `folder`; raises JobError."""
    payload = {"context": context.model_dump(mode="json"), "job": job.model_dump(mode="json")}
    return job.read_result(subprocesses.run_job(__name__, payload, folder, limits))


def convert(
    model: Model, candidate: Candidate, pictures: Sequence[str], folder: Path, table: Path | None = None
) -> Model:
    """Return a candidate's network as its runtime takes it, with all that it is built from in `folder`; built in a
    process of its own, so that a crash of a runtime is an error. Where it crashes while it calibrates, what the
    reference's backend offers after a crash is tried.

    `pictures` calibrate, where the candidate needs that; `table` is used in place of Plimsoll's own calibration. Raises
    InputError where neither is given though one is needed, BuildError, BackendMissingError or ModelError.
    """
    memory = host.memory_bytes()
    limits = ProcessLimits(math.inf, int(memory * _CONVERSION_MEMORY) if memory else None)
    job = BuildJob(
        candidate=candidate,
        pictures=tuple(str(Path(picture).resolve()) for picture in pictures),
        table=table.resolve() if table is not None else None,
    )
    crash: ProcessDiedError | None = None
    calibrates = table is None and needs_table(candidate)
    for number, source in enumerate(_sources(model, folder, calibrates)):
        context = JobContext.of(source, folder / f"built-{number}")
        try:
            return run_in_own_process(context, job, folder / f"job-{number}", limits).model
        except ProcessDiedError as error:
            crash = crash or error
        except JobError as error:
            # The log goes with the folder.
            raise error.__cause__ or BuildError(f"{model.source}: {error.message}") from error
    raise BuildError(
        f"{model.source}: the process that built it for {candidate.target} crashed:"
        f" {crash.message if crash is not None else ''}",
        "A runtime or a converter ended it. Choose another target; `plimsoll targets` lists them.",
    ) from crash


def _sources(model: Model, folder: Path, calibrates: bool) -> Iterator[Model]:
    """Yield the network; and where the reference's runtime calibrates, what is tried once that has crashed."""
    yield model
    if calibrates:
        yield from backends.get(REFERENCE_TARGET.runtime).after_crash(model, REFERENCE_TARGET, folder)


class JobRunner:
    """Runs jobs for one search; knows in `artifacts` what has been prepared so far."""

    def __init__(
        self, model: Model, split: Split, work: WorkFolder, config: SearchConfig, note: Callable[[str], None]
    ) -> None:
        self._model = model
        self._split = split
        self._work = work
        self._config = config
        self._note = note
        memory = config.memory_bytes or host.memory_bytes()
        self._limits = ProcessLimits(config.candidate_seconds, int(memory * 0.75) if memory else None)
        self._linted: set[str] = set()
        self._failed: dict[str, JobError] = {}
        self.progress: Callable[[str], None] = lambda _: None
        """Is told in words what is being done."""
        # Those that calibrated would flatter what is checked.
        self.artifacts = Artifacts(pictures=(split.validation or split.calibration)[:CHECKED_PICTURES])
        self.calibrators = config.calibrators if config.calibration is None else (_table_name(config.calibration),)
        """Plimsoll's calibrators that are tried; for a table that was given, its name."""

    def get_or_run(
        self,
        name: str,
        job: Job[Result],
        activity: str,
        candidates: Collection[Candidate] = (),
        *,
        limits: ProcessLimits | None = None,
        store_failure: bool = False,
    ) -> Result:
        """Return what a job of that name found in an earlier run, or prepare its candidates, run it now and store what
        it finds. `activity` is what to tell the user meanwhile.

        Raises JobError where it fails or failed. A failure is remembered for this run; with `store_failure`, for the
        next ones too.
        """
        stored = self._work.load(name)
        if stored is not None and stored.error:
            raise JobError(stored.error)
        if name in self._failed:
            raise self._failed[name]
        try:
            for candidate in candidates:
                self.prepare(candidate)
            self.progress(activity)
            known = _read(job, stored)
            result = known or self._run(name, job, limits or self._limits_of(job, candidates))
        except PlimsollError as error:
            if store_failure:
                self._work.save(name, error=error.message)
            elif isinstance(error, JobError):
                self._failed[name] = error
            raise
        if known is None:
            self._work.save(name, result)
        return result

    def _limits_of(self, job: Job[Result], candidates: Collection[Candidate]) -> ProcessLimits:
        """A candidate that hangs is soon given up. What every search needs gets longer: a folder of 50 MP pictures on a
        busy machine must not end it."""
        is_needed = all(candidate == REFERENCE for candidate in candidates)
        patience = _PATIENCE if is_needed else _CANDIDATE_PATIENCE
        pictures = getattr(job, "pictures", ())
        return replace(self._limits, seconds=self._limits.seconds * (1 + patience * len(pictures)))

    def _run(self, name: str, job: Job[Result], limits: ProcessLimits) -> Result:
        return run_in_own_process(self.context(), job, self._work.job_folder(name), limits)

    def context(self) -> JobContext:
        """Return what all jobs know now."""
        return JobContext.of(self._model, self._work.built, self.artifacts, self._config.objective)

    def prepare(self, candidate: Candidate) -> None:
        """Prepare what a candidate is built from, where it isn't there yet: tables, tensors, the ranking of the layers;
        raises JobError."""
        if needs_table(candidate):
            self.calibrate()
        self._lint(candidate)
        if needs_tensors(candidate.target):
            self._write_tensors(candidate.folded)
        if candidate.float_layers and candidate.calibrator is not None:
            self._rank_layers(candidate.calibrator)

    def calibrate(self) -> None:
        """Make the tables of all calibrators in one pass, or take the given one; raises JobError."""
        if self.artifacts.tables:
            return
        if self._config.calibration is not None:
            (name,) = self.calibrators
            job = AdoptTableJob(table=self._config.calibration.resolve(), name=name)
            tables = self.get_or_run(name, job, "checking the calibration table").tables
        else:
            pictures = self._split.calibration
            calibrate = CalibrateJob(calibrators=self.calibrators, pictures=pictures)
            name = "calibrate-" + "+".join(self.calibrators)
            tables = self.get_or_run(name, calibrate, f"calibrating on {len(pictures):,} pictures").tables
        self.artifacts = self.artifacts.model_copy(update={"tables": tables})

    def _lint(self, candidate: Candidate) -> None:
        """Note what is likely to go wrong, before the first candidate of its kind is tried."""
        float16 = backends.get(candidate.target.runtime).onnx_form(candidate.target) == "float16"
        kind = "float16" if float16 else candidate.calibrator if needs_table(candidate) else None
        # One of Plimsoll's calibrators stands for all: the findings are about the network and the pictures.
        kind = self.calibrators[0] if kind in self.calibrators else kind
        if kind is None or kind in self._linted:
            return
        self._linted.add(kind)
        try:
            job = LintJob(table=self.artifacts.tables.get(kind), float16=float16)
            lint = self.get_or_run(f"lint-{kind}", job, "checking the network before quantizing")
        except JobError as error:
            self._note(f"the network could not be checked before quantizing: {error.message}")
            return
        for finding in lint.findings:
            self._note(f"before quantizing: {finding}")

    def _write_tensors(self, folded: bool) -> None:
        if folded not in self.artifacts.tensors:
            job = WriteTensorsJob(folded=folded, pictures=self._split.calibration)
            name = f"tensors-{'folded' if folded else 'plain'}"
            file = self.get_or_run(name, job, "writing the tensors that the runtime calibrates with").file
            self.artifacts = self.artifacts.model_copy(update={"tensors": {**self.artifacts.tensors, folded: file}})

    def _rank_layers(self, calibrator: str) -> None:
        """Rank the layers once for a calibrator's table, on pictures that did not calibrate. The order hardly differs
        between runtimes."""
        if calibrator not in self.artifacts.rankings:
            pictures = self._split.validation[:RANKING_PICTURES]
            job = RankLayersJob(table=self.artifacts.tables[calibrator], pictures=pictures)
            limits = ProcessLimits(_RANKING_LIMIT * self._limits.seconds, self._limits.memory_bytes)
            activity = "ranking the layers by the deviation that each causes in int8"
            layers = self.get_or_run(f"rank-{calibrator}", job, activity, limits=limits).layers
            rankings = {**self.artifacts.rankings, calibrator: layers}
            self.artifacts = self.artifacts.model_copy(update={"rankings": rankings})


def _read(job: Job[Result], stored: StoredJob | None) -> Result | None:
    try:
        return job.read_result(stored.result) if stored is not None else None
    except ValidationError:
        return None  # What is stored is not what this version stores.


def _table_name(table: Path) -> str:
    """Name a given table by its content, so that what was found with another one is not taken for its own."""
    try:
        return f"given_{files.sha256(table)[:8]}"
    except OSError as error:
        raise InputError(f"{table}: can't read the calibration table: {error.strerror}") from error

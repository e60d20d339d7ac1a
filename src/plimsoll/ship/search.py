"""`Search`, the main job: build candidate deployments, prove and measure each on the user's images, and pack the
fastest inside the budget."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from plimsoll.core.model import Model
from plimsoll.errors import InputError, PlimsollError
from plimsoll.inference.cascade_spec import CascadeSpec
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.preprocessing import Preprocessing
from plimsoll.prove.classifications import default_thresholds
from plimsoll.prove.labels import Truths, label_of
from plimsoll.report.measurements import Evaluation
from plimsoll.report.reason import Failed, GainTooSmall, IsReference, MissesBudget, Ships
from plimsoll.report.ship_result import (
    BudgetFacts,
    LayerSnr,
    Outcome,
    PictureChange,
    ShipResult,
    SplitCounts,
    StageTimes,
    WorstPicture,
)
from plimsoll.report.trial import Candidate, Trial
from plimsoll.ship import build, results
from plimsoll.ship.config import REFERENCE, SearchConfig
from plimsoll.ship.evaluation import ComparedPicture, Judge
from plimsoll.ship.job_runner import JobRunner
from plimsoll.ship.jobs import (
    Answer,
    AnswerJob,
    CompareLayersJob,
    DrawJob,
    FinalBenchmarkJob,
    ProfileJob,
    StageProfile,
    TryJob,
    TryResult,
)
from plimsoll.ship.preparation import CheckContractJob
from plimsoll.ship.split import Split, check_provable
from plimsoll.ship.store import WorkFolder
from plimsoll.ship.strategy import (
    Reasons,
    explore,
    finalists,
    gain,
    needs_table,
    ranking_of,
    runner_up,
    scaled_sides,
    simplest_first,
    takes_table,
)
from plimsoll.spec.spec import Classify
from plimsoll.system.subprocesses import JobError


@dataclass(frozen=True)
class _Decision:
    """What ships, and its answers to the test part."""

    outcome: Outcome
    winner: Trial
    evaluation: Evaluation
    pictures: Sequence[ComparedPicture]


class Search:
    """One run of `ship`: knows the work folder and what has been found so far."""

    cascade: CascadeSpec | None = None
    """How networks feed each other, where there are several."""

    def __init__(
        self,
        resolved: ResolvedModel,
        split: Split,
        work: WorkFolder,
        config: SearchConfig,
        truths: Truths | None = None,
    ) -> None:
        """Take what is given. `truths`: picture path (absolute) → right answer. Raises InputError for a budget that the
        answers of the task don't have, or that can't be proven on so few pictures."""
        self._judge = Judge(resolved.model, config.budget, truths)
        self.resolved = resolved
        self.split = split
        self.work = work
        self.config = config
        check_provable(config.budget, split, truths)
        self.notes: list[str] = []
        if work.outdated is not None:
            self.notes.append(
                f"{work.outdated} was written by an older version of Plimsoll and is not used; it can be removed"
            )
        self._output = resolved.model.require_spec().output
        self._truths = truths
        self.runner = JobRunner(resolved.model, split, work, config, self.notes.append)
        self._reasons: Reasons = {}
        """Why candidates that were measured don't ship."""
        self.scaled_sides = scaled_sides(resolved.model.require_spec().input, (*split.validation, *split.test))
        """Which pictures scaled preprocessing is proven on, by their shorter sides; None where it isn't tried."""
        # What was measured for one objective says nothing about another.
        self._suffix = "-latency" if config.objective == "latency" else ""
        # A detector's answers are stored with more boxes where they are compared with labels.
        self._labelled = bool(truths) and not isinstance(self._output, Classify)
        self._suffix += "-labelled" * self._labelled

    def run(
        self, watch: Callable[[Trial], None] = lambda _: None, progress: Callable[[str], None] = lambda _: None
    ) -> ShipResult:
        """Try candidates, measure the best against one another, test them, and return all that was found. `watch` gets
        each trial as soon as it is known, `progress` what is being done, in words.

        Raises JobError where even the reference can't answer, InputError for a calibration table that doesn't fit.
        """
        started = time.monotonic()
        self.runner.progress = progress
        self._check_table()
        self._check_contract()
        trials = []
        for trial in self.trials(started + self.config.search_seconds):
            trials.append(trial)
            watch(trial)
        reference = self._measure_reference(trials)
        trials, best_first = self._final_benchmark(trials)
        decision = self._test(best_first, reference)
        profile = self._profile(decision.winner, reference)
        layers = self._layers(decision.winner.candidate)
        if self.scaled_sides is not None and decision.winner.candidate.preprocessing == "scaled":
            self.notes.append(
                "scaled preprocessing was proven on pictures whose shorter side has"
                f" {self.scaled_sides[0]:,} to {self.scaled_sides[1]:,} pixels; all others are prepared as in fast"
            )
        trials = [self._with_reason(trial) for trial in trials]
        return self._result(trials, reference, decision).model_copy(
            update={
                "layers": layers,
                "stages": profile.stages,
                "infinite_network_images_per_second": profile.infinite_network_images_per_second,
                "notes": tuple(dict.fromkeys(self.notes)),
                "seconds": time.monotonic() - started,
            }
        )

    def trials(self, deadline: float) -> Iterator[Trial]:
        """Answer the pictures with the reference, then yield what comes of candidates, until `deadline` on
        `time.monotonic`."""
        self._answer_with_reference()
        preprocessing: Preprocessing = "fast" if self.scaled_sides is None else "scaled"
        seconds = max(0.0, deadline - time.monotonic())
        yield from explore(self.config.targets, self.runner.calibrators, self.try_candidate, seconds, preprocessing)

    def _answer_with_reference(self) -> None:
        pictures = (*self.split.validation, *self.split.test)
        activity = f"answering {len(pictures):,} pictures with the reference"
        answers = self._answers("reference", REFERENCE, pictures, activity)
        self._judge.reference = {answer.path: answer for answer in answers}

    def _result(self, tried: Sequence[Trial], reference: Trial, decision: _Decision) -> ShipResult:
        split = self.split
        trials = results.final_trials(tried, reference, decision.winner)
        scores = results.picture_scores(self._output, decision.pictures)
        changes = () if scores else self._judge.changes(decision.pictures)
        classify = self._output if isinstance(self._output, Classify) else None
        return ShipResult(
            winner=decision.winner.key,
            reference=reference.key,
            outcome=decision.outcome,
            objective=self.config.objective,
            split=SplitCounts(
                calibration=len(split.calibration),
                validation=len(split.validation),
                test=len(split.test),
                unreadable=len(split.unreadable),
                duplicates=split.duplicates,
            ),
            budget=BudgetFacts.of(self.config.budget),
            trials=trials,
            test=decision.evaluation,
            symbols=results.symbols(trials),
            scores=scores,
            changes=changes,
            worst=results.worst_pictures(scores) or self._drawn(decision.winner, results.most_changed(changes)),
            thresholds=default_thresholds(classify) if classify else (),
            score_label=(classify.positive if classify else None) or "score",
        )

    def network(self, candidate: Candidate) -> Model:
        """Return a candidate's network, built now if it isn't stored; raises JobError or what `build.network`
        raises."""
        self.runner.prepare(candidate)
        return build.network(self.resolved.model, candidate, self.work.built, self.runner.artifacts)

    def deployments(self, candidate: Candidate) -> tuple[ResolvedModel, ...]:
        """Return a candidate as it ships, of a cascade each network; raises as `network` does."""
        sides = self.scaled_sides if candidate.preprocessing == "scaled" else None
        network, origin = self.network(candidate), self.resolved.origin
        return (ResolvedModel(network, candidate.target, candidate.preprocessing, sides, origin),)

    def table(self, candidate: Candidate) -> Path | None:
        """Return the calibration table that a candidate is built from; None where it needs none."""
        if not needs_table(candidate):
            return None
        self.runner.prepare(candidate)
        return self.runner.artifacts.table(candidate)

    def try_candidate(self, candidate: Candidate) -> Trial:
        """Return what comes of a candidate: as an earlier run stored it, or as its process finds it now."""
        job, name = self._try_job(candidate), f"try-{candidate.key}{self._suffix}"
        try:
            result = self.runner.get_or_run(name, job, f"trying {candidate.name}", [candidate], store_failure=True)
        except PlimsollError as error:
            return Trial(candidate=candidate, status="failed", reason=Failed(message=error.message))
        return self._trial(candidate, result)

    def _try_job(self, candidate: Candidate) -> TryJob:
        pictures, seconds = self.split.validation, self.config.measure_seconds
        return TryJob(candidate=candidate, pictures=pictures, seconds=seconds, labelled=self._labelled)

    def _trial(self, candidate: Candidate, result: TryResult) -> Trial:
        evaluation = self._judge.validate(results.renamed(result.answers, self.split.validation))
        return Trial(
            candidate=candidate,
            status="ok",
            passed=evaluation.passed,
            reason=None if evaluation.passed else MissesBudget(part="validation", checks=evaluation.failed_checks),
            measured=result.measured,
            validation=evaluation,
        )

    def _check_table(self) -> None:
        """Check a given calibration table before anything is tried with it."""
        if self.config.calibration is None:
            return
        if not any(takes_table(target) for target in self.config.targets):
            raise InputError(
                f"none of the targets uses a calibration table: {', '.join(map(str, self.config.targets))}",
                "Leave --calibration out, or add a target for int8.",
            )
        try:
            self.runner.calibrate()
        except JobError as error:
            raise InputError(f"the calibration table can't be used: {error.message}", error.hint) from error

    def _check_contract(self) -> None:
        """Check on the labelled pictures that the network is right as often as it should be, before anything is tried
        with it."""
        if not self._truths:
            return
        pictures = (*self.split.validation, *self.split.test)
        labels = {
            str(Path(path).resolve()): label for path in pictures if (label := label_of(self._truths, path)) is not None
        }
        job = CheckContractJob(pictures=pictures, labels=dict(sorted(labels.items())))
        digest = hashlib.sha256(job.model_dump_json(include={"labels"}).encode()).hexdigest()[:16]
        contract = self.runner.get_or_run(f"contract-{digest}", job, "checking the accuracy on the labelled pictures")
        if not contract.problem:
            return
        if not self.config.accept_accuracy:
            raise InputError(
                contract.problem,
                "Nothing was shipped. Mend the Spec or the labels, or ship nevertheless with --accept-accuracy.",
            )
        self.notes.append(f"shipped nevertheless: {contract.problem}")

    def _answers(self, name: str, candidate: Candidate, pictures: tuple[str, ...], activity: str) -> list[Answer]:
        job = AnswerJob(candidate=candidate, pictures=pictures, labelled=self._labelled)
        name += "-labelled" * self._labelled
        return results.renamed(self.runner.get_or_run(name, job, activity, [candidate]).answers, pictures)

    def _measure_reference(self, trials: Sequence[Trial]) -> Trial:
        """Return the reference as a trial, which the budget does not concern."""
        trial = next((trial for trial in trials if trial.candidate == REFERENCE and trial.status == "ok"), None)
        if trial is None:
            name = f"measure-reference{self._suffix}"
            result = self.runner.get_or_run(name, self._try_job(REFERENCE), "measuring the reference", [REFERENCE])
            trial = self._trial(REFERENCE, result)
        validation = trial.validation.model_copy(update={"checks": ()})
        return trial.model_copy(update={"passed": True, "reason": IsReference(), "validation": validation})

    def _final_benchmark(self, trials: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
        """Measure the best once more, longer and all in turns; return all trials and the finalists, best first."""
        candidates_tried = [trial for trial in trials if trial.candidate != REFERENCE]
        best, self._reasons = finalists(candidates_tried, self.config.objective)
        if not best or self.config.objective == "size":
            return list(trials), best
        candidates = tuple(trial.candidate for trial in best)
        job = FinalBenchmarkJob(
            candidates=candidates,
            pictures=(*self.split.calibration, *self.split.validation),
            seconds=2 * self.config.measure_seconds,
        )
        name = "final-" + "+".join(sorted(candidate.key for candidate in candidates)) + self._suffix
        activity = f"final benchmark: the reference and {len(best)} finalist{'s' if len(best) > 1 else ''} in turns"
        try:
            benchmark = self.runner.get_or_run(name, job, activity, candidates)
        except JobError as error:
            self.notes.append(f"the final benchmark failed ({error.message}): the first measurements count")
            return list(trials), best
        self.notes += [results.with_names(warning, candidates) for warning in benchmark.warnings]
        measured = {trial.candidate: trial.with_final_speed(benchmark.speeds[trial.key]) for trial in best}
        return [measured.get(trial.candidate, trial) for trial in trials], simplest_first(list(measured.values()))

    def _test(self, best_first: Sequence[Trial], reference: Trial) -> _Decision:
        """Let the finalists answer the test part, the best first, until one keeps the budget there too."""
        objective, winner, missed = self.config.objective, None, False
        for trial in best_first:
            candidate = trial.candidate
            if winner is not None:
                self._reasons[candidate] = runner_up(trial, winner.winner, objective)
                continue
            gained, required = gain(trial, reference, objective), self.config.min_gain
            if gained < required:
                self._reasons[candidate] = GainTooSmall(ranking=ranking_of(objective), gain=gained, required=required)
                continue
            activity = f"testing {candidate.name}"
            try:
                answers = self._answers(f"test-{candidate.key}", candidate, self.split.test, activity)
            except JobError as error:
                self._reasons[candidate] = Failed(message=error.message, on_test_part=True)
                missed = True
                continue
            decision = self._decision("better", trial, answers)
            if decision.evaluation.passed:
                winner = decision
                self._reasons[candidate] = Ships()
                continue
            self._reasons[candidate] = MissesBudget(part="test", checks=decision.evaluation.failed_checks)
            missed = True
        if winner is not None:
            return winner
        outcome: Outcome = "nothing_passed" if missed or not best_first else "not_better"
        return self._decision(outcome, reference, [self._judge.reference[path] for path in self.split.test])

    def _decision(self, outcome: Outcome, trial: Trial, answers: Sequence[Answer]) -> _Decision:
        tested = self._judge.test(answers)
        self.notes += tested.notes
        return _Decision(outcome, trial, tested.evaluation, tested.pictures)

    def _with_reason(self, trial: Trial) -> Trial:
        reason = self._reasons.get(trial.candidate)
        if reason is None:
            return trial
        rejected = isinstance(reason, (Failed, MissesBudget))
        return trial.model_copy(update={"passed": trial.passed and not rejected, "reason": reason})

    def _profile(self, winner: Trial, reference: Trial) -> StageProfile:
        """Measure stage by stage where a picture's time goes, the reference and the winner in turns."""
        candidate, seconds = winner.candidate, self.config.measure_seconds
        job = ProfileJob(candidate=candidate, pictures=self.split.validation, seconds=seconds)
        try:
            activity = "measuring where the time goes"
            return self.runner.get_or_run(f"profile-{candidate.key}", job, activity, [candidate])
        except JobError as error:
            self.notes.append(
                f"the stages could not be measured in turns ({error.message}): each was measured when it was tried"
            )
            return StageProfile(
                stages=StageTimes(reference=reference.measured.stages, winner=winner.measured.stages),
                infinite_network_images_per_second=winner.measured.infinite_network_images_per_second,
            )

    def _drawn(self, winner: Trial, changes: Sequence[PictureChange]) -> tuple[WorstPicture, ...]:
        """Draw the reference's and the winner's answers on the pictures that moved most."""
        if not changes:
            return ()
        job = DrawJob(candidate=winner.candidate, pictures=tuple(change.path for change in changes))
        try:
            name = f"draw-{winner.key}"
            thumbnails = self.runner.get_or_run(name, job, "drawing what changed most", [winner.candidate]).thumbnails
        except JobError as error:
            self.notes.append(f"the pictures that moved most could not be drawn: {error.message}")
            thumbnails = ("",) * len(changes)
        return tuple(
            WorstPicture(path=change.path, change=change.change, thumbnail=thumbnail)
            for change, thumbnail in zip(changes, thumbnails, strict=True)
        )

    def _layers(self, candidate: Candidate) -> tuple[LayerSnr, ...]:
        """Compare the layers of the winner's network where it computes otherwise than the reference's."""
        if candidate.target.precision == "float32":
            return ()
        job = CompareLayersJob(candidate=candidate, pictures=self.split.validation)
        try:
            comparison = self.runner.get_or_run(f"layers-{candidate.key}", job, "comparing the layers", [candidate])
        except PlimsollError as error:
            self.notes.append(f"the layers could not be compared: {error.message}")
            return ()
        return comparison.layers

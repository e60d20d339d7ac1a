"""`CascadeSearch`: the main job for a cascade. Each network is searched by itself, on what the reference cascade gives
it to read; the budget is judged, and the race is run, on the whole.

Greedy, the slowest network first: the best of its candidates take its place in the best cascade so far, and are tried
as a whole. Candidates that keep the network's own default budget come first, by speed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from plimsoll.errors import InputError
from plimsoll.inference.cascade import CascadePredictor, whole_spec
from plimsoll.inference.cascade_spec import CascadeSpec
from plimsoll.inference.predictor import ResolvedModel, cascade_file, imported, load, open_model
from plimsoll.prove.labels import Truths
from plimsoll.prove.run import budget_for
from plimsoll.report.ship_result import LayerSnr, NetworkTrials, ShipResult
from plimsoll.report.trial import Candidate, Trial
from plimsoll.ship.config import REFERENCE, SearchConfig
from plimsoll.ship.job_runner import JobRunner
from plimsoll.ship.jobs import JobContext
from plimsoll.ship.preparation import CropJob
from plimsoll.ship.search import Search
from plimsoll.ship.split import Split
from plimsoll.ship.store import WorkFolder, get_or_build

_TRIED_AS_WHOLE = 4
"""Candidates of each network."""
_LEAST_CROPS = 4


@dataclass
class ResolvedCascade(ResolvedModel):
    """A cascade whose networks are searched together; `model` is the first, with the Spec of the whole's answers."""

    cascade: CascadeSpec | None = None
    networks: tuple[ResolvedModel, ...] = ()
    opened: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Remove the unpacked files of zipped bundles."""
        self.opened.close()


def open_subject(model: str, spec: Path | None, root: Path) -> ResolvedModel:
    """Open what is to be shipped: a network as `open_model` does, or a cascade, whose networks are converted to ONNX
    below `root` where they are files of another kind. Raises what `open_model` and `import_model` raise."""
    if (file := cascade_file(model)) is None:
        return open_model(model, spec)
    with ExitStack() as stack:
        predictor = stack.enter_context(load(file, spec=spec))
        assert isinstance(predictor, CascadePredictor)  # noqa: S101 - what `load` makes of such a file
        cascade = predictor.stages.spec
        networks = tuple(as_onnx(network.opened, root / "imported") for network in predictor.networks)
        whole = replace(networks[0].model, spec=whole_spec(cascade, [own.model.require_spec() for own in networks]))
        return ResolvedCascade(whole, cascade=cascade, networks=networks, opened=stack.pop_all())


def as_onnx(network: ResolvedModel, root: Path) -> ResolvedModel:
    """Return a network as ONNX, converted below `root` where it is a file of another kind; raises what `import_model`
    raises."""
    model = network.model
    if model.format == "onnx":
        return network
    folder = root / f"{model.require_spec().name}-{model.sha256[:16]}"
    return replace(network, model=get_or_build(folder, model, partial(imported, model)), target=REFERENCE.target)


def keyed(resolved: ResolvedModel, parts: Split) -> Split:
    """Return a split whose digest says all networks of a cascade: work folders are named by it."""
    if not isinstance(resolved, ResolvedCascade) or resolved.cascade is None:
        return parts
    facts = [parts.digest, resolved.cascade.model_dump_json()]
    facts += [f"{own.model.sha256} {own.model.require_spec().model_dump_json()}" for own in resolved.networks]
    return replace(parts, digest=hashlib.sha256("\n".join(facts).encode()).hexdigest())


def search_for(
    resolved: ResolvedModel, parts: Split, work: WorkFolder, config: SearchConfig, truths: Truths | None
) -> Search:
    """Return the search for what `open_subject` opened; raises InputError as `Search` does."""
    kind = CascadeSearch if isinstance(resolved, ResolvedCascade) else Search
    return kind(resolved, parts, work, config, truths)


class _CascadeRunner(JobRunner):
    """Runs jobs about the whole."""

    search: CascadeSearch

    def context(self) -> JobContext:
        stages = tuple(search.runner.context() for search in self.search.searches)
        return super().context().model_copy(update={"cascade": self.search.cascade, "stages": stages})

    def prepare(self, candidate: Candidate) -> None:
        for search, own in zip(self.search.searches, candidate.stages, strict=False):
            search.runner.prepare(own)


class CascadeSearch(Search):
    """One run of `ship` for a cascade."""

    def __init__(
        self,
        resolved: ResolvedModel,
        split: Split,
        work: WorkFolder,
        config: SearchConfig,
        truths: Truths | None = None,
    ) -> None:
        """As `Search` takes them. Raises InputError for what a cascade doesn't have: labels, a calibration table."""
        if not isinstance(resolved, ResolvedCascade) or resolved.cascade is None:
            raise InputError("not a cascade")
        if truths or config.calibration is not None:
            raise InputError("--labels and --calibration belong to a single network, not to a cascade")
        super().__init__(resolved, split, work, config)
        self.scaled_sides = None
        self.cascade, self._networks = resolved.cascade, resolved.networks
        self.runner = runner = _CascadeRunner(resolved.model, split, work, config, self.notes.append)
        runner.search = self
        self.searches: list[Search] = [self._search(index, _nothing(split)) for index in range(len(self._networks))]
        self._tried: dict[int, NetworkTrials] = {}

    def _search(self, index: int, crops: Split) -> Search:
        network = self._networks[index]
        config = replace(self.config, budget=budget_for(network.model.require_spec().output))
        name = f"{index + 1}-{network.model.require_spec().name}"
        folder = WorkFolder(self.work.path / "networks" / name)
        folder.path.mkdir(parents=True, exist_ok=True)
        return Search(network, crops, folder, config)

    def trials(self, deadline: float) -> Iterator[Trial]:
        """Yield trials of the whole, network by network, the slowest first."""
        self._answer_with_reference()
        pictures = (*self.split.calibration, *self.split.validation)
        job = CropJob(pictures=pictures, folder=(self.work.path / "crops").resolve())
        crops = self.runner.get_or_run("crops", job, "cutting out what each network reads")
        seconds, calibration = list(crops.seconds), len(self.split.calibration)
        best, ratio = [REFERENCE] * len(seconds), 1.0
        order = sorted(range(len(seconds)), key=lambda index: -seconds[index])
        for turn, index in enumerate(order):
            calibrating, validating = (
                tuple(file for files in part for file in files)
                for part in (crops.files[index][:calibration], crops.files[index][calibration:])
            )
            name = self._networks[index].model.require_spec().name
            if min(len(calibrating), len(validating)) < _LEAST_CROPS:
                self.notes.append(
                    f"{name} stays as it is: the reference gives it {len(calibrating):,} inputs to calibrate and"
                    f" {len(validating):,} to validate; at least {_LEAST_CROPS} of both are needed"
                )
                continue
            parts = Split(calibrating, validating, (), f"{self.split.digest}-{index}")
            search = self.searches[index] = self._search(index, parts)
            search.runner.progress = partial(self._show_progress, name)
            left = max(0.0, deadline - time.monotonic())
            own = list(search.trials(time.monotonic() + left / (len(order) - turn) * _OWN_SHARE))
            self._tried[index] = NetworkTrials(
                name=name, share=seconds[index] / (sum(seconds) or 1.0), pictures=len(validating), trials=tuple(own)
            )
            for candidate in _promising(own):
                stages = [*best[:index], candidate, *best[index + 1 :]]
                trial = self.try_candidate(Candidate.of_cascade(stages))
                yield trial
                if trial.passed and trial.ratio > ratio:
                    best, ratio = stages, trial.ratio
        self.notes += [f"{search.resolved.model.name}: {note}" for search in self.searches for note in search.notes]

    def _show_progress(self, name: str, activity: str) -> None:
        self.runner.progress(f"{name}: {activity}")

    def _result(self, *arguments: Any) -> ShipResult:
        networks = tuple(self._tried[index] for index in sorted(self._tried))
        return super()._result(*arguments).model_copy(update={"networks": networks})

    def _layers(self, candidate: Candidate) -> tuple[LayerSnr, ...]:
        del candidate
        return ()

    def table(self, candidate: Candidate) -> Path | None:
        """Return nothing: each network has its own."""
        del candidate
        return None

    def deployments(self, candidate: Candidate) -> tuple[ResolvedModel, ...]:
        """Return each network as it ships."""
        stages = candidate.stages or (REFERENCE,) * len(self.searches)
        pairs = zip(self.searches, stages, strict=True)
        return tuple(deployment for search, own in pairs for deployment in search.deployments(own))


_OWN_SHARE = 0.6
"""Of the time for a network: its own search; the rest is for the whole."""


def _nothing(split: Split) -> Split:
    return Split((), (), (), split.digest)


def _promising(trials: Sequence[Trial]) -> list[Candidate]:
    """Return the candidates that are tried as a whole: those first that keep their own budget, by speed; of each target
    one."""
    measured = sorted(
        (trial for trial in trials if trial.status == "ok" and trial.candidate != REFERENCE),
        key=lambda trial: (not trial.passed, -trial.ratio),
    )
    by_target: dict[Any, Candidate] = {}
    for trial in measured:
        by_target.setdefault((trial.candidate.target, trial.candidate.preprocessing), trial.candidate)
    return list(by_target.values())[:_TRIED_AS_WHOLE]

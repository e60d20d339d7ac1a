"""The jobs that prepare what candidates are built from: calibration tables, tensors for a runtime's own calibration,
the ranking of the layers, what the networks of a cascade read; and the one that builds a candidate without a search."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll import quantize
from plimsoll.core.model import ModelRecord
from plimsoll.errors import InputError, PlimsollError
from plimsoll.inference.cascade import CascadePredictor
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.prove.contract import check_contract
from plimsoll.prove.labels import Truth
from plimsoll.report.measurements import Figure, ResultModel
from plimsoll.report.trial import Candidate
from plimsoll.ship import build
from plimsoll.ship.build import Artifacts
from plimsoll.ship.config import REFERENCE
from plimsoll.ship.jobs import Job, JobContext, batches
from plimsoll.ship.strategy import is_quantized_here, needs_table, needs_tensors
from plimsoll.system import files

RANKING_PICTURES = 16
"""Pictures that rank the layers: only their order counts."""
CHECKED_PICTURES = 16
"""So many of the user's pictures check a conversion."""


class CalibrationTables(ResultModel):
    """Calibrator → the file of its table."""

    tables: dict[str, Path]


class CalibrateJob(Job[CalibrationTables]):
    """Run the calibration pictures through the network once, and write a table for each calibrator."""

    result_model = CalibrationTables

    kind: Literal["calibrate"] = "calibrate"
    calibrators: tuple[str, ...]
    pictures: tuple[str, ...]

    def run(self, context: JobContext) -> CalibrationTables:
        model = context.model
        statistics = quantize.observe(model, batches(model, self.pictures), cores=context.cores)
        tables = {name: context.calibration_file(f"{name}.json") for name in self.calibrators}
        for name, file in tables.items():
            statistics.calibration(name).write(file)
        return CalibrationTables(tables=tables)


class AdoptTableJob(Job[CalibrationTables]):
    """Check that a given calibration table fits the network, and store a copy."""

    result_model = CalibrationTables

    kind: Literal["adopt_table"] = "adopt_table"
    table: Path
    name: str

    def run(self, context: JobContext) -> CalibrationTables:
        table = quantize.Calibration.read(self.table)
        with tempfile.TemporaryDirectory(prefix="plimsoll-given-") as folder:
            quantize.static(context.model, table, Path(folder))
        file = context.calibration_file(f"{self.name}.json")
        table.write(file)
        return CalibrationTables(tables={self.name: file})


class ContractFindings(ResultModel):
    """How often the reference is right on labelled pictures, and what is wrong with that; empty where nothing is."""

    accuracy: str
    problem: str


class CheckContractJob(Job[ContractFindings]):
    """Check on labelled pictures that the Spec is the contract that the network was trained with."""

    result_model = ContractFindings

    kind: Literal["check_contract"] = "check_contract"
    pictures: tuple[str, ...]
    labels: dict[str, Truth]

    def run(self, context: JobContext) -> ContractFindings:
        reference = ResolvedModel(context.model, REFERENCE.target, REFERENCE.preprocessing)
        check = check_contract(reference, self.pictures, self.labels, cores=context.cores)
        return ContractFindings(accuracy=check.in_words if check.count else "", problem=check.problem)


class Crops(ResultModel):
    """What the networks of a cascade read of some pictures."""

    files: tuple[tuple[tuple[str, ...], ...], ...]
    """Of each network, for each picture: PNG files."""
    seconds: tuple[Figure, ...]
    """How long each network took in all, with preparing and reading its outputs."""


class CropJob(Job[Crops]):
    """Write what the networks of the reference cascade read."""

    result_model = Crops

    kind: Literal["crop"] = "crop"
    pictures: tuple[str, ...]
    folder: Path

    def run(self, context: JobContext) -> Crops:
        with context.predictor(REFERENCE) as predictor:
            assert isinstance(predictor, CascadePredictor)  # noqa: S101 - only cascades have such a job
            files: list[list[tuple[str, ...]]] = [[] for _ in predictor.networks]
            spent = [0.0] * len(files)
            for number, picture in enumerate(self.pictures):
                inputs, seconds = [list[str]() for _ in files], [0.0] * len(files)
                with suppress(PlimsollError):
                    inputs, seconds = predictor.write_inputs(picture, self.folder, str(number))
                for stage, own in enumerate(inputs):
                    files[stage].append(tuple(own))
                    spent[stage] += seconds[stage]
        return Crops(files=tuple(map(tuple, files)), seconds=tuple(spent))


class LintFindings(ResultModel):
    """What is likely to go wrong when the network is quantized, and what to do about it."""

    findings: tuple[str, ...]


class LintJob(Job[LintFindings]):
    """Look for what is likely to go wrong when the network is quantized."""

    result_model = LintFindings

    kind: Literal["lint"] = "lint"
    table: Path | None
    """The calibration table for int8; None where int8 is not tried."""
    float16: bool

    def run(self, context: JobContext) -> LintFindings:
        findings: list[quantize.Finding] = []
        if self.table is not None:
            findings += quantize.lint(context.model, quantize.Calibration.read(self.table))
        if self.float16:
            findings += quantize.before_float16(context.model)
        return LintFindings(findings=tuple(f"{finding.message}. {finding.advice}" for finding in findings))


class LayerRanking(ResultModel):
    """The layers that can be quantized, the one first that deviates most when it alone is."""

    layers: tuple[str, ...]
    mean_abs: tuple[Figure, ...]
    """How far the network's outputs then lie from the reference's."""


class RankLayersJob(Job[LayerRanking]):
    """Rank the layers by the deviation that each causes when it alone is quantized."""

    result_model = LayerRanking

    kind: Literal["rank_layers"] = "rank_layers"
    table: Path
    pictures: tuple[str, ...]

    def run(self, context: JobContext) -> LayerRanking:
        model = context.model
        inputs = list(batches(model, self.pictures[:RANKING_PICTURES]))
        if not inputs:
            raise InputError("none of the pictures that would rank the layers can be read")
        rows = quantize.sensitivity(model, quantize.Calibration.read(self.table), np.concatenate(inputs))
        return LayerRanking(layers=tuple(row.name for row in rows), mean_abs=tuple(row.mean_abs for row in rows))


class CalibrationTensors(ResultModel):
    """A `.npy` file `[N, …]`: what the network reads for the calibration pictures."""

    file: Path


class WriteTensorsJob(Job[CalibrationTensors]):
    """Write what the network, folded or not, reads for the calibration pictures."""

    result_model = CalibrationTensors

    kind: Literal["write_tensors"] = "write_tensors"
    folded: bool
    pictures: tuple[str, ...]

    def run(self, context: JobContext) -> CalibrationTensors:
        model = context.model
        if self.folded:
            folded = Candidate("reference", True, REFERENCE.target)
            model = build.onnx_network(model, folded, context.built, context.artifacts)
        # One array on disk, filled batch by batch: 300 pictures of 224 x 224 are 180 MB, those of 640 x 640 1.5 GB.
        file = context.calibration_file(f"tensors-{'folded' if self.folded else 'plain'}.npy")
        _write_tensors(file, batches(model, self.pictures), len(self.pictures))
        return CalibrationTensors(file=file)


def _write_tensors(file: Path, batches: Iterator[NDArray[Any]], count: int) -> None:
    written, stored = 0, None
    with files.replacing(file) as temporary:
        for batch in batches:
            if stored is None:
                stored = np.lib.format.open_memmap(temporary, "w+", batch.dtype, (count, *batch.shape[1:]))
            stored[written : written + len(batch)] = batch
            written += len(batch)
        if stored is None:
            raise InputError("none of the calibration pictures can be read")
        stored.flush()
        if written < count:  # Some could not be read: the array ends with the last one that could.
            rest = np.array(stored[:written])
            with temporary.open("wb") as stream:
                np.save(stream, rest)


class BuildJob(Job[ModelRecord]):
    """Build a candidate's network as its runtime takes it, with all that it is built from, without a search."""

    result_model = ModelRecord

    kind: Literal["build"] = "build"
    candidate: Candidate
    pictures: tuple[str, ...]
    """They calibrate, where the candidate needs that."""
    table: Path | None
    """Used in place of Plimsoll's own calibration."""

    def run(self, context: JobContext) -> ModelRecord:
        model, candidate = context.model, self.candidate
        if is_quantized_here(candidate.target) and quantize.is_quantized(model):
            return ModelRecord.of(build.network(model, candidate, context.built, Artifacts()))
        if self.table is not None and not needs_table(candidate):
            raise InputError(f"{candidate.name} is not built from a calibration table", "Leave --calibration out.")
        uses_pictures = needs_tensors(candidate.target) or (needs_table(candidate) and self.table is None)
        if uses_pictures and not self.pictures:
            raise InputError(
                f"{candidate.target} has to be calibrated, and there are no pictures",
                "Give some of your own with --images: a hundred or more.",
            )
        tables, tensors, name = {}, {}, candidate.calibrator or ""
        if self.table is not None:
            tables = AdoptTableJob(table=self.table, name=name).run(context).tables
        elif needs_table(candidate):
            tables = CalibrateJob(calibrators=(name,), pictures=self.pictures).run(context).tables
        if needs_tensors(candidate.target):
            written = WriteTensorsJob(folded=candidate.folded, pictures=self.pictures).run(context)
            tensors = {candidate.folded: written.file}
        # Names follow one another where pictures are alike.
        checked = self.pictures[:: max(1, len(self.pictures) // CHECKED_PICTURES)][:CHECKED_PICTURES]
        artifacts = Artifacts(tables=tables, tensors=tensors, pictures=checked)
        return ModelRecord.of(build.network(model, candidate, context.built, artifacts))

"""Build the network of a candidate: quantized, folded, converted for its runtime. Each form is built once and shared by
all candidates that need it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from plimsoll import backends, quantize
from plimsoll.backends import conversion
from plimsoll.backends.base import CalibrationData
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.preprocessing import folded as fold
from plimsoll.report.trial import Candidate
from plimsoll.ship.config import REFERENCE
from plimsoll.ship.store import get_or_build
from plimsoll.ship.strategy import needs_table


class Artifacts(BaseModel):
    """What candidates are built from beside the network: prepared when the first candidate needs it, and stored in the
    work folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tables: dict[str, Path] = {}
    """Calibrator → its calibration table, for Plimsoll's own calibrators and tables that the user gave."""
    rankings: dict[str, tuple[str, ...]] = {}
    """Calibrator → the layers that can be quantized, the one first that deviates most when it alone is."""
    tensors: dict[bool, Path] = {}
    """Folded or not → `.npy` `[N, …]`: what the network reads for N calibration pictures."""
    pictures: tuple[str, ...] = ()
    """Some of the user's: what is built is checked on them."""

    def table(self, candidate: Candidate) -> Path:
        """Return the calibration table that a candidate is quantized with; raises BuildError if it has no table."""
        if candidate.calibrator is None or candidate.calibrator not in self.tables:
            raise BuildError(f"{candidate.name}: there is no calibration table for it")
        return self.tables[candidate.calibrator]

    def float_layers(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the layers that a candidate of mixed precision keeps in float32; raises BuildError where nothing would
        be left to quantize."""
        if not candidate.float_layers:
            return ()
        ranking = self.rankings.get(candidate.calibrator or "", ())
        if candidate.float_layers >= len(ranking):
            raise BuildError(f"only {len(ranking)} of its layers can be quantized: nothing would be left in int8")
        return ranking[: candidate.float_layers]


def network(model: Model, candidate: Candidate, folder: Path, artifacts: Artifacts) -> Model:
    """Return the candidate's network in the form that its runtime loads, building in `folder` what is not there yet.

    Raises BuildError, BackendMissingError or ModelError.
    """
    return _converted(onnx_network(model, candidate, folder, artifacts), candidate, folder, artifacts)


def onnx_network(model: Model, candidate: Candidate, folder: Path, artifacts: Artifacts) -> Model:
    """Return the candidate's network as ONNX, before its runtime converts it; `model` itself where that is it.

    A calibration of the trained network fits all candidates. Raises BuildError, BackendMissingError or ModelError.
    """
    form: str = backends.get(candidate.target.runtime).onnx_form(candidate.target)
    if form == "qdq":
        return _int8(model, candidate, folder, artifacts)
    unfolded, name = model, form
    if form == "float32":
        unfolded = _float32(model, candidate, folder)
        if _is_rounded(model, candidate):
            name = f"rounded-{candidate.calibrator}"
            unfolded = _rounded(unfolded, folder / name, artifacts.table(candidate))
    elif form == "dynamic":
        unfolded = get_or_build(folder / form, model, lambda path: quantize.dynamic(model, path))
    elif form == "float16":
        unfolded = get_or_build(folder / form, model, lambda path: quantize.float16(model, path))
    if candidate.folded:
        return get_or_build(folder / f"{name}-folded", model, lambda path: fold.fold(unfolded, path))
    return unfolded


def _float32(model: Model, candidate: Candidate, folder: Path) -> Model:
    if candidate.target == REFERENCE.target and candidate != REFERENCE:
        # The same answers in less time; the reference itself stays as it came.
        return get_or_build(folder / "prepared", model, lambda path: quantize.prepare(model, path))
    if candidate.target == REFERENCE.target and quantize.is_quantized(model):
        return model
    return get_or_build(folder / "float32", model, lambda path: quantize.float32(model, path))


def _is_rounded(model: Model, candidate: Candidate) -> bool:
    """Tell whether the runtime's converter will round the network's weights to integers, with ranges of Plimsoll's."""
    integers = candidate.target.precision.startswith("int")  # fp8 has other steps.
    return integers and model.format == "onnx" and needs_table(candidate)


def _rounded(model: Model, folder: Path, table: Path) -> Model:
    means = quantize.Calibration.read(table).means
    return get_or_build(folder, model, lambda path: quantize.round_weights(model, means, path))


def _int8(model: Model, candidate: Candidate, folder: Path, artifacts: Artifacts) -> Model:
    """Return the network in int8, as it suits the candidate's runtime.

    A folded one is folded first where its first convolution can read the picture's bytes: the reference's runtime then
    needs a third less time than for the quantized network with the preprocessing before it. Elsewhere it is quantized
    first, since folding changes the input's ranges.
    """
    if quantize.is_quantized(model):  # As it was trained, or as another tool has it.
        if not candidate.folded:
            return model
        return get_or_build(folder / "qdq-folded", model, lambda path: fold.fold(model, path))
    options = quantize.StaticOptions.for_target(candidate.target)
    options = replace(options, keep_float=artifacts.float_layers(candidate))
    table = quantize.Calibration.read(artifacts.table(candidate))
    mixture = f"-float{candidate.float_layers}" if candidate.float_layers else ""
    name = f"qdq-{candidate.target.runtime}-{candidate.calibrator}{mixture}"
    if not candidate.folded:
        return get_or_build(folder / name, model, lambda path: quantize.static(model, table, path, options))

    def build_folded(path: Path) -> Model:
        with tempfile.TemporaryDirectory(prefix="plimsoll-fold-") as temporary:
            whole = fold.fold(model, Path(temporary))
            if quantize.reads_bytes(whole, options):
                return quantize.static(whole, table, path, options)
        return fold.fold(_int8(model, replace(candidate, folded=False), folder, artifacts), path)

    return get_or_build(folder / f"{name}-folded", model, build_folded)


def _converted(model: Model, candidate: Candidate, folder: Path, artifacts: Artifacts) -> Model:
    """Return the candidate's ONNX network as its runtime loads it, checked to answer as the trained one does; `model`
    itself where the runtime takes ONNX."""
    backend = backends.for_target(candidate.target)
    calibrated = _calibrated(candidate, artifacts) if backend.takes_calibration(candidate.target) else None
    folding = "folded" if candidate.folded else ""
    parts = ("built", *str(candidate.target).split(":"), candidate.calibrator, folding)
    name = "-".join(part for part in parts if part)
    pictures = tuple(map(Path, artifacts.pictures))
    return get_or_build(
        folder / name,
        model,
        lambda path: conversion.build(model, candidate.target, path, calibrated, pictures=pictures),
    )


def _calibrated(candidate: Candidate, artifacts: Artifacts) -> CalibrationData:
    """Return what the runtime's converter calibrates with: the tensors, and the ranges of one of Plimsoll's tables."""
    file = artifacts.tensors.get(candidate.folded)
    if file is None or candidate.calibrator is None:
        raise BuildError(f"{candidate.name}: there are no calibration tensors for it")
    tensors = np.load(file, mmap_mode="r")
    if not needs_table(candidate):
        return CalibrationData(candidate.calibrator, tensors)
    table = quantize.Calibration.read(artifacts.table(candidate))
    return CalibrationData(candidate.calibrator, tensors, table.ranges)

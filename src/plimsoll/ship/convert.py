"""Build a candidate's network for its runtime: for some that is a conversion, which is done once and kept like the
other forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plimsoll import backends, quantize
from plimsoll.backends.base import CalibrationData
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.ship.artifact_files import once
from plimsoll.ship.artifacts import Artifacts
from plimsoll.ship.candidate import Candidate, needs_table


def converted(model: Model, candidate: Candidate, built: Path, artifacts: Artifacts) -> Model:
    """Return the network in the form that the candidate's runtime loads; `model` itself where the runtime takes it as
    it is.

    `model` is the candidate's ONNX network, folded where the candidate is. Raises BuildError or BackendMissingError.
    """
    backend = backends.for_target(candidate.target)
    calibrated = _calibrated(candidate, artifacts) if backend.takes_calibration(candidate.target) else None
    parts = [
        "built",
        *str(candidate.target).split(":"),
        candidate.calibrator or "",
        "folded" if candidate.folded else "",
    ]
    place = built / "-".join(part for part in parts if part)
    return once(place, model, lambda folder: backend.build(model, candidate.target, folder, calibrated))


def _calibrated(candidate: Candidate, artifacts: Artifacts) -> CalibrationData:
    """Return what the runtime's converter calibrates with: the tensors, and the ranges where one of ours chose them."""
    file = artifacts.tensors.get("folded" if candidate.folded else "plain")
    if file is None or candidate.calibrator is None:
        raise BuildError(f"{candidate.name}: there are no calibration tensors for it")
    tensors = np.load(file, mmap_mode="r")
    if not needs_table(candidate):
        return CalibrationData(candidate.calibrator, tensors)
    table = quantize.Calibration.read(artifacts.table(candidate))
    return CalibrationData(candidate.calibrator, tensors, table.ranges)

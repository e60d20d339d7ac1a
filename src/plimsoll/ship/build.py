"""Make the network of a candidate: quantized, folded, converted; each form is built once and shared by all candidates
that need it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from plimsoll import backends, quantize
from plimsoll.core.model import Model
from plimsoll.preprocessing import folded as fold
from plimsoll.ship.artifact_files import once
from plimsoll.ship.artifacts import Artifacts
from plimsoll.ship.candidate import Candidate
from plimsoll.ship.config import REFERENCE
from plimsoll.ship.convert import converted


def network(model: Model, candidate: Candidate, built: Path, artifacts: Artifacts) -> Model:
    """Return the candidate's network as its runtime takes it, building what is not in the folder `built` yet.

    Raises BuildError, BackendMissingError or ModelError.
    """
    return converted(in_onnx(model, candidate, built, artifacts), candidate, built, artifacts)


def in_onnx(model: Model, candidate: Candidate, built: Path, artifacts: Artifacts) -> Model:
    """Return the candidate's network as ONNX, before its runtime converts it; `model` itself where the candidate is
    that.

    A calibration made on the network as it came fits all candidates. Raises BuildError, BackendMissingError or
    ModelError.
    """
    form: str = backends.get(candidate.target.runtime).onnx_form(candidate.target)
    if form == "qdq":
        return _in_int8(model, candidate, built, artifacts)
    made = model
    if form == "float32" and candidate.target == REFERENCE.target and candidate != REFERENCE:
        # The same answers in less time; the reference itself stays as it came.
        made = once(built / "prepared", model, lambda folder: quantize.prepare(model, folder))
    elif form == "dynamic":
        made = once(built / form, model, lambda folder: quantize.dynamic(model, folder))
    elif form == "float16":
        made = once(built / form, model, lambda folder: quantize.float16(model, folder))
    if candidate.folded:
        unfolded = made
        made = once(built / f"{form}-folded", model, lambda folder: fold.fold(unfolded, folder))
    return made


def _in_int8(model: Model, candidate: Candidate, built: Path, artifacts: Artifacts) -> Model:
    """Return the network in int8, as it suits the candidate's runtime.

    A folded one is folded first where its first convolution can read the picture's bytes: ONNX Runtime then needs a
    third less time than for the quantized network with the steps before it. Elsewhere it is quantized first, since
    folding changes the input's ranges.
    """
    options = replace(quantize.StaticOptions.for_target(candidate.target), keep_float=artifacts.in_float(candidate))
    table = quantize.Calibration.read(artifacts.table(candidate))
    name = f"qdq-{candidate.target.runtime}-{candidate.calibrator}" + (
        f"-float{candidate.float_layers}" if candidate.float_layers else ""
    )
    if not candidate.folded:
        return once(built / name, model, lambda folder: quantize.static(model, table, folder, options))

    def folded(folder: Path) -> Model:
        with tempfile.TemporaryDirectory(prefix="plimsoll-fold-") as temporary:
            whole = fold.fold(model, Path(temporary))
            if quantize.reads_bytes(whole, options):
                return quantize.static(whole, table, folder, options)
        return fold.fold(_in_int8(model, replace(candidate, folded=False), built, artifacts), folder)

    return once(built / f"{name}-folded", model, folded)

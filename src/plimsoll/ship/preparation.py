"""The groundwork of a `ship`, in processes of its own: calibrate, check a given table, write tensors, lint, rank the
layers.

Each piece is a function from plain data to plain data; `plimsoll.ship.job` runs them by their names in PIECES.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from plimsoll import quantize
from plimsoll.core.model import Model
from plimsoll.errors import InputError
from plimsoll.preprocessing import Preprocessor
from plimsoll.ship import build
from plimsoll.ship.artifacts import Artifacts
from plimsoll.ship.candidate import Candidate
from plimsoll.ship.pictures import batches
from plimsoll.spec import files as spec_files
from plimsoll.system import files

RANKED_ON = 16
"""Pictures that rank the layers: it is the order that counts."""


def model_of(payload: dict[str, Any]) -> Model:
    """Return the network that a piece of work is about."""
    model = payload["model"]
    spec = spec_files.loads(model["spec"], "the Spec of the work folder")
    return Model(Path(model["path"]), model["format"], spec, files=tuple(Path(file) for file in model["files"]))


def calibrate(payload: dict[str, Any]) -> dict[str, Any]:
    """Run the calibration pictures through the network once and write one table for each calibrator: `{"tables":
    {calibrator: file}}`."""
    model = model_of(payload)
    preprocessor = Preprocessor(model.contract().input, "reference")
    statistics = quantize.observe(model, batches(preprocessor, payload["pictures"]), cores=payload["cores"])
    folder = _tables_folder(payload)
    tables = {method: folder / f"{method}.json" for method in payload["calibrators"]}
    for method, file in tables.items():
        statistics.calibration(method).write(file)
    return {"tables": {method: str(file) for method, file in tables.items()}}


def adopt(payload: dict[str, Any]) -> dict[str, Any]:
    """Check that a given table fits the network, and keep a copy: `{"tables": {calibrator: file}}`. Raises InputError
    or ModelError."""
    table = quantize.Calibration.read(Path(payload["table"]))
    with tempfile.TemporaryDirectory(prefix="plimsoll-given-") as folder:
        quantize.static(model_of(payload), table, Path(folder))
    (name,) = payload["calibrators"]
    file = _tables_folder(payload) / f"{name}.json"
    table.write(file)
    return {"tables": {name: str(file)}}


def lint(payload: dict[str, Any]) -> dict[str, Any]:
    """Return what is likely to go wrong when the network is quantized, for the forms that will be tried: `{"findings":
    [{code, message, advice}]}`."""
    model = model_of(payload)
    found: list[quantize.Finding] = []
    if payload["table"] is not None:
        found += quantize.lint(model, quantize.Calibration.read(Path(payload["table"])))
    if payload["float16"]:
        found += quantize.before_float16(model)
    return {"findings": [{"code": one.code, "message": one.message, "advice": one.advice} for one in found]}


def rank(payload: dict[str, Any]) -> dict[str, Any]:
    """Rank the layers by the deviation that each causes when it alone is quantized, the worst first: `{"layers":
    [{name, operator, mean_abs}]}`."""
    model = model_of(payload)
    preprocessor = Preprocessor(model.contract().input, "reference")
    tensors = list(batches(preprocessor, payload["pictures"][:RANKED_ON]))
    if not tensors:
        raise InputError("none of the pictures that would rank the layers can be read")
    table = quantize.Calibration.read(Path(payload["table"]))
    rows = quantize.sensitivity(model, table, np.concatenate(tensors))
    return {"layers": [{"name": row.name, "operator": row.operator, "mean_abs": row.mean_abs} for row in rows]}


def tensors(payload: dict[str, Any]) -> dict[str, Any]:
    """Write what the network reads for the calibration pictures, folded or not, into one `.npy` `[N, …]`: `{"file":
    path}`."""
    model = model_of(payload)
    if payload["folded"]:
        folded = Candidate("reference", True, Candidate.from_dict(payload["reference"]).target)
        model = build.in_onnx(model, folded, Path(payload["built"]), Artifacts())
    preprocessor = Preprocessor(model.contract().input, "reference")
    # One array on disk, filled batch by batch: 300 pictures of 224 x 224 are 180 MB, those of 640 x 640 1.5 GB.
    file = Path(payload["built"]) / "calibration" / f"tensors-{'folded' if payload['folded'] else 'plain'}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    _write(file, preprocessor, payload["pictures"])
    return {"file": str(file)}


def _write(file: Path, preprocessor: Preprocessor, pictures: list[str]) -> None:
    written, stored = 0, None
    with files.replacing(file) as temporary:
        for batch in batches(preprocessor, pictures):
            if stored is None:
                stored = np.lib.format.open_memmap(temporary, "w+", batch.dtype, (len(pictures), *batch.shape[1:]))
            stored[written : written + len(batch)] = batch
            written += len(batch)
        if stored is None:
            raise InputError("none of the calibration pictures can be read")
        stored.flush()
        if written < len(pictures):  # Some could not be read: the array ends with the last one that could.
            rest = np.array(stored[:written])
            with temporary.open("wb") as stream:
                np.save(stream, rest)


def _tables_folder(payload: dict[str, Any]) -> Path:
    folder = Path(payload["built"]) / "calibration"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


PIECES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "calibrate": calibrate,
    "adopt": adopt,
    "lint": lint,
    "rank": rank,
    "tensors": tensors,
}

"""Make one candidate's network, without searching: what `plimsoll convert` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.ship import build, preparation
from plimsoll.ship.artifacts import Artifacts
from plimsoll.ship.candidate import Candidate, calibrators_of, needs_table, needs_tensors
from plimsoll.ship.config import CALIBRATORS, REFERENCE
from plimsoll.spec import files as spec_files
from plimsoll.system import host


def calibrator_for(target: Target, wanted: str | None) -> str | None:
    """Return the calibrator that a target's network is made with: the wanted one, else its first; None where nothing is
    calibrated.

    Raises InputError for one that the target doesn't have.
    """
    known = calibrators_of(target, CALIBRATORS)
    if wanted is None:
        return known[0] if known else None
    if wanted not in known:
        raise InputError(
            f"{target} has no calibrator '{wanted}'",
            f"It has: {', '.join(known)}." if known else "Nothing is calibrated for it.",
        )
    return wanted


def convert(
    model: Model, candidate: Candidate, pictures: Sequence[str], folder: Path, table: Path | None = None
) -> Model:
    """Return a candidate's network as its runtime takes it, with whatever it was made from in `folder`.

    `pictures` calibrate, where the candidate needs that; `table` is used in place of Plimsoll's own calibration. Raises
    InputError where neither is given though one is needed, BuildError, BackendMissingError or ModelError.
    """
    payload: dict[str, Any] = {
        "model": {
            "path": str(model.path.resolve()),
            "format": model.format,
            "files": [str(file.resolve()) for file in model.files],
            "spec": spec_files.dumps(model.contract()),
        },
        "built": str(folder),
        "pictures": list(pictures),
        "calibrators": [candidate.calibrator],
        "cores": host.cores(),
        "folded": candidate.folded,
        "reference": REFERENCE.to_dict(),
    }
    artifacts = Artifacts(tables=_tables(payload, candidate, table), tensors=_tensors(payload, candidate))
    return build.network(model, candidate, folder, artifacts)


def _tables(payload: dict[str, Any], candidate: Candidate, table: Path | None) -> dict[str, Path]:
    if not needs_table(candidate):
        if table is not None:
            raise InputError(f"{candidate.name} is not built from a calibration table", "Leave --calibration out.")
        return {}
    if table is None:
        _require_pictures(payload, candidate)
        made = preparation.calibrate(payload)
    else:
        made = preparation.adopt(payload | {"table": str(table)})
    return {name: Path(file) for name, file in made["tables"].items()}


def _tensors(payload: dict[str, Any], candidate: Candidate) -> dict[str, Path]:
    if not needs_tensors(candidate.target):
        return {}
    _require_pictures(payload, candidate)
    return {"folded" if candidate.folded else "plain": Path(preparation.tensors(payload)["file"])}


def _require_pictures(payload: dict[str, Any], candidate: Candidate) -> None:
    if not payload["pictures"]:
        raise InputError(
            f"{candidate.target} has to be calibrated, and there are no pictures",
            "Give some of your own with --images: a hundred or more.",
        )

"""Make one variant's network, without searching: what `plimsoll convert` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plimsoll import machine
from plimsoll.errors import InputError
from plimsoll.model import Model
from plimsoll.ship import groundwork, make
from plimsoll.ship.materials import Materials
from plimsoll.ship.variant import Variant, calibrators_of, needs_table, needs_tensors
from plimsoll.ship.wishes import CALIBRATORS, REFERENCE
from plimsoll.spec import files as spec_files
from plimsoll.target import Target


def calibrator_for(target: Target, wanted: str | None) -> str | None:
    """Return the calibrator that a target's network is made with: the wanted one, else its first; None where nothing is calibrated.

    Raises InputError for one that the target doesn't have.
    """
    known = calibrators_of(target, CALIBRATORS)
    if wanted is None:
        return known[0] if known else None
    if wanted not in known:
        raise InputError(f"{target} has no calibrator '{wanted}'", f"It has: {', '.join(known)}." if known else "Nothing is calibrated for it.")
    return wanted


def convert(model: Model, variant: Variant, pictures: Sequence[str], folder: Path, table: Path | None = None) -> Model:
    """Return a variant's network as its runtime takes it, with whatever it was made from in `folder`.

    `pictures` calibrate, where the variant needs that; `table` is used in place of Plimsoll's own calibration. Raises InputError where
    neither is given though one is needed, BuildFailed, BackendMissing or ModelError.
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
        "calibrators": [variant.calibrator],
        "cores": machine.cores(),
        "folded": variant.folded,
        "reference": REFERENCE.to_dict(),
    }
    materials = Materials(tables=_tables(payload, variant, table), tensors=_tensors(payload, variant))
    return make.network(model, variant, folder, materials)


def _tables(payload: dict[str, Any], variant: Variant, table: Path | None) -> dict[str, Path]:
    if not needs_table(variant):
        if table is not None:
            raise InputError(f"{variant.name} is not built from a calibration table", "Leave --calibration out.")
        return {}
    if table is None:
        _require_pictures(payload, variant)
        made = groundwork.calibrate(payload)
    else:
        made = groundwork.adopt(payload | {"table": str(table)})
    return {name: Path(file) for name, file in made["tables"].items()}


def _tensors(payload: dict[str, Any], variant: Variant) -> dict[str, Path]:
    if not needs_tensors(variant.target):
        return {}
    _require_pictures(payload, variant)
    return {"folded" if variant.folded else "plain": Path(groundwork.tensors(payload)["file"])}


def _require_pictures(payload: dict[str, Any], variant: Variant) -> None:
    if not payload["pictures"]:
        raise InputError(f"{variant.target} has to be calibrated, and there are no pictures", "Give some of your own with --images: a hundred or more.")

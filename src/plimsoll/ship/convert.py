"""Build a variant's network for its runtime: for some that is a conversion, which is done once and kept like the other forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plimsoll import backends, quantize
from plimsoll.backend import Calibrated
from plimsoll.errors import BuildFailed
from plimsoll.model import Model
from plimsoll.ship.kept import once
from plimsoll.ship.materials import Materials
from plimsoll.ship.variant import Variant, needs_table


def converted(model: Model, variant: Variant, built: Path, materials: Materials) -> Model:
    """Return the network in the form that the variant's runtime loads; `model` itself where the runtime takes it as it is.

    `model` is the variant's ONNX network, folded where the variant is. Raises BuildFailed or BackendMissing.
    """
    backend = backends.for_target(variant.target)
    calibrated = _calibrated(variant, materials) if backend.calibrated(variant.target) else None
    parts = ["built", *str(variant.target).split(":"), variant.calibrator or "", "folded" if variant.folded else ""]
    place = built / "-".join(part for part in parts if part)
    return once(place, model, lambda folder: backend.build(model, variant.target, folder, calibrated))


def _calibrated(variant: Variant, materials: Materials) -> Calibrated:
    """Return what the runtime's converter calibrates with: the tensors, and the ranges where one of ours chose them."""
    file = materials.tensors.get("folded" if variant.folded else "plain")
    if file is None or variant.calibrator is None:
        raise BuildFailed(f"{variant.name}: there are no calibration tensors for it")
    tensors = np.load(file, mmap_mode="r")
    if not needs_table(variant):
        return Calibrated(variant.calibrator, tensors)
    table = quantize.Calibration.read(materials.table(variant))
    return Calibrated(variant.calibrator, tensors, table.ranges)

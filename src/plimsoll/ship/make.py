"""Make the network of a variant: quantized, folded, converted; each form is built once and shared by all variants that need it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from plimsoll import backends, fold, quantize
from plimsoll.model import Model
from plimsoll.ship.convert import converted
from plimsoll.ship.kept import once
from plimsoll.ship.materials import Materials
from plimsoll.ship.variant import Variant
from plimsoll.ship.wishes import REFERENCE


def network(model: Model, variant: Variant, built: Path, materials: Materials) -> Model:
    """Return the variant's network as its runtime takes it, building what is not in the folder `built` yet.

    Raises BuildFailed, BackendMissing or ModelError.
    """
    return converted(in_onnx(model, variant, built, materials), variant, built, materials)


def in_onnx(model: Model, variant: Variant, built: Path, materials: Materials) -> Model:
    """Return the variant's network as ONNX, before its runtime converts it; `model` itself where the variant is that.

    A calibration made on the network as it came fits all variants. Raises BuildFailed, BackendMissing or ModelError.
    """
    form: str = backends.get(variant.target.runtime).needs(variant.target)
    if form == "qdq":
        return _in_int8(model, variant, built, materials)
    made = model
    if form == "float32" and variant.target == REFERENCE.target and variant != REFERENCE:
        # The same answers in less time; the reference itself stays as it came.
        made = once(built / "prepared", model, lambda folder: quantize.prepare(model, folder))
    elif form == "dynamic":
        made = once(built / form, model, lambda folder: quantize.dynamic(model, folder))
    elif form == "float16":
        made = once(built / form, model, lambda folder: quantize.float16(model, folder))
    if variant.folded:
        unfolded = made
        made = once(built / f"{form}-folded", model, lambda folder: fold.fold(unfolded, folder))
    return made


def _in_int8(model: Model, variant: Variant, built: Path, materials: Materials) -> Model:
    """Return the network in int8, as it suits the variant's runtime.

    A folded one is folded first where its first convolution can read the picture's bytes: ONNX Runtime then needs a third less time than
    for the quantized network with the steps before it. Elsewhere it is quantized first, since folding changes the input's ranges.
    """
    options = replace(quantize.StaticOptions.for_target(variant.target), keep_float=materials.in_float(variant))
    table = quantize.Calibration.read(materials.table(variant))
    name = f"qdq-{variant.target.runtime}-{variant.calibrator}" + (f"-float{variant.float_layers}" if variant.float_layers else "")
    if not variant.folded:
        return once(built / name, model, lambda folder: quantize.static(model, table, folder, options))

    def folded(folder: Path) -> Model:
        with tempfile.TemporaryDirectory(prefix="plimsoll-fold-") as temporary:
            whole = fold.fold(model, Path(temporary))
            if quantize.reads_bytes(whole, options):
                return quantize.static(whole, table, folder, options)
        return fold.fold(_in_int8(model, replace(variant, folded=False), built, materials), folder)

    return once(built / f"{name}-folded", model, folded)

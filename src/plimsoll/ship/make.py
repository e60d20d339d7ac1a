"""Make the network of a variant: quantized, converted, folded; each form is built once and shared by all variants that need it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plimsoll import backends, fold, quantize
from plimsoll.model import Model
from plimsoll.ship.variant import Variant
from plimsoll.spec import files as spec_files


def network(model: Model, variant: Variant, built: Path, calibration: Path | None) -> Model:
    """Return the variant's network, building what is not in the folder `built` yet.

    Quantized first and folded afterwards, so that a calibration made on the network as it came fits all variants.
    Raises BuildFailed, BackendMissing or ModelError.
    """
    form = backends.get(variant.target.runtime).needs(variant.target)
    made = model
    if form == "qdq":
        assert calibration is not None  # noqa: S101 - a calibrated variant names its calibrator
        made = _once(built / f"qdq-{variant.calibrator}", model, lambda folder: quantize.static(model, quantize.Calibration.read(calibration), folder))
    elif form == "dynamic":
        made = _once(built / "dynamic", model, lambda folder: quantize.dynamic(model, folder))
    elif form == "float16":
        made = _once(built / "float16", model, lambda folder: quantize.float16(model, folder))
    if variant.folded:
        unfolded = made
        made = _once(built / f"{form}-{variant.calibrator}-folded", model, lambda folder: fold.fold(unfolded, folder))
    return made


def _once(place: Path, parent: Model, build: Callable[[Path], Model]) -> Model:
    """Return the model kept in `place`, or build it beside it and put it there in one step."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=".building-"))
        try:
            _describe(build(temporary), temporary)
            temporary.replace(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    kept: dict[str, Any] = json.loads((place / "model.json").read_text(encoding="utf-8"))
    spec = spec_files.loads((place / "spec.toml").read_text(encoding="utf-8"), str(place))
    return Model(place / kept["path"], kept["format"], spec, parent, tuple(place / name for name in kept["files"]))


def _describe(model: Model, folder: Path) -> None:
    names = [file.relative_to(folder).as_posix() for file in (model.path, *model.files)]
    (folder / "model.json").write_text(json.dumps({"path": names[0], "format": model.format, "files": names[1:]}), encoding="utf-8")
    (folder / "spec.toml").write_text(spec_files.dumps(model.contract()), encoding="utf-8")

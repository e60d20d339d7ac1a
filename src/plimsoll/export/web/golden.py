"""Golden pictures of a web package: their tensors and outputs as Python computes them, by which the page checks
itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.runner import Runner
from plimsoll.bundle import answers
from plimsoll.bundle.golden import level, tolerance_for
from plimsoll.bundle.manifest import Tolerance
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import CheckError, ImageError
from plimsoll.preprocessing import Preprocessor
from plimsoll.preprocessing.decode import read
from plimsoll.preprocessing.formats import sniff
from plimsoll.spec import Spec
from plimsoll.spec.steps import Decode, Resize

MAX_PICTURES = 16
"""Golden pictures are a self-test, not a data set."""
FOLDER = "golden"
_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "bmp": ".bmp", "gif": ".gif"}
_OWN = ("portrait.jpg", "alpha.png")
"""Of the pictures that Plimsoll brings along: each tensor stored is a download."""

_WHOLE_OUTPUT = 0.02


def write(folder: Path, model: Model, target: Target, spec: Spec, images: Sequence[Path]) -> None:
    """Write `golden.json` with the answers, and into `golden/` the pictures with their tensors and outputs
    (little-endian, in C order).

    The outputs are ONNX Runtime's on this machine's processor, in the target's precision.
    """
    preprocessor = Preprocessor(spec.input)
    pictures = folder / FOLDER
    pictures.mkdir()
    entries = []
    with Runner.open(model, replace(REFERENCE_TARGET, precision=target.precision)) as runner:
        for number, (name, data) in enumerate(chosen(images, spec.input.decode), 1):
            tensor, geometry = preprocessor.with_geometry(data)
            outputs = runner.infer(tensor[np.newaxis])
            entry = _entry(pictures, stem(number, name), data, tensor, outputs)
            entries.append({**entry, "row": answers.row(spec, outputs, geometry)})
    golden = {
        "tolerance": _tolerance(spec, target, entries).model_dump(exclude={"columns", "answers"}),
        "level": level(spec.input),
        "pictures": entries,
    }
    (folder / "golden.json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


def _tolerance(spec: Spec, target: Target, entries: Sequence[Mapping[str, Any]]) -> Tolerance:
    """Return the limits of the self-check.

    The input steps are the same whole numbers and float32 roundings in every JavaScript engine, so nothing is allowed
    them; but for Lanczos (each engine has its own sine) and for pictures that the browser decodes.
    """
    usual = tolerance_for(spec, target)
    # A page compares whole outputs, where coordinates make the scale.
    usual = usual.model_copy(
        update={name: min(getattr(usual, name), _WHOLE_OUTPUT) for name in ("network", "end_to_end")}
    )
    sine = any(isinstance(step, Resize) and step.filter == "lanczos" for step in spec.input.steps)
    if sine or any(entry["picture"].endswith((".webp", ".bmp")) for entry in entries):
        return usual
    return usual.model_copy(update={"input_max": 0.0, "input_mean": 0.0})


def chosen(images: Sequence[Path], step: Decode) -> list[tuple[str, bytes]]:
    """Return the names and bytes of the given pictures, or of the package's own whose format the Spec accepts; raises
    ImageError for more than 16."""
    if len(images) > MAX_PICTURES:
        raise ImageError(
            f"{len(images)} golden pictures; a package holds at most {MAX_PICTURES}",
            "Choose fewer: they are a self-test.",
        )
    if images:
        return [(image.name, read(image)) for image in images]
    own = [(name, files("plimsoll.preprocessing").joinpath("samples", name).read_bytes()) for name in _OWN]
    return [(name, data) for name, data in own if sniff(data) in step.formats]


def stem(number: int, name: str) -> str:
    """Return what a golden picture's files are called, without their suffix."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(name).stem)[:60]
    return f"{number}-{plain}"


def store_picture(folder: Path, name: str, data: bytes) -> str:
    """Write a golden picture; return its path in the package. Raises ImageError for a format that browsers don't
    decode."""
    suffix = _SUFFIXES.get(sniff(data) or "", "")
    if not suffix:
        raise ImageError(
            "a golden picture is of a format that browsers don't decode",
            f"Give pictures in one of: {', '.join(_SUFFIXES)}.",
        )
    (folder / f"{name}{suffix}").write_bytes(data)
    return f"{FOLDER}/{name}{suffix}"


def _entry(
    folder: Path, name: str, data: bytes, tensor: NDArray[Any], outputs: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    picture = store_picture(folder, name, data)
    stored = {
        output: _store(folder / f"{name}.output{number}.bin", value)
        for number, (output, value) in enumerate(outputs.items())
    }
    for output, value in outputs.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise CheckError(
                f"golden picture {name}: the output '{output}' has values that are NaN or infinite",
                "A package could prove nothing with them.",
            )
    return {
        "picture": picture,
        "tensor": _store(folder / f"{name}.input.bin", tensor),
        "outputs": stored,
    }


def _store(path: Path, value: NDArray[Any]) -> dict[str, Any]:
    path.write_bytes(np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes())
    return {"file": f"{FOLDER}/{path.name}", "dtype": str(value.dtype), "shape": list(value.shape)}

"""A bundle that holds no real network, and the means to damage it. For tests of what is refused before anything
runs."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from plimsoll.bundle import Content, write
from plimsoll.bundle.manifest import GoldenVector, Manifest, ModelFiles, Tolerance

SPEC = 'name = "small"\n[[input.steps]]\nstep = "decode"\n[output]\ntask = "tensor"\n'
TENSOR = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 2, 3)


def contents() -> dict[str, Content]:
    return {
        "spec.toml": SPEC.encode(),
        "model/small.onnx": b"no network",
        "golden/a.jpg": b"no picture",
        "golden/a.input.npy": TENSOR,
        "golden/a.0.npy": TENSOR[np.newaxis, 0, 0],
    }


def facts() -> Manifest:
    return Manifest(
        name="small",
        created=datetime(2026, 1, 2, tzinfo=UTC),
        plimsoll="0.1.0",
        target="onnxruntime:cpu:float32",
        model=ModelFiles(path="model/small.onnx", format="onnx"),
        golden=(GoldenVector(picture="golden/a.jpg", tensor="golden/a.input.npy", outputs={"y": "golden/a.0.npy"}),),
        tolerance=Tolerance(input_max=2.0, input_mean=0.25, network=1e-4, end_to_end=1e-3),
        environment={},
        files={},
    )


def small(out: Path) -> Path:
    """Write the small bundle."""
    return write(out, contents(), facts())


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the manifest of a bundle's folder."""
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return folder


def put(folder: Path, name: str, data: bytes) -> Path:
    """Put a file into a bundle's folder and into its manifest, with the right size and hash."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return edit(
        folder,
        lambda manifest: manifest["files"].update(
            {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
        ),
    )


def entries(folder: Path) -> list[tuple[zipfile.ZipInfo, bytes]]:
    """Return a bundle's files as zip entries, to be changed and given to `zipped`."""
    return [
        (entry(path.relative_to(folder).as_posix()), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def entry(name: str, mode: int = stat.S_IFREG | 0o644, method: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x", date_time=(1980, 1, 1, 0, 0, 0))
    info.filename = name  # Past the constructor, which cuts names at NUL.
    info.external_attr = mode << 16
    info.compress_type = method
    return info


def zipped(out: Path, files: list[tuple[zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(out, "w") as archive:
        for info, data in files:
            archive.writestr(info, data)
    return out

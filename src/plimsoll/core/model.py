"""`Model`: a network's files, their format and their Spec; `TensorInfo`: an input or output of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.spec import Spec

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Model:
    """A network on disk. A converted model is a Model with a parent, so verbs compose `Model → Model`."""

    path: Path
    """The main file."""
    format: str
    """`onnx`, `tflite`, … : which reader understands it."""
    spec: Spec | None = None
    """The contract; None for a bare network that is only inspected or fed tensors."""
    parent: Model | None = None
    """What this was made from."""
    files: tuple[Path, ...] = ()
    """Further files that belong to it (external weights), in the main file's folder or below."""

    @property
    def name(self) -> str:
        """The Spec's name, or the file's."""
        return self.spec.name if self.spec is not None else self.path.stem

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in (self.path, *self.files))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the main file and the further ones, in order, as hexadecimal digits."""
        digest = hashlib.sha256()
        for file in (self.path, *self.files):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def contract(self) -> Spec:
        """Return the Spec; raises ModelError where there is none."""
        if self.spec is None:
            raise ModelError(
                f"{self.path}: this network has no Spec, so nobody knows which input steps it needs or what its outputs"
                " mean",
                "Give one with --spec FILE (in Python: spec=...); `plimsoll spec show open_nsfw` prints an example.",
            )
        return self.spec


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a session."""

    name: str
    shape: tuple[int | None, ...]
    """`None` where the size is free, as the batch axis mostly is."""
    dtype: str
    """NumPy's name, for example float32."""

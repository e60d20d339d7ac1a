"""`Model`: a network's files, their format and their Spec; `TensorInfo`: an input or output of it.

`ModelFormat` recognises the files of one format, a `Reader` makes a `Model` of them.
"""

from __future__ import annotations

import hashlib
import stat
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from plimsoll.core.wording import printable
from plimsoll.errors import ModelError
from plimsoll.spec import Spec
from plimsoll.spec import files as spec_files
from plimsoll.system import files

Tensors = dict[str, NDArray[Any]]

MAX_NAME = 1_000
"""Characters in the name of an input or output."""

INCOMPLETE = "Was it copied completely, with the files that belong to it?"
"""Hint for a damaged model file."""


@dataclass(frozen=True)
class Model:
    """A network on disk. A converted model is a Model with a parent, so verbs compose `Model → Model`."""

    path: Path
    """The main file."""
    format: str
    """`onnx`, `tflite`, … : which reader understands it."""
    spec: Spec | None = None
    """None for a bare network that is only inspected or fed tensors."""
    parent: Model | None = None
    """The model that this one was converted from."""
    files: tuple[Path, ...] = ()
    """Its other files (external weights), in the main file's folder or below."""

    @property
    def name(self) -> str:
        """The Spec's name, or the file's."""
        return self.spec.name if self.spec is not None else self.path.stem

    @property
    def source(self) -> Path:
        """The file that the user gave: this one, or that of the first model that this one was made from."""
        return self.path if self.parent is None else self.parent.source

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in (self.path, *self.files))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the main file and the further ones, in order, as hexadecimal digits."""
        digest = hashlib.sha256()
        for file in (self.path, *self.files):
            digest.update(bytes.fromhex(files.sha256(file)))
        return digest.hexdigest()

    def require_spec(self) -> Spec:
        """Return the Spec; raises ModelError if there is none."""
        if self.spec is None:
            raise ModelError(
                f"{self.path}: it has no Spec, which says how pictures become its input and what its outputs mean",
                "Give one with --spec FILE (in Python: spec=...); `plimsoll spec show open_nsfw` prints an example.",
            )
        return self.spec


class ModelRecord(BaseModel):
    """A Model, and those it was made from, as JSON for another process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    format: str
    spec: str = ""
    """As TOML; empty where there is none."""
    files: tuple[Path, ...] = ()
    parent: ModelRecord | None = None

    @classmethod
    def of(cls, model: Model) -> Self:
        """Return the record of a model, with absolute paths."""
        return cls(
            path=model.path.resolve(),
            format=model.format,
            spec=spec_files.dumps(model.spec) if model.spec is not None else "",
            files=tuple(file.resolve() for file in model.files),
            parent=cls.of(model.parent) if model.parent is not None else None,
        )

    @property
    def model(self) -> Model:
        """The model; raises SpecError where its Spec is not one that this version reads."""
        spec = spec_files.loads(self.spec, "the Spec") if self.spec else None
        parent = self.parent.model if self.parent is not None else None
        return Model(self.path, self.format, spec, parent, self.files)


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a session."""

    name: str
    shape: tuple[int | None, ...]
    """`None` where the size is free, as the batch axis usually is."""
    dtype: str
    """NumPy's name, for example float32."""

    def __post_init__(self) -> None:
        """Refuse a name that no terminal, log or text format can hold as it is; raises ModelError."""
        if not self.name or len(self.name) > MAX_NAME or printable(self.name) != self.name:
            shown = f"'{printable(self.name, 60)}'" if self.name else "nothing"
            raise ModelError(
                f"an input or output of the network is called {shown}; expected 1 to {MAX_NAME:,} characters, none of"
                " which is a line break or another control character",
                "Rename it in the network.",
            )


class ModelFormat(ABC):
    """One kind of model file."""

    name: ClassVar[str]
    """The format's name, as `Model.format` has it."""
    suffixes: ClassVar[tuple[str, ...]]
    """The suffixes of such files, with the dot, in lower case; empty for a format known by its content alone."""

    def recognises(self, path: Path) -> bool:
        """Tell whether a path is of this format, by a quick look: a file by its suffix, a folder or a prefix by its
        contents.

        Formats that share a suffix look into the file. `path` need not exist if the format has no file of exactly that
        name (a TensorFlow checkpoint's prefix).
        """
        return path.suffix.lower() in self.suffixes and path.is_file()


class Reader(ModelFormat):
    """A model format that is read as it is."""

    @abstractmethod
    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Check the file and its external files, and return the Model; raises ModelError. Runs no code of the model."""

    def reread(self, model: Model) -> Model:
        """Check the file of a Model that is used as it is, and return it with its external files; raises ModelError."""
        return self.read(model.path, model.spec)


def model_file_size(path: Path, limit: int | None = None) -> int:
    """Return the size of a model file; raises ModelError if it is missing, a link, empty or larger than `limit`."""
    try:
        status = path.lstat()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}", INCOMPLETE) from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path}: a link, or not a regular file", "Copy the file itself.")
    if not status.st_size:
        raise ModelError(f"{path}: the file is empty", INCOMPLETE)
    if limit is not None and status.st_size > limit:
        raise ModelError(f"{path}: {status.st_size:,} bytes, the limit is {limit:,}", INCOMPLETE)
    return status.st_size

"""A bundle's files as they were when it was loaded: a worker that starts later must not find others in their place."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from plimsoll.bundle import Bundle


@dataclass(frozen=True)
class Snapshot:
    """What workers open."""

    reference: str
    """A zoo name, a model file, or the folder of the bundle's copy."""
    size: int
    """Bytes of the network's files, as far as they are known."""
    _folder: str | None = None

    @classmethod
    def take(cls, reference: str, folder: Path | None) -> Snapshot:
        """Copy a bundle into a folder of its own below `folder`, every file checked; anything else is used where it is.
        Raises BundleError."""
        path = Path(reference)
        if not (path.is_dir() or path.suffix.lower() == ".zip"):
            return cls(reference, path.stat().st_size if path.is_file() else 0)
        with Bundle.open(path) as bundle:
            copy = tempfile.mkdtemp(prefix="plimsoll-served-", dir=folder)
            try:
                shutil.copytree(bundle.folder, copy, dirs_exist_ok=True)
            except BaseException:
                shutil.rmtree(copy, ignore_errors=True)
                raise
            return cls(copy, bundle.model.size, copy)

    def remove(self) -> None:
        """Remove the copy."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

"""Where a service keeps its files: `ServiceFolder`, locked as long as the service lives, holds copies of its bundles
(`Snapshot`) and its workers' temporary files.

A service that was killed can't remove its folder, so the next one does. What cleans temporary folders leaves a locked
one alone (systemd-tmpfiles), and so does not find one in the user's cache.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from plimsoll.bundle import Bundle, open_any
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.system.cache import cache_folder

try:
    import fcntl
except ImportError:  # Windows: open files can't be removed there
    fcntl = None  # type: ignore[assignment]

PREFIX = "plimsoll-serve-"
_YOUNG_S = 10.0
"""A folder that is younger may not be locked yet."""
_log = logging.getLogger("plimsoll.serve")


class ServiceFolder:
    """The folder of a running service, made where it is first needed, and again where somebody removed it."""

    def __init__(self, parent: Path | None) -> None:
        self._parents = [parent] if parent is not None else [cache_folder() / "served", Path(tempfile.gettempdir())]
        self._path: Path | None = None
        self._lock: int | None = None

    def path(self) -> Path:
        """Return the folder; raises OSError where none can be made."""
        if self._path is not None and self._path.is_dir():
            return self._path
        self.remove()
        for number, parent in enumerate(self._parents, 1):
            try:
                parent.mkdir(parents=True, exist_ok=True)
                self._path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
                break
            except OSError:
                if number == len(self._parents):
                    raise
        assert self._path is not None  # noqa: S101 - the last attempt raises
        self._lock = _locked(self._path)
        return self._path

    def remove_abandoned(self) -> None:
        """Remove the folders of services that were killed."""
        for parent in self._parents:
            for folder in parent.glob(f"{PREFIX}*"):
                if _is_abandoned(folder):
                    _log.info("removing %s, which a service left behind that was killed", folder)
                    shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove it with all that is in it; twice is harmless."""
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            self._path = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(folder: Path) -> int | None:
    """Return a descriptor that holds the folder's lock until it is closed; None where there are no such locks."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_abandoned(folder: Path) -> bool:
    try:
        if time.time() - folder.stat().st_mtime < _YOUNG_S:
            return False
        descriptor = _locked(folder)
    except OSError:
        return False
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


@dataclass(frozen=True)
class Snapshot:
    """A bundle's files as they were when it was loaded: a worker that starts later must find the same."""

    reference: str
    """What workers open: a zoo name, a model file, or the folder of the bundle's copy."""
    size: int
    """Bytes of the network's files, as far as they are known."""
    _folder: str | None = None

    @classmethod
    def take(cls, reference: str, parent: Path | None) -> Snapshot:
        """Copy a bundle into a folder of its own below `parent`, every file checked; anything else is used where it is.
        Raises BundleError, or OSError where there is no room."""
        path = Path(reference)
        if not (path.is_dir() or path.suffix.lower() == ".zip"):
            return cls(reference, path.stat().st_size if path.is_file() else 0)
        with open_any(path) as bundle:
            copy = tempfile.mkdtemp(prefix="bundle-", dir=parent)
            try:
                shutil.copytree(bundle.folder, copy, dirs_exist_ok=True)
            except BaseException:
                shutil.rmtree(copy, ignore_errors=True)
                raise
            size = sum(record.size for record in bundle.manifest.files.values())
            return cls(copy, bundle.model.size if isinstance(bundle, Bundle) else size, copy)

    def target(self) -> Target:
        """Return the target that a bundle was packed for; anything else runs on the reference target by
        default."""
        if not Path(self.reference).is_dir():
            return REFERENCE_TARGET
        with open_any(Path(self.reference)) as bundle:
            return bundle.target if isinstance(bundle, Bundle) else REFERENCE_TARGET

    @property
    def is_gone(self) -> bool:
        """Whether somebody removed the copy."""
        return self._folder is not None and not Path(self._folder, "manifest.json").is_file()

    def remove(self) -> None:
        """Remove the copy."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

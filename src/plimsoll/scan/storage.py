"""Folders on this machine and in object stores, under one interface: files are written whole or not at all.

An address is a path, `file://…`, or what `fsspec` knows, such as `s3://bucket/folder`, where its package is installed.
"""

from __future__ import annotations

import errno
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from plimsoll.errors import BackendMissingError, ImageError, InputError
from plimsoll.preprocessing.decode import MAX_FILE_BYTES, read
from plimsoll.system import files

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_WEB = ("http", "https")


def scheme(address: str) -> str:
    """Return how an address begins before its `://`, in small letters; nothing for a path."""
    match = _SCHEME.match(address)
    return match[1].lower() if match is not None else ""


def is_remote(address: str) -> bool:
    """Tell whether an address leads to somewhere else than this machine's files."""
    return scheme(address) not in ("", "file")


def local_path(address: str) -> str:
    """Return the path of a local address, without `file://`."""
    return address[len("file://") :] if scheme(address) == "file" else address


@cache
def filesystem(name: str) -> Any:
    """Return fsspec's file system for a scheme; raises BackendMissingError for a package that is not installed, and
    InputError for a scheme that isn't known or can't be connected to."""
    if name in _WEB:
        raise InputError(
            f"{name}:// addresses are not fetched", "Download the pictures, or name a folder of an object store."
        )
    try:
        import fsspec
    except ImportError as error:
        raise BackendMissingError(
            f"{name}:// needs fsspec, which is not installed", "Install it: pip install 'plimsoll-line[scan]'"
        ) from error
    try:
        return fsspec.filesystem(name)
    except ImportError as error:
        package = _PACKAGES.get(name)
        advice = f"Install it: pip install {package}" if package else str(error)
        raise BackendMissingError(
            f"{name}:// needs {package or 'a package that is not installed'}, beside fsspec", advice
        ) from error
    except Exception as error:
        raise InputError(f"{name}://: {error}") from error


def read_picture(address: str) -> bytes:
    """Return a picture file's bytes; raises ImageError where it can't be read or is too large."""
    if not is_remote(address):
        return read(Path(local_path(address)))
    try:
        store = filesystem(scheme(address))
        size = int(store.size(address) or 0)
        if size > MAX_FILE_BYTES:
            raise ImageError(f"the file is larger than {MAX_FILE_BYTES // 1_000_000} MB")
        return bytes(store.cat_file(address))
    except (ImageError, BackendMissingError):
        raise
    except Exception as error:
        raise ImageError(f"can't read the file: {_reason(error)}") from error


def read_range(address: str, start: int, end: int) -> bytes:
    """Return the bytes from `start` to `end` of a file; raises OSError."""
    if is_remote(address):
        return bytes(filesystem(scheme(address)).cat_file(address, start=start, end=end))
    with Path(local_path(address)).open("rb") as stream:
        stream.seek(start)
        return stream.read(end - start)


def open_file(address: str) -> BinaryIO:
    """Open a file for reading bytes, with seeking; raises OSError."""
    if is_remote(address):
        return cast(BinaryIO, filesystem(scheme(address)).open(address, "rb"))
    return Path(local_path(address)).open("rb")


def stamp(address: str) -> tuple[int, int]:
    """Return a file's size and time of change, in nanoseconds (0 where a store doesn't say); raises InputError."""
    try:
        if is_remote(address):
            return int(filesystem(scheme(address)).size(address) or 0), 0
        status = Path(local_path(address)).stat()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"can't read {address}: {_reason(error)}") from error
    return status.st_size, status.st_mtime_ns


def walk(address: str) -> Iterator[str]:
    """Yield the files below a folder of an object store, or those that a pattern matches, folder by folder."""
    name = scheme(address)
    store = filesystem(name)
    if any(character in address for character in "*?["):
        yield from (f"{name}://{path}" for path in sorted(store.glob(address)))
    elif store.isfile(address):
        yield address
    else:
        for folder, _, names in store.walk(address):
            yield from (f"{name}://{folder}/{entry}" for entry in sorted(names))


class Folder(ABC):
    """A folder of files whose names may hold slashes. What fails raises OSError."""

    address: str

    @abstractmethod
    def names(self, inner: str) -> set[str]:
        """Return the names of the files in an inner folder; none where it doesn't exist."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None where there is no such file."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file, which replaces an older one, whole or not at all."""

    @abstractmethod
    def remove(self, inner: str) -> None:
        """Remove a file, or an inner folder with what it holds; nothing where it isn't there."""

    def inner(self, name: str) -> str:
        """Return the address of a file in it."""
        return f"{self.address.rstrip('/')}/{name}"


class LocalFolder(Folder):
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = str(path)

    def names(self, inner: str) -> set[str]:
        folder = self.path / inner
        return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, content)

    def remove(self, inner: str) -> None:
        path = self.path / inner
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class RemoteFolder(Folder):
    """A folder of an object store: a file appears with the PUT of its last byte."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._store = filesystem(scheme(address))

    def names(self, inner: str) -> set[str]:
        with _translated(self.address):
            folder = self.inner(inner)
            self._store.invalidate_cache()
            if not self._store.isdir(folder):
                return set()
            return {str(path).rstrip("/").rpartition("/")[2] for path in self._store.ls(folder, detail=False)}

    def read(self, name: str) -> bytes | None:
        with _translated(self.address):
            path = self.inner(name)
            return bytes(self._store.cat_file(path)) if self._store.exists(path) else None

    def write(self, name: str, content: bytes) -> None:
        with _translated(self.address):
            self._store.makedirs(self.inner(name).rpartition("/")[0], exist_ok=True)
            self._store.pipe_file(self.inner(name), content)

    def remove(self, inner: str) -> None:
        with _translated(self.address):
            if self._store.exists(self.inner(inner)):
                self._store.rm(self.inner(inner), recursive=True)


@contextmanager
def _translated(address: str) -> Iterator[None]:
    """Turn whatever a file system of others raises into an OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, _reason(error), address) from error


def folder(address: str) -> Folder:
    """Return a folder by its address; nothing is made or looked at. Raises InputError and BackendMissingError."""
    return RemoteFolder(address) if is_remote(address) else LocalFolder(Path(local_path(address)))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)

"""The pictures that a caller passes, read for sending and grouped into requests of bounded size."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from plimsoll.client.errors import ItemError
from plimsoll.errors import InputError

REQUEST_BYTES = 8 * 1024 * 1024
"""Pictures of one request together; a larger one goes alone. Services accept 64 MiB by default."""


@runtime_checkable
class Readable(Protocol):
    """A file that was opened in binary mode, or anything that reads like one."""

    def read(self) -> bytes:
        """Return all that is left."""
        ...


Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable
"""A picture file's path, its bytes, or a file object opened in binary mode (read from its current position)."""


@dataclass(frozen=True)
class Upload:
    """A picture to be sent, read as late as possible so that few are in memory at once."""

    name: str
    size: int
    """In bytes, as far as it is known."""
    source: Path | bytes | ItemError

    def read(self) -> bytes | ItemError:
        """Return the picture's bytes, or why they can't be read."""
        data: bytes | ItemError
        try:
            data = self.source.read_bytes() if isinstance(self.source, Path) else self.source
        except (OSError, ValueError) as error:
            return _unreadable(self.name, error)
        return data or _unreadable(self.name, ValueError("it is empty (0 bytes)"))


def prepare_upload(picture: Picture, number: int) -> Upload:
    """Return the upload of picture number `number`. A file object is read now, because its caller may close it."""
    if isinstance(picture, str | os.PathLike):
        name = os.fspath(picture)
        try:
            return Upload(name, Path(name).stat().st_size, Path(name))
        except (OSError, ValueError) as error:
            return Upload(name, 0, _unreadable(name, error))
    if isinstance(picture, bytes | bytearray | memoryview):
        data = bytes(picture)
        return Upload(str(number), len(data), data)
    if isinstance(picture, Readable):
        return _read_file(picture, number)
    raise InputError(
        f"not a picture: {type(picture).__name__}",
        "Expected a path, bytes or a file object; `predict` takes a list of them, `predict_many` any iterable.",
    )


def _read_file(file: Readable, number: int) -> Upload:
    name = getattr(file, "name", None)
    label = name if isinstance(name, str) else str(number)
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        return Upload(label, 0, _unreadable(label, error))
    if not isinstance(data, bytes):
        error = ValueError(f"reading gave {type(data).__name__}, not bytes; open it with mode 'rb'")
        return Upload(label, 0, _unreadable(label, error))
    return Upload(label, len(data), data)


class Batcher:
    """Cuts a stream of pictures into requests of at most `batch` pictures and `limit` bytes; a larger picture goes
    alone."""

    def __init__(self, batch: int, limit: int = REQUEST_BYTES) -> None:
        if batch < 1:
            raise InputError(f"batch = {batch}: expected at least 1")
        self._batch = batch
        self._limit = limit
        self._group: list[Upload] = []
        self._size = 0

    def add(self, picture: Upload) -> list[Upload]:
        """Add a picture; returns the group that is full now, or an empty one."""
        full: list[Upload] = []
        if self._group and (len(self._group) == self._batch or self._size + picture.size > self._limit):
            full = self.flush()
        self._group.append(picture)
        self._size += picture.size
        return full

    def flush(self) -> list[Upload]:
        """Return what is left; empty where nothing is."""
        group, self._group, self._size = self._group, [], 0
        return group


def _unreadable(name: str, error: Exception) -> ItemError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    unreadable = ItemError(f"can't read the picture: {reason}", kind="input")
    unreadable.name = name
    return unreadable

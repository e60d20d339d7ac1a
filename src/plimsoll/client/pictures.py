"""What a caller gives as a picture, and how many of them go into one request."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from plimsoll.client.errors import ItemError
from plimsoll.errors import InputError

REQUEST_BYTES = 8 * 1024 * 1024
"""Pictures of one request together; a larger one goes alone. Services take 64 MiB unless told otherwise."""


@runtime_checkable
class Readable(Protocol):
    """A file that was opened in binary mode, or anything that reads like one."""

    def read(self) -> bytes:
        """Return all that is left."""
        ...


Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable
"""A picture file's path, its bytes, or a file object opened in binary mode (read from where it stands)."""


@dataclass(frozen=True)
class Sending:
    """A picture that is to be sent, read as late as possible so that few are in memory at once."""

    name: str
    size: int
    """In bytes, as far as it is known."""
    source: Path | bytes | ItemError

    def read(self) -> bytes | ItemError:
        """Return the picture's bytes, or why they can't be had."""
        data: bytes | ItemError
        try:
            data = self.source.read_bytes() if isinstance(self.source, Path) else self.source
        except (OSError, ValueError) as error:
            return _unreadable(self.name, error)
        return data or _unreadable(self.name, ValueError("it is empty (0 bytes)"))


def sending(picture: Picture, number: int) -> Sending:
    """Prepare the picture that is number `number`. A file object is read now, since its caller may close it."""
    if isinstance(picture, str | os.PathLike):
        name = os.fspath(picture)
        try:
            return Sending(name, Path(name).stat().st_size, Path(name))
        except (OSError, ValueError) as error:
            return Sending(name, 0, _unreadable(name, error))
    if isinstance(picture, bytes | bytearray | memoryview):
        data = bytes(picture)
        return Sending(str(number), len(data), data)
    if isinstance(picture, Readable):
        return _opened(picture, number)
    raise InputError(
        f"{type(picture).__name__} is no picture",
        "Expected a path, bytes or a file object; `predict` takes a list of them, `predict_many` any iterable.",
    )


def _opened(file: Readable, number: int) -> Sending:
    name = getattr(file, "name", None)
    named = name if isinstance(name, str) else str(number)
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        return Sending(named, 0, _unreadable(named, error))
    if not isinstance(data, bytes):
        error = ValueError(f"it gives {type(data).__name__}, not bytes; open it with mode 'rb'")
        return Sending(named, 0, _unreadable(named, error))
    return Sending(named, len(data), data)


class Grouping:
    """Cuts a stream of pictures into requests of at most `batch` pictures and `limit` bytes; a larger picture goes
    alone."""

    def __init__(self, batch: int, limit: int = REQUEST_BYTES) -> None:
        if batch < 1:
            raise InputError(f"batch = {batch}: a request has at least one picture")
        self._batch = batch
        self._limit = limit
        self._group: list[Sending] = []
        self._size = 0

    def add(self, picture: Sending) -> list[Sending]:
        """Take a picture; return the request that is full now, or nothing."""
        full: list[Sending] = []
        if self._group and (len(self._group) == self._batch or self._size + picture.size > self._limit):
            full = self.rest()
        self._group.append(picture)
        self._size += picture.size
        return full

    def rest(self) -> list[Sending]:
        """Return what is left; empty where nothing is."""
        group, self._group, self._size = self._group, [], 0
        return group


def _unreadable(name: str, error: Exception) -> ItemError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    problem = ItemError(f"can't read the picture: {reason}", kind="input")
    problem.name = name
    return problem

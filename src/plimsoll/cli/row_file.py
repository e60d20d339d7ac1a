"""A file of whole rows: what a full disk or a signal leaves of a row is taken back."""

from __future__ import annotations

import io
import os
import stat
import time
import zlib
from pathlib import Path

from plimsoll.errors import InputError

_SYNC_S = 1.0
_SYNC_ROWS = 1_000
"""Compressed rows reach the disk after this time, or this many rows."""


class RowFile(io.TextIOBase):
    """A UTF-8 text file to which whole rows are written, one each call.

    `end` is where the rows of an earlier run end; None begins anew. Raises InputError if the file can't be written.
    """

    encoding = "utf-8"
    unsaved = 0
    """How many of the last rows have not reached the file."""

    def __init__(self, path: Path, *, end: int | None = None, replace: bool = False) -> None:
        self._path = path
        self._failed = False
        special = not is_regular(path)
        fresh = os.O_CREAT | (os.O_TRUNC if replace else os.O_EXCL) if not special else 0
        flags = os.O_WRONLY | (fresh if end is None else 0) | getattr(os, "O_BINARY", 0)
        try:
            self._descriptor = os.open(path, flags, 0o666)
            if end is not None:
                os.ftruncate(self._descriptor, end)
                os.lseek(self._descriptor, end, os.SEEK_SET)
        except OSError as error:
            raise unwritable(path, error) from error
        self._end = end or 0
        self._whole = not special
        self._begun = end is not None or special
        """Whether the file stays where nothing was written."""

    def write(self, text: str) -> int:
        """Write a row; what is written of it goes again if the rest can't be."""
        self.unsaved = 1
        self._put(text.encode("utf-8", "backslashreplace"))
        self.unsaved = 0
        return len(text)

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self._failed = True
            self._take_back()
            raise unwritable(self._path, error) from error
        self._end += len(data)
        self._begun = self._begun or bool(data)

    def _take_back(self) -> None:
        if self._whole:
            os.ftruncate(self._descriptor, self._end)
            os.lseek(self._descriptor, self._end, os.SEEK_SET)

    def close(self) -> None:
        """Close the file; it is removed if nothing was written to it."""
        if not self.closed:
            super().close()
            os.close(self._descriptor)
            if not self._begun:
                self._path.unlink(missing_ok=True)


class GzipRowFile(RowFile):
    """The same, compressed: a gzip member for each run, which begins on the disk within a second of its rows."""

    def __init__(self, path: Path, *, end: int | None = None, replace: bool = False) -> None:
        super().__init__(path, end=end, replace=replace)
        self._compressor = zlib.compressobj(wbits=31)
        self._at_end = self._compressor.copy()
        """What ends the member after the rows that are on the disk."""
        self._compressed: list[bytes] = []
        self._used = False
        self._synced = time.monotonic()

    def write(self, text: str) -> int:
        """Compress a row, and write all so far now and then."""
        self._compressed.append(self._compressor.compress(text.encode("utf-8", "backslashreplace")))
        self.unsaved += 1
        self._used = True
        if self.unsaved >= _SYNC_ROWS or time.monotonic() - self._synced >= _SYNC_S:
            self._sync()
        return len(text)

    def _sync(self) -> None:
        self._put(b"".join((*self._compressed, self._compressor.flush(zlib.Z_SYNC_FLUSH))))
        self._at_end = self._compressor.copy()
        self._compressed, self.unsaved, self._synced = [], 0, time.monotonic()

    def _take_back(self) -> None:
        super()._take_back()
        ending = self._at_end.flush()
        try:
            os.write(self._descriptor, ending)
        except OSError:
            super()._take_back()  # Its rows can be read without the end, too.

    def close(self) -> None:
        """Write what is left, end the member and close the file."""
        try:
            if not self.closed and not self._failed and self._used:
                self._put(b"".join((*self._compressed, self._compressor.flush())))
                self.unsaved = 0
        except InputError as error:
            raise InputError(f"{error.message}; the last {self.unsaved:,} predictions are lost", error.hint) from error
        finally:
            super().close()


def is_regular(path: Path) -> bool:
    """Tell whether a path is a file, or will be one: not a pipe or a device."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return True


def unwritable(path: Path, error: OSError) -> InputError:
    """Return the error for a file that can't be written."""
    return InputError(f"can't write {path}: {error.strerror}")

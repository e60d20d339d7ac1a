"""The standard streams and the signals of a command: no name, no full disk, no closed pipe and no signal ends it with a
traceback, or in the middle of a row."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from plimsoll.errors import InputError


class ClosedOutputError(Exception):
    """The reader of standard output (head, less) has closed it. No OSError: Typer and Rich end a command for those."""


class StoppedError(KeyboardInterrupt):
    """A signal asked the command to end; raised like Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class StandardStream(io.RawIOBase):
    """Standard output or standard error. The first failure of output is raised in words; what comes after it goes
    nowhere, and so does what can't be written to standard error."""

    def __init__(self, raw: io.RawIOBase, *, is_output: bool) -> None:
        self._raw, self._is_output, self._broken = raw, is_output, False

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._raw.fileno()

    def isatty(self) -> bool:
        """Tell whether this is a terminal."""
        return self._raw.isatty()

    def write(self, data: Any) -> int:
        """Write some of the bytes, and return how many."""
        if self._broken:
            return len(data)
        try:
            while (written := self._raw.write(data)) is None:  # somebody made the other end not wait for us
                select.select([], [self._raw.fileno()], [])
        except OSError as error:
            self._broken = True
            if not self._is_output:
                return len(data)
            if isinstance(error, BrokenPipeError):
                raise ClosedOutputError from error
            raise InputError(f"can't write to standard output: {error.strerror}") from error
        return written


def fill_gaps() -> None:
    """Open the standard streams that are closed: the next file opened would take the place of one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def prepare() -> None:
    """Make the standard streams and the signals as this module says; called once, before a command runs."""
    sys.stdout = sys.__stdout__ = _prepared(sys.stdout, 1)  # type: ignore[misc]  # Rich asks the second for its size
    sys.stderr = sys.__stderr__ = _prepared(sys.stderr, 2)  # type: ignore[misc]
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _signalled)


def _prepared(stream: Any, descriptor: int) -> Any:
    """Return a stream that escapes the characters that its encoding lacks, and fails in words."""
    if stream is None:
        return open(descriptor, "w", encoding="utf-8", closefd=False)
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    encoding, waits = stream.encoding, not stream.line_buffering
    buffer: Any = stream.detach()
    raw = StandardStream(
        buffer.detach() if isinstance(buffer, io.BufferedWriter) else buffer, is_output=descriptor == 1
    )
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=not waits
    )


_held = 0
_waiting: list[int] = []
_received: list[int] = []


def stop_code() -> int | None:
    """Return the exit code that a signal asked for, 128 and its number; None where none came."""
    return 128 + _received[-1] if _received else None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals wait until the end of the block: for the writing of a row."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1
        if _waiting and not _held:
            _signalled(_waiting.pop(0), None)


def _signalled(number: int, frame: FrameType | None) -> None:
    del frame
    _received.append(number)
    if _held:
        _waiting[:] = [number]
    else:
        raise StoppedError(number)

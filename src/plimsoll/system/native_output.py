"""Keep what native libraries print away from what this program prints.

Runtimes greet, warn and count on the process's standard output and standard error, and not all of them have a switch
that stops it. So a program may `separate` itself from them:
Python's own streams get descriptors of their own, and descriptors 1 and 2, which native code writes to, lead to a
buffer of the last lines. Where a runtime's error is nothing but a number, `recent` has what it said.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator

_MAX_LINES = 20
_MAX_LINE_BYTES = 4096
_FLUSH_S = 1.0


class _Buffer:
    """Reads a pipe in a thread, and holds its last lines."""

    def __init__(self) -> None:
        source, self.descriptor = os.pipe()
        # A library that prints while it holds Python's lock would wait for ever for a reader that waits for the lock.
        os.set_blocking(self.descriptor, False)
        self._lines: deque[str] = deque(maxlen=_MAX_LINES)
        self._read = threading.Event()
        self._mark = f"\n{os.getpid()} {id(self)}\n"
        threading.Thread(target=self._collect, args=(source,), name="plimsoll-native-output", daemon=True).start()

    def _collect(self, source: int) -> None:
        """Read with no Python stream: the end of the program must not wait for the lock of one."""
        rest = b""
        while content := os.read(source, 65536):
            *lines, rest = (rest + content).split(b"\n")
            rest = rest[-_MAX_LINE_BYTES:]
            for line in (raw.decode("utf-8", "replace").strip() for raw in lines):
                if line == self._mark.strip():
                    self._read.set()
                elif line:
                    self._lines.append(line)

    def take(self) -> list[str]:
        """Return the lines since the last call, at most the last 20."""
        self._read.clear()
        end = time.monotonic() + _FLUSH_S
        while not self._read.is_set() and time.monotonic() < end:
            try:
                os.write(self.descriptor, self._mark.encode())
                self._read.wait(_FLUSH_S)
            except BlockingIOError:  # full; the reader is at it
                time.sleep(0.01)
        lines = list(self._lines)
        self._lines.clear()
        return lines


_buffer: _Buffer | None = None
_holding = threading.Lock()


def separate() -> None:
    """Separate this process's own output from that of native libraries; processes that it starts without streams of
    their own inherit the buffer. For programs: it changes the process for good. A second call changes nothing."""
    global _buffer
    if _buffer is not None:
        return
    _buffer = _Buffer()
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            continue
        stream.flush()
        own = os.fdopen(os.dup(number), "w", encoding=stream.encoding, errors=stream.errors)
        own.reconfigure(line_buffering=stream.line_buffering, write_through=stream.write_through)
        os.dup2(_buffer.descriptor, number)
        setattr(sys, name, own)
        setattr(sys, f"__{name}__", own)  # Sizes of terminals are asked of it.


def recent() -> str:
    """Return what native libraries have printed since the last call, its last lines in one; empty where nothing is
    known of it, since `separate` was not called."""
    return " | ".join(_buffer.take()) if _buffer is not None else ""


@contextlib.contextmanager
def without(line: str) -> Iterator[None]:
    """Hold back what is written to descriptor 2 meanwhile, and write it after, but for lines that have `line` in them:
    for a library that greets there and has no switch. In a program that called `separate`, nothing is to be done."""
    with _holding, contextlib.ExitStack() as ends:
        try:
            own = os.dup(2) if _buffer is None else None
        except OSError:  # It is closed.
            own = None
        if own is None:
            yield
            return
        held = ends.enter_context(tempfile.TemporaryFile())
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(own, 2)
            os.close(own)
            held.seek(0)
            if rest := b"".join(written for written in held if line.encode() not in written):
                os.write(2, rest)

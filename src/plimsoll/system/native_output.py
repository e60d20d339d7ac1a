"""Keep what native libraries print away from what this program prints.

Runtimes greet, warn and count on the process's standard output and standard error, and not all of them have a switch
that stops it. So a program may `separate` itself from them:
Python's own streams get descriptors of their own, and descriptors 1 and 2, which native code writes to, lead to a
buffer of the last lines. Where a runtime's error is nothing but a number, `recent` has what it said.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from io import TextIOWrapper

_MAX_LINES = 20
_FLUSH_S = 1.0


class _Buffer:
    """Reads a pipe in a thread, and holds its last lines."""

    def __init__(self) -> None:
        source, self.descriptor = os.pipe()
        self._lines: deque[str] = deque(maxlen=_MAX_LINES)
        self._read = threading.Event()
        self._mark = f"\n{os.getpid()} {id(self)}\n"
        stream = os.fdopen(source, encoding="utf-8", errors="replace")
        threading.Thread(target=self._collect, args=(stream,), name="plimsoll-native-output", daemon=True).start()

    def _collect(self, stream: TextIOWrapper) -> None:
        for line in stream:
            if line.strip() == self._mark.strip():
                self._read.set()
            elif line.strip():
                self._lines.append(line.strip())

    def take(self) -> list[str]:
        """Return the lines since the last call, at most the last 20."""
        self._read.clear()
        os.write(self.descriptor, self._mark.encode())
        self._read.wait(_FLUSH_S)
        lines = list(self._lines)
        self._lines.clear()
        return lines


_buffer: _Buffer | None = None


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

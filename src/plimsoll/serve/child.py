"""Child processes with pipes, for the event loop.

uvloop's own keep some descriptors each time that one can't be started; and a service that lacks descriptors, processes
or memory tries again and again.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

_POLL_S = 0.01


@dataclass
class ChildProcess:
    """A process that was started, as `asyncio.subprocess.Process` has it."""

    stdin: asyncio.WriteTransport
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader | None
    """None where it writes elsewhere."""
    _popen: subprocess.Popen[bytes]
    _transports: Sequence[asyncio.BaseTransport]

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._popen.poll()

    def kill(self) -> None:
        """End it at once; after its end this is harmless."""
        self._popen.kill()

    async def wait(self) -> int:
        """Wait until it has ended. Its pipe says so first, so this is short; and a thread may not be had."""
        while (code := self._popen.poll()) is None:
            await asyncio.sleep(_POLL_S)
        return code

    def close(self) -> None:
        """Close the pipes, once what came from them has been read."""
        for transport in self._transports:
            transport.close()


async def start(
    command: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int], errors: int | None = None
) -> ChildProcess | asyncio.subprocess.Process:
    """Start a process in a session of its own, which inherits these descriptors; raises OSError. `errors`: the
    descriptor of its standard error, in place of a pipe."""
    options: dict[str, Any] = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    options["stderr"] = subprocess.PIPE if errors is None else errors
    options |= {"env": environment, "start_new_session": True, "pass_fds": descriptors}
    if sys.platform == "win32":  # there its event loop reads no pipes but those that it made itself
        return await asyncio.create_subprocess_exec(*command, **options)
    popen = subprocess.Popen(command, bufsize=0, **options)
    assert popen.stdin is not None  # noqa: S101 - all three are pipes
    assert popen.stdout is not None  # noqa: S101
    try:
        loop = asyncio.get_running_loop()
        stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, popen.stdin)
        stdout, out = await _reader(popen.stdout)
        stderr, error = (None, None) if popen.stderr is None else await _reader(popen.stderr)
    except BaseException:
        popen.kill()
        popen.wait()
        for pipe in (popen.stdin, popen.stdout, popen.stderr):
            if pipe is not None:
                pipe.close()
        raise
    return ChildProcess(stdin, stdout, stderr, popen, [pipe for pipe in (stdin, out, error) if pipe is not None])


def exit_reason(code: int, last_line: str = "") -> str:
    """Return in words why a process ended, from its exit code and the last line that it wrote."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return "exited" if code == 0 else f"exited with code {code}" + (f": {last_line}" if last_line else "")


async def _reader(pipe: IO[bytes]) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader, transport

"""Start a server so that all it starts stays below it, however it detaches itself, and ends with it (Linux).

    python benchmarks/serve/contain.py COMMAND…

Orphans come to the nearest subreaper instead of the system's first process: the tree below this one is the whole
server, whose processor time and memory can then be summed. SIGTERM, SIGINT and SIGHUP are passed on to the command; its
exit code becomes ours.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

from processes import tree

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""prctl(2)."""


def main() -> int:
    """Run the command, and end what it left behind."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    command = subprocess.Popen(sys.argv[1:])

    def pass_on(number: int, _frame: FrameType | None) -> None:
        command.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    status = None
    while status is None:
        pid, ended = os.wait()
        status = os.waitstatus_to_exitcode(ended) if pid == command.pid else None
    _end_the_rest()
    return status if status >= 0 else 128 - status


def _end_the_rest(patience: float = 5.0) -> None:
    """Ask what is left to end, then kill it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = tree(os.getpid())[1:]
        for pid in left:
            try:
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue
        until = time.monotonic() + patience
        while tree(os.getpid())[1:] and time.monotonic() < until:
            _reap()
            time.sleep(0.05)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    sys.exit(main())

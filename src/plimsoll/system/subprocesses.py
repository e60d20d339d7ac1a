"""Run a piece of work in a process of its own, so that a crash, a hang or a memory hog is a sentence and not the end.

The work is a module with `run(payload) -> result`, both JSON. The process is watched: it ends at its timeout, when it
holds more memory than it may, and when whoever started it is gone. What it printed is kept in a log.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plimsoll.errors import PlimsollError
from plimsoll.system import files, host

_POLL_S = 0.1
_SIGNALS = {
    "SIGSEGV": "a segmentation fault",
    "SIGBUS": "a bus error",
    "SIGILL": "an illegal instruction: it was built for another processor",
    "SIGFPE": "an arithmetic fault",
    "SIGABRT": "an abort of its own",
    "SIGKILL": "the operating system (out of memory?) or somebody else",
    "SIGTERM": "somebody's request",
}


@dataclass(frozen=True)
class Limits:
    """What a process may take."""

    seconds: float
    memory_bytes: int | None = None
    """Resident memory of the process and all that it starts; not watched where the system doesn't tell."""


class JobError(PlimsollError):
    """A piece of work did not finish; the message says why, the hint where its log is."""


def run(module: str, payload: dict[str, Any], folder: Path, limits: Limits) -> dict[str, Any]:
    """Run `module.run(payload)` in a process of its own and return its result.

    `folder` keeps `job.json` (which repeats the work: `python -m plimsoll.system.subprocesses FOLDER`), `log.txt` and
    `result.json`. Raises JobError for whatever ends it early, in words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(
        json.dumps({"module": module, "payload": payload, "parent": os.getpid()}), encoding="utf-8"
    )
    answer = call([sys.executable, "-m", "plimsoll.system.subprocesses", str(folder)], folder, limits)
    if "error" in answer:
        raise JobError(answer["error"], answer["hint"])
    done: dict[str, Any] = answer["result"]
    return done


def call(command: Sequence[str], folder: Path, limits: Limits) -> dict[str, Any]:
    """Run a command that leaves its answer, a JSON object, as `result.json` in `folder`, and return that; raises
    JobError."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    watch(command, folder / "log.txt", limits)
    try:
        answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JobError("it ended without an answer", _traces(command, folder / "log.txt")) from error
    return answer


def watch(command: Sequence[str], log: Path, limits: Limits) -> None:
    """Run a command to its end, with all that it starts, its output in `log`.

    Raises JobError where it ends with a signal or an exit code but 0, or takes more than it may; the hint says where
    the log is and which command repeats it.
    """
    with log.open("wb") as output:
        environment = {**os.environ, **host.TELEMETRY_OFF}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment
        )
        try:
            reason = _watch(process, limits)
        finally:
            _end(process)
    if reason or process.returncode != 0:
        raise JobError(reason or _reason(process.returncode, log), _traces(command, log))


def _traces(command: Sequence[str], log: Path) -> str:
    return f"Its log: {log}; again: {shlex.join(command)}"


def _watch(process: subprocess.Popen[bytes], limits: Limits) -> str:
    """Wait for the end; return why it was ended, or nothing where it ended by itself."""
    deadline = time.monotonic() + limits.seconds
    while process.poll() is None:
        if time.monotonic() > deadline:
            return f"it ran longer than its limit of {limits.seconds:.0f} s"
        held = host.tree_bytes(process.pid) if limits.memory_bytes is not None else None
        if limits.memory_bytes is not None and held is not None and held > limits.memory_bytes:
            return f"it held {held / 1e9:.1f} GB of memory; its limit is {limits.memory_bytes / 1e9:.1f} GB"
        time.sleep(_POLL_S)
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started; what it left behind when it ended by itself, too."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left (macOS says the latter)
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()


def _reason(code: int, log: Path) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"it was killed by {_SIGNALS.get(name, name)} ({name})"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"it ended with exit code {code}: {lines[-1][:300] if lines else 'it printed nothing'}"


def _leave_with_parent(parent: int) -> None:
    """End this process when its parent is gone: a killed parent can't end us itself."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Do the work that a folder's `job.json` describes; run by `run`, or by hand to repeat it."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    if os.getppid() == job["parent"]:
        threading.Thread(target=_leave_with_parent, args=(job["parent"],), daemon=True).start()
    answer: dict[str, Any]
    try:
        answer = {"result": importlib.import_module(job["module"]).run(job["payload"])}
    except PlimsollError as error:
        traceback.print_exc()
        answer = {"error": error.message, "hint": error.hint}
    files.write(folder / "result.json", json.dumps(answer))


if __name__ == "__main__":
    main()

"""Run work in a separate process, so that a crash, a hang or excessive memory use becomes an error.

A job is a module with `run(payload) -> result`, both JSON. Its process is killed at its timeout, when it exceeds its
memory limit, and when its parent is gone. Its output goes to a log.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plimsoll import errors
from plimsoll.errors import PlimsollError
from plimsoll.system import files, host

_POLL_S = 0.1
_MESSAGES = "messages.jsonl"
_SIGNALS = {
    "SIGSEGV": "a segmentation fault",
    "SIGBUS": "a bus error",
    "SIGILL": "an illegal instruction: it stopped at a check of its own, or was built for another processor",
    "SIGFPE": "an arithmetic fault",
    "SIGABRT": "its own abort",
    "SIGKILL": "the operating system (out of memory?) or another process",
    "SIGTERM": "a request to end",
}


@dataclass(frozen=True)
class ProcessLimits:
    """Time and memory that a process may use."""

    seconds: float
    memory_bytes: int | None = None
    """Resident memory of the process and its descendants; not enforced where the system doesn't report it."""


class JobError(PlimsollError):
    """A process did not finish its work; the message says why, the hint where its log is."""


class ProcessDiedError(JobError):
    """A process was killed by a signal: mostly it crashed."""


def run_job(module: str, payload: dict[str, Any], folder: Path, limits: ProcessLimits) -> dict[str, Any]:
    """Run `module.run(payload)` in a separate process and return its result. What it logs is logged here too.

    `folder` keeps `job.json` (which repeats the job: `python -m plimsoll.system.subprocesses FOLDER`), `log.txt` and
    `result.json`. Raises JobError if it ends early; its cause is the error that the job raised, if it raised one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    level = logging.getLogger("plimsoll").getEffectiveLevel()
    job = {"module": module, "payload": payload, "parent": os.getpid(), "log_level": level}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    messages = folder / _MESSAGES
    messages.unlink(missing_ok=True)
    command = [sys.executable, "-m", "plimsoll.system.subprocesses", str(folder)]
    outcome = run_for_result(command, folder, limits, _Messages(messages).log_new)
    if "error" in outcome:
        message, hint = outcome["error"], outcome["hint"]
        raise JobError(message, hint) from getattr(errors, outcome["kind"], PlimsollError)(message, hint)
    result: dict[str, Any] = outcome["result"]
    return result


class _JsonLines(logging.Handler):
    """Writes what a job's process logs to a file, a line each."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        line = json.dumps({"name": record.name, "level": record.levelno, "message": record.getMessage()})
        with self._file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class _Messages:
    """Logs here what a job's process has logged."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._position = 0

    def log_new(self) -> None:
        """Log what has come since the last call."""
        with contextlib.suppress(FileNotFoundError), self._file.open("rb") as file:
            file.seek(self._position)
            *lines, unfinished = file.read().split(b"\n")
            self._position = file.tell() - len(unfinished)
            for record in map(json.loads, lines):
                logging.getLogger(record["name"]).log(record["level"], "%s", record["message"])


def run_for_result(
    command: Sequence[str], folder: Path, limits: ProcessLimits, watch: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Run a command that writes a JSON object to `result.json` in `folder`, and return that object; raises JobError.
    `watch` is called now and then, and at the end."""
    file = folder / "result.json"
    file.unlink(missing_ok=True)
    try:
        run_command(command, folder / "log.txt", limits, watch)
    finally:
        watch()
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JobError("it ended without a result", _hint(command, folder / "log.txt")) from error
    return result


def run_command(
    command: Sequence[str], log: Path, limits: ProcessLimits, watch: Callable[[], None] = lambda: None
) -> None:
    """Run a command to its end, with its output in `log`.

    Raises JobError if it ends with a signal or an exit code other than 0, or exceeds its limits; the hint says
    where the log is and which command repeats it.
    """
    with log.open("wb") as output:
        environment = {**os.environ, **host.TELEMETRY_OFF}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment
        )
        try:
            reason = _wait(process, limits, watch)
        finally:
            _end(process)
    if reason or process.returncode != 0:
        kind = ProcessDiedError if not reason and process.returncode < 0 else JobError
        raise kind(reason or _reason(process.returncode, log), _hint(command, log))


def _hint(command: Sequence[str], log: Path) -> str:
    return f"Its log: {log}; to repeat it: {shlex.join(command)}"


def _wait(process: subprocess.Popen[bytes], limits: ProcessLimits, watch: Callable[[], None]) -> str:
    """Wait for the end; return why the process must be killed, or an empty string if it ended by itself."""
    deadline = time.monotonic() + limits.seconds
    while process.poll() is None:
        if time.monotonic() > deadline:
            return f"it ran longer than its limit of {limits.seconds:.0f} s"
        resident = host.tree_bytes(process.pid) if limits.memory_bytes is not None else None
        if limits.memory_bytes is not None and resident is not None and resident > limits.memory_bytes:
            return f"it held {resident / 1e9:.1f} GB of memory; its limit is {limits.memory_bytes / 1e9:.1f} GB"
        watch()
        time.sleep(_POLL_S)
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its descendants, also those that outlived it."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left (macOS says the latter)
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()


def _reason(code: int, log: Path) -> str:
    if code < 0:
        return f"it was {death(code)}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"it ended with exit code {code}: {lines[-1][:300] if lines else 'it printed nothing'}"


def death(code: int) -> str:
    """Return what ended a process, by its exit code: `killed by a segmentation fault (SIGSEGV)`."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"killed by {_SIGNALS.get(name, name)} ({name})"


def last_lines(log: Path, count: int = 3) -> str:
    """Return the last lines of a log before a traceback, on one line, for a message; empty where there is none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    text = text.partition("Traceback (most recent call last):")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    text = " | ".join(line[:200] for line in lines[-count:])
    return "".join(character if character.isprintable() else "?" for character in text)


def leave_with_parent(parent: int) -> None:
    """End this process when its parent is gone: a killed parent can't end us itself."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Run the job that a folder's `job.json` describes; started by `run_job`, or by hand to repeat it."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    if os.getppid() == job["parent"]:
        threading.Thread(target=leave_with_parent, args=(job["parent"],), daemon=True).start()
    logger = logging.getLogger("plimsoll")
    logger.setLevel(job.get("log_level", logging.INFO))
    logger.addHandler(_JsonLines(folder / _MESSAGES))
    outcome: dict[str, Any]
    try:
        outcome = {"result": importlib.import_module(job["module"]).run(job["payload"])}
    except PlimsollError as error:
        traceback.print_exc()
        outcome = {"error": error.message, "hint": error.hint, "kind": type(error).__name__}
    files.write(folder / "result.json", json.dumps(outcome))


if __name__ == "__main__":
    main()

"""Run a toolchain's job: it gets copies of the inputs and returns files and a JSON result."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plimsoll.errors import BuildError, InputError, ModelError
from plimsoll.system import host, subprocesses
from plimsoll.system.cache import cache_folder
from plimsoll.system.subprocesses import JobError, ProcessLimits
from plimsoll.system.toolchains import plimsoll_job
from plimsoll.system.toolchains.environment import Recipe, make, python_of, recipe

_log = logging.getLogger(__name__)
_SECONDS = 1800
_MEMORY_BYTES = 8_000_000_000
_FAILURES_KEPT = 5
_KEPT_BYTES = 1_000_000
"""Inputs of a failed job are left, for repeating it, where they are no larger."""
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TZ")
_OFFLINE = {
    **host.TELEMETRY_OFF,
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INDEX": "1",
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "UV_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
}

Input = Path | Sequence[Path]


def run(  # noqa: PLR0913 - what to run, on what, and for whom
    name: str,
    job: str,
    request: Mapping[str, Any],
    folder: Path,
    *,
    inputs: Mapping[str, Input] | None = None,
    where: str,
    limits: ProcessLimits | None = None,
) -> dict[str, Any]:
    """Run `jobs/<job>.py` of a toolchain, creating the environment if it is missing, and return the job's result.

    Each input is a file, a folder, or several files: the main one and others in its folder or below, which keep their
    relative positions; the script gets the path of a copy (of the main one). The files in the script's `out` are moved
    to `folder`, and its log as `<job>.log`. `where` names the user's file in errors. A script that tries to reach the
    network fails, and a warning names the attempt.

    Raises BackendMissingError if the toolchain can't be created, ModelError for what the job refuses, BuildError for
    every other failure; the hint says where the log is and which command repeats the job.
    """
    toolchain = recipe(name)
    script = toolchain.jobs / f"{job}.py"
    if not script.is_file():
        raise InputError(f"the toolchain '{name}' has no job '{job}'", f"Expected {script}.")
    environment = make(name)
    work = _fresh(f"{name}-{job}")
    doing = f"{where}: {name}: {job.replace('_', ' ')}"
    try:
        _prepare(toolchain, script, request, inputs or {}, work)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(work, ignore_errors=True)
        raise BuildError(f"{doing}: can't copy its inputs: {error}") from error
    command = [
        *_without_network(),
        str(python_of(environment)),
        "-I",
        "-B",
        "-X",
        "faulthandler",
        plimsoll_job.__file__,
        str(work),
    ]
    try:
        answer = subprocesses.run_for_result(command, work, limits or _limits())
    except JobError as error:
        hint = _hint(work, error.hint)
        raise BuildError(f"{doing}: {error.message}{_tried(work)}", hint) from error
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    _report_attempts(doing, work)
    if "result" not in answer:
        hint = _hint(work, f"Its log: {work / 'log.txt'}")
        refused = answer.get("refused")
        raise (
            ModelError(f"{where}: {refused}", str(answer["hint"]))
            if refused
            else BuildError(f"{doing}: {answer.get('error')}", hint)
        )
    _take(work, folder, job)
    result: dict[str, Any] = answer["result"]
    return result


def _hint(work: Path, hint: str) -> str:
    """Keep of a failed job's folder what its log needs, and what repeats it where that is small; return the hint."""
    (work / "parent").unlink(missing_ok=True)
    for below in ("out", "tmp", "home"):
        shutil.rmtree(work / below, ignore_errors=True)
        (work / below).mkdir(exist_ok=True)
    if sum(file.stat().st_size for file in (work / "in").rglob("*") if file.is_file()) <= _KEPT_BYTES:
        return hint
    shutil.rmtree(work / "in", ignore_errors=True)
    return f"Its log: {work / 'log.txt'}"


def _limits() -> ProcessLimits:
    """Return the default limits of a job: half an hour, and 8 GB or three quarters of the machine's memory."""
    return ProcessLimits(_SECONDS, min(_MEMORY_BYTES, int(0.75 * (host.memory_bytes() or _MEMORY_BYTES))))


def _fresh(label: str) -> Path:
    """Return a new folder for a job; removes all but the last few failed ones."""
    jobs = cache_folder() / "toolchains" / "jobs"
    jobs.mkdir(parents=True, exist_ok=True)
    aged = sorted((folder for folder in jobs.iterdir() if not _is_running(folder)), key=lambda folder: folder.name)
    for folder in aged[: -_FAILURES_KEPT + 1 or None]:
        shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{time.strftime('%Y%m%d-%H%M%S')}-{label}-", dir=jobs))


def _is_running(work: Path) -> bool:
    """Tell whether a job is still running: until it fails, its folder names the process that started it."""
    try:
        began = int((work / "parent").read_text())
        if os.name == "posix":  # Elsewhere the signal 0 would end the process.
            os.kill(began, 0)
    except (OSError, ValueError):
        return False
    return True


def _prepare(
    toolchain: Recipe, script: Path, request: Mapping[str, Any], inputs: Mapping[str, Input], work: Path
) -> None:
    for below in ("in", "out", "home", "tmp"):
        (work / below).mkdir()
    (work / "parent").write_text(str(os.getpid()))
    copies = {key: str(_copy(value, work / "in" / key)) for key, value in inputs.items()}
    job = {
        "script": str(script),
        "request": dict(request),
        "inputs": copies,
        "parent": os.getpid(),
        "own_network": bool(_without_network()),
        "environment": {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        | _OFFLINE
        | _homes(work)
        | toolchain.environment,
    }
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")


def _homes(work: Path) -> dict[str, str]:
    """Return the variables that keep a program's caches and settings inside the job's folder."""
    home, temporary = str(work / "home"), str(work / "tmp")
    homes = (
        "HOME",
        "USERPROFILE",
        "APPDATA",
        "LOCALAPPDATA",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "KERAS_HOME",
        "TORCH_HOME",
        "HF_HOME",
    )
    return dict.fromkeys((*homes, "MPLCONFIGDIR"), home) | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary)


def _copy(given: Input, folder: Path) -> Path:
    """Copy an input into a folder and return the path of the (main) copy."""
    if isinstance(given, Path) and given.is_dir():
        return Path(shutil.copytree(given, folder / given.name))
    files = [given] if isinstance(given, Path) else list(given)
    for file in files:
        copied = folder / file.relative_to(files[0].parent)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copied)
    return folder / files[0].name


@functools.cache
def _without_network() -> tuple[str, ...]:
    """Return the prefix that runs a command without a network, or nothing if this system doesn't allow that."""
    unshare = shutil.which("unshare") if sys.platform.startswith("linux") else None
    if unshare is None:
        return ()
    prefix = (unshare, "--map-root-user", "--net", "--")
    probe = subprocess.run(
        [*prefix, sys.executable, "-S", "-c", "pass"], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    return prefix if probe.returncode == 0 else ()


def _attempts(work: Path) -> list[str]:
    try:
        return sorted(set((work / "network.txt").read_text(encoding="utf-8").splitlines()))
    except OSError:
        return []


def _tried(work: Path) -> str:
    tried = _attempts(work)
    return f"; it tried to reach the network, which jobs may not: {', '.join(tried)}" if tried else ""


def _report_attempts(doing: str, work: Path) -> None:
    if tried := _attempts(work):
        _log.warning("%s: it tried to reach the network, which jobs may not: %s", doing, ", ".join(tried))


def _take(work: Path, folder: Path, job: str) -> None:
    """Move a job's results to `folder`, and remove the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in sorted((work / "out").iterdir()):
        target = folder / result.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        elif target.exists():
            target.unlink()
        shutil.move(result, target)
    shutil.move(work / "log.txt", folder / f"{job}.log")
    shutil.rmtree(work, ignore_errors=True)

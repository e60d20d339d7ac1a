"""Create, repair and remove the environments of toolchains.

An environment is created where it stays, since it can't be moved, and its marker is written last: one without a marker
is incomplete and is created again. A file lock lets one process create it while others wait.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from plimsoll.errors import BackendMissingError
from plimsoll.system import subprocesses
from plimsoll.system.subprocesses import JobError, ProcessLimits
from plimsoll.system.toolchains.recipe import Recipe, is_complete, python_of, recipe, root

_log = logging.getLogger(__name__)
_INSTALLING = ProcessLimits(3600)


def is_ready(name: str) -> bool:
    """Tell whether a toolchain can be used at once."""
    return is_complete(recipe(name).folder())


def make(name: str) -> Path:
    """Return the folder of a toolchain's environment, creating it where it is missing or incomplete.

    Raises BackendMissingError where it can't be created: no network, no suitable Python, no packages for this system.
    """
    toolchain = recipe(name)
    folder = toolchain.folder()
    if is_complete(folder):
        return folder
    with _locked(folder, name):
        if is_complete(folder):  # Another run made it while this one waited.
            return folder
        if folder.exists():
            _log.info("the toolchain '%s' is incomplete: creating it again", name)
            shutil.rmtree(folder)
        _log.info("creating the toolchain '%s', once: about %s MB, a few minutes …", name, f"{toolchain.megabytes:,}")
        folder.mkdir(parents=True)
        _fill(toolchain, folder)
        (folder / ".complete").write_text("\n".join(toolchain.packages), encoding="utf-8")
        _log.info("created the toolchain '%s': %s", name, folder)
    return folder


def remove(name: str) -> None:
    """Remove every environment of a toolchain, including outdated and incomplete ones."""
    for folder in recipe(name).environments():
        with _locked(folder, name):
            (folder / ".complete").unlink(
                missing_ok=True
            )  # First, so that an interrupted removal leaves nothing that looks complete.
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """Lock an environment for this process, waiting until it is free."""
    root().mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _log.info("another process is creating the toolchain '%s': waiting for it …", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fill(toolchain: Recipe, folder: Path) -> None:
    """Create the virtual environment and install the locked packages: wheels only, so that no code of theirs runs
    during the installation."""
    python, uv = (
        _python(toolchain),
        None if toolchain.any_python else shutil.which("uv"),
    )  # uv minds what packages say of Python, always.
    common = ["--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(toolchain.lock)]
    tolerant = ["--ignore-requires-python"] if toolchain.any_python else []
    if uv is not None:
        commands = [
            [uv, "venv", "--quiet", "--python", python, str(folder / "env")],
            [uv, "pip", "install", "--python", str(python_of(folder)), *common],
        ]
    else:
        commands = [
            [python, "-m", "venv", str(folder / "env")],
            [
                str(python_of(folder)),
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "--no-input",
                *tolerant,
                *common,
            ],
        ]
    for step, command in enumerate(commands):
        log = folder / f"make-{step}.txt"
        try:
            subprocesses.run_command(command, log, _INSTALLING)
        except JobError as error:
            raise BackendMissingError(
                f"the toolchain '{toolchain.name}' can't be created: {_blame(log) or error.message}",
                f"Is there a network?\n  {error.hint}",
            ) from error


def _blame(log: Path) -> str:
    """Return the installer's own error message, or an empty string."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [line.partition("ERROR: ")[2] for line in lines if line.startswith("ERROR: ")]
    return errors[0][:300] if errors else ""


def _python(toolchain: Recipe) -> str:
    """Return an interpreter that the packages support, this one or another on the PATH; raises
    BackendMissingError."""
    if toolchain.accepts(sys.version_info[1]):
        return sys.executable
    for minor in range(20, 10, -1):
        python = shutil.which(f"python3.{minor}") if toolchain.accepts(minor) else None
        if python is not None and _runs(python, minor):
            return python
    raise BackendMissingError(
        f"the toolchain '{toolchain.name}' needs Python {toolchain.python}, which is not on the PATH; this is"
        f" {sys.version_info[0]}.{sys.version_info[1]}",
        "Install such a Python beside this one.",
    )


def _runs(python: str, minor: int) -> bool:
    """Tell whether a command is that Python: version switchers leave commands that only say that it isn't installed."""
    program = f"import sys, ensurepip, venv; sys.exit(sys.version_info[1] != {minor})"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return (
        subprocess.run(
            [python, "-c", program], capture_output=True, check=False, env=environment, stdin=subprocess.DEVNULL
        ).returncode
        == 0
    )

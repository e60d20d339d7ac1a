"""What a toolchain consists of, according to its files; create, repair and remove its environment.

An environment is created where it stays, since it can't be moved, and its marker is written last: one without a marker
is incomplete and is created again. A file lock lets one process create it while others wait.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import filelock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plimsoll.errors import BackendMissingError, InputError
from plimsoll.system import subprocesses
from plimsoll.system.cache import cache_folder
from plimsoll.system.subprocesses import JobError, ProcessLimits

_PACKAGE = Path(__file__).resolve().parents[2]
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^ ;\\]+)", re.MULTILINE)
_RANGE = re.compile(r">=3\.(\d+),<3\.(\d+)")


class _File(BaseModel):
    """The keys of a toolchain's TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: str
    python: Annotated[str, Field(pattern=_RANGE.pattern)]
    megabytes: Annotated[int, Field(gt=0)]
    any_python: bool = False
    environment: dict[str, str] = {}


@dataclass(frozen=True)
class Recipe:
    """A toolchain's files, read."""

    name: str
    purpose: str
    python: str
    """The versions of Python that its packages run on, as in `>=3.11,<3.14`."""
    megabytes: int
    """Its approximate size on disk."""
    any_python: bool
    """Whether to ignore the range of Pythons that its packages declare, since it is narrower than what they run on."""
    environment: dict[str, str]
    """Environment variables of its jobs."""
    lock: Path

    @property
    def packages(self) -> tuple[str, ...]:
        """The pinned packages, as `name==version`, including those for other systems."""
        return tuple(f"{name}=={version}" for name, version in _PIN.findall(self.lock.read_text(encoding="utf-8")))

    @property
    def jobs(self) -> Path:
        """The folder of the job scripts."""
        return self.lock.parent / "jobs"

    def accepts(self, minor: int) -> bool:
        """Tell whether its packages run on Python 3.`minor`."""
        bounds = _RANGE.fullmatch(self.python)
        return bounds is not None and int(bounds[1]) <= minor < int(bounds[2])

    def folder(self) -> Path:
        """Return the folder of its environment: it depends on the lock, the Python and the system."""
        python = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
        key = hashlib.sha256(
            f"{python}\n{sysconfig.get_platform()} {platform.machine()}\n{self.python}\n".encode()
            + self.lock.read_bytes()
        )
        return root() / f"{self.name}-{key.hexdigest()[:16]}"

    def environments(self) -> tuple[Path, ...]:
        """Return the folders of all its environments, including those of other locks and Pythons."""
        return tuple(sorted(folder for folder in root().glob(f"{self.name}-*") if folder.is_dir()))


@dataclass(frozen=True)
class Description:
    """A toolchain as a user sees it."""

    name: str
    purpose: str
    packages: tuple[str, ...]
    megabytes: int
    """Its approximate size on disk."""
    ready: bool
    """Whether its environment can be used at once."""
    folder: Path
    size_bytes: int
    """The size on disk of all its environments, including outdated and incomplete ones."""


def root() -> Path:
    """Return the folder of all environments."""
    return cache_folder() / "toolchains"


def names() -> tuple[str, ...]:
    """Return the names of all toolchains, sorted."""
    return tuple(sorted(_files()))


def recipe(name: str) -> Recipe:
    """Read a toolchain's files; raises InputError for an unknown name, and for files that can't be read."""
    file = _files().get(name)
    if file is None:
        raise InputError(f"unknown toolchain '{name}'", f"Choose from: {', '.join(names())}.")
    return _read(file)


def describe(name: str) -> Description:
    """Describe a toolchain: its purpose, its packages, its size on disk."""
    toolchain = recipe(name)
    size = sum(_size(folder) for folder in toolchain.environments())
    return Description(
        name,
        toolchain.purpose,
        toolchain.packages,
        toolchain.megabytes,
        is_complete(toolchain.folder()),
        toolchain.folder(),
        size,
    )


def python_of(folder: Path) -> Path:
    """Return the interpreter of an environment."""
    return folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def is_complete(folder: Path) -> bool:
    """Tell whether an environment was created completely and its Python still exists (it is a link)."""
    return (folder / ".complete").is_file() and python_of(folder).exists()


def _files() -> dict[str, Path]:
    """Return each toolchain's TOML file by its name; the user's folders take precedence."""
    own = sorted(_PACKAGE.glob("*/*/toolchain/*.toml"))
    further = [Path(folder) for folder in os.environ.get("PLIMSOLL_TOOLCHAINS", "").split(os.pathsep) if folder]
    return {
        file.stem: file for files in (*(folder.glob("*.toml") for folder in reversed(further)), own) for file in files
    }


@cache
def _read(file: Path) -> Recipe:
    try:
        data = _File.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise InputError(f"{file}: not a toolchain file: {error}") from error
    return Recipe(
        file.stem,
        data.purpose,
        data.python,
        data.megabytes,
        data.any_python,
        data.environment,
        file.with_suffix(".lock"),
    )


def _size(folder: Path) -> int:
    """Return the size of a folder in bytes; a file with several names in it (uv links into its cache) counts once."""
    seen: dict[tuple[int, int], int] = {}
    for parent, _, files in os.walk(folder):
        for file in files:
            status = os.lstat(os.path.join(parent, file))  # noqa: PTH118 - half the time of pathlib over 30,000 files
            seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())


_log = logging.getLogger(__name__)
_INSTALLING = ProcessLimits(3600)


def is_ready(name: str) -> bool:
    """Tell whether a toolchain can be used at once."""
    return is_complete(recipe(name).folder())


def make(name: str) -> Path:
    """Return the folder of a toolchain's environment, creating it if it is missing or incomplete.

    Raises BackendMissingError if it can't be created: no network, no suitable Python, no packages for this system.
    """
    toolchain = recipe(name)
    folder = toolchain.folder()
    if is_complete(folder):
        return folder
    with _locked(folder, name):
        if is_complete(folder):  # Another process created it meanwhile.
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
    )  # uv always enforces the packages' Python ranges.
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
    """Tell whether a command is that Python: version managers leave commands that only report it as not installed."""
    program = f"import sys, ensurepip, venv; sys.exit(sys.version_info[1] != {minor})"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return (
        subprocess.run(
            [python, "-c", program], capture_output=True, check=False, env=environment, stdin=subprocess.DEVNULL
        ).returncode
        == 0
    )

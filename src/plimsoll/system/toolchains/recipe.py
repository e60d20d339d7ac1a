"""What a toolchain consists of, according to its files, and where its environment lies."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plimsoll.errors import InputError
from plimsoll.system.cache import cache_folder

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
        """Return the folder of its environment: another lock, Python or system has another one."""
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
    """Return each toolchain's TOML file by its name; a folder of the user's replaces one of the same name."""
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

"""What runtimes built on this machine and may need again: engines, compiled programs. Kept in the user's cache, within
bounds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plimsoll.system.cache import cache_folder

KEPT_BYTES = 4_000_000_000
"""How much the builds of one runtime may take together; those that weren't used for longest are removed first."""


def folder_of(runtime: str) -> Path:
    """Return where a runtime's builds, and what else it keeps, lie."""
    return cache_folder() / runtime


def digest(parts: Mapping[str, Any]) -> str:
    """Return a name for what is built from these parts (network, options, device, versions): any other value, another
    name."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def place(runtime: str, parts: Mapping[str, Any]) -> Path:
    """Return the folder of what was or will be built from these parts."""
    return folder_of(runtime) / "built" / digest(parts)


@contextmanager
def locked(kept: Path) -> Iterator[None]:
    """Keep other processes from building the same meanwhile."""
    from filelock import FileLock

    kept.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(kept.with_name(f"{kept.name}.lock")):
        yield


@contextmanager
def building(kept: Path) -> Iterator[tuple[Path, Path]]:
    """Give an empty folder to build into and one to work in; what was built is kept if all goes well, else nothing.

    The folder to work in, with its logs, stays where something goes wrong.
    """
    part, desk = kept.with_name(f"{kept.name}.part"), kept.with_name(f"{kept.name}.work")
    for one in (part, desk):
        shutil.rmtree(one, ignore_errors=True)
        one.mkdir(parents=True)
    try:
        yield part, desk
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(desk)
    part.replace(kept)
    make_room(kept)


def used(kept: Path) -> None:
    """Note that a build was used now."""
    os.utime(kept)


def make_room(newest: Path, most: int = KEPT_BYTES) -> None:
    """Remove builds that weren't used for longest until the rest takes at most so many bytes; never the newest."""
    folders = sorted(
        (one for one in newest.parent.iterdir() if one.is_dir()), key=lambda one: one.stat().st_mtime, reverse=True
    )
    total = 0
    for folder in folders:
        total += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if total > most and folder != newest:
            shutil.rmtree(folder, ignore_errors=True)

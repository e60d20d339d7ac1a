"""The user's cache: what is made or fetched once (weights, toolchains, work folders), and what runtimes built here.

A build (an engine, a compiled program) has a folder named after all that it depends on. The builds of one runtime are
kept within bounds; the least recently used go first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

MAX_BUILD_BYTES = 4_000_000_000
"""How much the builds of one runtime may take together."""


def cache_folder() -> Path:
    """Return $PLIMSOLL_CACHE, or the user's cache folder."""
    chosen = os.environ.get("PLIMSOLL_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("plimsoll", appauthor=False)


def runtime_folder(runtime: str) -> Path:
    """Return the folder of a runtime's builds and of what else it keeps."""
    return cache_folder() / runtime


def build_key(inputs: Mapping[str, Any]) -> str:
    """Return a name for what is built from these inputs (network, options, device, versions), the same for the same."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def build_folder(runtime: str, inputs: Mapping[str, Any]) -> Path:
    """Return the folder of what was or will be built from these inputs."""
    return runtime_folder(runtime) / "built" / build_key(inputs)


@contextmanager
def locked(build: Path) -> Iterator[None]:
    """Keep other processes from building the same meanwhile."""
    from filelock import FileLock

    build.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(build.with_name(f"{build.name}.lock")):
        yield


@contextmanager
def building(build: Path) -> Iterator[tuple[Path, Path]]:
    """Yield an empty folder to build into, which becomes `build` if all goes well, and one to work in.

    The folder to work in, with its logs, stays where something goes wrong.
    """
    part, work = build.with_name(f"{build.name}.part"), build.with_name(f"{build.name}.work")
    for folder in (part, work):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        yield part, work
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(work)
    part.replace(build)
    evict(build)


def mark_used(build: Path) -> None:
    """Note that a build was used now."""
    os.utime(build)


def evict(newest: Path, limit: int = MAX_BUILD_BYTES) -> None:
    """Remove the least recently used builds until the rest takes at most `limit` bytes; never the newest."""
    builds = [folder for folder in newest.parent.iterdir() if folder.is_dir()]
    total = 0
    for build in sorted(builds, key=lambda folder: folder.stat().st_mtime, reverse=True):
        total += sum(file.stat().st_size for file in build.rglob("*") if file.is_file())
        if total > limit and build != newest:
            shutil.rmtree(build, ignore_errors=True)

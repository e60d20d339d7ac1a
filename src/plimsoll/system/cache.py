"""The user's cache: weights, toolchains, work folders, and the runtimes' builds.

A build (an engine, a compiled program) has a folder named after a hash of everything that it depends on. The builds of
one runtime are limited in size; the least recently used are removed first.
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
"""Limit for the builds of one runtime together."""


def cache_folder() -> Path:
    """Return $PLIMSOLL_CACHE, or the user's cache folder."""
    chosen = os.environ.get("PLIMSOLL_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("plimsoll", appauthor=False)


def runtime_folder(runtime: str) -> Path:
    """Return the folder of a runtime's builds and other cached files."""
    return cache_folder() / runtime


def build_key(inputs: Mapping[str, Any]) -> str:
    """Return a hash of a build's inputs (network, options, device, versions)."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def build_folder(runtime: str, inputs: Mapping[str, Any]) -> Path:
    """Return the folder of the build with these inputs; it may not exist yet."""
    return runtime_folder(runtime) / "built" / build_key(inputs)


@contextmanager
def locked(build: Path) -> Iterator[None]:
    """Keep other processes from making the same build meanwhile."""
    from filelock import FileLock

    build.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(build.with_name(f"{build.name}.lock")):
        yield


@contextmanager
def building(build: Path) -> Iterator[tuple[Path, Path]]:
    """Yield an empty folder to build into, which becomes `build` on success, and a work folder.

    After a failure the work folder, with its logs, is left behind.
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
    """Mark a build as just used."""
    os.utime(build)


def evict(newest: Path, limit: int = MAX_BUILD_BYTES) -> None:
    """Remove the least recently used builds until the rest takes at most `limit` bytes; never the newest."""
    builds = [folder for folder in newest.parent.iterdir() if folder.is_dir()]
    total = 0
    for build in sorted(builds, key=lambda folder: folder.stat().st_mtime, reverse=True):
        total += sum(file.stat().st_size for file in build.rglob("*") if file.is_file())
        if total > limit and build != newest:
            shutil.rmtree(build, ignore_errors=True)

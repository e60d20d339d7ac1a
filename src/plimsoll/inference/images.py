"""Find the pictures that a command's paths refer to: files, folders, patterns, or a list on standard input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from plimsoll.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Suffixes of the pictures in a folder. A file named explicitly, by a pattern or in a list may have any."""

_CHUNK = 1 << 16
_MAX_LINE = 1 << 16


def find_images(paths: Iterable[str]) -> Iterator[str]:
    """Yield the picture paths that `paths` refer to, one by one, holding at most one folder's names.

    A folder is walked recursively, in sorted order, without following links to folders and without hidden names. `-` is
    a list on standard input, one path per line. A missing path is yielded as it is, so that it becomes a row with an
    error.
    """
    for path in paths:
        if path == "-":
            yield from _lines(0)
        elif Path(path).is_dir():
            yield from _walk(path)
        elif glob.has_magic(path) and not Path(path).exists():
            yield from _matches(path)
        else:
            yield path


def list_images(paths: Sequence[str], limit: int | None = None) -> list[str]:
    """Return the pictures that `paths` refer to, at most `limit` of them, evenly spread; raises InputError for none,
    and for a missing path."""
    check_exist(paths)
    listed = list(find_images(paths))
    if not listed:
        raise no_pictures(paths)
    if limit is None or len(listed) <= limit:
        return listed
    return [listed[index * len(listed) // limit] for index in range(limit)]


def check_exist(paths: Iterable[str]) -> None:
    """Raise InputError if a path is neither a file, a folder nor a pattern."""
    for path in paths:
        if path != "-" and not glob.has_magic(path) and not Path(path).exists():
            raise InputError(f"{path}: no such file or folder", "Pictures are given as files, folders or patterns.")


def no_pictures(paths: Sequence[str]) -> InputError:
    """Return the error for paths without any picture."""
    return InputError(
        f"no pictures in {', '.join('standard input' if path == '-' else path for path in paths)}",
        f"In a folder, pictures are the files whose names end in {', '.join(sorted(SUFFIXES))}.",
    )


def count_images(paths: Iterable[str]) -> int | None:
    """Return how many pictures `paths` refer to, or None for a list on standard input."""
    listed = list(paths)
    return None if "-" in listed else sum(1 for _ in find_images(listed))


def _walk(folder: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: can't list the folder: {error.strerror}")

    for here, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield os.path.join(here, name)  # noqa: PTH118 - half the time of pathlib, and this runs once a picture


def _matches(pattern: str) -> Iterator[str]:
    matched = False
    for path in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute patterns
        if not Path(path).is_dir():
            matched = True
            yield path
    if not matched:
        raise InputError(f"no file matches '{pattern}'")


def _lines(descriptor: int) -> Iterator[str]:
    """Yield the lines of a file descriptor as they arrive.

    Not through sys.stdin: a thread blocked in its buffer would keep the interpreter from exiting.
    """
    rest = b""
    while chunk := os.read(descriptor, _CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (os.fsdecode(line.rstrip(b"\r")) for line in lines if line.strip())
        if len(rest) > _MAX_LINE:
            raise InputError(
                "the list on standard input has a line of more than 65,536 bytes", "Write one path per line."
            )
    if rest.strip():
        yield os.fsdecode(rest.rstrip(b"\r"))

"""Find the pictures that a command's paths refer to: files, folders, patterns, or a list on standard input.

A path that leads to no picture never ends a run: it comes out as an `UnreadablePath`, which becomes a row with its
error. What a folder holds beside pictures is counted in `LeftOut`, and named at the end.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Iterator, Sequence

from plimsoll.core.wording import printable
from plimsoll.errors import InputError
from plimsoll.inference.path_list import listed_paths
from plimsoll.inference.walk import ALWAYS, LeftOut, UnreadablePath, Walk, shortened, suffixes
from plimsoll.spec.steps import ImageFormat


def find_images(
    paths: Iterable[str],
    formats: Iterable[ImageFormat] = (),
    *,
    null: bool = False,
    left_out: LeftOut | None = None,
) -> Iterator[str]:
    """Yield the picture paths that `paths` refer to, one by one and always in the same order.

    A folder is walked recursively, first its files in the order of their names, then its folders. Links to folders are
    not followed; hidden names, and whatever is no regular file, are left out. At most one folder's names are in memory.
    `-` is a list on standard input, one path a line, or separated by NUL characters with `null`. A path that leads to
    no picture is yielded as it is, or as an `UnreadablePath` where reading it would not tell the reason.

    `formats` are those that the Spec accepts: a folder's HEIC and AVIF files are left out unless they are among them.
    What is left out is counted in `left_out`; without it, it is logged after the last path.
    """
    walk = Walk(LeftOut() if left_out is None else left_out, formats)
    for path in paths:
        if path == "-":
            yield from listed_paths(0, b"\0" if null else b"\n")
        elif os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for names that are too long, and takes "" for "."
            yield from walk.folder(path)
        elif glob.has_magic(path) and not os.path.lexists(path):
            yield from walk.pattern(path)
        else:
            yield path if path else UnreadablePath(path, "the path is empty")
    if left_out is None:
        walk.left_out.log()


def list_images(
    paths: Sequence[str], limit: int | None = None, formats: Iterable[ImageFormat] = (), *, all_needed: bool = False
) -> list[str]:
    """Return the pictures that `paths` refer to, at most `limit` of them, evenly spread. What is missing, or can't be
    listed, is left out with a warning; raises InputError if that leaves none, or with `all_needed` for any missing
    path."""
    check_exist(paths, all_needed=all_needed)
    left_out = LeftOut()
    listed = []
    for path in find_images(paths, formats, left_out=left_out):
        if isinstance(path, UnreadablePath):
            warn_left_out(path, path.reason)
        elif os.path.lexists(path):
            listed.append(path)
        else:
            warn_left_out(path, "no such file or folder")
    if not listed:
        raise no_pictures(paths, left_out)
    left_out.log()
    if limit is None or len(listed) <= limit:
        return listed
    return [listed[index * len(listed) // limit] for index in range(limit)]


def warn_left_out(path: str, reason: str) -> None:
    """Warn of a picture that a command without rows goes on without."""
    logging.getLogger("plimsoll").warning("left out: %s: %s", path, reason)


def check_exist(paths: Sequence[str], *, all_needed: bool = False) -> None:
    """Raise InputError if no path is a file, a folder, `-`, or a pattern that matches something; with `all_needed` if
    any is none of these."""
    errors = [error for path in paths if (error := _missing(path)) is not None]
    if errors and (all_needed or len(errors) == len(paths)):
        raise errors[0]


def _missing(path: str) -> InputError | None:
    if path == "-" or os.path.lexists(path):
        return None
    if not glob.has_magic(path):
        return InputError(
            f"'{printable(path)}': no such file or folder",
            "Pictures are given as files, folders or patterns.",
        )
    matches = Walk(LeftOut()).pattern(path)
    first = next(matches)
    if isinstance(first, UnreadablePath) and all(isinstance(match, UnreadablePath) for match in matches):
        return InputError(f"'{printable(path)}': {first.reason}")
    return None


def no_pictures(paths: Sequence[str], left_out: LeftOut) -> InputError:
    """Return the error for paths without any picture."""
    where = ", ".join("standard input" if path == "-" else shortened(path) for path in paths)
    there = f"; left out: {left_out}" if left_out.counts else ""
    return InputError(
        f"no pictures in {where}{there}",
        f"In a folder, pictures are the files whose names end in {', '.join(sorted(suffixes(ALWAYS)))}.",
    )


def count_images(paths: Iterable[str], formats: Iterable[ImageFormat] = ()) -> int | None:
    """Return how many pictures `paths` refer to, or None for a list on standard input."""
    listed = list(paths)
    return None if "-" in listed else sum(1 for _ in find_images(listed, formats, left_out=LeftOut()))

"""Folders and patterns: which pictures they hold, in an order that stays, without following links to folders."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from plimsoll.core.wording import printable
from plimsoll.preprocessing.formats import HEAD_BYTES, KINDS, SUFFIXES, UNREADABLE_SUFFIXES, recognise
from plimsoll.spec.steps import ImageFormat
from plimsoll.system import files

ALWAYS: tuple[ImageFormat, ...] = ("jpeg", "png", "webp", "bmp", "gif", "tiff")
"""The formats whose files a folder's pictures are. HEIC and AVIF join them where a Spec accepts them. A file that is
named, by a pattern or in a list as well, may have any ending."""

_EXAMPLE_LENGTH = 60


class UnreadablePath(str):
    """A path that leads to no picture, and why: it becomes a row with this error. A `str`, so that it goes wherever
    paths go."""

    __slots__ = ("reason",)
    reason: str

    def __new__(cls, path: str, reason: str) -> UnreadablePath:
        """Return `path` with the reason."""
        unreadable = super().__new__(cls, path)
        unreadable.reason = reason
        return unreadable


@dataclass
class LeftOut:
    """What the folders hold that looks like pictures but is not read, and what is no file: how many, and an example."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    advice: dict[str, str] = field(default_factory=dict)
    """What to do to have them read, where that can be done."""

    def add(self, kind: str, path: str, advice: str = "") -> None:
        """Count a file; `kind` is "HEIC picture", "link to a folder" …"""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.examples[kind] = min(path, self.examples.get(kind, path))
        if advice:
            self.advice[kind] = advice

    def __str__(self) -> str:
        return ", ".join(
            f"{counted(self.counts[kind], kind)} ({shortened(self.examples[kind])})" for kind in sorted(self.counts)
        )

    def log(self) -> None:
        """Warn of what was left out, if anything was."""
        if self.counts:
            advice = "".join(f"\n  {kind}: {self.advice[kind]}" for kind in sorted(self.advice))
            logging.getLogger("plimsoll").warning("left out: %s%s", self, advice)


def counted(count: int, kind: str) -> str:
    """Return "1 link to a folder", "2 links to a folder"."""
    noun, space, rest = kind.partition(" without ") if " without " in kind else kind.partition(" to ")
    return f"{count:,} {noun}{'' if count == 1 else 's'}{space}{rest}"


@dataclass
class _Listing:
    """The names in a folder, sorted; hidden ones are left out, or with `hidden` the others."""

    files: list[str] = field(default_factory=list)
    """Regular files, links to them, and links that lead nowhere: reading those tells why."""
    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    """Links to folders."""
    special: dict[str, str] = field(default_factory=dict)
    """What is neither → "pipe", "socket" or "device"."""
    problem: str = ""
    """Why the folder could not be listed, or not to its end."""

    @classmethod
    def of(cls, folder: str, *, hidden: bool = False) -> _Listing:
        listing = cls()
        try:
            with os.scandir(folder or os.curdir) as entries:
                for entry in entries:
                    if entry.name.startswith(".") == hidden:
                        listing._add(entry)
        except (OSError, ValueError) as error:
            listing.problem = f"can't list the folder: {getattr(error, 'strerror', None) or error}"
        for names in (listing.files, listing.folders, listing.links):
            names.sort()
        return listing

    def _add(self, entry: os.DirEntry[str]) -> None:
        if entry.is_file(follow_symlinks=False):
            self.files.append(entry.name)
        elif entry.is_dir(follow_symlinks=False) and not _is_junction(entry):
            self.folders.append(entry.name)
        else:
            try:
                mode = entry.stat().st_mode
            except OSError:
                self.files.append(entry.name)
                return
            if stat.S_ISDIR(mode):
                self.links.append(entry.name)
            elif stat.S_ISREG(mode):
                self.files.append(entry.name)
            else:
                self.special[entry.name] = files.mode_name(mode)


def _is_junction(entry: os.DirEntry[str]) -> bool:
    """Tell whether a folder is a link of Windows to another one, which may contain it."""
    if os.name != "nt":
        return False
    return bool(getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0))


class Walk:
    """Walks folders without following links to folders, and counts what it leaves out.

    The pictures are the files with the usual endings of `ALWAYS` and of `formats`.
    """

    def __init__(self, left_out: LeftOut, formats: Iterable[ImageFormat] = ()) -> None:
        self.left_out = left_out
        self._suffixes = suffixes((*ALWAYS, *formats))

    def folder(self, root: str) -> Iterator[str]:
        """Yield the pictures in a folder and in the folders in it."""
        for folder, listing in self._folders(root):
            for name in listing.links:
                self.left_out.add("link to a folder", _join(folder, name))
            for name, kind in listing.special.items():
                self.left_out.add(kind, _join(folder, name))
            for name in listing.files:
                suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - pathlib takes twice the time
                if suffix in self._suffixes:
                    yield _join(folder, name)
                else:
                    self._look_at(_join(folder, name), suffix)
            if listing.problem:
                yield UnreadablePath(folder, listing.problem)

    def _look_at(self, path: str, suffix: str) -> None:
        """Count a file that may be a picture, too: by its ending, or without one by its first bytes."""
        if suffix in _OTHER_KINDS:
            kind = _OTHER_KINDS[suffix]
            self.left_out.add(kind.name, path, kind.advice if kind.format is not None else "")
        elif not suffix and (recognised := recognise(_head(path))) is not None and recognised.picture:
            advice = "Give them by a pattern, such as 'photos/**'." if recognised.format in ALWAYS else ""
            self.left_out.add(f"{recognised.name} without an ending", path, advice)

    def pattern(self, pattern: str) -> Iterator[str]:
        """Yield the files that a pattern matches, folder by folder, or else the pattern with its reason.

        `**` stands for any number of folders. Links to folders are followed only where a part of the pattern names
        them, so that a link to a folder above it ends.
        """
        head, parts = _pattern_parts(pattern)
        matched = False
        for path in self._expand(head, parts):
            matched = True
            yield path
        if not matched:
            yield UnreadablePath(pattern, "no file matches this pattern")

    def _folders(self, root: str) -> Iterator[tuple[str, _Listing]]:
        """Yield a folder and those in it, each before the folders that it holds."""
        pending = [root]
        while pending:
            folder = pending.pop()
            listing = _Listing.of(folder)
            yield folder, listing
            pending.extend(_join(folder, name) for name in reversed(listing.folders))

    def _expand(self, folder: str, parts: Sequence[str], listing: _Listing | None = None) -> Iterator[str]:
        """Yield what the parts of a pattern match in a folder, whose listing may be known."""
        part, rest = parts[0], parts[1:]
        if part == "**":
            for inner, names in self._folders(folder):
                yield from self._expand(inner, rest or ["*"], names)
                yield from _problem(inner, names)
        elif not glob.has_magic(part):
            path = _join(folder, part)
            if os.path.isdir(path):  # noqa: PTH112 - as in find_images
                yield from self._expand(path, rest) if rest else ()
            elif not rest and os.path.lexists(path):
                yield path
        elif listing is not None and not part.startswith("."):
            yield from self._matching(folder, part, rest, listing)
        else:
            listing = _Listing.of(folder, hidden=part.startswith("."))
            yield from self._matching(folder, part, rest, listing)
            yield from _problem(folder, listing)

    def _matching(self, folder: str, part: str, rest: Sequence[str], listing: _Listing) -> Iterator[str]:
        """Yield what a part with wildcards, and the parts after it, match in a folder."""
        if rest:
            for name in fnmatch.filter(sorted([*listing.folders, *listing.links]), part):
                yield from self._expand(_join(folder, name), rest)
            return
        for name in fnmatch.filter(listing.special, part):
            self.left_out.add(listing.special[name], _join(folder, name))
        yield from (_join(folder, name) for name in fnmatch.filter(listing.files, part))


def _problem(folder: str, listing: _Listing) -> Iterator[str]:
    """Yield a folder that is there and could not be listed."""
    if listing.problem and os.path.lexists(folder or os.curdir):
        yield UnreadablePath(folder or os.curdir, listing.problem)


def suffixes(formats: Iterable[ImageFormat]) -> frozenset[str]:
    """Return the usual endings of the files of some formats."""
    return frozenset(suffix for format_ in formats for suffix in SUFFIXES[format_])


_OTHER_KINDS = {
    **UNREADABLE_SUFFIXES,
    **{suffix: KINDS[format_] for format_ in KINDS if format_ not in ALWAYS for suffix in SUFFIXES[format_]},
}
"""What a file is whose ending is not among those of a folder's pictures."""


def _head(path: str) -> bytes:
    """Return the first bytes of a file; nothing if it can't be read."""
    try:
        with files.open_without_waiting(path) as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return b""


_join = os.path.join
"""Half the time of pathlib, and this runs once a picture."""


def _pattern_parts(pattern: str) -> tuple[str, list[str]]:
    """Return the folder that a pattern begins with, as it is written, and the parts after it."""
    separators = r"[/\\]" if os.name == "nt" else "/"
    magic = re.search(r"[*?[]", pattern)
    start = 0
    for separator in re.finditer(separators, pattern[: magic.start() if magic else 0]):
        start = separator.end()
    parts = re.split(f"{separators}+", pattern[start:])
    repeated = [part == before == "**" for part, before in zip(parts, ["", *parts], strict=False)]
    return pattern[:start], [part for part, again in zip(parts, repeated, strict=True) if not again]


def shortened(path: str) -> str:
    """Cut a long path at its front, for a message: its end says more."""
    text = printable(path)
    return text if len(text) <= _EXAMPLE_LENGTH else "…" + text[-_EXAMPLE_LENGTH:]

"""Untrusted zip archives, read within limits; and zip archives written so that equal contents give equal bytes.

Everything in a zip file is a claim: names, sizes, offsets. All claims are checked against one another before the first
byte is inflated, and the inflated bytes are counted. The archive must be one plain zip and nothing else:
no bytes before, between directory and end, or after, because readers disagree about what those mean.
"""

from __future__ import annotations

import copy
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from plimsoll.errors import BundleError

MAX_DIRECTORY_BYTES = 8 * 2**20
"""Python reads the whole central directory before its entries can be counted; 10,000 of them take about 1 MB."""

RATIO_FROM_BYTES = 2**20
"""Only larger entries are checked for their compression ratio: a small blank tensor may well shrink 1,000-fold."""

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024
_CHUNK = 2**20
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """How much of an archive is read, whatever it declares."""

    total_bytes: int = 4 * 2**30
    """All files together, inflated."""
    entries: int = 10_000
    ratio: float = 200.0
    """Largest ratio of inflated to stored size of an entry; deflate reaches 1,032 with zeros, 3 with weights."""


def check_names(names: Iterable[str]) -> None:
    """Raise BundleError unless all names are relative, stay inside, mean the same file on every system, and don't
    collide.

    Names that differ only by case or by how accents are composed are one file on macOS and Windows.
    """
    seen: dict[str, str] = {}
    for name in names:
        _check_name(name)
        key = _folded(name)
        if key in seen:
            if seen[key] == name:
                raise BundleError(f"duplicate name {name!r}")
            raise BundleError(f"the names {seen[key]!r} and {name!r} are the same file on many systems")
        seen[key] = name
    for key, name in seen.items():
        parts = key.split("/")
        for depth in range(1, len(parts)):
            other = seen.get("/".join(parts[:depth]))
            if other is not None:
                raise BundleError(f"the name {other!r} is a file and also the folder of {name!r}")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _check_name(name: str) -> None:
    problem = next(filter(None, map(_problem_of, name.split("/"))), "")
    if not problem and len(name.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        problem = f"is longer than {MAX_PATH_BYTES} bytes"
    if problem:
        raise BundleError(
            f"the name {_shown(name)} {problem}", "Names in a bundle are relative, with /, and inside it."
        )


def _problem_of(part: str) -> str:
    """Return what is wrong with one part of a path, or an empty string."""
    if part == "":
        return "is absolute or has an empty part"
    if part in {".", ".."}:
        return "leads out of the bundle" if part == ".." else "has a part '.'"
    if forbidden := _FORBIDDEN.search(part):
        return f"has the character {forbidden[0]!r}, which is not the same on every system"
    if part.endswith((".", " ")) or _DEVICE.fullmatch(part):
        return "is not an ordinary name on Windows"
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return f"has a part longer than {MAX_NAME_BYTES} bytes" if size > MAX_NAME_BYTES else ""


def _shown(name: str) -> str:
    return repr(name if len(name) <= 120 else name[:117] + "...")


def unpack(archive: Path, folder: Path, limits: Limits) -> None:
    """Extract a zip into an existing, empty folder; raises BundleError for a false claim, before anything is written
    wherever it can be detected up front."""
    with _translated(), archive.open("rb") as stream:
        start = _directory_start(stream)
        with zipfile.ZipFile(stream) as opened:
            entries = opened.infolist()
            _check_entries(entries, limits)
            _check_overlaps(entries, start)
            files = [entry for entry in entries if not entry.is_dir()]
            check_names(entry.filename for entry in files)
            for entry in files:
                _extract(opened, entry, folder)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        UnicodeError,
        ValueError,
    ) as error:
        raise BundleError(
            f"damaged, or not a zip archive: {str(error) or 'it ends early'}", "Copy or download it again."
        ) from error


def _directory_start(stream: BinaryIO) -> int:
    """Return where the central directory starts; raises BundleError if that is ambiguous, or it is too large to
    read.

    Layouts: APPNOTE.TXT 6.3.10, sections 4.3.14 to 4.3.16.
    """
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 98))
    tail = stream.read(98).rjust(98, b"\0")
    if tail[76:80] != b"PK\x05\x06" or tail[96:] != b"\0\0":
        raise BundleError("not a zip archive, cut short, or with bytes after its end", "Copy or download it again.")
    length, start = struct.unpack("<2L", tail[88:96])
    end = size - 22
    if tail[56:60] == b"PK\x06\x07":
        (end_record,) = struct.unpack("<Q", tail[64:72])
        end = size - 98
        if tail[:4] != b"PK\x06\x06" or end_record != end:
            raise BundleError("a zip archive with a false ZIP64 end record")
        length, start = struct.unpack("<2Q", tail[40:56])
    if length > MAX_DIRECTORY_BYTES:
        raise BundleError(f"a zip directory of {length:,} bytes; at most {MAX_DIRECTORY_BYTES:,} are read")
    if start + length != end:
        raise BundleError("a zip archive with other bytes before or between its parts")
    return int(start)


def _check_entries(entries: Sequence[zipfile.ZipInfo], limits: Limits) -> None:
    if len(entries) > limits.entries:
        raise BundleError(f"{len(entries):,} entries; at most {limits.entries:,} are read")
    for entry in entries:
        problem = _problem_of_entry(entry, limits)
        if problem:
            raise BundleError(f"the entry {_shown(entry.orig_filename)} {problem}")
    total = sum(entry.file_size for entry in entries)
    if total > limits.total_bytes:
        raise BundleError(f"{total:,} bytes when unpacked; at most {limits.total_bytes:,} are")


def _problem_of_entry(entry: zipfile.ZipInfo, limits: Limits) -> str:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.filename != entry.orig_filename:
        return f"would be read as {entry.filename!r}"
    if entry.flag_bits & 0x2041:  # encrypted, strongly encrypted, directory encrypted: APPNOTE 4.4.4
        return "is encrypted"
    if kind not in ((0, stat.S_IFDIR) if entry.is_dir() else (0, stat.S_IFREG)):
        return "is a symbolic link" if kind == stat.S_IFLNK else "is neither a file nor a folder"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {entry.compress_type}; stored and deflated are read"
    if entry.is_dir():
        _check_name(entry.filename.removesuffix("/"))
        return "is a folder with contents" if entry.file_size else ""
    if entry.file_size > RATIO_FROM_BYTES and entry.file_size > limits.ratio * entry.compress_size:
        return f"inflates {entry.compress_size:,} bytes to {entry.file_size:,}, more than {limits.ratio:g} times"
    return ""


def _check_overlaps(entries: Sequence[zipfile.ZipInfo], directory: int) -> None:
    """Refuse entries whose data overlap: how bombs inflate one kernel many times (D. Fifield, WOOT 2019)."""
    end = directory
    for entry in sorted(entries, key=lambda entry: entry.header_offset, reverse=True):
        least = 30 + len(entry.orig_filename) + entry.compress_size  # the local header's fixed part, the name, the data
        if entry.header_offset + least > end:
            raise BundleError(f"the entry {_shown(entry.orig_filename)} overlaps another part of the archive")
        end = entry.header_offset


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    target = folder.joinpath(*entry.filename.split("/"))
    target.parent.mkdir(parents=True, exist_ok=True)
    request = copy.copy(entry)
    request.file_size += 1  # zipfile stops at the claimed size in silence; a longer stream shows in one byte more.
    size = 0
    with archive.open(request) as source, target.open("xb") as out:
        while (chunk := source.read(_CHUNK)) and size <= entry.file_size:
            size += len(chunk)
            out.write(chunk)
    if size != entry.file_size:
        raise BundleError(
            f"the entry {_shown(entry.filename)} does not have the {entry.file_size:,} bytes that it claims"
        )


def write(out: BinaryIO, folder: Path, names: Sequence[str]) -> None:
    """Write files of a folder as a zip, in the given order.

    Nothing is deflated (weights shrink by a few percent, pictures not at all) and every entry has the same date, so
    equal files make equal archives.
    """
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            source = folder.joinpath(*name.split("/"))
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, on every system, so that the mode below counts and the bytes are the same.
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = source.stat().st_size
            with source.open("rb") as stream, archive.open(entry, "w") as sink:
                shutil.copyfileobj(stream, sink, _CHUNK)

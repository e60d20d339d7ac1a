"""The sources of a scan as shards, frozen in the table before any work: a folder that changes meanwhile, or a list that
was piped in, can't give a picture two rows, or none.

What is walked (folders, patterns, single files, standard input) becomes a list in the table. Lists are cut into slices
by their offsets in the file, so that a list of a billion lines takes a few bytes a slice; a `.tar` is a shard, and so
is each row group of a Parquet file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO, Literal, Self

from plimsoll.core.foreign import require
from plimsoll.core.wording import printable
from plimsoll.errors import InputError
from plimsoll.inference.images import find_images
from plimsoll.inference.walk import LeftOut, UnreadablePath, suffixes
from plimsoll.scan import storage

LISTS = (".txt", ".list", ".lst")
TAR, PARQUET = ".tar", ".parquet"
PARQUET_INSTALL = "pip install 'plimsoll-line[scan]'"
DEFAULT_SHARD, LEAST_SHARD, LEAST_SHARDS = 10_000, 100, 16
"""Pictures in a slice of a list: the first number, or fewer, down to the second, so that there are 16 slices."""
_CHUNK = 1 << 22
_MARKER = "\x01"
"""Begins a line of a walked list that isn't a plain path: marker, reason, marker, path."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")

SourceKind = Literal["list", "walked", "tar", "parquet"]


@dataclass(frozen=True)
class Shard:
    """The unit of work: a slice of a list, an archive, or a row group. Its rows are one part of the table."""

    number: int
    kind: SourceKind
    source: str
    """The address of the list, archive or Parquet file."""
    start: int = 0
    end: int = 0
    """Bytes of a list; `start` is the row group of a Parquet file."""
    first: int = 0
    """How many entries of the source come before it."""
    count: int | None = None
    """How many pictures it has; at most so many in a list with blank lines; None where only reading it tells."""

    @property
    def name(self) -> str:
        """Of its part, without an ending."""
        return f"part-{self.number:08}"


@dataclass(frozen=True)
class Plan:
    """All shards of a scan, in a file of the table, in order."""

    shards: int
    pictures: int | None
    """None where archives have to be read first."""
    base: str
    """The folder that relative paths start from."""
    separator: str
    """Between the paths of the lists: a line feed, or NUL."""
    sha256: str
    """Of the file of shards."""

    FILE = "plan/shards.jsonl"
    WALKED = "plan/walked.list"

    def read(self, table: storage.Folder) -> Iterator[Shard]:
        """Yield the shards; raises InputError where they aren't there or not those of this plan."""
        content = table.read(self.FILE) or b""
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise InputError(
                f"{table.inner(self.FILE)} is not the plan that this table was begun with", "Scan into a new folder."
            )
        for line in content.splitlines():
            yield Shard(**json.loads(line))


@dataclass
class PlannedSources:
    """What a walk over the sources collects."""

    walked: BinaryIO
    """The list of what was walked."""
    lists: list[str]
    archives: list[str]
    tables: list[str]
    walked_count: int = 0

    @classmethod
    def of(
        cls, sources: Sequence[str], formats: Iterable[Any], left_out: LeftOut, walked: BinaryIO, *, null: bool
    ) -> Self:
        """Sort the sources by what they are; raises InputError where a list or an archive can't be read."""
        planned = cls(walked, [], [], [])
        endings = suffixes(("jpeg", "png", "webp", "bmp", "gif", "tiff", *formats))
        for source in sources:
            local = storage.local_path(source)
            if not storage.is_remote(source):
                planned._add_all(find_images([local], formats, null=null, left_out=left_out), local)
            else:
                given = source if not any(character in source for character in "*?[") else ""
                planned._add_all(storage.walk(source), given, endings if given else None)
        return planned

    def _add_all(self, paths: Iterable[str], given: str, endings: frozenset[str] | None = None) -> None:
        """Add what a source holds. In a folder of an object store, the pictures are the files with their endings."""
        for path in paths:
            suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - once a picture, of addresses too
            if suffix in LISTS and path == given:
                self.lists.append(path)
            elif suffix == TAR:
                self.archives.append(path)
            elif suffix == PARQUET:
                self.tables.append(path)
            elif endings is None or suffix in endings or path == given:
                reason = getattr(path, "reason", "")
                line = f"{_MARKER}{reason}{_MARKER}{path}" if reason or path.startswith(_MARKER) else path
                self.walked.write(os.fsencode(line) + b"\0")
                self.walked_count += 1


def walked_path(line: str) -> str:
    """Return the path of a line of a walked list, or the `UnreadablePath` that it stands for."""
    if not line.startswith(_MARKER):
        return line
    _, reason, path = line.split(_MARKER, 2)
    return UnreadablePath(path, reason) if reason else path


def make_plan(
    table: storage.Folder,
    sources: Sequence[str],
    formats: Iterable[Any],
    left_out: LeftOut,
    *,
    null: bool = False,
    shard_size: int | None = None,
) -> Plan:
    """Freeze the sources in the table and return the plan; raises InputError where they hold nothing to scan."""
    import tempfile

    separator = b"\0" if null else b"\n"
    with tempfile.TemporaryFile() as walked:
        planned = PlannedSources.of(sources, formats, left_out, walked, null=null)
        lines = io.BytesIO()
        number = pictures = 0
        unknown = False
        size = shard_size or DEFAULT_SHARD
        if planned.walked_count:
            walked.seek(0)
            table.write(Plan.WALKED, walked.read())
            size = shard_size or _shard_size(planned.walked_count)
        for shard in _shards(table, planned, separator, size, adapt=shard_size is None):
            lines.write(json.dumps(asdict(replace(shard, number=number))).encode() + b"\n")
            number += 1
            unknown = unknown or shard.count is None
            pictures += shard.count or 0
    if not number:
        from plimsoll.inference.images import no_pictures

        raise no_pictures(sources, left_out)
    content = lines.getvalue()
    table.write(Plan.FILE, content)
    sha256 = hashlib.sha256(content).hexdigest()
    return Plan(number, None if unknown else pictures, os.getcwd(), separator.decode(), sha256)  # noqa: PTH109


def _shard_size(count: int) -> int:
    return min(DEFAULT_SHARD, max(LEAST_SHARD, -(-count // LEAST_SHARDS)))


def _shards(
    table: storage.Folder, planned: PlannedSources, separator: bytes, size: int, *, adapt: bool
) -> Iterator[Shard]:
    if planned.walked_count:
        planned.walked.seek(0)
        yield from _slices(planned.walked, "walked", table.inner(Plan.WALKED), b"\0", size)
    for source in planned.lists:
        address = source if storage.is_remote(source) else os.path.abspath(source)  # noqa: PTH100
        try:
            with storage.open_file(address) as stream:
                if stream.read(2) in _UTF_16:
                    raise InputError(f"{printable(source)}: the list is in UTF-16", "Store it as UTF-8.")
                stream.seek(0)
                if adapt:
                    size = _shard_size(sum(count for _, _, count in _cuts(stream, separator, DEFAULT_SHARD)))
                    stream.seek(0)
                yield from _slices(stream, "list", address, separator, size)
        except OSError as error:
            raise InputError(f"can't read {printable(source)}: {error.strerror or error}") from error
    for source in planned.archives:
        yield Shard(0, "tar", source)
    for source in planned.tables:
        yield from _row_groups(source)


def _slices(stream: BinaryIO, kind: SourceKind, address: str, separator: bytes, size: int) -> Iterator[Shard]:
    first = 0
    for start, end, count in _cuts(stream, separator, size):
        yield Shard(0, kind, address, start, end, first, count)
        first += count


def _cuts(stream: BinaryIO, separator: bytes, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and count of each `size` lines of a list; a few MB of it are in memory."""
    import numpy as np

    start = at = lines = 0
    ends_whole = True
    while chunk := stream.read(_CHUNK):
        ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == separator[0])
        while lines + len(ends) >= size:
            end = at + int(ends[size - lines - 1]) + 1
            ends = ends[size - lines :]
            yield start, end, size
            start, lines = end, 0
        lines += len(ends)
        at += len(chunk)
        ends_whole = chunk.endswith(separator)
    if at > start:
        yield start, at, lines + (not ends_whole)


def _row_groups(source: str) -> Iterator[Shard]:
    require("pyarrow", PARQUET_INSTALL)
    from pyarrow import ArrowException, parquet

    try:
        with storage.open_file(source) as stream:
            metadata = parquet.ParquetFile(stream).metadata
            first = 0
            for group in range(metadata.num_row_groups):
                count = metadata.row_group(group).num_rows
                yield Shard(0, "parquet", source, group, 0, first, count)
                first += count
    except (OSError, ArrowException) as error:
        raise InputError(f"can't read {printable(source)}: {error}") from error

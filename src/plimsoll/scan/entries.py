"""The pictures of a shard, one after another: each is read when its turn comes, in the thread that answers it."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from plimsoll.core.foreign import require
from plimsoll.errors import ImageError, InputError
from plimsoll.inference.path_list import path_of_line
from plimsoll.inference.walk import UnreadablePath, suffixes
from plimsoll.preprocessing.decode import MAX_FILE_BYTES
from plimsoll.scan import storage
from plimsoll.scan.plan import PARQUET_INSTALL, Shard, walked_path

_ROWS = 16
"""Rows of a Parquet file that are read at once: their pictures are in memory."""
_MAX_HEADER = 1 << 20
_NAMES = ("path", "file_name", "filename", "key", "__key__", "id", "url")
"""Columns of a Parquet file that may name its pictures, the first that is there."""


@dataclass(frozen=True)
class Item:
    """A picture of a shard."""

    index: int
    """Its number in the shard, from 0."""
    path: str
    read: Callable[[], bytes]
    """Returns the file's bytes; raises ImageError."""
    local: str = ""
    """The path of the file itself, where it is one of this machine."""


@dataclass(frozen=True)
class EntrySettings:
    """How the pictures of shards are named and found."""

    base: str = ""
    """The folder that relative paths start from."""
    separator: str = "\n"
    column: str = ""
    """The column of a Parquet file that holds the pictures; the only one that can, without it."""
    formats: tuple[Any, ...] = ()


def items_of(shard: Shard, settings: EntrySettings) -> Iterator[Item]:
    """Yield the pictures of a shard, always alike. What can't be read of the source itself becomes an item with its
    reason."""
    if shard.kind == "tar":
        return _members(shard, settings)
    if shard.kind == "parquet":
        return _rows(shard, settings)
    return _lines(shard, settings)


def _lines(shard: Shard, settings: EntrySettings) -> Iterator[Item]:
    walked = shard.kind == "walked"
    separator = b"\0" if walked else settings.separator.encode()
    try:
        content = storage.read_range(shard.source, shard.start, shard.end)
    except OSError as error:
        yield _unreadable(0, shard.source, f"can't read the list: {error.strerror or error}")
        return
    if not shard.start and not walked:
        content = content.removeprefix(b"\xef\xbb\xbf")
    for index, line in enumerate(content.split(separator)):
        for path in path_of_line(line, separator):
            path = walked_path(path) if walked else path
            if isinstance(path, UnreadablePath):
                yield _unreadable(index, path, path.reason)
            elif storage.is_remote(path):
                yield Item(index, path, partial(storage.read_picture, path))
            else:
                local = os.path.join(settings.base, storage.local_path(path))  # noqa: PTH118 - once a picture
                yield Item(index, path, partial(storage.read_picture, local), local)


def _unreadable(index: int, path: str, reason: str) -> Item:
    def fail() -> bytes:
        raise ImageError(reason)

    return Item(index, str(path), fail)


_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Member(tarfile.TarInfo):
    """A member whose long names and extended headers are bounded: tarfile reads them whole."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _HEADERS and self.size > _MAX_HEADER:
            raise tarfile.HeaderError("a header of more than 1 MB")
        return super()._proc_member(archive)  # type: ignore[misc]


def _members(shard: Shard, settings: EntrySettings) -> Iterator[Item]:
    """Yield the pictures of a `.tar`, as WebDataset and img2dataset write them: `key.jpg` beside `key.json`."""
    endings = suffixes(("jpeg", "png", "webp", "bmp", "gif", "tiff", *settings.formats))
    index = 0
    try:
        with (
            storage.open_file(shard.source) as stream,
            tarfile.open(fileobj=stream, mode="r:", tarinfo=_Member) as archive,
        ):
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # It would hold every name.
                if member.isreg() and os.path.splitext(member.name)[1].lower() in endings:  # noqa: PTH122
                    name = f"{shard.source}/{member.name}"
                    if member.issparse():
                        yield _unreadable(index, name, "stored in the archive with holes (sparse), which is not read")
                    else:
                        yield Item(index, name, partial(_member, shard.source, member.offset_data, member.size))
                    index += 1
    except (OSError, tarfile.TarError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        yield _unreadable(index, shard.source, f"can't read the archive to its end: {reason}")


def _member(source: str, start: int, size: int) -> bytes:
    if size > MAX_FILE_BYTES:
        raise ImageError(f"the file is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    try:
        data = storage.read_range(source, start, start + size)
    except Exception as error:
        raise ImageError(f"can't read the archive: {error}") from error
    if len(data) < size:
        raise ImageError("the archive ends within this file")
    return data


def _rows(shard: Shard, settings: EntrySettings) -> Iterator[Item]:
    require("pyarrow", PARQUET_INSTALL)
    from pyarrow import ArrowException, parquet

    index = 0
    try:
        with storage.open_file(shard.source) as stream:
            table = parquet.ParquetFile(stream)
            column = _picture_column(shard.source, table.schema_arrow, settings.column)
            name = next((name for name in _NAMES if name in table.schema_arrow.names and name != column), None)
            columns = [column] if name is None else [column, name]
            for batch in table.iter_batches(_ROWS, row_groups=[shard.start], columns=columns):
                names = batch.column(name).to_pylist() if name is not None else [None] * len(batch)
                for label, value in zip(names, batch.column(column), strict=True):
                    yield _row(shard, index, label, value.as_py())
                    index += 1
    except (OSError, ArrowException) as error:
        yield _unreadable(index, shard.source, f"can't read the row group {shard.start}: {error}")


def _row(shard: Shard, index: int, label: Any, value: Any) -> Item:
    name = str(label) if label is not None else ""
    data = value
    if isinstance(value, dict):  # as Hugging Face's datasets store pictures
        data, name = value.get("bytes"), name or str(value.get("path") or "")
    path = f"{shard.source}/{name or shard.first + index}"
    if data is None:
        return _unreadable(index, path, "the row holds no picture")
    return Item(index, path, lambda: bytes(data))


def _picture_column(source: str, schema: Any, given: str) -> str:
    """Return the column that holds the pictures; raises InputError where none can, or several."""
    from pyarrow import types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(kind.field(number).name == "bytes" for number in range(kind.num_fields))
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))

    able = [field.name for field in schema if holds_bytes(field.type)]
    if given:
        if given in able:
            return given
        raise InputError(
            f"{source}: the column '{given}' holds no pictures"
            if given in schema.names
            else f"{source}: no column '{given}'",
            f"Columns with bytes: {', '.join(able) or 'none'}.",
        )
    if len(able) == 1:
        return str(able[0])
    raise InputError(
        f"{source}: {'several columns hold' if able else 'no column holds'} bytes that may be pictures",
        f"Name one with --column: {', '.join(able)}"
        if able
        else "Addresses in a column are not fetched: download them.",
    )

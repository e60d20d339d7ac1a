"""The rows that an earlier run has left, for `--append`: which pictures they answer, where whole rows end, and whether
the same model gave them."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from plimsoll.cli.rows import Writer
from plimsoll.errors import InputError
from plimsoll.inference.predictor import Prediction
from plimsoll.inference.rows import escaped

_SAMPLES = 3
_TOLERANCE = 1e-4
"""Answers of the same model differ by less: batches and threads change the last bits only."""


class Record(NamedTuple):
    """A row of a file."""

    path: str
    values: Any
    """As `Writer.values` gives them."""
    failed: bool
    """Whether it has an error in place of an answer."""
    end: int
    """Where it ends, in uncompressed bytes."""


@dataclass
class StoredRows:
    """Which pictures an earlier run has answered: 8 bytes a picture."""

    hashes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    samples: dict[str, Any] = field(default_factory=dict)
    """Path → the values of some rows with answers."""
    end: int = 0
    """Where the last whole row ends, in uncompressed bytes."""
    torn: bool = False
    """Whether something else follows, such as the beginning of a row."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> StoredRows:
        """Gather the rows of a file."""
        hashes, rows = array("q"), cls()
        for record in records:
            hashes.append(hash(escaped(record.path)))
            rows.end = record.end
            if not record.failed and (len(rows.samples) < _SAMPLES or record.path in rows.samples):
                rows.samples.setdefault(record.path, record.values)
        rows.hashes = np.unique(np.frombuffer(hashes, np.int64)) if hashes else rows.hashes
        return rows

    def __contains__(self, path: object) -> bool:
        value = hash(escaped(str(path)))
        index = int(np.searchsorted(self.hashes, value))
        return index < len(self.hashes) and int(self.hashes[index]) == value


def read_text(path: Path, writer: Writer, delimiter: str | None) -> StoredRows:
    """Read JSON lines, or with a delimiter CSV; `.gz` is unpacked. Raises InputError for what `writer` has not written.

    What follows the last whole row, or can't be unpacked, is left to be overwritten.
    """
    with cast(BinaryIO, gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")) as stream:
        lines = _Lines(stream)
        records = _json_records(lines, path) if delimiter is None else _csv_records(lines, path, writer, delimiter)
        rows = StoredRows.of(_checked(records, path, writer) if delimiter is None else records)
        rows.torn = lines.torn or lines.end != rows.end
    return rows


def cut(path: Path, rows: StoredRows) -> int:
    """Make a compressed file end with its last whole row, and return its size."""
    from plimsoll.system import files

    if rows.torn:
        with files.replacing(path) as temporary, gzip.open(path) as stream, gzip.open(temporary, "wb") as shortened:
            left = rows.end
            while left:
                block = stream.read(min(left, 1 << 20))
                shortened.write(block)
                left -= len(block)
    return path.stat().st_size


def check_answers(
    path: Path, rows: StoredRows, writer: Writer, predict: Callable[[Sequence[str]], Iterator[Prediction]]
) -> None:
    """Answer some of the pictures again; raises InputError where most of the answers differ from those stored.

    The same model with the same Spec, target and preprocessing gives the same answers; where none of the pictures can
    be read any more, nothing shows a difference.
    """
    again: dict[str, Any] = {}
    for prediction in predict(list(rows.samples)):
        if prediction.answer is not None:
            again.setdefault(prediction.path, writer.values(prediction))
    differing = [name for name, values in again.items() if not same(values, rows.samples[name])]
    if 2 * len(differing) > len(again):
        raise InputError(
            f"{path}: its rows come from another model, Spec, target or preprocessing: {differing[0]} has another"
            " answer now",
            "Continue it with what it was begun with, or name another file.",
        )


def same(first: Any, second: Any) -> bool:
    """Tell whether two rows hold the same answer, but for the last digits of its numbers."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, str) and isinstance(second, str) and first != second:
        try:
            return same(json.loads(first), json.loads(second))
        except ValueError:
            return False
    if isinstance(first, float) and isinstance(second, (int, float)):
        return math.isclose(first, second, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(first == second)


class _Lines:
    """The whole lines of a file, up to where it can't be unpacked."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.end = 0
        self.torn = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            for line in self._stream:
                if not line.endswith(b"\n"):
                    self.torn = True
                    return
                self.end += len(line)
                yield line
        except (EOFError, gzip.BadGzipFile, zlib.error):
            self.torn = True


def _json_records(lines: _Lines, path: Path) -> Iterator[Record]:
    for line in lines:
        try:
            values = json.loads(line)
            yield Record(values["path"], values, values["error"] is not None, lines.end)
        except (ValueError, KeyError, TypeError) as error:
            raise _foreign(path, f"a line is no row: {line[:60].decode(errors='replace')!r}") from error


def _checked(records: Iterator[Record], path: Path, writer: Writer) -> Iterator[Record]:
    """Pass on rows, the first of which must have the writer's keys."""
    for number, record in enumerate(records):
        if number == 0 and set(record.values) != set(writer.columns):
            raise _foreign(path, f"its rows have the keys {', '.join(record.values)}")
        yield record


def _csv_records(lines: _Lines, path: Path, writer: Writer, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit((1 << 31) - 1)  # a mask is long
    reader = csv.reader((line.decode("utf-8") for line in lines), delimiter=delimiter, strict=True)
    try:
        for number, fields in enumerate(reader):
            if number == 0 and fields != writer.columns:
                raise _foreign(path, f"its columns are {', '.join(fields)[:300]}")
            if len(fields) != len(writer.columns):
                raise _foreign(path, f"row {number} has {len(fields)} fields")
            yield Record(fields[0] if number else "\0", fields, number == 0 or bool(fields[-1]), lines.end)
    except csv.Error as error:
        if "unexpected end" not in str(error):
            raise _foreign(path, str(error)) from error
    except UnicodeDecodeError as error:
        raise _foreign(path, "it is not UTF-8") from error


def _foreign(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} can't be continued: {reason}",
        "--append continues a file that the same model began; name another file.",
    )

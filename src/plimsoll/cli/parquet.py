"""Predictions as an Apache Parquet file, written in parts: a Parquet file can be read only once it is complete."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plimsoll.cli.row_file import is_regular, unwritable
from plimsoll.cli.rows import Writer
from plimsoll.cli.stored import Record, StoredRows
from plimsoll.errors import BackendMissingError, InputError
from plimsoll.inference.predictor import Prediction
from plimsoll.inference.rows import arrow_types, arrow_values, escaped, keys, row
from plimsoll.system import files
from plimsoll.tasks.base import Task

_ROW_GROUP = 10_000
_MASK_GROUP = 100
"""Rows in a group of a Parquet file; a mask is as large as many other rows together."""
_PART_S = 60.0
"""Answers reach the disk after this time at the latest."""


class Parquet(Writer):
    """Writes hidden parts beside the file, complete Parquet files themselves, and puts them together at the end.

    So no end of a run, however sudden, loses more than the last minute's rows: the next run with `append` takes up what
    is there, parts included.
    """

    def __init__(self, path: Path, task: Task, top: int | None, *, replace: bool = False, append: bool = False) -> None:
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError as error:
            raise BackendMissingError(
                "Parquet needs pyarrow, which is not installed", "Install it: pip install 'plimsoll-line[parquet]'"
            ) from error
        self._arrow, self._parquet = arrow, parquet
        self._path, self._task, self._top = path, task, top
        self.columns = keys(task)
        known = arrow_types(arrow, task)
        self._nested = {key for key in self.columns if key not in {*known, "path", "error"}}
        self._schema = arrow.schema([(key, known.get(key, arrow.string())) for key in self.columns])
        self._group = _MASK_GROUP if "mask" in self.columns else _ROW_GROUP
        self._rows: list[dict[str, Any]] = []
        self._written = time.monotonic()
        self._failed = False
        if not is_regular(path):
            raise InputError(f"can't write {path}: Parquet goes to a file, not to a pipe or a device")
        self._parts = self._old_parts(path, replace=replace, append=append)
        self._sources = ([path] if append and path.exists() else []) + self._parts
        self.stored = StoredRows.of(self._records())

    @property
    def unsaved(self) -> int:
        return len(self._rows)

    def write(self, prediction: Prediction) -> None:
        self._rows.append(self.values(prediction))
        if len(self._rows) >= self._group or time.monotonic() - self._written >= _PART_S:
            self._write_part()

    def values(self, prediction: Prediction) -> dict[str, Any]:
        values = row(prediction, self._task, self._top)
        values["path"] = escaped(prediction.path)
        return arrow_values(values, self._nested)

    def close(self) -> None:
        """Put everything together; where the disk has no room for that, the parts stay for the next run."""
        if self._failed:
            return
        if self._rows:
            self._write_part()
        try:
            if self._parts:
                self._join()
        except OSError as error:
            raise InputError(
                f"can't write {self._path}: {error.strerror or error}; the predictions are in {len(self._parts):,}"
                f" hidden files beside it: .{self._path.name}.*.part",
                "Each is a Parquet file. Make room, and run the command again with --append: it puts them together.",
            ) from error

    def _write_part(self) -> None:
        part = self._part(len(self._parts))
        try:
            with files.replacing(part) as temporary:
                table = self._arrow.Table.from_pylist(self._rows, schema=self._schema)
                self._parquet.write_table(table, temporary)
        except OSError as error:
            self._failed = True
            rest = f"; the parts before them are kept: .{self._path.name}.*.part" if self._parts else ""
            raise InputError(
                f"can't write {self._path}: {error.strerror or error}; the last {len(self._rows):,} predictions are"
                f" lost{rest}",
                "Make room, and run the command again with --append.",
            ) from error
        self._parts.append(part)
        self._sources.append(part)
        self._rows = []
        self._written = time.monotonic()

    def _join(self) -> None:
        if len(self._sources) == 1:
            self._sources[0].replace(self._path)
        else:
            with (
                files.replacing(self._path) as temporary,
                self._parquet.ParquetWriter(temporary, self._schema) as writer,
            ):
                for source in self._sources:
                    for batch in self._parquet.ParquetFile(source).iter_batches(self._group):
                        writer.write_batch(batch, self._group)
        for part in self._parts:
            part.unlink(missing_ok=True)

    def _part(self, number: int) -> Path:
        return self._path.with_name(f".{self._path.name}.{number:06}.part")

    def _old_parts(self, path: Path, *, replace: bool, append: bool) -> list[Path]:
        """Return the parts that a run has left which did not come to its end."""
        pattern = re.compile(re.escape(f".{path.name}.") + r"\d{6}\.part")
        try:
            parts = sorted(file for file in path.parent.iterdir() if pattern.fullmatch(file.name))
        except OSError as error:
            raise unwritable(path, error) from error
        if replace:
            for part in parts:
                part.unlink()
            return []
        if parts and not append:
            raise InputError(
                f"{path}: parts of a run are there that did not come to its end",
                "Go on with --append, or begin anew with --force.",
            )
        for number, part in enumerate(parts):
            parts[number] = part.replace(self._part(number))
        return parts

    def _records(self) -> Iterator[Record]:
        for source in self._sources:
            try:
                stored = self._parquet.ParquetFile(source)
            except (OSError, self._arrow.ArrowException) as error:
                raise InputError(f"{source} can't be continued: {error}", "Name another file.") from error
            if stored.schema_arrow.names != self._schema.names or not stored.schema_arrow.equals(self._schema):
                raise InputError(
                    f"{source} can't be continued: its columns are {', '.join(stored.schema_arrow.names)}",
                    "--append continues a file that the same model began; name another file.",
                )
            for batch in stored.iter_batches(self._group):
                for values in batch.to_pylist():
                    yield Record(values["path"], values, values["error"] is not None, 0)

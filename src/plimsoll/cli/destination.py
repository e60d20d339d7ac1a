"""Where predictions go: the format by the file's ending, and what is done with a file that exists."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plimsoll.errors import InputError

if TYPE_CHECKING:
    from plimsoll.cli.rows import Writer
    from plimsoll.cli.stored import StoredRows
    from plimsoll.inference.predictor import Predictor
    from plimsoll.tasks.base import Task

FORMATS = ("table", "jsonl", "csv", "tsv", "parquet")
_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
_STANDARD_OUTPUT = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}
_STANDARD_ERROR = {"/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"}
_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class Destination:
    """A format, and a file or a standard stream."""

    format: str
    path: Path | None = None
    append: bool = False
    replace: bool = False
    stream: str = "stdout"
    """The standard stream that takes the place of a file: "stdout" or "stderr"."""

    @classmethod
    def of(cls, format_: str | None, path: Path | None, *, append: bool, replace: bool) -> Destination:
        """Check what the options ask for, before any work is done; raises InputError."""
        # Libraries have the descriptors of these numbers; the command has others.
        stream = "stderr" if str(path) in _STANDARD_ERROR else "stdout"
        path = None if str(path) in _STANDARD_OUTPUT | _STANDARD_ERROR else path
        if path is None:
            if append or replace:
                raise InputError(f"{'--append' if append else '--force'} needs --out FILE")
            if format_ == "parquet":
                raise InputError("--format parquet needs a file", "Name it: --out predictions.parquet")
            return cls(format_ or ("table" if getattr(sys, stream).isatty() else "jsonl"), stream=stream)
        if append and replace:
            raise InputError("--append and --force exclude each other", "Give one of the two.")
        destination = cls(_format(format_, path), path, append, replace)
        if append and destination.format == "table":
            raise InputError("--append doesn't go with tables", "Choose a format that programs read, such as .jsonl.")
        destination._require_free()
        return destination

    def _require_free(self) -> None:
        from plimsoll.cli.row_file import is_regular

        assert self.path is not None  # noqa: S101 - `of` calls this for files only
        if not is_regular(self.path):
            if self.append:
                raise InputError(f"--append needs a file; {self.path} is none")
        elif os.path.lexists(self.path) and not (self.append or self.replace):
            raise InputError(
                f"{self.path} exists", "Continue it with --append, replace it with --force, or name another."
            )
        elif self.path.exists() and not os.access(self.path, os.W_OK):
            raise InputError(f"can't write {self.path}: Permission denied")

    def open(self, stack: ExitStack, task: Task, top: int | None, folder: str) -> tuple[Writer, StoredRows]:
        """Return the writer, which the stack closes, and what the file holds already.

        A table shows paths relative to `folder`.
        """
        from plimsoll.cli import output, rows, stored
        from plimsoll.cli.parquet import Parquet
        from plimsoll.cli.row_file import GzipRowFile, RowFile

        if self.format == "parquet":
            assert self.path is not None  # noqa: S101 - `of` has refused it
            parquet = Parquet(self.path, task, top, replace=self.replace, append=self.append)
            stack.callback(parquet.close)
            return parquet, parquet.stored
        already, end = stored.StoredRows(), None
        if self.append and self.path is not None and self.path.exists():
            already, end = self._stored(task, top)
        if self.path is None:
            stream = getattr(sys, self.stream)
        else:
            kind = GzipRowFile if self.path.suffix.lower() == ".gz" else RowFile
            stream = stack.enter_context(kind(self.path, end=end, replace=self.replace))
        writer: Writer
        if self.format == "table":
            from rich.console import Console

            writer = output.Table(Console(file=stream, highlight=False), task, top, folder)
        elif self.format == "jsonl":
            writer = rows.JsonLines(stream, task, top)
        else:
            writer = rows.Csv(stream, task, top, delimiter=_DELIMITERS[self.format], heading=not end)
        stack.callback(writer.close)
        return writer, already

    def _stored(self, task: Task, top: int | None) -> tuple[StoredRows, int]:
        """Return the rows of the file, and where the next one goes."""
        import io

        from plimsoll.cli import rows, stored

        assert self.path is not None  # noqa: S101 - `open` has looked
        delimiter = _DELIMITERS.get(self.format)
        writer: Writer = rows.JsonLines(io.StringIO(), task, top)
        if delimiter is not None:
            writer = rows.Csv(io.StringIO(), task, top, delimiter=delimiter)
        try:
            already = stored.read_text(self.path, writer, delimiter)
            compressed = self.path.suffix.lower() == ".gz"
            return already, stored.cut(self.path, already) if compressed else already.end
        except OSError as error:
            raise InputError(f"can't read {self.path}: {error.strerror}") from error


def _format(chosen: str | None, path: Path) -> str:
    """Return the format; raises InputError for an ending that means another one, or none."""
    ending = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    meant = _ENDINGS.get(ending)
    compressed = path.suffix.lower() == ".gz"
    if compressed and (chosen or meant) in {"parquet", "table"}:
        raise InputError(f"--out: {path}: {chosen or meant} is not compressed by gzip", "Leave .gz out.")
    if chosen is None:
        from plimsoll.cli.row_file import is_regular

        if meant is None and is_regular(path):
            raise InputError(
                f"--out: the ending of '{path}' means no format",
                "Known are .jsonl, .csv and .tsv (each also with .gz), and .parquet; for any other, give --format.",
            )
        return meant or "jsonl"
    if ending == ".json" or (meant is not None and meant != chosen):
        raise InputError(f"--format {chosen} doesn't go with --out {path}, whose ending means something else")
    return chosen


def not_stored(paths: Iterable[str], already: StoredRows, skipped: Callable[[], None]) -> Iterator[str]:
    """Yield the paths that have no row yet; `skipped` is called for each of the others."""
    if not len(already.hashes):
        yield from paths
        return
    for path in paths:
        if path in already:
            skipped()
        else:
            yield path


def check_model(destination: Destination, already: StoredRows, writer: Writer, predictor: Predictor) -> None:
    """Raise InputError if the stored rows are not this model's."""
    from plimsoll.cli.stored import check_answers

    if already.samples and destination.path is not None:
        check_answers(destination.path, already, writer, predictor.predict_many)

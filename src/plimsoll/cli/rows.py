"""Predictions as rows of text: JSON lines, CSV, TSV."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from typing import IO, Any

from plimsoll.core.wording import printable
from plimsoll.inference.predictor import Prediction
from plimsoll.inference.rows import escaped, keys, row
from plimsoll.tasks.base import Task
from plimsoll.tasks.classify import ClassifyTask


class Writer(ABC):
    """Writes one prediction after another."""

    columns: list[str]
    """The columns, or the keys of each row."""

    @property
    def unsaved(self) -> int:
        """How many of the last predictions are in memory only."""
        return 0

    @abstractmethod
    def write(self, prediction: Prediction) -> None: ...

    def values(self, prediction: Prediction) -> Any:
        """Return what a file holds of a prediction, as `plimsoll.cli.stored` reads it."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 - most formats have nothing to finish
        """Finish the output; also called after an interruption."""


class _TextWriter(Writer):
    """Writes to a stream of text."""

    def __init__(self, stream: IO[str], task: Task, top: int | None) -> None:
        self._stream, self._task, self._top = stream, task, top
        self.columns = keys(task)

    @property
    def unsaved(self) -> int:
        return getattr(self._stream, "unsaved", 0)


class JsonLines(_TextWriter):
    """One JSON object a line, flushed at once; in ASCII where the stream is not in UTF-8."""

    def __init__(self, stream: IO[str], task: Task, top: int | None) -> None:
        super().__init__(stream, task, top)
        self._ascii = not (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")

    def write(self, prediction: Prediction) -> None:
        self._stream.write(self._line(prediction))
        self._stream.flush()

    def values(self, prediction: Prediction) -> Any:
        return json.loads(self._line(prediction))

    def _line(self, prediction: Prediction) -> str:
        # Paths that are not valid text are escaped, as JSON would, so that every line is valid UTF-8.
        text = escaped(json.dumps(row(prediction, self._task, self._top), ensure_ascii=self._ascii))
        return (text if text.isprintable() else "".join(map(_shown, text))) + "\n"


def _shown(char: str) -> str:
    """Return a character as JSON may write it, so that a terminal takes none that a picture or a model holds for a
    control code."""
    return char if char == printable(char) else json.dumps(char)[1:-1]


class Csv(_TextWriter):
    """Values with a comma or a tab between them, a row a picture: a column a label; boxes, points, masks and whatever
    else is nested as JSON."""

    def __init__(
        self, stream: IO[str], task: Task, top: int | None, *, delimiter: str = ",", heading: bool = True
    ) -> None:
        super().__init__(stream, task, top)
        self._delimiter = delimiter
        self._labels = task.spec.labels if isinstance(task, ClassifyTask) else ()
        *self._keys, _ = (key for key in self.columns if key != "scores")
        self.columns = [escaped(key) for key in (*self._keys, *self._labels, "error")]
        self._on_terminal = stream.isatty()
        self._heading = heading

    def write(self, prediction: Prediction) -> None:
        if self._heading:
            self._stream.write(self._line(self.columns))
            self._heading = False
        self._stream.write(self._line(self._fields(prediction)))
        self._stream.flush()

    def values(self, prediction: Prediction) -> Any:
        return next(csv.reader([self._line(self._fields(prediction))], delimiter=self._delimiter))

    def _fields(self, prediction: Prediction) -> list[Any]:
        values = row(prediction, self._task, self._top)
        scores = values.get("scores", {})
        nested = (dict, list, tuple)
        plain = (json.dumps(values[key]) if isinstance(values[key], nested) else values[key] for key in self._keys)
        fields = [*plain, *(scores.get(label) for label in self._labels), values["error"]]
        return [escaped(field) if isinstance(field, str) else field for field in fields]

    def _line(self, fields: list[Any]) -> str:
        """Return a row with its end. A carriage return is quoted, which the csv module forgets on older versions."""
        if self._on_terminal:
            fields = [printable(field) if isinstance(field, str) else field for field in fields]
        line = io.StringIO()
        if any(isinstance(field, str) and "\r" in field for field in fields):
            csv.writer(line, delimiter=self._delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(fields)
        else:
            csv.writer(line, delimiter=self._delimiter, lineterminator="\n").writerow(fields)
        return line.getvalue()

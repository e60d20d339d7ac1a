"""Predictions, written one by one as a table, JSON lines, CSV or Parquet; and a progress bar for long runs."""

from __future__ import annotations

import csv
import json
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from plimsoll.core.wording import printable
from plimsoll.errors import BackendMissingError, PlimsollError
from plimsoll.inference import images
from plimsoll.inference.predictor import Prediction
from plimsoll.tasks.base import Task
from plimsoll.tasks.classify import Classification, ClassifyTask

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.table import Table as RichTable

    from plimsoll.core.budget import Check


_ROW_GROUP = 10_000
_MASK_GROUP = 100
"""Rows in a group of a Parquet file; a mask is as large as many other rows together."""


def checks_table(checks: Sequence[Check]) -> RichTable:
    """Return checks as a table for the terminal, in the words of the report's page."""
    from rich.table import Table as RichTable
    from rich.text import Text

    from plimsoll.report.figures import check_in_words

    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("check", no_wrap=True)
    for heading in ("measured", "95 % bound", "limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("", style="dim")
    for check in checks:
        words = check_in_words(check)
        result = Text(words.result, style="green" if check.passed else "bold red")
        figures = map(Text, (check.name, words.measured, words.bound, words.limit))
        table.add_row(*figures, result, Text(printable(check.detail, 300)))
    return table


class Writer(ABC):
    """Writes one prediction after another."""

    @abstractmethod
    def write(self, prediction: Prediction) -> None: ...

    def close(self) -> None:  # noqa: B027 - most formats have nothing to finish
        """Finish the output; also called after an interruption."""


def row(prediction: Prediction, task: Task, top: int | None) -> dict[str, Any]:
    """Return `path`, the task's own keys, and `error`."""
    answer = prediction.answer.row(top) if prediction.answer is not None else task.empty_row()
    return {"path": prediction.path, **answer, "error": prediction.error}


class JsonLines(Writer):
    """One JSON object a line, flushed at once."""

    def __init__(self, stream: IO[str], task: Task, top: int | None) -> None:
        self._stream, self._task, self._top = stream, task, top

    def write(self, prediction: Prediction) -> None:
        # Paths that are not valid text are escaped, so that every line is valid UTF-8.
        text = (
            json.dumps(row(prediction, self._task, self._top), ensure_ascii=False)
            .encode("utf-8", "backslashreplace")
            .decode()
        )
        self._stream.write(text if text.isprintable() else "".join(map(_escaped, text)))
        self._stream.write("\n")
        self._stream.flush()


def _escaped(char: str) -> str:
    """Return a character as JSON may write it, so that a terminal takes none that a picture or a model holds for a
    control code."""
    return char if char == printable(char) else json.dumps(char)[1:-1]


class Csv(Writer):
    """Comma-separated values, a row a picture: a column a label; boxes, points, masks and whatever else is nested as
    JSON."""

    def __init__(self, stream: IO[str], task: Task, top: int | None) -> None:
        self._stream, self._task, self._top = stream, task, top
        self._labels = task.spec.labels if isinstance(task, ClassifyTask) else ()
        self._writer = csv.writer(stream, lineterminator="\n")
        keys = [key for key in task.empty_row() if key != "scores"]
        self._keys = ["path", *keys]
        self._writer.writerow([*self._keys, *self._labels, "error"])

    def write(self, prediction: Prediction) -> None:
        values = row(prediction, self._task, self._top)
        plain = [
            json.dumps(values[key]) if isinstance(values[key], (dict, list)) else values[key] for key in self._keys
        ]
        scores = values.get("scores", {})
        fields = [*plain, *(scores.get(label) for label in self._labels), values["error"]]
        self._writer.writerow(
            [
                field.encode("utf-8", "backslashreplace").decode() if isinstance(field, str) else field
                for field in fields
            ]
        )
        self._stream.flush()


class Parquet(Writer):
    """An Apache Parquet file, written group by group and put in place when it is complete."""

    def __init__(self, path: Path, task: Task, top: int | None) -> None:
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError as error:
            raise BackendMissingError(
                "Parquet needs pyarrow, which is not installed", "Install it: pip install 'plimsoll-line[parquet]'"
            ) from error
        self._path, self._task, self._top = path, task, top
        self._temporary = path.with_name(f".{path.name}.part")
        known = _parquet_types(arrow)
        self._nested = {key for key in task.empty_row() if key not in known}
        answer = [(key, known.get(key, arrow.string())) for key in task.empty_row()]
        self._group = _MASK_GROUP if "mask" in task.empty_row() else _ROW_GROUP
        self._schema = arrow.schema([("path", arrow.string()), *answer, ("error", arrow.string())])
        self._arrow = arrow
        self._writer = parquet.ParquetWriter(self._temporary, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, prediction: Prediction) -> None:
        values = row(prediction, self._task, self._top)
        values["path"] = prediction.path.encode("utf-8", "backslashreplace").decode()
        if "scores" in values:
            values["scores"] = list(values["scores"].items())
        if values.get("mask") is not None:
            values["mask"]["rle"] = list(values["mask"]["rle"].items())
        self._rows.append(
            {
                key: json.dumps(value) if key in self._nested and value is not None else value
                for key, value in values.items()
            }
        )
        if len(self._rows) >= self._group:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._temporary.replace(self._path)


def _parquet_types(arrow: Any) -> dict[str, Any]:
    """Return the columns that are not plain text; what a task has besides becomes JSON."""
    text, number, whole = arrow.string(), arrow.float64(), arrow.int64()
    shares = arrow.list_(arrow.struct([("label", text), ("share", number)]))
    masks = arrow.map_(text, arrow.list_(whole))
    return {
        "label": text,
        "score": number,
        "text": text,
        "scores": arrow.map_(text, number),
        "boxes": arrow.list_(arrow.struct([("label", text), ("score", number), ("box", arrow.list_(number, 4))])),
        "points": arrow.list_(arrow.list_(number)),
        "presence": number,
        "mask": arrow.struct([("size", arrow.list_(whole, 2)), ("labels", shares), ("rle", masks)]),
    }


class Table(Writer):
    """Rows for a person, printed as they come."""

    _BAR = 20

    def __init__(self, console: Console, task: Task, top: int | None, folder: str = "") -> None:
        from rich.text import Text

        self.console, self._task, self._top, self._text = console, task, top, Text
        self._folder = folder
        self._path_width = max(24, min(48, console.width - 52))
        self._heading_shown = False
        self._readings: Counter[str] = Counter()

    def write(self, prediction: Prediction) -> None:
        if not self._heading_shown:
            self._heading_shown = True
            score = "score" if isinstance(self._task, ClassifyTask) else "answer"
            positive = self._task.spec.positive if isinstance(self._task, ClassifyTask) else None
            heading = (
                f"{'picture':<{self._path_width}}  {positive + ' score' if positive else score:<{self._BAR + 7}}  label"
            )
            self.console.print(self._text(printable(heading), style="bold"), soft_wrap=True)
        self.console.print(self._line(prediction), soft_wrap=True)

    def close(self) -> None:
        """End with how many pictures had which result."""
        if self._heading_shown:
            counts = [f"{count:,} {reading}" for reading, count in self._readings.most_common(6)]
            self.console.print(self._text(printable(", ".join(counts)), style="bold"), soft_wrap=True)

    def _line(self, prediction: Prediction) -> Any:
        path = prediction.path.removeprefix(self._folder).lstrip(os.sep)
        line = self._text(f"{_shortened(path, self._path_width):<{self._path_width}}  ")
        answer = prediction.answer
        if isinstance(answer, Classification):
            style = self._style(answer)
            filled = round(answer.score * self._BAR) if 0 <= answer.score <= 1 else 0
            line.append("━" * filled, style=style)
            line.append("─" * (self._BAR - filled), style="dim")
            line.append(f" {answer.score:6.4f}  ")
            line.append(printable(answer.label or "(none)"), style=style)
            self._readings[answer.band or answer.label or "(none)"] += 1
            if answer.band is not None:
                line.append(printable(f" · {answer.band}"), style="dim")
            if self._top is not None and self._top > 1:
                others = [
                    f"{label} {score:.4f}"
                    for label, score in list(answer.scores.items())[: self._top]
                    if label != answer.label
                ]
                line.append(printable(f"  {', '.join(others)}"), style="dim")
        elif answer is not None:
            self._readings.update(answer.readings())
            line.append(printable(answer.brief())[: max(20, self.console.width - self._path_width - 2)])
        else:
            self._readings["failed"] += 1
            line.append(printable(f"✗ {prediction.error}"), style="red")
        return line

    def _style(self, answer: Classification) -> str:
        """Green, yellow or red by the reading of the positive score; cyan where no label is the one to look for."""
        if not isinstance(self._task, ClassifyTask) or self._task.spec.positive is None:
            return "cyan"
        bands = [band.label for band in self._task.spec.bands]
        if answer.band in bands and len(bands) > 1:
            return ("green", "yellow", "red")[round(2 * bands.index(answer.band) / (len(bands) - 1))]
        return "red" if answer.label == self._task.spec.positive else "green"


def _shortened(path: str, width: int) -> str:
    """Cut a long path at its front: its end says more."""
    clean = printable(path)
    return clean if len(clean) <= width else "…" + clean[-(width - 1) :]


class Progress:
    """Appears on a terminal only, once the run has taken a while. The total is counted while the run goes on."""

    def __init__(self, console: Console | None, paths: list[str], after_s: float) -> None:
        # A table goes to standard output: the bar must be drawn by the same console, which keeps it below the rows.
        self._console = console if console is not None and console.is_terminal else None
        self._due = time.perf_counter() + after_s
        self._done = 0
        self._bar: Bar | None = None
        self._total: int | None = None
        if sys.stderr.isatty():
            threading.Thread(target=self._count, args=(list(paths),), daemon=True).start()

    def _count(self, paths: list[str]) -> None:
        try:
            self._total = images.count_images(paths)
        except (PlimsollError, OSError):
            self._total = None  # The run itself meets the same error, and reports it.

    def advance(self) -> None:
        """Count one more picture."""
        self._done += 1
        if self._bar is None:
            if not sys.stderr.isatty() or time.perf_counter() < self._due:
                return
            self._bar = self._start()
        self._bar.update(self._bar.task_ids[0], completed=self._done, total=self._total)

    def _start(self) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: object) -> Text:
                speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
                return Text("" if speed is None else f"{speed:,.0f} per second", style="dim")

        bar = RichProgress(
            TextColumn("pictures"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
            console=self._console or Console(stderr=True),
            transient=True,
        )
        bar.start()
        bar.add_task("pictures", total=None)
        return bar

    def close(self) -> None:
        """Remove the bar; calling it twice is harmless."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

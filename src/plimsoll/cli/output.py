"""What people see: predictions as a table, the checks of a budget, and how far a long run has come."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from plimsoll.cli.rows import Writer
from plimsoll.core.wording import printable
from plimsoll.errors import PlimsollError
from plimsoll.inference import images
from plimsoll.inference.predictor import Prediction
from plimsoll.tasks.base import Task
from plimsoll.tasks.classify import Classification, ClassifyTask

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.table import Table as RichTable

    from plimsoll.core.budget import Check
    from plimsoll.spec.steps import ImageFormat

_LINE_EVERY_S = 30.0
"""Off a terminal, a line says this often how far the run has come."""


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


class Table(Writer):
    """Rows for a person, printed as they come."""

    _BAR = 20

    def __init__(self, console: Console, task: Task, top: int | None, folder: str = "") -> None:
        from rich.text import Text

        self.console, self._task, self._top, self._text = console, task, top, Text
        self._folder = folder
        self._filled, self._empty, self._failed = ("━", "─", "✗") if _shows(console, "━─✗") else ("#", "-", "x")
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
        if prediction.time is not None:
            path = f"{path} {prediction.time:.3f} s"
        line = self._text(f"{_shortened(path, self._path_width):<{self._path_width}}  ")
        answer = prediction.answer
        if isinstance(answer, Classification):
            style = self._style(answer)
            filled = round(answer.score * self._BAR) if 0 <= answer.score <= 1 else 0
            line.append(self._filled * filled, style=style)
            line.append(self._empty * (self._BAR - filled), style="dim")
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
            line.append(printable(f"{self._failed} {prediction.error}"), style="red")
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


def _shows(console: Console, characters: str) -> bool:
    """Tell whether the encoding of a terminal or pipe has these characters."""
    try:
        characters.encode(console.encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True


class Progress:
    """A bar on a terminal, once the run has taken a while; elsewhere a line now and then. The bar's total is counted
    while the run goes on."""

    def __init__(
        self, console: Console | None, paths: list[str], after_s: float, formats: tuple[ImageFormat, ...] = ()
    ) -> None:
        # A table goes to standard output: the bar must be drawn by the same console, which keeps it below the rows.
        self._console = console if console is not None and console.is_terminal else None
        self._started = time.perf_counter()
        self._due = self._started + after_s
        self._done = 0
        self._bar: Bar | None = None
        self._total: int | None = None
        self._formats = formats
        self._ended = threading.Event()
        on_terminal = sys.stderr.isatty()
        target, arguments = (self._count, (list(paths),)) if on_terminal else (self._say_now_and_then, ())
        threading.Thread(target=target, args=arguments, daemon=True).start()

    def _say_now_and_then(self) -> None:
        while not self._ended.wait(_LINE_EVERY_S):
            done, seconds = self._done, time.perf_counter() - self._started
            logging.getLogger("plimsoll").info("%s pictures so far, %.1f per second", f"{done:,}", done / seconds)

    def _count(self, paths: list[str]) -> None:
        try:
            self._total = images.count_images(paths, self._formats)
        except (PlimsollError, OSError):
            self._total = None  # The run itself meets the same error, and reports it.

    def advance(self, count: int = 1, total: int | None = None) -> None:
        """Count more pictures; `total` says how many there are."""
        self._done += count
        self._total = total or self._total
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
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

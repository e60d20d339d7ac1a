"""A progress bar for long runs: how many pictures, how many per second, how much time is left."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from plimsoll.errors import PlimsollError
from plimsoll.inference import images

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar


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

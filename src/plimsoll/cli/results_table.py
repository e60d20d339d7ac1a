"""The results table that grows while `ship` works: a row for each candidate, the best first."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from plimsoll.ship import Search, Trial

_LEFT_OUT = 8
"""Lines of the terminal that the table leaves to what is above and below it."""


class ResultsTable:
    """Shows each trial as soon as it is known: a live table on a terminal, else one line for each."""

    def __init__(self, search: Search, live: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._by_size = search.config.objective == "size"
        self._trials: list[Trial] = []
        self._activity, self._since = "", time.monotonic()
        self._console = Console(highlight=False)
        # Drawn seldom: the processes that are being measured need the cores.
        self._live = (
            Live(console=self._console, refresh_per_second=2, get_renderable=self._rendered, transient=True)
            if live
            else None
        )
        split = search.split
        parts = (("calibration", split.calibration), ("validation", split.validation), ("test", split.test))
        counts = ", ".join(f"{len(pictures):,} {name}" for name, pictures in parts)
        head = f"pictures: {counts}; budget: {search.config.budget}\nwork folder: {search.work.path}"
        self._console.print(head, soft_wrap=True, markup=False)

    def add(self, trial: Trial) -> None:
        """Show one more trial."""
        self._trials.append(trial)
        if self._live is None:
            self._console.print(_line(trial), soft_wrap=True)

    def show_activity(self, activity: str) -> None:
        """Show what is being done now, on a terminal."""
        self._activity, self._since = activity, time.monotonic()

    def _rendered(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        seconds = time.monotonic() - self._since
        activity = Text(f"{self._activity} … {seconds:.0f} s", style="dim") if self._activity else Text("")
        return Group(self._table(max(5, self._console.height - _LEFT_OUT)), activity)

    def _table(self, limit: int | None = None) -> Any:
        """Return the table with at most so many rows: the best stay, and a last line counts the others."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("candidate", overflow="fold")
        for heading in ("speed", "on disk", "deviation", "flips"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", overflow="fold")
        ranked = sorted(self._trials, key=self._rank)
        for trial in ranked[:limit]:
            table.add_row(*_cells(trial), style=_style(trial))
        if limit is not None and len(ranked) > limit:
            table.add_row(f"… and {len(ranked) - limit} more", style="dim")
        return table

    def _rank(self, trial: Trial) -> tuple[float, ...]:
        """The best by the objective first; what failed or was skipped last."""
        if trial.status != "ok":
            return (1.0, 0.0)
        return (0.0, trial.measured.size_bytes if self._by_size else -trial.ratio)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._console.print(self._table())


def _cells(trial: Trial) -> tuple[str, str, str, str, str, str]:
    from plimsoll.report.figures import size

    if trial.status != "ok":
        return trial.name, "", "", "", "", f"{trial.status}: {trial.reason}"
    validation = trial.validation
    flipped = max((flips.flipped for flips in validation.flips), default=0)
    deviation = f"{validation.deviation.mean:.4f}" if validation.count > validation.failed else "–"
    failed = [check.name for check in validation.checks if not check.passed]
    return (
        trial.name,
        f"{trial.ratio:.2f}×",
        size(trial.measured.size_bytes),
        deviation,
        f"{flipped} of {validation.count}",
        f"✗ over budget: {', '.join(failed)}" if failed else "✓ within budget",
    )


def _line(trial: Trial) -> Any:
    from rich.text import Text

    name, speed, size, deviation, flips, verdict = _cells(trial)
    if trial.status != "ok":
        return Text(f"{name:<72} {verdict}")
    return Text(f"{name:<72} {speed:>7} {size:>9}  deviation {deviation:<7} flips {flips:<9}  {verdict}")


def _style(trial: Trial) -> str | None:
    if trial.passed:
        return "green"
    return {"ok": None, "failed": "red"}.get(trial.status, "dim")

"""The table that grows while `ship` works: a row a candidate, the best first."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from plimsoll.ship import Candidate, Ship, Trial

_LEFT_OUT = 8
"""Lines of the terminal that the table leaves to what stands around it."""


class ResultsTable:
    """Shows each trial as soon as it is known: a live table on a terminal, else a line each."""

    def __init__(self, run: Ship, live: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._run = run
        self._attempts: list[Trial] = []
        self._rows: dict[Candidate, tuple[str, ...]] = {}
        self._doing, self._since = "", time.monotonic()
        self._console = Console(highlight=False)
        # Drawn seldom: the processes that are being measured want the cores.
        self._live = (
            Live(console=self._console, refresh_per_second=2, get_renderable=self._shown, transient=True)
            if live
            else None
        )
        split = run.split
        parts = (
            f"{len(split.calibration):,} pictures calibrate, {len(split.selection):,} choose, {len(split.judging):,}"
            " judge"
        )
        self._console.print(
            f"{parts}; budget {run.config.budget}\nwork folder {run.work.path}", soft_wrap=True, markup=False
        )

    def add(self, trial: Trial) -> None:
        """Show one trial more."""
        self._rows[trial.candidate] = self._cells(trial)
        self._attempts.append(trial)
        if self._live is None:
            self._console.print(self._line(trial), soft_wrap=True)

    def say(self, doing: str) -> None:
        """Show what is being done now, on a terminal."""
        self._doing, self._since = doing, time.monotonic()

    def _line(self, trial: Trial) -> Any:
        from rich.text import Text

        cells = self._rows[trial.candidate]
        if trial.status != "ok":
            return Text(f"{cells[0]:<64} {cells[-1]}")
        return Text(
            f"{cells[0]:<64} {cells[1]:>7} {cells[2]:>9}  deviation {cells[3]:<7} flips {cells[4]:<9}  {cells[5]}"
        )

    def _shown(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        seconds = time.monotonic() - self._since
        doing = Text(f"{self._doing} … {seconds:.0f} s", style="dim") if self._doing else Text("")
        return Group(self._table(max(5, self._console.height - _LEFT_OUT)), doing)

    def _table(self, most: int | None = None) -> Any:
        """Return the table, cut to so many rows: the best stay, and a last line counts the others."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("candidate", overflow="fold")
        for heading in ("speed", "on disk", "deviation", "flips"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", overflow="fold")
        ranked = sorted(self._attempts, key=self._place)
        for one in ranked[:most]:
            table.add_row(*self._rows[one.candidate], style=_style(one))
        if most is not None and len(ranked) > most:
            table.add_row(f"… and {len(ranked) - most} more", style="dim")
        return table

    def _place(self, trial: Trial) -> tuple[float, ...]:
        """The best by the objective first; what failed or was skipped last."""
        if trial.status != "ok":
            return (1.0, 0.0)
        by_size = self._run.config.objective == "size"
        return (0.0, float(trial.result["size_bytes"]) if by_size else -trial.ratio)

    def _cells(self, trial: Trial) -> tuple[str, str, str, str, str, str]:
        if trial.status != "ok":
            return trial.candidate.name, "", "", "", "", f"{trial.status}: {trial.reason}"
        from plimsoll.report.figures import size

        compared = self._run.compare(trial.result["rows"])
        deviation = f"{compared.deviation.mean:.4f}" if compared.deviation is not None else "–"
        flipped = max((one.count for _, one in compared.flips), default=0)
        failed = [check.name for check in trial.checks if not check.passed]
        return (
            trial.candidate.name,
            f"{trial.ratio:.2f}×",
            size(trial.result["size_bytes"]),
            deviation,
            f"{flipped} of {compared.pictures}",
            f"✗ over budget: {', '.join(failed)}" if failed else "✓ within budget",
        )

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


def _style(trial: Trial) -> str | None:
    if trial.passed:
        return "green"
    return {"ok": None, "failed": "red"}.get(trial.status, "dim")

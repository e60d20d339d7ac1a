"""The table that grows while `ship` works: a row a variant, the best first."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from plimsoll.ship import Attempt, Ship, Variant

_LEFT_OUT = 8
"""Lines of the terminal that the table leaves to what stands around it."""


class Ladder:
    """Shows each attempt as soon as it is known: a live table on a terminal, else a line each."""

    def __init__(self, run: Ship, live: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._run = run
        self._attempts: list[Attempt] = []
        self._rows: dict[Variant, tuple[str, ...]] = {}
        self._doing, self._since = "", time.monotonic()
        self._console = Console(highlight=False)
        # Drawn seldom: the processes that are being measured want the cores.
        self._live = Live(console=self._console, refresh_per_second=2, get_renderable=self._shown, transient=True) if live else None
        split = run.split
        parts = f"{len(split.calibration):,} pictures calibrate, {len(split.selection):,} choose, {len(split.judging):,} judge"
        self._console.print(f"{parts}; budget {run.wishes.budget}\nwork folder {run.work.path}", soft_wrap=True, markup=False)

    def add(self, attempt: Attempt) -> None:
        """Show one attempt more."""
        self._rows[attempt.variant] = self._cells(attempt)
        self._attempts.append(attempt)
        if self._live is None:
            self._console.print(self._line(attempt), soft_wrap=True)

    def say(self, doing: str) -> None:
        """Show what is being done now, on a terminal."""
        self._doing, self._since = doing, time.monotonic()

    def _line(self, attempt: Attempt) -> Any:
        from rich.text import Text

        cells = self._rows[attempt.variant]
        if attempt.status != "ok":
            return Text(f"{cells[0]:<64} {cells[-1]}")
        return Text(f"{cells[0]:<64} {cells[1]:>7} {cells[2]:>9}  drift {cells[3]:<7} flips {cells[4]:<9}  {cells[5]}")

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
        table.add_column("variant", overflow="fold")
        for heading in ("speed", "on disk", "drift", "flips"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", overflow="fold")
        ranked = sorted(self._attempts, key=self._place)
        for one in ranked[:most]:
            table.add_row(*self._rows[one.variant], style=_style(one))
        if most is not None and len(ranked) > most:
            table.add_row(f"… and {len(ranked) - most} more", style="dim")
        return table

    def _place(self, attempt: Attempt) -> tuple[float, ...]:
        """The best by the objective first; what failed or was skipped last."""
        if attempt.status != "ok":
            return (1.0, 0.0)
        by_size = self._run.wishes.objective == "size"
        return (0.0, float(attempt.result["size_bytes"]) if by_size else -attempt.ratio)

    def _cells(self, attempt: Attempt) -> tuple[str, str, str, str, str, str]:
        if attempt.status != "ok":
            return attempt.variant.name, "", "", "", "", f"{attempt.status}: {attempt.reason}"
        from plimsoll.page.figures import size

        compared = self._run.compare(attempt.result["rows"])
        drift = f"{compared.drift.mean:.4f}" if compared.drift is not None else "–"
        flipped = max((one.count for _, one in compared.flips), default=0)
        failed = [check.name for check in attempt.checks if not check.passed]
        return (
            attempt.variant.name,
            f"{attempt.ratio:.2f}×",
            size(attempt.result["size_bytes"]),
            drift,
            f"{flipped} of {compared.pictures}",
            f"✗ over budget: {', '.join(failed)}" if failed else "✓ within budget",
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._console.print(self._table())


def _style(attempt: Attempt) -> str | None:
    if attempt.passed:
        return "green"
    return {"ok": None, "failed": "red"}.get(attempt.status, "dim")

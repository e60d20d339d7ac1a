"""The table that grows while `ship` works: a row a variant, the fastest first."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from plimsoll.ship import Attempt, Ship


class Ladder:
    """Shows each attempt as soon as it is known: a live table on a terminal, else a line each."""

    def __init__(self, run: Ship, live: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._run = run
        self._attempts: list[Attempt] = []
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4, vertical_overflow="visible") if live else None
        split = run.split
        parts = f"{len(split.calibration)} pictures calibrate, {len(split.selection)} choose, {len(split.judging)} judge"
        self._console.print(f"{parts}; budget {run.wishes.budget}; work folder {run.work.path}", soft_wrap=True)

    def add(self, attempt: Attempt) -> None:
        """Show one attempt more."""
        self._attempts.append(attempt)
        if self._live is not None:
            self._live.update(self._table())
        else:
            self._console.print(self._line(attempt), soft_wrap=True)

    def _line(self, attempt: Attempt) -> Any:
        from rich.text import Text

        cells = self._cells(attempt)
        return Text(f"{cells[0]:<62} {cells[1]:>8}  drift {cells[2]:>8}  flips {cells[3]:>9}  {cells[4]}")

    def _table(self) -> Any:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading, side in (("variant", "left"), ("speed", "right"), ("mean drift", "right"), ("flips", "right"), ("", "left")):
            table.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
        for one in sorted(self._attempts, key=lambda attempt: -attempt.ratio):
            table.add_row(*self._cells(one), style="green" if one.passed else "dim" if one.status == "skipped" else None if one.status == "ok" else "red")
        return table

    def _cells(self, attempt: Attempt) -> tuple[str, str, str, str, str]:
        if attempt.status != "ok":
            return attempt.variant.name, "–", "–", "–", f"{attempt.status}: {attempt.reason}"
        compared = self._run.compare(attempt.result["rows"])
        drift = f"{compared.drift.mean:.4f}" if compared.drift is not None else "–"
        flipped = max((one.count for _, one in compared.flips), default=0)
        failed = [check.name for check in attempt.checks if not check.passed]
        return (
            attempt.variant.name,
            f"{attempt.ratio:.2f}×",
            drift,
            f"{flipped} of {compared.pictures}",
            f"over budget: {', '.join(failed)}" if failed else "within budget",
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

"""`plimsoll` with a watch on its event loop: for how long it answered nobody, and how much of that it computed.

    python benchmarks/serve/loop_pauses.py FILE serve BUNDLE …

FILE gets a line of JSON for each pause: when it ended, how long it was, what the loop's own thread computed meanwhile,
and what all threads of the process did (milliseconds). On a crowded machine a pause is longer than what was computed:
the loop waited for a processor, or for a thread that held Python's lock and waited for one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from plimsoll.cli.main import main as plimsoll
from plimsoll.serve.http import server

EVERY_S, NOTED_S = 0.002, 0.005


@dataclass(frozen=True)
class Pauses:
    """The longest pauses of a service, in milliseconds."""

    count: int
    """How many were longer than 5 ms."""
    largest: float
    largest_computed: float
    """Of what its process computed during one."""

    @classmethod
    def read(cls, file: Path, since: float) -> Self:
        """Read what was noted since a time (seconds since 1970)."""
        lines = file.read_text().splitlines() if file.exists() else []
        rows = [row for row in map(json.loads, lines) if row[0] > since]
        computed = [min(pause, process) for _, pause, _, process in rows]
        return cls(len(rows), max((row[1] for row in rows), default=0.0), max(computed, default=0.0))


async def _watch(file: Path) -> None:
    rows: list[list[float]] = []
    written = time.monotonic()
    while True:
        wall, own, process = time.perf_counter(), time.thread_time(), time.process_time()
        await asyncio.sleep(EVERY_S)
        pause = time.perf_counter() - wall - EVERY_S
        if pause > NOTED_S:
            computed = [time.thread_time() - own, time.process_time() - process]
            rows.append([round(time.time(), 3), *(round(1e3 * seconds, 1) for seconds in (pause, *computed))])
        if rows and time.monotonic() > written + 1:
            with file.open("a") as lines:
                lines.writelines(f"{json.dumps(row)}\n" for row in rows)
            rows.clear()
            written = time.monotonic()


def main() -> None:
    """Run the command, watched."""
    file, serve = Path(sys.argv.pop(1)), server.serve

    async def watched(*arguments: Any) -> None:
        watching = asyncio.create_task(_watch(file))
        try:
            await serve(*arguments)
        finally:
            watching.cancel()

    server.serve = watched  # type: ignore[assignment]
    plimsoll()


if __name__ == "__main__":
    main()

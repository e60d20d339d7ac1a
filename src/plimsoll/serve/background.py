"""What goes on beside the requests: work that lasts as long as the service, and work that ends by itself. None of it
ends silently."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 30.0
_log = logging.getLogger("plimsoll.serve")


def next_backoff(failures: int) -> float:
    """Return how many seconds to wait before something is tried again, after so many failures in a row."""
    return min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 16))


async def lasting(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do work until it returns, or is cancelled. Whatever else ends it is logged, and the work begins again: at once at
    first, after longer pauses the more often in a row it fails."""
    failures = 0
    while True:
        began = time.monotonic()
        try:
            await work()
        except Exception:  # noqa: BLE001 - whatever it is, what it did must go on
            failures = failures + 1 if time.monotonic() - began < _LONGEST_BACKOFF_S else 1
            _log.exception("%s: a bug; going on in %g s", what, next_backoff(failures))
            await asyncio.sleep(next_backoff(failures))
        else:
            return


def in_background(what: str, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
    """Have work done, in a task that is in `tasks` until it is done; an unexpected exception is logged."""

    def done(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s: a bug", what, exc_info=error)

    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(done)

"""`Pool`: the workers of one version of a model. One that dies, hangs or swells is replaced; what it had is given back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plimsoll.serve.arena import Arena
from plimsoll.serve.batching import Item
from plimsoll.serve.messages import ModelMetadata, Problem, RequestError
from plimsoll.serve.plan import WorkerPlan
from plimsoll.serve.settings import MEBIBYTE, Settings
from plimsoll.serve.worker_handle import Batch, WorkerHandle

_WATCH_S = 0.25
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0
_PATIENCE = 3.0
"""A worker that starts may be silent so many times as long as the others were."""

_log = logging.getLogger("plimsoll.serve")


@dataclass(frozen=True)
class Listener:
    """Whom a pool tells what happens."""

    answered: Callable[[WorkerHandle, Batch, dict[str, Any]], None]
    """A batch was answered."""
    lost: Callable[[Sequence[Item], str], None]
    """A worker ended with these unanswered."""
    changed: Callable[[], None]
    """A worker became ready, or is gone."""
    restarted: Callable[[str], None]
    """A worker is replaced, because it: died, is silent, hung, is swollen, was not started."""


@dataclass
class Pool:
    """The workers of one version."""

    name: str
    config: Mapping[str, Any]
    plan: WorkerPlan
    settings: Settings
    inbound: Arena
    listener: Listener
    links: list[WorkerHandle] = field(default_factory=list)
    """All that were started and have not ended."""
    failing: str = ""
    """Why no worker could be started, twice or more in a row; empty where that isn't so. One that fails alone may have
    been killed."""
    pause: float = 0.0
    """Seconds between the last attempt to start a worker and the next, where attempts fail."""
    _keepers: list[asyncio.Task[None]] = field(default_factory=list)
    _watcher: asyncio.Task[None] | None = None
    _silence: float | None = None
    """The longest silence of a worker that started."""
    _closing: bool = False
    _numbers: int = 0

    async def start(self) -> ModelMetadata:
        """Start all workers; returns what the model is. The first one has the golden vectors checked. Raises
        RequestError where it can't be served."""
        first = self._made(verify=True)
        others = [self._made(verify=False) for _ in range(self.plan.workers - 1)]
        try:
            started = await asyncio.gather(*(self._opened(*pair) for pair in (first, *others)))
        except RequestError:
            await self.close()
            raise
        self._keepers = [asyncio.create_task(self._keep(link)) for link, _ in (first, *others)]
        self._watcher = asyncio.create_task(self._watch())
        return started[0]

    @property
    def ready(self) -> list[WorkerHandle]:
        """The workers that can take a batch or are busy with some."""
        return [link for link in self.links if link.ready and not link.retiring]

    async def retire(self) -> None:
        """Let the workers finish what they have, and end."""
        self._closing = True
        for link in self.links:
            link.retire()
        _, late = (
            await asyncio.wait(self._keepers, timeout=self.settings.batch_timeout) if self._keepers else (set(), set())
        )
        if late:
            _log.warning("%s: %d workers did not finish", self.name, len(late))
        await self.close()

    async def close(self) -> None:
        """End the workers now."""
        self._closing = True
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        for link in list(self.links):
            link.kill("the service is closing")
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []
        for link in list(self.links):
            await self._gone(link, await link.end())

    def _made(self, *, verify: bool) -> tuple[WorkerHandle, dict[str, Any]]:
        self._numbers += 1
        link = WorkerHandle(self._numbers, self.settings.folder, self.settings.outbound_bytes)
        self.links.append(link)
        return link, {**self.config, "verify": verify}

    async def _opened(self, link: WorkerHandle, config: dict[str, Any]) -> ModelMetadata:
        await link.start(config, self.inbound)
        facts = await link.wait_ready(self.settings.start_timeout, self._start_patience)
        self._silence = max(self._silence or 0.0, link.longest_silence)
        self.failing, self.pause = "", 0.0
        self.listener.changed()
        return facts

    @property
    def _start_patience(self) -> float:
        """How many seconds a worker that starts may be silent: for the first ones a fixed limit, later what those
        needed that did start, and ample more."""
        limit = self.settings.start_heartbeat_timeout
        return (
            limit
            if self._silence is None
            else min(limit, max(2 * self.settings.heartbeat_timeout, _PATIENCE * self._silence))
        )

    async def _keep(self, link: WorkerHandle) -> None:
        """Listen to a worker, and to those that replace it, one after another."""
        failures = 0
        while True:
            reason = await link.listen(self.listener.answered)
            failures = 0 if link.answered else failures + 1
            await self._gone(link, reason)
            if self._closing:
                return
            self.listener.restarted(link.reason.partition(":")[0] or "died")
            _log.warning("%s: worker %d is gone (%s); another one starts", self.name, link.number, reason)
            link = await self._replaced(failures)
            if not link.ready:
                return

    async def _replaced(self, failures: int) -> WorkerHandle:
        """Return another worker that is ready; waits longer between attempts the more of them fail."""
        while True:
            if failures:
                self.pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (failures - 1))
                await asyncio.sleep(self.pause)
            link, config = self._made(verify=False)
            if self._closing:
                self.links.remove(link)
                return link
            try:
                await self._opened(link, config)
            except RequestError as error:
                failures += 1
                self.failing = error.message if failures > 1 else self.failing
                self.listener.restarted("not started")
                _log.error("%s: a worker did not start: %s", self.name, error)
                await self._gone(link, await link.end())
            else:
                return link

    async def _gone(self, link: WorkerHandle, reason: str) -> None:
        if link in self.links:
            self.links.remove(link)
        lost = [item for batch in link.in_flight.values() for item in batch.items]
        link.in_flight.clear()
        if lost:
            self.listener.lost(lost, reason)
        self.listener.changed()

    async def _watch(self) -> None:
        """End workers that hang or swell."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(_WATCH_S)
            now = time.monotonic()
            late = now - before - _WATCH_S
            for link in [one for one in self.links if one.ready]:  # One that retires can hang as well.
                link.heard += (
                    late if late > _WATCH_S else 0.0
                )  # We were stopped ourselves: nobody's silence counts meanwhile.
                if reason := self._hanging(link, now):
                    link.kill(reason)
                elif not link.retiring and (reason := self._swollen(link)):
                    link.reason = reason
                    link.retire()

    def _hanging(self, link: WorkerHandle, now: float) -> str:
        """Return why a worker has to be ended at once; nothing where it is well."""
        if now - link.heard > self.settings.heartbeat_timeout:
            return f"silent: nothing was heard from it for {now - link.heard:.1f} s"
        oldest = min((batch.sent for batch in link.in_flight.values()), default=now)
        if now - oldest > self.settings.batch_timeout:
            return f"hung: a batch took longer than {self.settings.batch_timeout:g} s"
        return ""

    def _swollen(self, link: WorkerHandle) -> str:
        """Return why a worker has to be replaced once it has finished what it has; nothing where it is well."""
        limit = self.settings.worker_bytes or max(4 * link.resident_at_start, link.resident_at_start + 1024 * MEBIBYTE)
        if link.resident > limit:
            return f"swollen: it held {link.resident / 1e6:,.0f} MB, its limit is {limit / 1e6:,.0f} MB"
        return ""


def unavailable(reason: str, retry_after: float | None = None) -> RequestError:
    """Return the error for a model that can't answer now."""
    return RequestError(Problem("unavailable", reason, "Ask /readyz when it is.", 503, retry_after))

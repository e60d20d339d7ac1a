"""`WebProcesses`: the processes that speak with the network, as the main process sees them. One that dies or hangs is
replaced; its requests are over, and everything else goes on."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prometheus_client.core import GaugeMetricFamily

from plimsoll.errors import InputError
from plimsoll.serve.http.listener import Address, SharedSockets
from plimsoll.serve.service import ServedModel, Service
from plimsoll.serve.web.handle import WebProcess

_TICK_S = 0.1
_SYNC_S = 1.0
"""How long a web process may take to say that it knows."""
_END_S = 5.0


class WebProcesses:
    """All of them. `serve` runs until `should_exit` is set."""

    def __init__(self, service: Service, address: Address, sockets: Sequence[socket.socket]) -> None:
        if sys.platform == "win32":
            raise InputError(
                "several web processes share their sockets by inheriting them, which Windows can't",
                "Leave --web-processes out, or start several services behind a proxy.",
            )
        self.service, self._sockets = service, SharedSockets(sockets)
        self.should_exit = False
        self._processes = [
            WebProcess(number, service, address, self._sockets, self.publish)
            for number in range(service.settings.web_processes)
        ]
        self._known: object = None
        self._sync = 0
        self._own_bytes, service.web_bytes = service.web_bytes, self._bytes
        service.metrics.add_gauges(self._gauges)

    async def serve(self) -> None:
        """Start them, and replace those that end, until `should_exit`; then let them finish what they accepted. Raises
        RequestError where one can't be started at first."""
        supervising = [asyncio.create_task(process.supervise()) for process in self._processes]
        try:
            while not self.should_exit:
                for task in supervising:
                    if task.done():
                        task.result()
                self._tick()
                await asyncio.sleep(_TICK_S)
        finally:
            self.should_exit = True
            self._sockets.close()
            for process in self._processes:
                process.stop()
            patience = self.service.settings.drain_timeout + _END_S
            _, late = await asyncio.wait(supervising, timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*supervising, return_exceptions=True)

    async def listening(self) -> None:
        """Return when all of them answer."""
        await asyncio.gather(*(process.listening.wait() for process in self._processes))
        await self.publish()

    def reload_certificate(self) -> None:
        """Have them read the certificate again."""
        for process in self._processes:
            process.send({"certificate": True})

    def _tick(self) -> None:
        """Say what has changed."""
        models = self.service.models
        known = (
            self.service.draining,
            [(model.state, model.reason, model.version) for model in models.values()],
            [process.started for process in self._processes],
        )
        if known != self._known:
            self._known = known
            self._publish()
        waiting = {name: model.scheduler.waiting for name, model in models.items()}
        for process in self._processes:
            process.send({"waiting": waiting})

    def _publish(self) -> list[asyncio.Future[None]]:
        self._sync += 1
        models = {name: _mirrored(model) for name, model in self.service.models.items()}
        message = {"sync": self._sync, "draining": self.service.draining, "models": models}
        return [process.synchronize(message) for process in self._processes if process.listening.is_set()]

    async def publish(self) -> None:
        """Tell all of them what there is to know of the models, and return when they know, and have reported what they
        counted; one that hangs is not waited for."""
        if pending := self._publish():
            await asyncio.wait(pending, timeout=_SYNC_S)

    def _bytes(self) -> tuple[int, int]:
        resident, stored = self._own_bytes()
        return (
            resident + sum(process.resident for process in self._processes),
            stored + sum(process.stored for process in self._processes),
        )

    def _gauges(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily("plimsoll_web_processes", "Processes for the network.", labels=("state",))
        ready = sum(process.listening.is_set() for process in self._processes)
        family.add_metric(("ready",), ready)
        family.add_metric(("starting",), len(self._processes) - ready)
        return [family]


def _mirrored(model: ServedModel) -> dict[str, Any]:
    return {
        "state": model.state,
        "reason": model.reason,
        "version": model.version,
        "metadata": asdict(model.metadata) if model.metadata is not None else None,
        "plan": asdict(model.plan) if model.plan is not None else None,
    }

"""Run the service: listen, answer, and on SIGTERM stop without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from plimsoll.serve import log
from plimsoll.serve.access.authorizer import Authorizer
from plimsoll.serve.http.app import application
from plimsoll.serve.http.listener import (
    Address,
    ServiceServer,
    certificate_of,
    close_sockets,
    open_sockets,
    room_for_connections,
    uvicorn_config,
)
from plimsoll.serve.parsing import share_fairly
from plimsoll.serve.pipeline import Pipeline
from plimsoll.serve.service import Service
from plimsoll.serve.signals import Signals
from plimsoll.serve.tracing import Tracing, is_enabled
from plimsoll.serve.web.supervisor import WebProcesses
from plimsoll.system import host

if TYPE_CHECKING:
    from plimsoll.serve.grpc.server import GrpcServer

_log = logging.getLogger("plimsoll.serve")


async def serve(service: Service, address: Address, on_ready: Callable[[str], None], signals: Signals) -> None:
    """Start the service, answer until SIGTERM or Ctrl-C, then drain: report that it isn't ready, wait, and finish what
    was accepted.

    It listens before its models are loaded: until then it says that it isn't ready, and how far it is. A first signal
    drains, a second one ends the grace period.
    """
    settings = service.settings
    certificate = certificate_of(address)
    lines = log.start(settings.log)
    tracing = Tracing(settings.tracing) if is_enabled(settings.tracing) else None
    sockets: list[socket.socket] = []
    try:
        # Before the models, which take a while: it raises where there are no good keys. One pipeline for both
        # protocols, so that rates hold over both.
        pipeline = Pipeline(service.metrics, settings.log, Authorizer(settings.access), lines, tracing)
        sockets = open_sockets(address)
        url = address.url(sockets)
        server: ServiceServer | WebProcesses
        if settings.web_processes > 1:
            server = WebProcesses(service, address, sockets)
            running = asyncio.create_task(server.serve())
            stops = _Stops(service, server.reload_certificate, signals)
        else:
            app = application(service, pipeline, address.root_path)
            context = certificate.context if certificate is not None else None
            server = ServiceServer(uvicorn_config(app, room_for_connections(settings), address, context))
            running = asyncio.create_task(server.serve(sockets))
            stops = _Stops(service, certificate.reload if certificate is not None else None, signals)
        grpc_server: GrpcServer | None = None
        try:
            if await stops.unless_stopped(_started(service, server), running):
                grpc_server = await _start_grpc(service, address, pipeline)
                gc.collect()
                gc.freeze()  # what is there now stays: nobody waits while it is looked through for cycles
                grpc = f", gRPC on port {grpc_server.port}" if grpc_server is not None else ""
                on_ready(f"{url}{grpc}")
                await stops.wait(running)
                await _drain(service, stops, grpc_server)
        finally:
            await stops.close()
            server.should_exit = True
            await running
    finally:
        close_sockets(sockets)
        if address.unix_socket is not None and sockets:
            address.unix_socket.unlink(missing_ok=True)
        await service.close()
        if tracing is not None:
            await tracing.close()
        lines.close()


class _Stops:
    """What signals ask for while the service runs."""

    def __init__(self, service: Service, on_reload: Callable[[], None] | None, signals: Signals) -> None:
        self._service, self._on_reload = service, on_reload
        self._first, self._second = asyncio.Event(), asyncio.Event()
        self._reloads: set[asyncio.Task[None]] = set()
        signals.attend(self._stop, self._reload)

    async def unless_stopped(self, work: Coroutine[Any, Any, None], running: asyncio.Task[None]) -> bool:
        """Do some work; returns False, and gives it up, where the service is to end before that. Raises what the work
        raises."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._first.wait())
        await asyncio.wait({task, stopped, running}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if task.done():
            task.result()
            return not self._first.is_set()
        _log.info("told to end while the models were loading")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False

    async def wait(self, running: asyncio.Task[None]) -> None:
        """Wait until the service is to end, or its server ended by itself."""
        stopped = asyncio.ensure_future(self._first.wait())
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    async def grace(self, seconds: float) -> None:
        """Wait for so long, or until a second signal."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._second.wait(), seconds)

    async def close(self) -> None:
        """Give up what is being loaded anew."""
        for task in self._reloads:
            task.cancel()
        await asyncio.gather(*self._reloads, return_exceptions=True)

    def _stop(self) -> None:
        (self._second if self._first.is_set() else self._first).set()

    def _reload(self) -> None:
        if self._on_reload is not None:
            self._on_reload()
        task = asyncio.ensure_future(self._service.reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)


async def _started(service: Service, server: ServiceServer | WebProcesses) -> None:
    """Load the models; return when all that answers is there."""
    await service.start()
    if isinstance(server, WebProcesses):
        await server.listening()


async def _start_grpc(service: Service, address: Address, pipeline: Pipeline) -> GrpcServer | None:
    if address.grpc_port is None:
        return None
    from plimsoll.serve.grpc import server  # Its library takes a while to load, and few ask for it.

    where = server.GrpcAddress(address.host, address.grpc_port, address.certificate, address.key_file)
    return await server.start(service, where, pipeline)


async def _drain(service: Service, stops: _Stops, grpc_server: GrpcServer | None) -> None:
    service.draining = True
    _log.info("draining: not ready any more; still serving for %g s", service.settings.grace)
    await stops.grace(service.settings.grace)
    if grpc_server is not None:
        await grpc_server.stop(service.settings.drain_timeout)


def run(service: Service, address: Address, on_ready: Callable[[str], None], signals: Signals) -> None:
    """Serve until SIGTERM or Ctrl-C; with uvloop where that is installed."""
    host.keep_memory_level()
    share_fairly()
    if sys.platform == "win32":
        asyncio.run(serve(service, address, on_ready, signals))
        return
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(service, address, on_ready, signals))

"""Run the service: listen, answer, and on SIGTERM stop without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from plimsoll.errors import InputError
from plimsoll.serve import log
from plimsoll.serve.access.authorizer import Authorizer
from plimsoll.serve.http.app import application
from plimsoll.serve.pipeline import Pipeline
from plimsoll.serve.service import Service
from plimsoll.serve.settings import Settings
from plimsoll.serve.tracing import Tracing, is_enabled
from plimsoll.system import host

if TYPE_CHECKING:
    from plimsoll.serve.grpc.server import GrpcServer

_log = logging.getLogger("plimsoll.serve")
_KEEP_ALIVE_S = 75
_BACKLOG = 2048
_HEAD_BYTES = 65_536
_HEADERS = 200
_LINGER_S = 1.0
_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    key: Path | None = None
    grpc_port: int | None = None
    """Speak the Open Inference Protocol over gRPC on this port; None for not at all."""


async def serve(service: Service, address: Address, on_ready: Callable[[str], None]) -> None:
    """Start the service, answer until SIGTERM or Ctrl-C, then drain: report that it isn't ready, wait, and finish what
    was accepted."""
    settings = service.settings
    _check_certificate(address)
    lines = log.start(settings.log)
    tracing = Tracing(settings.tracing) if is_enabled(settings.tracing) else None
    try:
        # Before the models, which take a while: it raises where there are no good keys. One pipeline for both
        # protocols, so that rates hold over both.
        pipeline = Pipeline(service.metrics, settings.log, Authorizer(settings.access), lines, tracing)
        await service.start()
        server = _Server(uvicorn_config(application(service, pipeline), settings, address))
        grpc_server = await _start_grpc(service, address, pipeline)
        running = asyncio.create_task(server.serve())
        while not server.started and not running.done():
            await asyncio.sleep(0.01)
        if server.started:
            grpc = f", gRPC on port {grpc_server.port}" if grpc_server is not None else ""
            on_ready(f"{'https' if address.certificate else 'http'}://{address.host}:{server.port}{grpc}")
            await _until_stopped(service, running)
            await _drain(service, server, grpc_server)
        await running
    finally:
        await service.close()
        if tracing is not None:
            await tracing.close()
        lines.close()


def _check_certificate(address: Address) -> None:
    """Raise InputError where TLS is asked for with half of a pair, or with files that aren't one."""
    if (address.certificate is None) != (address.key is None):
        raise InputError("TLS needs both a certificate and its private key", "Give both: --certificate and --key.")
    if address.certificate is None or address.key is None:
        return
    for file in (address.certificate, address.key):
        if not file.is_file():
            raise InputError(f"{file}: no such file", "TLS needs a certificate and its private key, as PEM files.")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(address.certificate, address.key)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{address.certificate} and {address.key} are not a certificate and its private key: {error}",
            "Both are PEM files; the key is not encrypted.",
        ) from error


async def _start_grpc(service: Service, address: Address, pipeline: Pipeline) -> GrpcServer | None:
    if address.grpc_port is None:
        return None
    from plimsoll.serve.grpc import server  # Its library takes a while to load, and few ask for it.

    where = server.GrpcAddress(address.host, address.grpc_port, address.certificate, address.key)
    return await server.start(service, where, pipeline)


async def _until_stopped(service: Service, running: asyncio.Task[None]) -> None:
    """Wait for SIGTERM or Ctrl-C, or for the server to end by itself; SIGHUP loads the models anew."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()
    for name in ("SIGTERM", "SIGINT"):
        _on_signal(loop, getattr(signal, name), stop.set)
    if hasattr(signal, "SIGHUP"):
        _on_signal(loop, signal.SIGHUP, lambda: reloads.add(asyncio.ensure_future(service.reload())))
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()


async def _drain(service: Service, server: uvicorn.Server, grpc_server: GrpcServer | None) -> None:
    service.draining = True
    _log.info("draining: not ready any more; still serving for %g s", service.settings.grace)
    await asyncio.sleep(service.settings.grace)
    server.should_exit = True
    if grpc_server is not None:
        await grpc_server.stop(service.settings.drain_timeout)


def _on_signal(loop: asyncio.AbstractEventLoop, number: int, act: Callable[[], Any]) -> None:
    try:
        loop.add_signal_handler(number, act)
    except NotImplementedError:  # Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(act))


class _Server(uvicorn.Server):
    """Uvicorn, with our own signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave signals to `serve`."""
        yield

    @property
    def port(self) -> int:
        """The port that it listens on, chosen by the system where the address says 0."""
        return int(self.servers[0].sockets[0].getsockname()[1])


def uvicorn_config(app: Any, settings: Settings, address: Address) -> uvicorn.Config:
    """Return how uvicorn serves the application: our protocol with its limits, and nothing that we don't use."""
    return uvicorn.Config(
        app,
        host=address.host,
        port=address.port,
        http=type("_LimitedProtocol", (_LimitedProtocol,), {"header_timeout": settings.header_timeout}),
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=settings.max_connections,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.drain_timeout),
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )


class _LimitedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with limits for the head of a request, which it doesn't have: a time, and a size.

    Without them a caller that never ends its head holds the connection, and fills the memory.
    """

    header_timeout: ClassVar[float]
    _timeout: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._timeout = self.loop.call_later(self.header_timeout, transport.close)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._head_bytes += len(data) if self._in_head else 0
        super().data_received(data)
        if self._in_head and self._head_bytes > _HEAD_BYTES and not self.transport.is_closing():
            self._refused = True
            self.transport.write(_TOO_LONG)
            # Closing at once would reset the connection before the caller has read this.
            self.loop.call_later(_LINGER_S, self.transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._cancel_timeout()
        self._timeout = self.loop.call_later(self.header_timeout, self.transport.close)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > _HEADERS:
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._cancel_timeout()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timeout()
        super().connection_lost(exc)

    def _cancel_timeout(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None


def run(service: Service, address: Address, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; with uvloop where that is installed."""
    host.keep_memory_level()
    if sys.platform == "win32":
        asyncio.run(serve(service, address, on_ready))
        return
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(service, address, on_ready))

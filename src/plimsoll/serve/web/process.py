"""A web process: `python -m plimsoll.serve.web.process`, started only by `plimsoll.serve.web.supervisor`.

It speaks HTTP as a service does that has no others; its models are the main process's. Frames come on standard input
and leave on standard output. When the input ends, the main process is gone, and this one ends too.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import IO, Any

from plimsoll.serve import ipc, log
from plimsoll.serve.access.authorizer import Authorizer
from plimsoll.serve.background import lasting
from plimsoll.serve.http.app import application
from plimsoll.serve.http.listener import (
    Address,
    ServiceServer,
    certificate_of,
    room_for_connections,
    uvicorn_config,
)
from plimsoll.serve.inbound import InboundMemory
from plimsoll.serve.ipc import Arena
from plimsoll.serve.parsing import share_fairly
from plimsoll.serve.pipeline import Pipeline
from plimsoll.serve.settings import Settings
from plimsoll.serve.tracing import Tracing, is_enabled
from plimsoll.serve.web.remote import MainProcess, RemoteService
from plimsoll.system import host

_REPORT_S = 0.25


async def serve(input_: IO[bytes], output: IO[bytes]) -> None:
    """Answer until the main process says that it is enough."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), input_)
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, output)
    config = await ipc.read_async(reader)
    if config is None:
        return
    settings = Settings.model_validate(config["settings"])
    memory = InboundMemory(Arena.attach(config["inbound"]), config["start"], config["size"])
    main = MainProcess(reader, writer, memory)
    service = RemoteService(settings, config["models"], memory, main)
    lines = log.start(settings.log)
    tracing = Tracing(settings.tracing) if is_enabled(settings.tracing) else None
    pipeline = Pipeline(service.metrics, settings.log, Authorizer(settings.access), lines, tracing)
    pem = {name: Path(value) if value is not None else None for name, value in config["files"].items()}
    address = Address(config["host"], certificate=pem["certificate"], key=pem["key"], root_path=config["root_path"])
    certificate = certificate_of(address)
    app = application(service, pipeline, address.root_path)
    context = certificate.context if certificate is not None else None
    server = ServiceServer(uvicorn_config(app, room_for_connections(settings), address, context))

    def synchronize(message: dict[str, Any]) -> None:
        service.mirror(message)
        main.report(seen=message["sync"])

    main.on_frame = {
        "sync": synchronize,
        "waiting": lambda message: service.note_waiting(message["waiting"]),
        "free": lambda message: memory.free(message["free"]),
        "certificate": lambda _: certificate.reload() if certificate is not None else None,
        "stop": lambda _: setattr(server, "should_exit", True),
    }
    listening = asyncio.create_task(main.listen())
    listening.add_done_callback(_end)
    reporting = asyncio.create_task(lasting("reporting to the main process", partial(_report, main)))
    answering = asyncio.create_task(server.serve([socket.socket(fileno=number) for number in config["sockets"]]))
    while not server.started and not answering.done():
        await asyncio.sleep(0.01)
    gc.collect()
    gc.freeze()
    main.send({"listening": True})
    await answering
    reporting.cancel()
    main.report()
    if tracing is not None:
        await tracing.close()
    lines.close()


def _end(listening: asyncio.Task[None]) -> None:
    """Nobody is left who could compute anything."""
    if not listening.cancelled():
        os._exit(0 if listening.exception() is None else 70)


async def _report(main: MainProcess) -> None:
    while True:
        main.report(resident=host.resident_bytes(os.getpid()) or 0)
        await asyncio.sleep(_REPORT_S)


def main() -> None:
    """Run a web process; what any library prints goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process says when
    input_, output = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    host.keep_memory_level()
    share_fairly()
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(input_, output))
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()

"""A machine that has no room for the service, and callers that take its room: no open files, no disk, a temporary
folder that somebody wiped, answers that nobody reads, bodies that take long to read; while others go on asking."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import resource
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from chaos_checks import get_request, post_request
from chaos_testbed import Testbed, kill
from http_wire import NoResponseError

FAULT_S, REST_S = 4.0, 6.0
HEALTHY_S = 5.0
"""Seconds within which the service must be well again."""
NON_READERS = 60
_LOCK = b'{"images":[' + b'{"data":"AA"},' * 400_000 + b"{}]}"
HOSTILE = {
    "pictures": post_request(_LOCK, {"Content-Type": "application/json"}),
    "numbers": post_request(
        b'{"inputs":[{"name":"a","datatype":"FP32","shape":[1],"data":[' + b"0.123456789," * 700_000 + b"1]}]}",
        {"Content-Type": "application/json"},
        "/v2/models/open_nsfw.tensor/infer",
    ),
    "base64": post_request(
        b'{"images":[{"data":"' + b"QUJD" * 10_000_000 + b'"}]}', {"Content-Type": "application/json"}
    ),
    "parts": post_request(
        b"--x\r\n\r\n\r\n" * 3_000_000 + b"--x--", {"Content-Type": "multipart/form-data; boundary=x"}
    ),
}


@contextmanager
def limited(pid: int, limit: int, value: int) -> Iterator[None]:
    """Lower a limit of a process for a block."""
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (value, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, limit, before)


async def no_descriptors(testbed: Testbed, seconds: float) -> dict[str, Any]:
    """Kill workers while the service may open no further file, so that no other can be started."""

    def fault() -> contextlib.AbstractContextManager[None]:
        opened = len(list(Path(f"/proc/{testbed.web}/fd").iterdir()))
        return limited(testbed.web, resource.RLIMIT_NOFILE, opened + 2)

    return await _again_and_again(testbed, seconds, fault)


async def no_disk(testbed: Testbed, seconds: float) -> dict[str, Any]:
    """Kill workers and load the model anew while nothing can be written, neither files nor shared memory."""
    return await _again_and_again(testbed, seconds, lambda: limited(testbed.web, resource.RLIMIT_FSIZE, 0), reload=True)


async def wiped(testbed: Testbed, seconds: float) -> dict[str, Any]:
    """Kill workers after somebody removed all temporary files."""

    @contextmanager
    def fault() -> Iterator[None]:
        for path in testbed.folder.iterdir():
            shutil.rmtree(path, ignore_errors=True)
        yield

    return await _again_and_again(testbed, seconds, fault)


async def _again_and_again(testbed: Testbed, seconds: float, fault: Any, *, reload: bool = False) -> dict[str, Any]:
    draw, faults, slowest = random.Random(5), 0, 0.0
    async with testbed.load():
        await asyncio.sleep(REST_S)  # until all clients are connected: who comes later meets a full house
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with fault():
                workers = testbed.workers()
                faults += kill(draw.choice(workers), signal.SIGKILL) if workers else 0
                if reload:
                    kill(testbed.web, signal.SIGHUP)
                await asyncio.sleep(FAULT_S)
            began = time.monotonic()
            while (await testbed.get("/readyz")).status != 200 and time.monotonic() < began + 60:
                await asyncio.sleep(0.05)
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(REST_S)
    if slowest > HEALTHY_S:
        testbed.outcome.wrong.append(f"it took {slowest:.1f} s to be well again")
    return {"faults": faults, "slowest_recovery_seconds": round(slowest, 2)}


async def non_readers(testbed: Testbed, seconds: float) -> dict[str, Any]:
    """Ask for large answers, many on a connection, and read none."""
    request = get_request("/openapi.json") * 60
    cut = 0
    async with testbed.load(), _watched(testbed) as pauses:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            writers = []
            for _ in range(NON_READERS):
                with contextlib.suppress(OSError):
                    caller = socket.socket()
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    caller.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(caller, ("127.0.0.1", testbed.port))
                    caller.send(request)
                    writers.append(caller)
            await asyncio.sleep(10)
            for caller in writers:
                with contextlib.suppress(OSError):
                    caller.send(b"x")
                caller.close()
            cut += len(writers)
    return {"callers": cut, "slowest_probe_ms": _worst(pauses)}


async def hostile(testbed: Testbed, seconds: float) -> dict[str, Any]:
    """Send bodies that take long to read; meanwhile nobody waits for the event loop."""
    statuses: Counter[str] = Counter()
    async with testbed.load(), _watched(testbed) as pauses:
        started = time.monotonic()
        while time.monotonic() < started + seconds:
            for name, request in HOSTILE.items():
                with contextlib.suppress(OSError, NoResponseError):
                    statuses[f"{name}: {(await testbed.send(request)).status}"] += 1
            if testbed.middle_mb is None and time.monotonic() > started + seconds / 2:
                testbed.middle_mb = (await testbed.holds())["web"]["private_mb"]
    return {"statuses": dict(statuses), "slowest_probe_ms": _worst(pauses), "web_mb_in_the_middle": testbed.middle_mb}


@asynccontextmanager
async def _watched(testbed: Testbed) -> AsyncIterator[list[float]]:
    """Ask all the time whether the service is alive, and note how long each answer took; in a process of its own, which
    nobody holds up who makes bodies of many megabytes here."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    asking = context.Process(target=_ask_health, args=(testbed.port, there), daemon=True)
    asking.start()
    took: list[float] = []
    try:
        yield took
    finally:
        here.send("stop")
        took += await asyncio.to_thread(here.recv)
        await asyncio.to_thread(asking.join)


def _ask_health(port: int, pipe: Connection) -> None:
    took: list[float] = []
    while not pipe.poll(0.01):
        began = time.perf_counter()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 60) as caller:
            caller.sendall(get_request("/healthz"))
            if caller.recv(4096):
                took.append(time.perf_counter() - began)
    pipe.send(took)


def _worst(took: list[float]) -> dict[str, float]:
    ordered = sorted(took)
    return {
        name: round(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("largest", 1.0))
        if ordered
    }

"""The load generators, each in a process of its own: a closed loop of clients, and an open loop of Poisson arrivals.

    python benchmarks/serve/traffic.py closed FOLDER PORT --clients 16 --seconds 10
    python benchmarks/serve/traffic.py open FOLDER PORT --rate 200 --seconds 10

FOLDER holds whole requests (`request_formats.write_requests`), which are sent in turn. In the open loop a request's
latency counts from the moment at which it was to be sent, whether or not a connection was free then: a server that
stalls can't hide it (no coordinated omission). The result is a line of JSON on standard output; `cpu_seconds` is the
generator's own cost.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from http_wire import Connection, NoResponseError

PATIENCE = 60.0
"""Seconds after which a request counts as unanswered."""


@dataclass
class Traffic:
    """What came of a load."""

    seconds: float = 0.0
    """From the first request to the last answer."""
    latencies: list[float] = field(default_factory=list)
    """Milliseconds, of the answers with status 200."""
    errors: dict[str, int] = field(default_factory=dict)
    """By status, or `unanswered`."""
    cpu_seconds: float = 0.0
    """Processor time of the generator itself."""
    late: float = 0.0
    """Open loop: the most that a request was sent late, in milliseconds, because every connection was busy."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0


class Generator:
    """Connections to one server, and what was measured on them."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self.port, self.requests = port, requests
        self.traffic = Traffic()
        self._idle: deque[Connection] = deque()

    async def ask(self, since: float) -> None:
        """Send the next request over an idle or a new connection; the latency counts from `since`."""
        try:
            connection = self._idle.pop() if self._idle else await Connection.connect(self.port)
            response = await asyncio.wait_for(connection.ask(next(self.requests)), PATIENCE)
        except (NoResponseError, OSError, TimeoutError):
            self._failed("unanswered")
            await asyncio.sleep(0.01)  # a server that is down is not to be asked in a hot loop
            return
        if response.status == 200:
            self.traffic.latencies.append(round(1e3 * (time.perf_counter() - since), 3))
        else:
            self._failed(str(response.status))
        if connection.open:
            self._idle.append(connection)

    def _failed(self, how: str) -> None:
        self.traffic.errors[how] = self.traffic.errors.get(how, 0) + 1

    async def closed(self, clients: int, seconds: float) -> None:
        """Let each client ask again as soon as it is answered."""
        until = time.perf_counter() + seconds

        async def client() -> None:
            while (now := time.perf_counter()) < until:
                await self.ask(now)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def arriving(self, rate: float, seconds: float, connections: int) -> None:
        """Ask at the moments of a Poisson process (seeded), over at most so many connections at once."""
        draw, tasks, free = random.Random(5), set[asyncio.Task[None]](), asyncio.Semaphore(connections)
        started = due = time.perf_counter()
        while (due := due + draw.expovariate(rate)) < started + seconds:
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._send(due, free))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _send(self, due: float, free: asyncio.Semaphore) -> None:
        async with free:
            self.traffic.late = max(self.traffic.late, 1e3 * (time.perf_counter() - due))
            await self.ask(due)


async def _run(arguments: argparse.Namespace) -> Traffic:
    files = sorted(arguments.folder.glob("*.http"))
    random.Random(arguments.seed).shuffle(files)
    generator = Generator(arguments.port, itertools.cycle([file.read_bytes() for file in files]))
    started, spent = time.perf_counter(), time.process_time()
    if arguments.loop == "closed":
        await generator.closed(arguments.clients, arguments.seconds)
    else:
        await generator.arriving(arguments.rate, arguments.seconds, arguments.connections)
    generator.traffic.seconds = time.perf_counter() - started
    generator.traffic.cpu_seconds = time.process_time() - spent
    return generator.traffic


def main() -> None:
    """Parse the arguments, make the load, print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("loop", choices=["closed", "open"])
    parser.add_argument("folder", type=Path, help="folder of whole requests, *.http")
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=16, help="of the closed loop")
    parser.add_argument("--rate", type=float, default=100, help="requests a second of the open loop")
    parser.add_argument("--connections", type=int, default=256, help="at most so many at once in the open loop")
    parser.add_argument("--seed", type=int, default=0, help="of the photos' order")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        print(json.dumps(asdict(runner.run(_run(arguments)))))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, where it is installed: half the cost."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    main()

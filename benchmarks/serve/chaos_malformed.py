"""Thousands of bad requests under load: each gets one answer that says what is wrong, never a mistake of the server's;
others notice nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from chaos_bodies import INCOMPLETE, BadRequest, bad_requests
from chaos_testbed import Testbed
from http_wire import Response, patiently

DEFAULT_COUNT = 10_000
AT_ONCE = 12
PATIENCE = 45.0
"""Seconds after which a bad request counts as late: the service gives a body 30 s."""


HTTP2_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What comes back to one who begins with HTTP/2; what follows says which protocol is spoken."""
MAY_BE_CLOSED = frozenset({*INCOMPLETE, "many headers"})
"""Kinds for which a closed connection is an answer: what was sent is no whole request, or its head is of no reasonable
size."""


@dataclass
class KindOutcomes:
    """What came of the bad requests of one kind."""

    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """By status; `closed` or `reset` where the connection ended without an answer, `late` where nothing came."""


async def malformed(testbed: Testbed, count: float) -> dict[str, Any]:
    """Send so many bad requests."""
    seen: dict[str, KindOutcomes] = {}
    photos = [photo.data for photo in testbed.photos]
    remaining = enumerate(itertools.islice(bad_requests(photos), int(count)))

    async def sender() -> None:
        for number, bad in remaining:
            if number == int(count) // 2:
                testbed.middle_mb = (await testbed.holds())["web"]["private_mb"]
            outcomes = seen.setdefault(bad.kind, KindOutcomes())
            outcomes.sent += 1
            outcomes.statuses[await _send(testbed, bad)] += 1

    async with testbed.load():
        await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
    return {
        "sent": sum(outcomes.sent for outcomes in seen.values()),
        "kinds": {kind: dict(outcomes.statuses) for kind, outcomes in sorted(seen.items())},
        "web_mb_in_the_middle": testbed.middle_mb,
    }


async def _send(testbed: Testbed, bad: BadRequest) -> str:
    """Send a bad request, and return what came of it; what must not come is noted as wrong."""
    try:
        status = await patiently(_exchange(testbed, bad), PATIENCE)
    except TimeoutError:
        status = "late"
    except OSError:
        status = "reset"
    wrong = status == "late" or (status.startswith("5") and status != "503") or " and " in status
    if wrong or (status in ("reset", "closed", "cut off and closed") and bad.kind not in MAY_BE_CLOSED):
        testbed.outcome.wrong.append(f"{bad.kind}: {status}: {bad.request[:300]!r}")
    return status


async def _exchange(testbed: Testbed, bad: BadRequest) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", testbed.port)
    try:
        writer.write(bad.request)
        if bad.incomplete:
            writer.write_eof()
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        response = Response(int(head.split(b" ", 2)[1]))
        for line in head.split(b"\r\n")[1:-2]:
            name, _, value = line.decode("latin-1").partition(":")
            response.headers[name.lower()] = value.strip()
        await reader.readexactly(int(response.headers.get("content-length", "0")))
        return await _more(reader, bad, response)
    except asyncio.IncompleteReadError as error:
        if error.partial.startswith(HTTP2_SETTINGS):
            return "told to speak HTTP/1.1"
        return "closed" if not error.partial else "cut off and closed"
    finally:
        writer.close()


async def _more(reader: asyncio.StreamReader, bad: BadRequest, response: Response) -> str:
    """Return the status; a second answer to one request is told, but where the request smuggles a second one."""
    if bad.kind in ("two lengths", "bad chunks", "bad length", "no http", "too large"):
        return str(response.status)
    try:
        second = await asyncio.wait_for(reader.read(12), 0.02)
    except TimeoutError:
        second = b""
    return f"{response.status} and {second!r}" if second else str(response.status)

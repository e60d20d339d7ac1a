"""Clients that behave badly: they hang up in the middle, or are endlessly slow; while others go on asking."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

from chaos_checks import Question, questions
from chaos_testbed import Testbed
from http_wire import Connection, NoResponseError

HANG_UPS = 500
SLOW_CLIENTS_PER_KIND = 100
OBSERVED_S = 45.0
"""Seconds after which every slow client must have been turned out."""


async def hang_up(testbed: Testbed, seconds: float) -> dict[str, Any]:
    """Let 500 clients hang up: in the head, in the body, right after it, and while their answer is computed; politely
    and rudely."""
    ways: Counter[str] = Counter()
    async with testbed.load():
        asking = questions(testbed.photos, 77)
        waves = max(1, round(seconds / 5))
        for wave in range(waves):
            share = HANG_UPS // waves + (wave < HANG_UPS % waves)
            await asyncio.gather(
                *(_hang_up(testbed, next(asking), random.Random(1000 * wave + client), ways) for client in range(share))
            )
            await asyncio.sleep(seconds / waves / 2)
    return {"clients": sum(ways.values()), "ways": dict(ways)}


async def _hang_up(testbed: Testbed, question: Question, draw: random.Random, ways: Counter[str]) -> None:
    """Send so much of a request, wait a little, and hang up."""
    await asyncio.sleep(draw.uniform(0, 1))
    request = question.request
    head = request.index(b"\r\n\r\n") + 4
    way = draw.choice(["in the head", "after the head", "in the body", "after the body", "while it is computed"])
    sent = {
        "in the head": draw.randrange(1, head),
        "after the head": head,
        "in the body": draw.randrange(head, len(request)),
    }.get(way, len(request))
    try:
        connection = await Connection.connect(testbed.port)
        connection.send(request[:sent])
    except (OSError, NoResponseError):
        ways["not accepted"] += 1
        return
    await asyncio.sleep(draw.uniform(0.005, 0.2) if way == "while it is computed" else draw.choice([0.0, 0.01]))
    if draw.random() < 0.5:
        connection.abort()
    else:
        connection.close()
    ways[way] += 1


async def loris(testbed: Testbed, seconds: float) -> dict[str, Any]:
    """Let slow clients hold connections: heads and bodies that trickle, and connections on which nothing comes;
    meanwhile others are answered."""
    observed = max(seconds, 5.0)
    ended: dict[str, list[float]] = {way: [] for way in ("slow head", "slow body", "idle", "idle after an answer")}
    still_open: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    async with testbed.load():
        question = next(questions(testbed.photos, 78))
        slow = [
            _dawdle(testbed, question, way, observed, (ended, still_open, statuses))
            for way in ended
            for _ in range(SLOW_CLIENTS_PER_KIND)
        ]
        await asyncio.gather(*slow)
    if (
        observed >= OBSERVED_S
    ):  # longer than the service's limits for heads and bodies; an idle connection after an answer may stay for 75 s
        testbed.outcome.wrong += [
            f"{count} connections are still open after {observed:g} s: {way}"
            for way, count in still_open.items()
            if way != "idle after an answer"
        ]
    closed = {
        way: {"closed_by_the_service": len(times), "seconds": [min(times), max(times)] if times else None}
        for way, times in ended.items()
    }
    return {"observed_seconds": observed, "ways": closed, "still_open": dict(still_open), "answers": dict(statuses)}


async def _dawdle(
    testbed: Testbed,
    question: Question,
    way: str,
    observed: float,
    results: tuple[dict[str, list[float]], Counter[str], Counter[str]],
) -> None:
    """Hold a connection for as long as the service lets."""
    ended, still_open, statuses = results
    started = time.monotonic()
    try:
        connection = await Connection.connect(testbed.port)
    except OSError:
        still_open["not accepted"] += 1
        return
    request, head = question.request, question.request.index(b"\r\n\r\n") + 4
    sent = head + 10 if way == "slow body" else 0
    try:
        if way == "idle after an answer":
            await testbed.ask(connection, question)
        elif sent:
            connection.send(request[:sent])
        while time.monotonic() < started + observed and connection.open:
            if way.startswith("slow") and sent < len(request) - 1:
                connection.send(request[sent : sent + 1])
                sent += 1
            await asyncio.sleep(0.25)
        if sent and connection.open is False:
            response = await connection.answer()
            statuses[f"{way}: {response.status}"] += 1
    except NoResponseError:
        statuses[f"{way}: closed without an answer"] += 1
    if connection.open:
        still_open[way] += 1
        connection.close()
    else:
        ended[way].append(round(time.monotonic() - started, 1))

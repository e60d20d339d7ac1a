"""Clients that behave badly: they hang up in the middle, or are endlessly slow; while others go on asking."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

from chaos_judge import Question, questions
from chaos_stage import Stage
from http_wire import Unanswered, Wire

HANGING_UP = 500
SLOW_OF_EACH = 100
LOOKED_FOR = 45.0
"""Seconds after which every slow client must have been turned out."""


async def hang_up(stage: Stage, seconds: float) -> dict[str, Any]:
    """Let 500 clients hang up: in the head, in the body, right after it, and while their answer is computed; politely
    and rudely."""
    ways: Counter[str] = Counter()
    async with stage.load():
        asking = questions(stage.photos, 77)
        waves = max(1, round(seconds / 5))
        for wave in range(waves):
            share = HANGING_UP // waves + (wave < HANGING_UP % waves)
            await asyncio.gather(
                *(_hang_up(stage, next(asking), random.Random(1000 * wave + place), ways) for place in range(share))
            )
            await asyncio.sleep(seconds / waves / 2)
    return {"clients": sum(ways.values()), "ways": dict(ways)}


async def _hang_up(stage: Stage, question: Question, draw: random.Random, ways: Counter[str]) -> None:
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
        wire = await Wire.connect(stage.port)
        wire.send(request[:sent])
    except (OSError, Unanswered):
        ways["not accepted"] += 1
        return
    await asyncio.sleep(draw.uniform(0.005, 0.2) if way == "while it is computed" else draw.choice([0.0, 0.01]))
    if draw.random() < 0.5:
        wire.abort()
    else:
        wire.close()
    ways[way] += 1


async def loris(stage: Stage, seconds: float) -> dict[str, Any]:
    """Let slow clients hold connections: heads and bodies that trickle, and connections on which nothing comes;
    meanwhile others are answered."""
    looked_for = max(seconds, 5.0)
    ended: dict[str, list[float]] = {way: [] for way in ("slow head", "slow body", "idle", "idle after an answer")}
    held: Counter[str] = Counter()
    said: Counter[str] = Counter()
    async with stage.load():
        question = next(questions(stage.photos, 78))
        slow = [
            _dawdle(stage, question, way, looked_for, (ended, held, said)) for way in ended for _ in range(SLOW_OF_EACH)
        ]
        await asyncio.gather(*slow)
    if (
        looked_for >= LOOKED_FOR
    ):  # longer than the service's limits for heads and bodies; an idle connection after an answer may stay for 75 s
        stage.outcome.wrong += [
            f"{count} connections are still open after {looked_for:g} s: {way}"
            for way, count in held.items()
            if way != "idle after an answer"
        ]
    closed = {
        way: {"closed_by_the_service": len(times), "seconds": [min(times), max(times)] if times else None}
        for way, times in ended.items()
    }
    return {"looked_for_seconds": looked_for, "ways": closed, "still_open": dict(held), "answers": dict(said)}


async def _dawdle(
    stage: Stage,
    question: Question,
    way: str,
    looked_for: float,
    found: tuple[dict[str, list[float]], Counter[str], Counter[str]],
) -> None:
    """Hold a connection for as long as the service lets."""
    ended, held, said = found
    started = time.monotonic()
    try:
        wire = await Wire.connect(stage.port)
    except OSError:
        held["not accepted"] += 1
        return
    request, head = question.request, question.request.index(b"\r\n\r\n") + 4
    sent = head + 10 if way == "slow body" else 0
    try:
        if way == "idle after an answer":
            await stage.ask(wire, question)
        elif sent:
            wire.send(request[:sent])
        while time.monotonic() < started + looked_for and wire.open:
            if way.startswith("slow") and sent < len(request) - 1:
                wire.send(request[sent : sent + 1])
                sent += 1
            await asyncio.sleep(0.25)
        if sent and wire.open is False:
            response = await wire.answer()
            said[f"{way}: {response.status}"] += 1
    except Unanswered:
        said[f"{way}: closed without an answer"] += 1
    if wire.open:
        held[way] += 1
        wire.close()
    else:
        ended[way].append(round(time.monotonic() - started, 1))

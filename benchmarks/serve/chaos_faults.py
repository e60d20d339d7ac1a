"""Faults of the service's own making, under load: workers that die or hang, new versions, the end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from chaos_checks import post_request
from chaos_testbed import Testbed, kill
from http_wire import NoResponseError

EVERY = 2.0
"""Seconds between two faults."""


async def kill_workers(testbed: Testbed, seconds: float) -> dict[str, Any]:
    """Kill a random worker every two seconds."""
    return await _hurt(testbed, seconds, signal.SIGKILL)


async def stop_workers(testbed: Testbed, seconds: float) -> dict[str, Any]:
    """Stop a random worker every two seconds: it hangs, and never goes on by itself."""
    return await _hurt(testbed, seconds, signal.SIGSTOP)


async def _hurt(testbed: Testbed, seconds: float, number: signal.Signals) -> dict[str, Any]:
    draw, hurt, absent = random.Random(3), 0, 0.0
    full = await testbed.gauge("plimsoll_workers", 'state="ready"')
    watching = asyncio.create_task(_readiness(testbed))
    async with testbed.load():
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            workers = [pid for pid in testbed.workers() if number == signal.SIGKILL or _runs(pid)]
            if workers:
                hurt += kill(draw.choice(workers), number)
            else:
                absent += EVERY
            await asyncio.sleep(EVERY)
    watching.cancel()
    returned = time.monotonic()
    while await testbed.gauge("plimsoll_workers", 'state="ready"') < full and time.monotonic() < returned + 60:
        await asyncio.sleep(0.1)
    return {
        "faults": hurt,
        "seconds_without_any_worker": absent,
        "seconds_until_all_were_back": round(time.monotonic() - returned, 1),
    }


async def _readiness(testbed: Testbed) -> None:
    """See that the service says the truth about itself at any time."""
    while True:
        try:
            response = await testbed.get("/readyz")
            if response.status not in (200, 503):
                testbed.outcome.wrong.append(f"/readyz has the status {response.status}")
        except (OSError, NoResponseError, TimeoutError) as error:
            testbed.outcome.wrong.append(f"/readyz does not answer: {error}")
        await asyncio.sleep(0.5)


def _runs(pid: int) -> bool:
    """Return whether a process is neither stopped nor gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "TZX"
    except OSError:
        return False


async def reload(testbed: Testbed, seconds: float) -> dict[str, Any]:
    """Reload the model again and again, by the repository's endpoint and by SIGHUP in turn: no request may notice."""
    versions, refused = set(), []
    async with testbed.load():
        until, turn = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            before = await _version(testbed)
            if turn % 2:
                os.kill(testbed.web, signal.SIGHUP)
            else:
                name = await _name(testbed)
                response = await testbed.send(
                    post_request(b"{}", {"Content-Type": "application/json"}, f"/v2/repository/models/{name}/load")
                )
                if response.status != 200:
                    refused.append(f"{response.status} {response.body[:200]!r}")
                    os.kill(testbed.web, signal.SIGHUP)
            turn += 1
            waited = time.monotonic()
            while (now := await _version(testbed)) == before and time.monotonic() < waited + 60:
                await asyncio.sleep(0.1)
            versions.add(now)
    bad = {
        status: count
        for status, count in testbed.outcome.statuses.items()
        if status not in ("200", "422", "415", "400")
    }
    if bad:
        testbed.outcome.wrong.append(f"requests noticed a reload: {bad}")
    return {"loads": turn, "versions": len(versions), "refused": refused[:3]}


async def _models(testbed: Testbed) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = json.loads((await testbed.get("/v1/models")).body)["models"]
    return models


async def _version(testbed: Testbed) -> str:
    return str((await _models(testbed))[0]["version"])


async def _name(testbed: Testbed) -> str:
    return str((await _models(testbed))[0]["name"])


async def drain(testbed: Testbed, seconds: float) -> dict[str, Any]:
    """Send SIGTERM under load: what was accepted is answered, readiness is off before, and the exit code is 0."""
    readiness: list[int] = []
    async with testbed.load():
        await asyncio.sleep(seconds)
        requests_before, terminated = testbed.outcome.requests, time.monotonic()
        os.kill(testbed.web, signal.SIGTERM)
        while testbed.running.process.poll() is None and time.monotonic() < terminated + 60:
            try:
                readiness.append((await testbed.get("/readyz")).status)
            except (OSError, NoResponseError, TimeoutError):
                readiness.append(0)
            await asyncio.sleep(0.1)
        took = time.monotonic() - terminated
    code = testbed.running.process.poll()
    first_not_ready = next((index for index, status in enumerate(readiness) if status == 503), None)
    if code != 0:
        testbed.outcome.wrong.append(f"the exit code is {code}")
    if first_not_ready is None:
        testbed.outcome.wrong.append("readiness was never off before the end")
    return {
        "requests_before": requests_before,
        "requests_after_sigterm": testbed.outcome.requests - requests_before,
        "seconds_to_the_end": round(took, 1),
        "exit_code": code,
        "not_ready_answers": readiness.count(503),
        "unanswered_closed_after_seconds": sorted(testbed.closed)[:50],
        "connections_refused": testbed.refused,
    }

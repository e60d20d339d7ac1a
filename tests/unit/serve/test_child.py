"""Processes that are started for the event loop, or can't be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from plimsoll.serve import child

resource = pytest.importorskip("resource")
uvloop = pytest.importorskip("uvloop")
TALKS = "import sys; sys.stdout.write(sys.stdin.read()); sys.stderr.write('said'); sys.exit(3)"


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd").iterdir()))


async def end(process: object) -> None:
    assert isinstance(process, child.ChildProcess)
    process.close()
    await asyncio.sleep(0)


def test_it_is_spoken_with_and_ended() -> None:
    async def work() -> None:
        process = await child.start([sys.executable, "-c", TALKS], os.environ, ())
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"hello")
        process.stdin.close()
        assert await process.stdout.read() == b"hello"
        assert await process.stderr.read() == b"said"
        assert await process.wait() == process.returncode == 3
        process.kill()
        await end(process)

    run(work)


def test_one_that_is_killed_says_by_which_signal() -> None:
    async def work() -> None:
        process = await child.start(["sleep", "600"], os.environ, ())
        process.kill()
        assert await process.wait() == -9
        await end(process)

    run(work)


@pytest.mark.parametrize("room", range(8))
def test_one_that_cannot_be_started_keeps_no_descriptor(room: int) -> None:
    """`room`: how many files may be opened besides those that are open."""

    async def attempt(command: str) -> None:
        process = await child.start([command], os.environ, ())
        await process.wait()
        await end(process)

    async def work() -> None:
        await attempt("true")
        before = descriptors()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for _ in range(5):
            with pytest.raises(OSError, match="No such file"):
                await attempt("/nowhere/at/all")
            resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + room, hard))
            try:
                with contextlib.suppress(OSError):
                    await attempt("true")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert descriptors() == before

    run(work)

"""Clips that take too long or too much end, and so do their processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from helpers import clips as files
from plimsoll.serve import clips
from plimsoll.serve.clips import ClipFrame, ClipSettings
from plimsoll.serve.messages import Problem


@pytest.fixture
def clip(tmp_path: Path) -> bytes:
    frames = (np.full((64, 64, 3), 9 * index, np.uint8) for index in range(25))
    return files.write(tmp_path / "clip.mp4", frames).read_bytes()


def read(data: bytes, settings: ClipSettings, most: int = 1000) -> list[ClipFrame | Problem]:
    async def collect() -> list[ClipFrame | Problem]:
        items: list[ClipFrame | Problem] = []
        async with clips.decoded(data, "all", settings) as frames:
            async for item in frames:
                items.append(item)
                if len(items) == most:
                    break
        return items

    return asyncio.run(collect())


def test_frames_come_with_their_times_and_a_caller_may_leave(clip: bytes) -> None:
    frames = read(clip, ClipSettings())
    assert [frame.number for frame in frames if isinstance(frame, ClipFrame)] == list(range(25))
    assert isinstance(frames[-1], ClipFrame)
    assert frames[-1].time == pytest.approx(24 / 25)
    assert len(frames[-1].pixels.data) == 64 * 64 * 3
    assert len(read(clip, ClipSettings(), most=2)) == 2


def test_time_that_is_up_and_memory_that_is_full_are_problems(clip: bytes, tmp_path: Path) -> None:
    (late,) = read(clip, ClipSettings(timeout=0.01))
    assert isinstance(late, Problem)
    assert late.kind == "deadline"
    wide = files.write(tmp_path / "wide.mp4", (np.zeros((2000, 4000, 3), np.uint8) for _ in range(3))).read_bytes()
    last = read(wide, ClipSettings(memory_bytes=1 << 28))[-1]
    assert isinstance(last, Problem)
    assert last.status in (415, 504)

"""Clips drawn with NumPy and encoded with PyAV. Every frame says its number, in blocks that survive compression."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
BLOCK = 16
BITS = 10
WIDTH, HEIGHT = 320, 192


def require_av() -> Any:
    """Return PyAV; skips the test without it."""
    return pytest.importorskip("av", reason="needs PyAV (the extra `video`)")


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> Frame:
    """Return a grey frame whose upper left corner says its number, in black and white blocks; a red one marks the
    corner."""
    frame = np.full((height, width, 3), 110, np.uint8)
    frame[:BLOCK, :BLOCK] = (230, 20, 20)
    for bit in range(BITS):
        left = BLOCK * (bit + 1)
        frame[:BLOCK, left : left + BLOCK] = 255 if number >> bit & 1 else 0
    return frame


def number_of(frame: Frame) -> int:
    """Return the number that a frame says; fails if it isn't upright."""
    corner = frame[4:12, 4:12].reshape(-1, 3).mean(axis=0)
    assert corner[0] - corner[1] > 80, f"the upper left corner is not red: {corner}"
    levels = [frame[4:12, BLOCK * (bit + 1) + 4 : BLOCK * (bit + 1) + 12].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, level in enumerate(levels) if level > 128)


def write(
    path: Path,
    frames: Iterable[Frame],
    *,
    rate: int = 25,
    codec: str = "libx264",
    times: Callable[[int], float] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    prepare: Callable[[Any], None] = lambda _: None,
) -> Path:
    """Encode frames, with `times(index)` in place of a constant rate where given; `prepare` gets the stream."""
    av = require_av()
    with av.open(str(path), "w", options=container or {}) as output:
        stream = output.add_stream(codec, rate=rate, options={"crf": "16", **(options or {})})
        for index, pixels in enumerate(frames):
            if index == 0:
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                if times is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
                prepare(stream)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            if times is not None:
                frame.time_base, frame.pts = Fraction(1, 1000), round(times(index) * 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def numbered_clip(path: Path, count: int, **settings: Any) -> Path:
    """Encode `count` numbered frames."""
    return write(path, (numbered(index) for index in range(count)), **settings)

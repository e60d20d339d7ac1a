"""The process that decodes a clip: it reads settings (a line of JSON) and the clip, and writes frames.

Started by `plimsoll.serve.clips`, as `python -m plimsoll.serve.clip_process`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO, Any

from plimsoll.errors import PlimsollError
from plimsoll.serve.clips import END, ERROR, FRAME, RECORD

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]


def main() -> None:
    """Decode one clip."""
    # What a library prints must not come between the frames.
    frames = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.buffer.readline())
    data = sys.stdin.buffer.read(settings["bytes"])
    try:
        _decode(data, settings, frames)
    except BrokenPipeError:
        os._exit(0)  # nobody waits for the rest
    os._exit(0)  # FFmpeg's threads end with the process


def _decode(data: bytes, settings: dict[str, Any], out: IO[bytes]) -> None:
    from plimsoll.inference.video.clip import Clip, Limits

    _limit(settings)
    number = 0
    try:
        limits = Limits(settings["seconds"], settings["frames"], settings["megapixels"])
        with Clip(data, settings["sampling"], limits=limits) as clip:
            for frame in clip:
                pixels = frame.pixels.samples
                number = frame.number + 1
                out.write(RECORD.pack(FRAME, frame.number, frame.time, *pixels.shape[:2]))
                _write(out, pixels.reshape(-1).data)
    except (PlimsollError, MemoryError) as error:
        message = error.message if isinstance(error, PlimsollError) else "decoding it takes too much memory"
        text = message.encode()[:10_000]
        out.write(RECORD.pack(ERROR, number, 0.0, len(text), 0))
        _write(out, memoryview(text))
        return
    out.write(RECORD.pack(END, number, 0.0, 0, 0))


def _write(out: IO[bytes], data: memoryview) -> None:
    while data:
        data = data[out.write(data) :]


def _limit(settings: dict[str, Any]) -> None:
    """Limit this process: its memory, its processor time, and files that it may write."""
    if resource is None:
        return
    seconds = int(settings["cpu_seconds"]) * (os.cpu_count() or 1) + 10
    limits = {"RLIMIT_AS": settings["memory"], "RLIMIT_CPU": seconds, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    for name, value in limits.items():
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (most, hard))
        except (OSError, ValueError):
            continue  # macOS refuses to limit addresses


if __name__ == "__main__":
    main()

"""`Clip`: the frames of a file, a camera or a stream, upright, with their times.

A file gives every frame that was asked for, however long answers take. A live source doesn't wait: a thread always
reads it, and whoever asks gets the newest frame; those in between are dropped.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ImageError
from plimsoll.inference.video.sampling import Sampling, Selector
from plimsoll.inference.video.source import CODECS, LIVE_TIMEOUT_S, Source, in_words, opened, require_av
from plimsoll.preprocessing import PixelArray

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

_MICROSECONDS = 1e6
_USUAL_RATE = 25.0
_SHORT_S, _SHORT_SHARE = 1.0, 0.02
"""A file that ends so much before its stated duration has been cut."""


@dataclass(frozen=True)
class Limits:
    """What a clip may be; more is an error after the frames until there."""

    seconds: float = 24 * 3600.0
    frames: int = 5_000_000
    """Frames that are decoded, answered or not."""
    megapixels: float = 36.0
    """Of a frame; 8K has 33."""
    live: bool = False
    """Whether `seconds` and `frames` hold for cameras and streams too."""


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A frame of a clip."""

    clip: str
    number: int
    """In the clip, from 0; of key frames alone, among them."""
    time: float
    """Seconds since the clip began."""
    pixels: PixelArray
    """Upright: turned as the clip says it is shown."""


@dataclass(frozen=True)
class _Decoded:
    number: int
    time: float
    frame: av.VideoFrame


class Clip:
    """An open clip. Use it in a `with` block or close it.

    Raises ImageError for what is no clip, or one beyond the limits; InputError for a camera that can't be opened.
    """

    def __init__(
        self,
        reference: str | os.PathLike[str] | bytes,
        sampling: Sampling | str = "all",
        *,
        limits: Limits | None = None,
        colour: Literal["RGB", "BGR"] = "RGB",
    ) -> None:
        self._av = require_av()
        self._source = Source.of(reference)
        self.name = self._source.name
        self._sampling = Sampling.parse(sampling) if isinstance(sampling, str) else sampling
        self._limits = limits or Limits()
        self._colour: Literal["RGB", "BGR"] = colour
        self._stack = ExitStack()
        self.dropped = 0
        """Frames of a live source that nobody asked for in time."""
        self._packets = 0
        self._damaged = 0
        self._first_damage = ""
        self._matrix: tuple[int, int, int, int] | None = None
        self._rotation = 0.0
        self._end = 0.0
        """Seconds at which the last packet of any stream ends."""
        self._stopped = threading.Event()
        self._reading = threading.Lock()
        """Held while FFmpeg reads: another thread may close the clip."""
        self._container = self._stack.enter_context(opened(self._source))
        try:
            self._stream = self._video_stream()
        except ImageError:
            self.close()
            raise
        self.live = self._source.format is not None or (self._source.remote and not self._container.duration)

    @property
    def rate(self) -> float:
        """Frames a second, as the clip says."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        return float(rate) if rate else _USUAL_RATE

    @property
    def duration(self) -> float | None:
        """Seconds, as the file says; None where it doesn't."""
        return self._container.duration / _MICROSECONDS if self._container.duration else None

    def _video_stream(self) -> VideoStream:
        stream = next(iter(self._container.streams.video), None)
        if stream is None:
            sound = bool(self._container.streams.audio)
            raise ImageError("the clip has sound alone, no picture" if sound else "the clip has no pictures")
        context = stream.codec_context
        if context.name not in CODECS:
            raise ImageError(f"its pictures are coded in {context.name}, which is not read")
        self._check_size(context.width, context.height)
        if self.duration is not None and self.duration > self._limits.seconds and self._counts():
            raise ImageError(f"it lasts {self.duration:,.0f} s; at most {self._limits.seconds:,.0f} s are read")
        stream.thread_type = "SLICE" if self._source.remote or self._source.format else "AUTO"
        if self._sampling.kind == "keyframes":
            context.skip_frame = "NONKEY"
        return stream

    def _counts(self) -> bool:
        """Tell whether the limits of length hold."""
        return self._limits.live or not (self._source.remote or self._source.format)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.megapixels * 1e6:
            raise ImageError(f"frames of {width} x {height}; at most {self._limits.megapixels:g} megapixels are read")

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames; raises ImageError after what could be read of a clip that is damaged or too long."""
        selected = self._selected()
        for decoded in _Newest(selected, self) if self.live else selected:
            yield self._finished(decoded)
        if self._damaged:
            many = f"{self._damaged} parts of it" if self._damaged > 1 else "a part of it"
            raise ImageError(f"the clip is damaged: {many} can't be decoded, first {self._first_damage}")
        if not (self._source.remote or self._source.format or self._stopped.is_set()):
            self._require_whole()

    def _require_whole(self) -> None:
        """Raise ImageError where the file holds less than its header says."""
        missing = self._stream.frames - self._packets
        if self._stream.frames and missing > 0:
            raise ImageError(f"the clip ends early: {missing:,} of its {self._stream.frames:,} frames are missing")
        duration = self.duration or 0.0
        if duration - self._end > max(_SHORT_S, _SHORT_SHARE * duration):
            raise ImageError(f"the clip ends early: after {self._end:.1f} of {duration:.1f} s")

    def _selected(self) -> Iterator[_Decoded]:
        selector = Selector(self._sampling)
        for decoded in self._decoded():
            if selector.takes(decoded.number, decoded.time, decoded.frame):
                yield decoded

    def _decoded(self) -> Iterator[_Decoded]:
        start: float | None = None
        number, last = 0, 0.0
        for frame in self._frames():
            self._check_size(frame.width, frame.height)
            at = frame.time
            if at is None:  # a file without times, such as raw H.264
                time = last + 1 / self.rate if number else 0.0
            else:
                start = self._begin(at) if start is None else start
                time = max(at - start, 0.0)
            if self._counts() and (time > self._limits.seconds or number >= self._limits.frames):
                raise ImageError(
                    f"the clip is longer than {self._limits.seconds:,.0f} s or {self._limits.frames:,} frames; the rest"
                    " was left out"
                )
            yield _Decoded(number, time, frame)
            number, last = number + 1, time

    def _begin(self, first: float) -> float:
        """Return the time at which the clip begins: players show its first frame at 0."""
        begin: Any = self._container.start_time  # None where the container doesn't say
        return begin / _MICROSECONDS if begin is not None and not self.live else first

    def _frames(self) -> Iterator[av.VideoFrame]:
        """Decode packet by packet: a damaged one is counted and left out."""
        errors = self._av.error
        packets = self._container.demux()
        while not self._stopped.is_set():
            frames: list[Any] = []
            try:
                with self._reading:
                    packet = None if self._stopped.is_set() else next(packets, None)
                    if packet is None:
                        return
                    self._note(packet)
                    if packet.stream.index == self._stream.index:
                        frames = packet.decode()
            except errors.EOFError:
                return
            except (errors.InvalidDataError, errors.PatchWelcomeError, ValueError) as error:
                self._damage(error)
                continue
            except (errors.FFmpegError, OSError) as error:
                if self._source.remote or self._source.format:
                    stalled = isinstance(error, errors.ExitError)
                    ranges = "A file whose index is at its end needs a server that answers byte ranges."
                    raise ImageError(
                        f"the stream can't be read on: {in_words(error)[0]}", "" if stalled else ranges
                    ) from error
                self._damage(error)
                return
            yield from frames

    def _note(self, packet: Any) -> None:
        """Count a packet, and remember where it ends."""
        self._packets += packet.size > 0 and packet.stream.index == self._stream.index
        if packet.pts is not None and packet.time_base is not None:
            begin = (self._container.start_time or 0) / _MICROSECONDS
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - begin
            self._end = max(self._end, end)

    def _damage(self, error: Exception) -> None:
        if not self._damaged:
            self._first_damage = f"in packet {self._packets:,} ({getattr(error, 'strerror', None) or error})"
        self._damaged += 1

    def _finished(self, decoded: _Decoded) -> VideoFrame:
        format_ = "rgb24" if self._colour == "RGB" else "bgr24"
        try:
            pixels = upright(decoded.frame.to_ndarray(format=format_), self._display_matrix(decoded.frame))
        except (self._av.error.FFmpegError, ValueError) as error:
            raise ImageError(f"frame {decoded.number:,} can't be converted: {error}") from error
        return VideoFrame(self.name, decoded.number, decoded.time, PixelArray(pixels, self._colour))

    def _display_matrix(self, frame: av.VideoFrame) -> tuple[int, int, int, int]:
        """Return the part of a frame's display matrix that turns: x' = a x + c y, y' = b x + d y, as a, b, c, d.

        It is read where the angle changes, not in every frame: in PyAV a frame and its side data hold each other, so
        that the pixels of each would stay until Python looks for cycles.
        """
        if self._matrix is None or frame.rotation != self._rotation:
            data = frame.side_data.get("DISPLAYMATRIX")
            a, b, _, c, d = (1, 0, 0, 0, 1) if data is None else np.frombuffer(bytes(data), "<i4")[:5].tolist()
            self._matrix, self._rotation = (a, b, c, d), frame.rotation
        return self._matrix

    def stop(self) -> None:
        """End the frames soon, from another thread."""
        self._stopped.set()

    def close(self) -> None:
        """Close the file, the camera or the connection."""
        self._stopped.set()
        if self.dropped:
            logging.getLogger("plimsoll").info("%s: %s frames were dropped to keep up", self.name, f"{self.dropped:,}")
            self.dropped = 0
        with self._reading:
            self._stack.close()

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Newest:
    """Reads a live source in a thread; `__next__` waits for a frame that wasn't given yet, and takes the newest."""

    def __init__(self, frames: Iterator[_Decoded], clip: Clip) -> None:
        self._frames, self._clip = frames, clip
        self._changed = threading.Condition()
        self._frame: _Decoded | None = None
        self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, name="plimsoll-live", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        error: Exception | None = None
        try:
            for frame in self._frames:
                with self._changed:
                    self._clip.dropped += self._frame is not None
                    self._frame = frame
                    self._changed.notify()
        except Exception as raised:  # noqa: BLE001 - raised again in the thread that takes the frames
            error = raised
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()

    def __iter__(self) -> Iterator[_Decoded]:
        try:
            while True:
                with self._changed:
                    while self._frame is None and not self._ended:
                        self._changed.wait()
                    frame, self._frame = self._frame, None
                if frame is None:
                    break
                yield frame
        finally:
            self._clip.stop()
            self._thread.join(LIVE_TIMEOUT_S)
        if self._error is not None:
            raise self._error


def upright(pixels: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Return a frame as it is shown: turned by quarters and mirrored as its display matrix says (a, b, c, d).

    An angle between two quarters goes to the nearer one.
    """
    a, b, c, d = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        across, down = a, d
    else:
        pixels, across, down = pixels.transpose(1, 0, 2), c, b
    turned = pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
    return np.ascontiguousarray(turned)

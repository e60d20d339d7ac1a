"""Where drawn frames go: a clip, a stream's address, a folder of pictures, one picture, or a window."""

from __future__ import annotations

import os
import time as clock
from abc import ABC, abstractmethod
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plimsoll.errors import InputError
from plimsoll.inference.video.source import in_words, is_address, require_av
from plimsoll.system import files

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
CLIPS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".flv"})
_STREAMS = {"rtmp": "flv", "rtmps": "flv", "srt": "mpegts", "udp": "mpegts", "tcp": "mpegts", "rtsp": "rtsp"}
_TICKS = 90_000
_LONGEST_WAIT_S = 2.0
_QUALITY = 90
_ENCODERS = ("libx264", "h264_videotoolbox", "libopenh264", "mpeg4")

Frame = NDArray[np.uint8]
"""RGB or, as a reversed view, BGR in memory."""


class Sink(ABC):
    """Takes frames, in order, with their times in seconds."""

    @abstractmethod
    def write(self, name: str, frame: Frame, time: float | None) -> None:
        """Take a frame of the clip or the picture `name`; raises InputError where it can't be written."""

    def close(self) -> None:  # noqa: B027 - most sinks have nothing to finish
        """Finish what was written."""


def require_free(target: str, *, replace: bool) -> None:
    """Raise InputError, before any work, for a target that exists or whose ending means nothing."""
    if is_address(target):
        return
    path, ending = Path(target), _ending(target)
    if ending in CLIPS | PICTURES:
        if path.exists() and not replace:
            raise InputError(f"{path} exists", "Replace it with --force, or name another.")
        if not path.parent.is_dir():
            raise InputError(f"{path.parent} is no folder")
    elif ending and not path.is_dir():
        known = ", ".join(sorted(CLIPS | PICTURES))
        raise InputError(f"'{target}': the ending means no format", f"Known are {known}; without one it is a folder.")
    elif path.exists() and (not path.is_dir() or (any(path.iterdir()) and not replace)):
        raise InputError(f"{path} is not an empty folder", "Draw over what is there with --force, or name another.")


def sink(target: str, rate: float) -> Sink:
    """Return what a target means: `out.mp4`, `rtmp://…`, `out.jpg`, or a folder. `rate` is the frames a second that are
    to be expected."""
    if is_address(target) or _ending(target) in CLIPS:
        return ClipSink(target, rate)
    if _ending(target) in PICTURES:
        return PictureSink(Path(target), many=False)
    Path(target).mkdir(parents=True, exist_ok=True)
    return PictureSink(Path(target), many=True)


def _ending(target: str) -> str:
    return os.path.splitext(target)[1].lower()  # noqa: PTH122 - as it is written


class FrameNames:
    """File names of frames, each given once: `clip-000001.500.jpg`, and without a time `picture.jpg`."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def of(self, source: str, time: float | None) -> str:
        """Return a name for a frame of a clip, or for a picture; nothing of a path or an address leads out of it."""
        stem = os.path.splitext(os.path.basename(source.rstrip("/")))[0][:100] or "picture"  # noqa: PTH119, PTH122
        stem = "".join(char if char.isalnum() or char in "-_. " else "_" for char in stem)
        stem = stem if time is None else f"{stem}-{time:010.3f}"
        name, number = stem, 1
        while name in self._used:
            name, number = f"{stem}-{number}", number + 1
        self._used.add(name)
        return f"{name}.jpg"


class PictureSink(Sink):
    """Writes pictures: one that is replaced by every next one, or a folder with one a frame."""

    def __init__(self, path: Path, *, many: bool) -> None:
        self._path, self._many = path, many
        self._names = FrameNames()

    def write(self, name: str, frame: Frame, time: float | None) -> None:
        """Write a picture, named after its clip and its time."""
        path = self._path
        if self._many:
            path = path / self._names.of(name, time)
        format_ = {".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower(), "JPEG")
        try:
            with files.replacing(path) as temporary:
                Image.fromarray(np.ascontiguousarray(frame)).save(temporary, format_, quality=_QUALITY)
        except OSError as error:
            raise InputError(f"can't write {path}: {error.strerror or error}") from error


class ClipSink(Sink):
    """Encodes frames into a file or a stream, with their own times; frames of another size are fitted in."""

    def __init__(self, target: str, rate: float) -> None:
        self._av = require_av()
        self._target, self._rate = target, min(max(rate, 1.0), 240.0)
        self._live = is_address(target)
        self._container: Any = None
        self._stream: Any = None
        self._last = -1
        self._offset = 0.0
        self._clip: str | None = None
        self._begun = 0.0

    def write(self, name: str, frame: Frame, time: float | None) -> None:
        """Encode a frame; a picture is shown for a frame's time, and one clip follows another.

        A stream is sent no faster than it plays: a receiver has little room for more.
        """
        errors = self._av.error
        try:
            if self._container is None:
                self._open(frame.shape[1], frame.shape[0])
            encoded = self._encoded(name, frame, time)
            if self._live:
                self._wait(self._last / _TICKS)
            self._mux(encoded)
        except (errors.FFmpegError, OSError, ValueError) as error:
            reason, hint = in_words(error, self._target)
            raise InputError(f"can't write {self._target}: {reason}", hint) from error

    def _open(self, width: int, height: int) -> None:
        scheme = self._target.partition("://")[0].lower() if self._live else ""
        format_ = _STREAMS.get(scheme)
        if self._live and format_ is None:
            raise InputError(
                f"{self._target}: frames can't be sent to {scheme}://", f"Known are {', '.join(_STREAMS)}."
            )
        self._container = self._av.open(self._target, "w", format=format_)
        encoder = "libvpx-vp9" if self._target.lower().endswith(".webm") else self._encoder()
        self._stream = self._container.add_stream(encoder, rate=Fraction(self._rate).limit_denominator(1001))
        self._stream.width, self._stream.height = width - width % 2, height - height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        if encoder == "libx264":
            live = {"tune": "zerolatency", "g": str(max(round(self._rate), 1))} if self._live else {}
            self._stream.options = {"crf": "20", "preset": "veryfast", **live}
        elif encoder == "libvpx-vp9":
            self._stream.options = {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"}

    def _encoder(self) -> str:
        for name in _ENCODERS:
            try:
                self._av.codec.Codec(name, "w")
            except (ValueError, self._av.error.FFmpegError):
                continue
            return name
        raise InputError("this PyAV has no encoder for H.264 or MPEG-4", "Install its wheel: pip install av.")

    def _encoded(self, name: str, frame: Frame, time: float | None) -> Any:
        if name != self._clip or time is None:  # begins where the last one ended
            self._clip, self._offset = (
                name,
                0.0 if self._last < 0 else self._last / _TICKS + 1 / self._rate - (time or 0),
            )
        width, height = self._stream.width, self._stream.height
        if frame.shape[1] - frame.shape[1] % 2 != width or frame.shape[0] - frame.shape[0] % 2 != height:
            frame = _fitted(frame, width, height)
        frame = frame[:height, :width]
        reversed_ = frame.strides[2] < 0
        pixels = np.ascontiguousarray(frame[:, :, ::-1] if reversed_ else frame)
        video = self._av.VideoFrame.from_ndarray(pixels, "bgr24" if reversed_ else "rgb24")
        self._last = max(round((self._offset + (time or 0.0)) * _TICKS), self._last + 1)
        video.pts, video.time_base = self._last, Fraction(1, _TICKS)
        return video

    def _wait(self, at: float) -> None:
        now = clock.monotonic()
        self._begun = self._begun or now - at
        ahead = self._begun + at - now
        if ahead > 0:
            clock.sleep(min(ahead, _LONGEST_WAIT_S))

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        """Write what the encoder holds back, and the end of the file."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            try:
                self._mux_rest(container)
            finally:
                container.close()
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"can't finish {self._target}: {getattr(error, 'strerror', None) or error}") from error

    def _mux_rest(self, container: Any) -> None:
        for packet in self._stream.encode(None):
            container.mux(packet)


class WindowSink(Sink):
    """Shows frames in a window, where OpenCV has windows and there is a display; closing it (or q) ends the run."""

    def __init__(self) -> None:
        try:
            import cv2
        except ImportError as error:
            raise InputError("--show needs OpenCV", "Install it: pip install opencv-python") from error
        self._cv2: Any = cv2
        try:
            self._cv2.namedWindow("plimsoll", self._cv2.WINDOW_NORMAL)
        except self._cv2.error as error:
            raise InputError(
                "--show: this OpenCV has no windows, or there is no display",
                "Install opencv-python in place of opencv-python-headless; or draw to a file: --draw out.mp4.",
            ) from error
        self._begun: float | None = None

    def write(self, name: str, frame: Frame, time: float | None) -> None:
        """Show a frame; a clip plays at its own speed at the most."""
        del name
        self._cv2.imshow("plimsoll", np.ascontiguousarray(frame[:, :, ::-1]))
        if self._cv2.waitKey(self._wait_ms(time)) & 0xFF == ord("q"):
            raise KeyboardInterrupt

    def _wait_ms(self, at: float | None) -> int:
        now = clock.monotonic()
        if at is None:
            return 1_000
        self._begun = now - at if self._begun is None or at == 0 else self._begun
        return max(round(1000 * (self._begun + at - now)), 1)

    def close(self) -> None:
        """Close the window."""
        self._cv2.destroyAllWindows()


def _fitted(frame: Frame, width: int, height: int) -> Frame:
    """Return a frame in another size, its sides in proportion, on black."""
    scale = min(width / frame.shape[1], height / frame.shape[0])
    size = max(round(frame.shape[1] * scale), 1), max(round(frame.shape[0] * scale), 1)
    small = np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize(size, Image.Resampling.BILINEAR))
    fitted = np.zeros((height, width, 3), np.uint8)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    fitted[top : top + size[1], left : left + size[0]] = small
    return fitted

"""What a clip is read from: a file, bytes, a camera or an address; opened so that it reaches nothing else.

A clip is hostile: a file may be a playlist that names other files, or code its pictures with a decoder that nobody has
looked at for years. So only the containers and codecs listed here are opened, a file opens no other file, and an
address only the protocols that it needs.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plimsoll.errors import BackendMissingError, ImageError, InputError
from plimsoll.preprocessing.formats import UNREADABLE_SUFFIXES

if TYPE_CHECKING:
    from av.container import InputContainer

SUFFIXES = frozenset(suffix for suffix, kind in UNREADABLE_SUFFIXES.items() if kind.name == "video") | {".ts"}
"""The endings by which a path is taken for a clip."""
CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,h264,hevc,mpegvideo,ivf"
_STREAMED = f"{CONTAINERS},hls,rtsp,sdp,rtp,mpjpeg,mjpeg"
_CODECS = """h264 hevc vp8 vp9 libvpx libvpx-vp9 av1 libdav1d mpeg4 mpeg2video mpeg1video h263 mjpeg prores theora
    wmv1 wmv2 wmv3 vc1 msmpeg4v1 msmpeg4v2 msmpeg4 flv ffv1 dnxhd dvvideo png rawvideo"""
CODECS = frozenset(_CODECS.split())
"""Decoders that a clip may ask for."""
_ADDRESS = re.compile(r"(rtsps?|rtmps?|https?|udp|srt|tcp)://", re.IGNORECASE)
_PROTOCOLS = "http,https,httpproxy,tcp,tls,udp,rtp,rtsp,rtsps,rtmp,rtmps,srt,crypto"
_CAMERA = re.compile(r"camera:(\d{1,2})|/dev/video(\d{1,2})")
_CAMERA_INPUTS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}:none")}
_PROBE_BYTES = 10_000_000
LIVE_TIMEOUT_S = 15.0
"""A stream from which nothing comes for so long has ended."""


@dataclass(frozen=True)
class Source:
    """Where a clip comes from."""

    name: str
    """What rows call it."""
    file: str | io.BytesIO
    """What PyAV opens."""
    format: str | None = None
    """The input of a camera; None leaves it to the content."""
    remote: bool = False
    """Whether it is an address."""

    @classmethod
    def of(cls, reference: str | os.PathLike[str] | bytes) -> Source:
        """Return what a path, `camera:0`, an address or the bytes of a file mean."""
        if isinstance(reference, bytes):
            return cls(f"<{len(reference)} bytes>", io.BytesIO(reference))
        name = os.fspath(reference)
        camera = _CAMERA.fullmatch(name)
        if camera is None:
            return cls(name, name, None, is_address(name))
        if sys.platform not in _CAMERA_INPUTS:
            raise InputError(f"{name}: cameras are read on Linux and macOS only", "Stream it, and give its address.")
        format_, device = _CAMERA_INPUTS[sys.platform]
        return cls(name, device.format(camera[1] or camera[2]), format_)


def is_address(text: str) -> bool:
    """Tell whether a text is the address of a stream."""
    return _ADDRESS.match(text) is not None


def is_live(text: str) -> bool:
    """Tell whether a text names a camera or an address, not a file."""
    return is_address(text) or _CAMERA.fullmatch(text) is not None


def is_clip(text: str) -> bool:
    """Tell whether a text names a clip: by its ending, as a camera, or as an address."""
    return is_live(text) or os.path.splitext(text)[1].lower() in SUFFIXES  # noqa: PTH122 - runs once a picture


def require_av() -> Any:
    """Return PyAV, silent on the terminal; raises BackendMissingError without it."""
    try:
        import av
    except ImportError as error:
        raise BackendMissingError(
            "video needs PyAV, which is not installed", "Install it: pip install 'plimsoll-line[video]'"
        ) from error
    av.logging.set_level(None)  # What goes wrong is in the exception.
    return av


@contextmanager
def opened(source: Source) -> Iterator[InputContainer]:
    """Open a clip; raises ImageError where it can't be, InputError for a missing file or camera."""
    av = require_av()
    options = {"format_whitelist": source.format or (_STREAMED if source.remote else CONTAINERS)}
    if source.remote:
        options |= {"protocol_whitelist": _PROTOCOLS, "probesize": str(_PROBE_BYTES)}
        if source.name.lower().startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
    elif source.format is None:
        options["protocol_whitelist"] = "file" if isinstance(source.file, str) else "none"
    extra: dict[str, Any] = {"timeout": LIVE_TIMEOUT_S} if source.remote else {}
    if source.format is None and not source.remote and isinstance(source.file, str):
        _require_file(source.file)
    try:
        container = av.open(source.file, "r", source.format, options=options, **extra)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(source, error) from error
    try:
        yield container
    finally:
        container.close()


def _require_file(path: str) -> None:
    try:
        if not os.path.isfile(path):  # noqa: PTH113 - also for names that are too long
            raise ImageError("no such file" if not os.path.lexists(path) else "not a regular file")
        if os.path.getsize(path) == 0:  # noqa: PTH202
            raise ImageError("the file is empty")
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"can't read the file: {error}") from error


def in_words(error: Exception, address: str = "") -> tuple[str, str]:
    """Return what FFmpeg says went wrong, and what to do about it."""
    errors = require_av().error
    if isinstance(error, errors.ProtocolNotFoundError):
        scheme = address.partition("://")[0].lower()
        hint = "PyAV's wheels have no SRT: build it against an FFmpeg that has, or use RTMP, UDP or TCP."
        return f"the FFmpeg of this PyAV does not know {scheme}://", hint if scheme == "srt" else ""
    if isinstance(error, errors.ExitError):
        return f"nothing came for {LIVE_TIMEOUT_S:g} s", ""
    return getattr(error, "strerror", None) or str(error), ""


def _unreadable(source: Source, error: Exception) -> ImageError | InputError:
    reason, hint = in_words(error, source.name)
    if source.format is not None:
        return InputError(f"{source.name}: can't open the camera: {reason}", "The program v4l2-ctl lists cameras.")
    if source.remote:
        return ImageError(f"can't open the stream: {reason}", hint)
    return ImageError(f"no clip that can be read: {reason}", "Known are MP4, MOV, Matroska, WebM, AVI, MPEG, FLV, WMV.")


__all__ = [
    *("CODECS", "LIVE_TIMEOUT_S", "SUFFIXES", "Source"),
    *("in_words", "is_address", "is_clip", "is_live", "opened", "require_av"),
]

"""Opening a file with Pillow: its switches for one thread only, and whatever it raises in words.

HEIC goes through libheif (the extra `heif`: pillow-heif).
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, ImageFile, UnidentifiedImageError

from plimsoll.errors import ImageError, PlimsollError
from plimsoll.preprocessing import tiff_file
from plimsoll.spec.steps import ImageFormat

_UNDECODABLE = "its data is damaged, or coded in a way that isn't read"
LARGER = "Raise `max_megapixels` of the decode step if such pictures are meant to be read."
_INSTALL_HEIF = "Install what reads it: pip install 'plimsoll-line[heif]'"


def open_picture(data: bytes, format_: ImageFormat) -> Image.Image:
    """Open a file of a format that is known; nothing is decoded yet."""
    if format_ in {"heif", "tiff"}:
        return _open_heif(data) if format_ == "heif" else tiff_file.open_picture(data)
    return Image.open(io.BytesIO(data), formats=(format_.upper(),))


def _open_heif(data: bytes) -> Image.Image:
    """Open a HEIC file: the main picture, turned and mirrored as the file says, not decoded yet.

    Only the file's structure is read: libheif has its own limits for it (sizes, numbers of items and tiles). Raises
    ImageError where pillow-heif is not installed.
    """
    try:
        import pillow_heif
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError as error:
        raise ImageError("a HEIC picture: what reads it is not installed", _INSTALL_HEIF) from error
    options: Any = pillow_heif.options
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    options.DECODE_THREADS = 1
    try:
        image: Image.Image = HeifImageFile(io.BytesIO(data))
    except SyntaxError as error:  # what Pillow makes of any error on opening, without its reason
        raise ImageError("can't be decoded: it begins like a HEIC picture, but what follows is damaged") from error
    return image


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError; hostile files make Pillow raise nearly every built-in
    exception."""
    try:
        yield
    except PlimsollError:
        raise
    except MemoryError as error:
        raise ImageError("not enough memory to decode the picture") from error
    except UnidentifiedImageError as error:  # whose text names an object in memory
        raise ImageError("can't be decoded: it begins like a picture, but what follows is damaged") from error
    except Exception as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        text = _UNDECODABLE if text.startswith("decoder error") else text
        raise ImageError(f"can't be decoded: {text}") from error


class _ThreadFlag:
    """A flag for each thread, in place of Pillow's global LOAD_TRUNCATED_IMAGES."""

    def __init__(self, otherwise: bool) -> None:
        self.otherwise = otherwise
        self.here = threading.local()

    def __bool__(self) -> bool:
        return getattr(self.here, "value", self.otherwise)


_install = threading.Lock()


@contextmanager
def accept_truncated(fill: bool) -> Iterator[None]:
    """Let Pillow return the readable part of a truncated file, in this thread only.

    Pillow has one switch for the whole process. Spec by Spec, and beside other users of Pillow, that is too coarse:
    so on first need the switch becomes a value that each thread answers for itself.
    """
    if not fill:
        yield
        return
    with _install:
        switch: Any = ImageFile.LOAD_TRUNCATED_IMAGES
        if not isinstance(switch, _ThreadFlag):
            switch = _ThreadFlag(switch)
            ImageFile.LOAD_TRUNCATED_IMAGES = switch
    switch.here.value = True
    try:
        yield
    finally:
        del switch.here.value


class _ThreadLimit(int):
    """A limit that is none in a thread that has set `here.lifted`, in place of Pillow's global MAX_IMAGE_PIXELS."""

    here = threading.local()

    def __rmul__(self, factor: int) -> _ThreadLimit:  # Pillow warns at the limit, and raises at twice as much.
        return _ThreadLimit(factor * int(self))

    def __lt__(self, pixels: int) -> bool:
        return int(self) < pixels and not getattr(self.here, "lifted", False)


@contextmanager
def accept_size(pixels: float) -> Iterator[None]:
    """Let a limit that is larger than Pillow's own be the only one, in this thread; what Pillow refuses for its own is
    refused with the smaller one in words."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or pixels <= int(limit):
        try:
            yield
        except Image.DecompressionBombError as error:  # whose text is about Pillow's own limit
            count = re.search(r"\d+", str(error))
            size = f"{int(count[0]) / 1e6:,.1f} megapixels" if count else "too many pixels"
            raise ImageError(f"{size}; the limit is {pixels / 1e6:g}", LARGER) from error
        return
    with _install:
        if not isinstance(limit, _ThreadLimit):
            Image.MAX_IMAGE_PIXELS = _ThreadLimit(limit)
    _ThreadLimit.here.lifted = True
    try:
        yield
    finally:
        _ThreadLimit.here.lifted = False

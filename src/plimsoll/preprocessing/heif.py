"""HEIC files through libheif (the extra `heif`: pillow-heif), checked before anything is decoded."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from plimsoll.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

INSTALL = "Install what reads it: pip install 'plimsoll-line[heif]'"


def open_picture(data: bytes) -> Image.Image:
    """Open a HEIC file: the main picture, turned and mirrored as the file says, not decoded yet.

    Only the file's structure is read: libheif has its own limits for it (sizes, numbers of items and tiles). Raises
    ImageError where pillow-heif is not installed.
    """
    try:
        import pillow_heif
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError as error:
        raise ImageError("a HEIC picture: what reads it is not installed", INSTALL) from error
    options: Any = pillow_heif.options
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    options.DECODE_THREADS = 1
    try:
        image: Image.Image = HeifImageFile(io.BytesIO(data))
    except SyntaxError as error:  # what Pillow makes of any error on opening, without its reason
        raise ImageError("can't be decoded: it begins like a HEIC picture, but what follows is damaged") from error
    return image

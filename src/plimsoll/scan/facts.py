"""What a picture's file says besides the answer: its content hash, its stated size, its perceptual hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from plimsoll.core.foreign import require
from plimsoll.errors import PlimsollError
from plimsoll.preprocessing import jpeg_file, memory
from plimsoll.preprocessing.decode import check_format, opened
from plimsoll.preprocessing.pillow_file import open_picture, translate_errors

PDQ_SIDE = 512
"""A picture is shrunk to at most so many pixels a side before its PDQ hash, as the reference implementation does."""
PDQ_INSTALL = "pip install 'plimsoll-line[scan]'"


@dataclass(frozen=True)
class FileFacts:
    """What is known of a file once it is read."""

    sha256: str
    bytes: int
    width: int | None = None
    height: int | None = None
    """In pixels, as the file states them, before an EXIF orientation; None where it is no picture that the Spec
    accepts."""
    pdq: str | None = None
    """The PDQ hash, 64 hexadecimal digits."""


def content_hash(data: bytes) -> str:
    """Return the SHA-256 of a file's content.

    It is what hash lists are exchanged in. A faster hash that is not cryptographic would let somebody make a harmless
    picture with the hash of another one, whose score it then gets.
    """
    return hashlib.sha256(data).hexdigest()


def facts_of(data: bytes, sha256: str, decode: Any, *, pdq: bool) -> FileFacts:
    """Return the facts of a file; `decode` is the Spec's decode step, whose limits hold here too."""
    try:
        format_ = check_format(data, decode)
        header = jpeg_file.read_header(data) if format_ == "jpeg" else None
        if header is not None:
            width, height = header.width, header.height
        else:
            with translate_errors(), open_picture(data, format_) as image:
                width, height = image.size
        return FileFacts(sha256, len(data), width, height, _pdq(data, decode) if pdq else None)
    except PlimsollError:
        return FileFacts(sha256, len(data))


def _pdq(data: bytes, decode: Any) -> str | None:
    """Return the PDQ hash of a picture; None where it can't be decoded."""
    from PIL import Image

    pdqhash = require("pdqhash", PDQ_INSTALL)
    try:
        with (
            translate_errors(),
            memory.budget().picture(),
            opened(data, check_format(data, decode), decode) as image,
        ):
            image.draft("RGB", (PDQ_SIDE, PDQ_SIDE))  # A large JPEG is decoded at a part of its size.
            small = image.convert("RGB")
            small.thumbnail((PDQ_SIDE, PDQ_SIDE), Image.Resampling.BOX)
            bits, _ = pdqhash.compute(np.ascontiguousarray(small))
    except PlimsollError:
        return None
    return np.packbits(np.asarray(bits, np.uint8)).tobytes().hex()

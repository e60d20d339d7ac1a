"""JPEG files of any sampling, which no encoder at hand writes: every component in scans of its own.

A component's scans are those of a grey JPEG that Pillow has written, since a scan of a single component has the same
blocks in the same order whatever its sampling (ITU-T T.81, A.2.2).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

Factors = tuple[int, int]
"""A component's horizontal and vertical sampling factor."""
Colours = Literal["grey", "YCbCr", "RGB", "CMYK", "YCCK"]

COMPONENTS: dict[Colours, int] = {"grey": 1, "YCbCr": 3, "RGB": 3, "CMYK": 4, "YCCK": 4}
_ADOBE_TRANSFORM: dict[Colours, int] = {"RGB": 0, "YCbCr": 1, "CMYK": 0, "YCCK": 2}

FIRST_AND_OTHERS: tuple[tuple[Factors, Factors, Factors], ...] = (
    *(((across, down), (1, 1), (1, 1)) for across in (1, 2, 3, 4) for down in (1, 2, 3, 4)),
    ((2, 2), (2, 1), (2, 1)),
    ((2, 2), (1, 2), (1, 2)),
    ((2, 2), (2, 1), (1, 2)),
    ((4, 1), (2, 1), (2, 1)),
    ((4, 2), (2, 2), (2, 1)),
    ((1, 1), (2, 2), (2, 2)),
    ((2, 2), (2, 2), (2, 2)),
    ((3, 1), (2, 1), (1, 1)),
)
"""24 sets of sampling factors: of the first component, the second, and the third; a fourth has the first one's. The
last can't be upsampled in whole numbers."""


@dataclass(frozen=True)
class _Grey:
    """What a grey JPEG holds."""

    tables: bytes
    """Its quantization table."""
    scans: bytes
    """All from its first Huffman table to its last scan, for a component of the identifier 1."""


def write(
    width: int, height: int, colours: Colours, factors: Sequence[Factors], *, progressive: bool = False, seed: int = 1
) -> bytes:
    """Return a JPEG of smooth noise in these colours, with sampling factors for each component."""
    count = COMPONENTS[colours]
    largest = max(across for across, _ in factors[:count]), max(down for _, down in factors[:count])
    parts = [b"\xff\xd8"]
    if colours != "grey":
        parts.append(_segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, _ADOBE_TRANSFORM[colours])))
    body = []
    for number, (across, down) in enumerate(factors[:count], 1):
        size = -(-width * across // largest[0]), -(-height * down // largest[1])
        grey = _grey(_noise(*size, seed + number), progressive)
        if number == 1:
            parts.append(grey.tables)
        body.append(_for_component(grey.scans, number))
    frame = struct.pack(">BHHB", 8, height, width, count)
    frame += b"".join(
        bytes([number, across << 4 | down, 0]) for number, (across, down) in enumerate(factors[:count], 1)
    )
    return b"".join([*parts, _segment(0xC2 if progressive else 0xC0, frame), *body, b"\xff\xd9"])


def _noise(width: int, height: int, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (max(2, height // 6), max(2, width // 6)), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def _grey(image: Image.Image, progressive: bool) -> _Grey:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90, progressive=progressive)
    data = stream.getvalue()
    tables, at = b"", 2
    while True:
        code, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if code == 0xC4:
            return _Grey(tables, data[at:-2])
        if code == 0xDB:
            tables = data[at : at + 2 + length]
        at += 2 + length


def _for_component(scans: bytes, number: int) -> bytes:
    """Give the scans to another component."""
    out, at = bytearray(scans), 0
    while (at := out.find(b"\xff\xda", at)) >= 0:
        assert (out[at + 4], out[at + 5]) == (1, 1)
        out[at + 5] = number
        at += 2
    return bytes(out)


def _segment(code: int, content: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(content) + 2) + content

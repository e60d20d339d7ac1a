"""A small picture file of every kind that the reference decodes, in `unit/preprocessing/data/pictures`, and how these
files were written.

They are stored, not written by each test, since an encoder changes with its library. `python
tests/helpers/reference_pictures.py` writes those that are missing.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from helpers.pillow_reference import picture as noise

FOLDER = Path(__file__).parents[1] / "unit" / "preprocessing" / "data" / "pictures"
WIDTH, HEIGHT = 43, 61
"""Odd, and taller than wide; larger than two blocks of chroma at 4:2:0 and one at 4:1:1."""

Array = NDArray[Any]


def colours(channels: int = 3) -> Array:
    """Return uint8 [61, 43, channels]: waves of colour that reach black and white, under some noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(x / 5 + k) + np.cos(y / (4 + k) - k) + np.sin((x + y) / 9) for k in range(channels)]
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    grain = np.asarray(noise(mode, (WIDTH, HEIGHT))).reshape(HEIGHT, WIDTH, channels)
    return np.clip(128 + 55 * np.stack(waves, axis=-1) + grain / 8 - 16, 0, 255).astype(np.uint8)


def image(mode: str = "RGB") -> Image.Image:
    """Return the colours in a mode; CMYK, YCbCr and LAB take them for their own."""
    array = colours(len(mode) if mode in {"L", "LA", "RGB", "RGBA", "CMYK"} else 3)
    return Image.frombytes(mode, (WIDTH, HEIGHT), array.tobytes())


def saved(picture: Image.Image, format_: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format_, **options)
    return stream.getvalue()


def opencv_jpeg(**options: int) -> bytes:
    flags = [value for name, flag in options.items() for value in (getattr(cv2, f"IMWRITE_JPEG_{name}"), flag)]
    return bytes(cv2.imencode(".jpg", colours(), flags)[1])


def adobe_transform(jpeg: bytes, transform: int) -> bytes:
    """Return a JPEG whose Adobe marker says another colour transform: 0 none, 1 YCbCr, 2 YCCK."""
    at = jpeg.index(b"Adobe") + 11
    return jpeg[:at] + bytes([transform]) + jpeg[at + 1 :]


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""x, y, and the steps along them, of the passes of an interlaced PNG."""


def png(samples: Array, *, interlaced: bool = False, transparent: tuple[int, ...] = ()) -> bytes:
    """Return a PNG of uint8 or uint16 samples [height, width, 1 to 4], of kinds that Pillow doesn't write."""
    height, width, channels = samples.shape
    big = samples.astype(samples.dtype.newbyteorder(">"))
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in passes for row in big[y::dy, x::dx] if row.size)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, kind, 0, 0, interlaced)
    colour = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + colour
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def deep(channels: int) -> Array:
    """Return 16-bit samples whose low bytes are not those of the high ones."""
    high, low = colours(channels).astype(np.uint16), colours(channels)[::-1].astype(np.uint16)
    return high << 8 | low


def bmp16(samples: Array) -> bytes:
    """Return a BMP of 5, 6 and 5 bits a pixel."""
    height, width, _ = samples.shape
    red, green, blue = np.moveaxis(samples[::-1].astype(np.uint16), 2, 0)
    pixels = np.zeros((height, width + width % 2), "<u2")
    pixels[:, :width] = red >> 3 << 11 | green >> 2 << 5 | blue >> 3
    data = pixels.tobytes()
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 3, len(data), 2835, 2835, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    return struct.pack("<2sIHHI", b"BM", 66 + len(data), 0, 0, 66) + info + masks + data


def bmp_rle(samples: Array) -> bytes:
    """Return a BMP of 8 grey levels a pixel whose rows are run-length encoded."""
    height, width, _ = samples.shape
    rows = []
    for row in samples[::-1, :, 0] >> 6 << 6:
        ends = [*np.flatnonzero(np.diff(row)) + 1, width]
        starts = [0, *ends[:-1]]
        rows.append(b"".join(bytes([end - start, row[start]]) for start, end in zip(starts, ends, strict=True)))
    data = b"\0\0".join(rows) + b"\0\1"
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 2835, 2835, 256, 0)
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    offset = 14 + 40 + len(palette)
    return struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset) + info + palette + data


def palette(colour_count: int = 64) -> Image.Image:
    """Return the picture with a palette: every step of its bits, dithered by nothing."""
    return image().quantize(colour_count, dither=Image.Dither.NONE)


def frames() -> list[Image.Image]:
    return [image(), image().rotate(180)]


def _jpeg() -> Iterator[tuple[str, Callable[[], bytes]]]:
    for name, subsampling in {"444": 0, "422": 1, "420": 2}.items():
        yield f"{name}", lambda code=subsampling: saved(image(), "JPEG", quality=85, subsampling=code)  # type: ignore[misc]
        yield (
            f"{name}_progressive",
            lambda code=subsampling: saved(image(), "JPEG", quality=85, subsampling=code, progressive=True),  # type: ignore[misc]
        )
    for name in ("411", "440"):
        yield (
            name,
            lambda name=name: opencv_jpeg(  # type: ignore[misc]
                QUALITY=85, SAMPLING_FACTOR=getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}")
            ),
        )
    yield "restarts", lambda: opencv_jpeg(QUALITY=85, RST_INTERVAL=2)
    yield "coarse", lambda: saved(image(), "JPEG", quality=5)
    yield "fine", lambda: saved(image(), "JPEG", quality=100, subsampling=0)
    yield "grey", lambda: saved(image("L"), "JPEG", quality=85)
    yield "rgb", lambda: saved(image(), "JPEG", quality=85, keep_rgb=True)
    yield "cmyk", lambda: saved(image("CMYK"), "JPEG", quality=85)
    yield "ycck", lambda: adobe_transform(saved(image("CMYK"), "JPEG", quality=85), 2)
    yield "turned", lambda: saved(image(), "JPEG", quality=85, exif=orientation(6))
    yield "mirrored", lambda: saved(image("L"), "JPEG", quality=85, exif=orientation(5))


def _png() -> Iterator[tuple[str, Callable[[], bytes]]]:
    for mode in ("L", "LA", "RGB", "RGBA"):
        yield mode.lower(), lambda mode=mode: saved(image(mode), "PNG", optimize=True)  # type: ignore[misc]
    for channels, name in enumerate(("l16", "la16", "rgb16", "rgba16"), 1):
        yield name, lambda channels=channels: png(deep(channels))  # type: ignore[misc]
    yield "interlaced", lambda: png(colours(), interlaced=True)
    yield "transparent_colour", lambda: png(colours() >> 6 << 6, transparent=(128, 128, 128))
    yield "transparent_grey", lambda: png(colours(1) >> 6 << 6, transparent=(128,))
    yield "transparent_grey16", lambda: png(deep(1) >> 14 << 14, transparent=(0x8000,))
    yield "bilevel", lambda: saved(image("L").convert("1"), "PNG")
    yield "palette", lambda: saved(palette(), "PNG")
    yield "palette_16", lambda: saved(palette(16), "PNG", bits=4)
    yield "palette_transparent", lambda: saved(palette(), "PNG", transparency=3)
    yield "palette_alpha", lambda: saved(palette(), "PNG", transparency=bytes(range(0, 256, 4)))
    yield "turned", lambda: saved(image(), "PNG", exif=orientation(8))


def _webp() -> Iterator[tuple[str, Callable[[], bytes]]]:
    yield "lossy", lambda: saved(image(), "WEBP", quality=70)
    yield "lossy_alpha", lambda: saved(image("RGBA"), "WEBP", quality=70)
    yield "lossless", lambda: saved(image(), "WEBP", lossless=True)
    yield "lossless_alpha", lambda: saved(image("RGBA"), "WEBP", lossless=True, exact=True)
    yield "animated", lambda: saved(image(), "WEBP", save_all=True, append_images=frames()[1:], quality=70)
    yield "turned", lambda: saved(image(), "WEBP", quality=70, exif=orientation(3))


def _gif() -> Iterator[tuple[str, Callable[[], bytes]]]:
    yield "plain", lambda: saved(palette(), "GIF", interlace=0)
    yield "interlaced", lambda: saved(palette(), "GIF", interlace=1)
    yield "transparent", lambda: saved(palette(), "GIF", transparency=3)
    yield "grey", lambda: saved(image("L"), "GIF")
    yield "animated", lambda: saved(frames()[0], "GIF", save_all=True, append_images=frames()[1:])


def _bmp() -> Iterator[tuple[str, Callable[[], bytes]]]:
    for mode in ("1", "L", "RGB", "RGBA"):
        yield {"1": "bilevel"}.get(mode, mode.lower()), lambda mode=mode: saved(image("RGBA").convert(mode), "BMP")  # type: ignore[misc]
    yield "palette", lambda: saved(palette(), "BMP")
    yield "rgb565", lambda: bmp16(colours())
    yield "rle", lambda: bmp_rle(colours(1))


def _tiff() -> Iterator[tuple[str, Callable[[], bytes]]]:
    for name in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate"):
        yield name, lambda name=name: saved(image(), "TIFF", compression=name)  # type: ignore[misc]
    yield "jpeg", lambda: saved(image(), "TIFF", compression="jpeg", quality=85)
    yield "group4", lambda: saved(image("L").convert("1"), "TIFF", compression="group4")
    for mode in ("L", "LA", "RGBA", "CMYK", "YCbCr", "LAB"):
        yield mode.lower(), lambda mode=mode: saved(image(mode), "TIFF", compression="tiff_lzw")  # type: ignore[misc]
    yield "l16", lambda: saved(Image.fromarray(deep(1)[:, :, 0]), "TIFF", compression="tiff_lzw")
    yield "palette", lambda: saved(palette(), "TIFF", compression="tiff_lzw")
    yield "turned", lambda: saved(image(), "TIFF", compression="tiff_lzw", tiffinfo={0x0112: 6})


WRITERS = {"jpg": _jpeg, "png": _png, "webp": _webp, "gif": _gif, "bmp": _bmp, "tiff": _tiff}


def main() -> None:
    """Write the files that are missing."""
    FOLDER.mkdir(exist_ok=True)
    for suffix, kinds in WRITERS.items():
        for name, write in kinds():
            path = FOLDER / f"{suffix}_{name}.{suffix}"
            if not path.exists():
                path.write_bytes(write())


if __name__ == "__main__":
    main()

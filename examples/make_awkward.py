"""Make ``examples/awkward`` from one photograph in ``examples/photos``.

The folder holds small pictures that trip careless image loaders: unusual
modes, 16-bit samples, Adobe CMYK, an EXIF orientation, transparency, frames,
a wrong extension, a cut-off file and files that are no pictures at all.

    python examples/make_awkward.py [--photo PHOTO] [--out FOLDER]

The same photograph, Pillow and NumPy give the same bytes every time.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HERE = Path(__file__).resolve().parent
DEFAULT_PHOTO = HERE / "photos" / "coffee_cup.jpg"
DEFAULT_OUT = HERE / "awkward"

LONG_SIDE = 240
EXIF_ORIENTATION = 0x0112
TRUNCATED_PERCENT = 60

Bytes = NDArray[np.uint8]


def _fit(photo: Image.Image, long_side: int) -> Image.Image:
    """Return ``photo`` scaled so that its longer side is ``long_side``."""
    scale = long_side / max(photo.size)
    size = (round(photo.width * scale), round(photo.height * scale))
    return photo.resize(size, Image.Resampling.LANCZOS)


def _luma(rgb: Image.Image) -> NDArray[np.float64]:
    """Return the Rec. 601 luma of ``rgb`` in 0..1, without rounding to 8 bits."""
    pixels = np.asarray(rgb, dtype=np.float64) / 255.0
    luma: NDArray[np.float64] = pixels @ np.array([0.299, 0.587, 0.114])
    return luma


def _cmyk(rgb: Image.Image) -> Image.Image:
    """Return ``rgb`` as CMYK with a real black plate (naive, no profile)."""
    cmy = 255 - np.asarray(rgb, dtype=np.int32)
    black = cmy.min(axis=2, keepdims=True)
    scale = np.maximum(255 - black, 1)
    colour = (cmy - black) * 255 // scale
    plates = np.concatenate([colour, black], axis=2).astype(np.uint8)
    return Image.frombytes("CMYK", rgb.size, plates.tobytes())


def _radius(size: tuple[int, int]) -> NDArray[np.float64]:
    """Return each pixel's distance from the centre, 1.0 on the nearest edge."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    reach = min(width, height) / 2
    radius: NDArray[np.float64] = np.hypot(x - (width - 1) / 2, y - (height - 1) / 2) / reach
    return radius


def _with_alpha(rgb: Image.Image) -> Image.Image:
    """Return ``rgb`` fading out from an opaque centre to clear corners."""
    fade = np.clip((1.3 - _radius(rgb.size)) / 0.8, 0.0, 1.0)
    alpha: Bytes = np.rint(fade * 255).astype(np.uint8)
    result = rgb.convert("RGBA")
    result.putalpha(Image.fromarray(alpha))
    return result


def _palette(rgb: Image.Image) -> tuple[Image.Image, int]:
    """Return ``rgb`` in 63 colours, clear outside a disc, and the clear index."""
    clear = 63
    indexed = rgb.quantize(clear, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    indices: Bytes = np.asarray(indexed, dtype=np.uint8).copy()
    indices[_radius(rgb.size) > 1.0] = clear
    colours = (indexed.getpalette() or [])[: 3 * clear]
    colours += [0] * (3 * clear - len(colours)) + [255, 0, 255]
    result = Image.frombytes("P", rgb.size, indices.tobytes())
    result.putpalette(colours)
    return result, clear


def _frames(rgb: Image.Image) -> list[Image.Image]:
    """Return three frames: the picture, its mirror image and its negative."""
    mirrored = rgb.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    negative = Image.fromarray(255 - np.asarray(rgb, dtype=np.uint8))
    return [
        frame.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        for frame in (rgb, mirrored, negative)
    ]


def _panorama(photo: Image.Image) -> Image.Image:
    """Return a 640x40 strip from the middle of ``photo``."""
    height = round(photo.width * 40 / 640)
    top = (photo.height - height) // 2
    strip = photo.crop((0, top, photo.width, top + height))
    return strip.resize((640, 40), Image.Resampling.LANCZOS)


def _jpeg(picture: Image.Image, quality: int = 88) -> bytes:
    """Return ``picture`` as baseline JPEG bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def make(photo_path: Path, out: Path) -> list[Path]:
    """Write every awkward picture into ``out`` and return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    with Image.open(photo_path) as opened:
        photo = opened.convert("RGB")
    small = _fit(photo, LONG_SIDE)
    tiny = _fit(photo, 96)

    small.convert("L").save(out / "grey.jpg", quality=88)

    grey16 = np.rint(_luma(small) * 65535).astype(np.uint16)
    Image.fromarray(grey16).save(out / "grey16.png", optimize=True)

    # Pillow stores CMYK JPEG as Photoshop does: inverted, with an Adobe marker.
    _cmyk(small).save(out / "cmyk.jpg", quality=88)

    # Orientation 6: turn the stored pixels by 90 degrees clockwise to show them.
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    turned = small.transpose(Image.Transpose.ROTATE_90)
    turned.save(out / "exif_rotated.jpg", quality=88, exif=exif)

    alpha = _with_alpha(small)
    alpha.save(out / "alpha.png", optimize=True)
    alpha.save(out / "lossless_alpha.webp", lossless=True, quality=100, method=6)

    palette, clear = _palette(small)
    palette.save(out / "palette.png", optimize=True, transparency=clear)

    first, *rest = _frames(tiny)
    first.save(out / "animated.gif", save_all=True, append_images=rest, duration=200, loop=0)

    small.save(out / "photo.webp", quality=85, method=6)
    small.save(out / "photo.bmp")
    small.save(out / "photo.tiff", compression="tiff_lzw")

    centre = small.getpixel((small.width // 2, small.height // 2))
    Image.new("RGB", (1, 1), centre).save(out / "one_pixel.png")

    _panorama(photo).save(out / "panorama.jpg", quality=88)

    whole = _jpeg(small)
    (out / "truncated.jpg").write_bytes(whole[: len(whole) * TRUNCATED_PERCENT // 100])
    _fit(photo, 160).save(out / "mislabelled.jpg", format="PNG", optimize=True)
    (out / "not_an_image.jpg").write_bytes(b"This is a text file, whatever its name says.\n")
    (out / "empty.jpg").write_bytes(b"")

    return sorted(path for path in out.iterdir() if path.is_file())


def main() -> None:
    """Parse the arguments, make the folder and say what it holds."""
    parser = argparse.ArgumentParser(description="Make the awkward example pictures.")
    parser.add_argument("--photo", type=Path, default=DEFAULT_PHOTO, help="the photograph to use")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the folder to fill")
    arguments = parser.parse_args()
    for path in make(arguments.photo, arguments.out):
        print(f"{path.stat().st_size:>8}  {path.name}")


if __name__ == "__main__":
    main()

"""From the colours of an ICC profile to sRGB, with the engine that Pillow brings (Little CMS)."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

from PIL import Image

_SPACES = {"L": "GRAY", "LA": "GRAY", "RGB": "RGB", "RGBA": "RGB", "CMYK": "CMYK"}
"""The colour space that a profile must have for a picture of each mode."""
_SIGNATURE = b"acsp"
_CACHED_PROFILES = 16


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture of 8 bits in sRGB; as it is where there is no profile, or a damaged one, or one for another
    colour space than the picture's.

    The rendering intent is perceptual, as in browsers. A grey picture becomes RGB; alpha stays.
    """
    if profile[36:40] != _SIGNATURE:
        return image
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    space = _SPACES.get(image.mode)
    if space is None or profile[16:20].strip() != space.encode():
        return image
    bare = image.convert(image.mode[:-1]) if image.mode in {"LA", "RGBA"} else image
    transform = _transform(profile, bare.mode)
    if transform is None:
        return image
    try:
        converted = _grey_levels(bare, transform) if bare.mode == "L" else transform.apply(bare)
    except ValueError:
        return image
    if image.mode in {"LA", "RGBA"}:
        converted.putalpha(image.getchannel("A"))
    return converted


def _grey_levels(image: Image.Image, transform: Any) -> Image.Image:
    """Convert the 256 levels of grey and look the pixels up: exact transforms of single pixels are slow."""
    levels = transform.apply(Image.frombytes("L", (256, 1), bytes(range(256))))
    return Image.merge("RGB", [image.point([*band.tobytes()]) for band in levels.split()])


@lru_cache(_CACHED_PROFILES)
def _transform(profile: bytes, mode: str) -> Any:
    """Return the transform from a profile, or None where Little CMS refuses it."""
    from PIL import ImageCms  # most Specs ignore profiles, and start without it

    # Little CMS replaces a transform by a table, of too few steps for dark greys where nothing is said.
    flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.HIGHRESPRECALC
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL, flags
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None

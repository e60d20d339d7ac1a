"""The frames of an animation, the pages of a TIFF and the pictures of a HEIC file, one after another.

They share one budget of pixels, and each is checked as a picture of its own. Frames come as a browser would show them:
what an animation leaves standing from the frames before is in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from PIL import Image

from plimsoll.errors import ImageError
from plimsoll.preprocessing import memory, tiff_file
from plimsoll.preprocessing.decode import PILLOW_BYTES, Pixels, check_format, check_size, decode, finished, opened
from plimsoll.spec.steps import Decode, ImageFormat

PIXEL_BUDGET = 10
"""All frames together may have so many times the pixels of the largest picture."""
_SINGLE: frozenset[ImageFormat] = frozenset({"jpeg", "bmp"})
_NOT_SELECTED = "Take fewer: frames = 'every 5' in the decode step; or raise `max_frames` or `max_megapixels`."


def frames(data: bytes, step: Decode) -> Iterator[tuple[int, Pixels]]:
    """Yield the number (from 0) and the pixels, RGB or grey, of each frame that `step.frames` selects.

    Previews beside the pages of a TIFF don't count. Raises ImageError as `decode` does, also in the midst of a file,
    and for more frames than `step.max_frames`.
    """
    format_ = check_format(data, step)
    if step.frame_stride is None or format_ in _SINGLE:
        yield 0, decode(data, step)
        return
    with opened(data, format_, step, frames=True) as image:
        selected = 0
        for number in _numbers(image, format_, step):
            if number % step.frame_stride:
                continue
            selected += 1
            if selected > step.max_frames:
                raise ImageError(f"more than {step.max_frames} frames to answer", _NOT_SELECTED)
            if number:
                memory.budget().reserve(PILLOW_BYTES * image.width * image.height)
            image.load()
            yield number, finished(image.copy(), data, format_, step)


def _numbers(image: Image.Image, format_: ImageFormat, step: Decode) -> Iterator[int]:
    """Go from frame to frame, and yield the number of each once the picture stands there."""
    pixels, number = 0.0, 0
    for position in count():
        try:
            image.seek(position)
        except EOFError:
            return
        if format_ == "tiff":
            tags = _tags(image)
            if number and tiff_file.is_preview(tags):
                continue
            tiff_file.check(tags)
        check_size(*image.size, step)
        pixels += image.width * image.height
        if pixels > PIXEL_BUDGET * step.max_megapixels * 1e6:
            raise ImageError(
                f"its frames have more than {PIXEL_BUDGET * step.max_megapixels:g} megapixels together", _NOT_SELECTED
            )
        yield number
        number += 1


def _tags(image: Image.Image) -> tiff_file.Tags:
    """Return the tags of the page at which a TIFF stands, as `tiff_file.read_tags` does for the first."""
    directory: Any = image.tag_v2  # type: ignore[attr-defined]
    values = {tag: directory.get(tag) for tag in tiff_file.TAGS}
    return {
        tag: tuple(int(part) for part in (value if isinstance(value, (tuple, bytes)) else (value,)))
        for tag, value in values.items()
        if value is not None
    }

"""`Picture`: what may be given as a picture in Python, and what the input steps take of it."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plimsoll.errors import ImageError, InputError
from plimsoll.preprocessing import ArrayColour, DecodedPicture, PictureSource, PixelArray
from plimsoll.preprocessing.decode import MAX_FILE_BYTES, read


class Entry(ABC):
    """A picture that is read when its turn comes, in the thread that answers it: a member of an archive, a row of a
    table."""

    name: str
    """What its Prediction has as `path`."""

    @abstractmethod
    def load(self) -> bytes | None:
        """Return the file's bytes, or None where no answer is needed; raises ImageError."""


Picture = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | Image.Image
    | NDArray[np.uint8]
    | PixelArray
    | Entry
)
"""A picture file's path; its bytes; a file that is open for reading bytes, from where it stands to its end; an image of
Pillow's; or an array, uint8, height x width x channels (or height x width for grey), whose channel order is said by
`colour`, or beside it in a `PixelArray`."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
"""How an address begins (RFC 3986, 3.1); a drive of Windows has one letter."""


def source(picture: Picture, colour: ArrayColour | None = None) -> PictureSource:
    """Return a picture as `Preprocessor` takes it; `colour` is the order of an array's channels.

    An open file is read and stays open. Raises InputError for what is no picture, ImageError for a file that can't be
    read.
    """
    if isinstance(picture, (bytes, Image.Image, PixelArray)):
        return picture
    if isinstance(picture, (str, os.PathLike)):
        return _path(os.fsdecode(picture))
    if isinstance(picture, (bytearray, memoryview)):
        return bytes(picture)
    if isinstance(picture, np.ndarray):
        return PixelArray(picture, colour)
    if isinstance(picture, Entry):
        return picture.load() or b""
    if hasattr(picture, "read"):
        return _content(picture)
    raise InputError(
        f"{_a(picture)} as a picture; expected a path, bytes, a file open for reading bytes, an image of Pillow's or an"
        " array of NumPy's"
    )


def loaded_source(picture: Picture) -> bytes | DecodedPicture:
    """Return a picture file's bytes, or the picture where it is decoded already; raises as `source` and `read` do."""
    given = source(picture)
    return read(given) if isinstance(given, (bytes, Path)) else given


def name_of(picture: Picture) -> str:
    """Return the path, or in angle brackets what was given instead; never fails."""
    if isinstance(picture, (str, os.PathLike)):
        return os.fspath(picture)
    if isinstance(picture, Entry):
        return picture.name
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return f"<{memoryview(picture).nbytes} bytes>"
    if isinstance(picture, Image.Image):
        return f"<image of {picture.width}x{picture.height}>"
    if isinstance(picture, (np.ndarray, PixelArray)):
        shape = picture.shape if isinstance(picture, np.ndarray) else picture.samples.shape
        return f"<array of {'x'.join(map(str, shape))}>"
    name = getattr(picture, "name", None)
    return name if isinstance(name, str) else f"<{_a(picture)}>"


def _path(path: str) -> Path:
    if not path:
        raise ImageError("the path is empty")
    if _ADDRESS.match(path) and not os.path.lexists(path):
        raise ImageError(
            f"an address ({path.partition(':')[0]}://…), and pictures are read from files",
            "Download it; give its path.",
        )
    return Path(path)


def _content(file: IO[bytes]) -> bytes:
    try:
        content: Any = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ImageError(f"can't read the file: {error}") from error
    if isinstance(content, bytes):
        return content
    raise InputError(f"the file gives {_a(content)}; expected bytes", "Open it for reading bytes: open(path, 'rb').")


def _a(value: object) -> str:
    return f"an object of type {type(value).__name__}"

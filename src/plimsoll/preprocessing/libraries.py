"""The libraries that decode and resize, with their versions: what the pixels after each input step depend on."""

from __future__ import annotations

import numpy as np
import PIL
import simplejpeg
from PIL import features

from plimsoll.core.target import Preprocessing
from plimsoll.preprocessing import fast_decode

_CODECS = {
    "libjpeg-turbo": "libjpeg_turbo",
    "libwebp": "webp",
    "libavif": "avif",
    "libtiff": "libtiff",
    "zlib-ng": "zlib_ng",
    "zlib": "zlib",
    "littlecms2": "littlecms2",
}
"""What Pillow brings along, and what Pillow calls it."""
_DECODING = ("pillow", *_CODECS, "simplejpeg")
_REFERENCE = {"decode": _DECODING, "resize": ("pillow", "numpy"), "jpeg": ("pillow", "libjpeg-turbo", "simplejpeg")}
_FAST = {"decode": (*_DECODING, "opencv"), "resize": ("opencv", "pillow"), "jpeg": ("opencv", "simplejpeg")}


def versions(preprocessing: Preprocessing = "reference") -> dict[str, str]:
    """Return the version of each library behind the input steps, of those that are there; Pillow's codecs by their own
    names."""
    here = {"pillow": PIL.__version__, "numpy": np.__version__, "simplejpeg": simplejpeg.__version__}
    if preprocessing != "reference":
        here["opencv"] = fast_decode.opencv().__version__
    codecs = {name: features.version(codec) for name, codec in _CODECS.items() if features.check(codec)}
    return here | {name: str(version) for name, version in codecs.items() if version}


def behind(step: str, preprocessing: Preprocessing) -> tuple[str, ...]:
    """Return the names of the libraries that compute a step (or a stage of the fast preprocessing)."""
    return (_REFERENCE if preprocessing == "reference" else _FAST).get(step, ("numpy",))

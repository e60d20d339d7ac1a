"""What the reference makes of every kind of file and in every step, as digests in
`unit/preprocessing/data/reference_bytes.json`, and how that file is written.

The digests are the same with the oldest libraries that Plimsoll runs with (Pillow 12.3.0, NumPy 1.26.4, simplejpeg
1.8.0) and with the newest of November 2026 (13.0.0, 2.4.6, 1.9.0): where one differs under another version, that
version has moved the reference. `python tests/helpers/reference_bytes.py > \
tests/unit/preprocessing/data/reference_bytes.json`
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from helpers.pillow_reference import picture
from helpers.reference_pictures import FOLDER
from plimsoll.errors import ImageError
from plimsoll.preprocessing import reference
from plimsoll.preprocessing.decode import Pixels, as_array, decode
from plimsoll.spec.steps import Cast, Channels, Crop, Decode, ImageSpec, Jpeg, Layout, Mean, Resize, Scale, Std, Step

_FORMATS = ("jpeg", "png", "webp", "bmp", "gif", "tiff")
DECODES: dict[str, dict[str, Any]] = {
    "as stored": {},
    "grey": {"colour": "grey"},
    "composited": {"alpha": "composite", "background": (10, 200, 60)},
    "grey, composited": {"alpha": "composite", "background": (10, 200, 60), "colour": "grey"},
    "upright": {"exif_orientation": True},
    "fast dct": {"dct": "fast"},
    "plain upsampling": {"upsampling": "plain"},
}
"""Options of the decode step."""


def digest(pixels: Pixels) -> str:
    """Return shape, dtype and a short hash of the samples in C order."""
    array = as_array(pixels)
    samples = hashlib.blake2b(array.astype(array.dtype.newbyteorder("<")).tobytes(), digest_size=8).hexdigest()
    return f"{'x'.join(map(str, array.shape))} {array.dtype} {samples}"


def of_file(path: Path) -> dict[str, str]:
    """Return the digest of a file's pixels for each set of options; "refused" where the reference refuses."""
    digests = {}
    for name, options in DECODES.items():
        try:
            digests[name] = digest(decode(path.read_bytes(), Decode(formats=_FORMATS, **options)))
        except ImageError:
            digests[name] = "refused"
    return digests


def _resizes() -> Iterator[Step]:
    filters = ("nearest", "bilinear", "bicubic", "lanczos", "area")
    coordinates = ("half_pixel", "align_corners", "asymmetric")
    for width, height in ((40, 50), (120, 130), (40, 130), (120, 50)):
        for options in itertools.product(
            ("pillow", "opencv", "tensorflow"), filters, coordinates, (None, True), ("nearest", "tensorflow", "none")
        ):
            keys = ("convention", "filter", "coordinates", "antialias", "rounding")
            # A sine may differ in its last digit from processor to processor; rounded to levels, that doesn't show.
            if options[1] == "lanczos" and options[4] == "none":
                continue
            try:
                yield Resize(width=width, height=height, **dict(zip(keys, options, strict=True)))
            except ValidationError:
                continue  # not a combination that the convention has
    yield Resize(fit="letterbox", width=96, height=96, convention="opencv")
    yield Resize(fit="letterbox", width=96, height=96, stride=32, pad_position="end")
    yield Resize(fit="short_edge", size=40, filter="bicubic")


def _others() -> Iterator[Step]:
    for quality, subsampling, dct, upsampling in itertools.product(
        (75, 95), ("4:4:4", "4:2:2", "4:2:0"), ("accurate", "fast"), ("fancy", "plain")
    ):
        yield Jpeg(quality=quality, subsampling=subsampling, dct=dct, upsampling=upsampling)
    yield from (Crop(width=40, height=51), Crop(width=40, height=51, centre="round"), Crop(width=9, height=8, x=3, y=5))
    yield from (Channels(order="BGR"), Layout(order="NCHW"))
    yield from (Scale(factor=1 / 255), Scale(divisor=127.5), Mean(values=(127.5,)), Std(values=(58.393,)))
    yield from (Cast(to="float16"), Cast(to="float32"))


def steps() -> dict[str, Step]:
    """Return each step by a text of its own: what differs from its defaults."""
    return {
        f"{step.step} {json.dumps(step.model_dump(exclude_defaults=True))}": step for step in (*_resizes(), *_others())
    }


def of_step(step: Step) -> dict[str, str]:
    """Return the digest of what a step makes of noise, by its colours; the noise is 75 x 111 pixels."""
    digests = {}
    for mode, colour in (("RGB", "RGB"), ("RGB", "BGR"), ("L", "grey")):
        if colour == "grey" and isinstance(step, Channels):
            continue
        if colour == "BGR" and isinstance(step, Resize):
            continue  # It treats all channels alike.
        pixels = picture(mode, (75, 111))
        digests[colour] = digest(reference.FUNCTIONS[type(step)](pixels, step, ImageSpec(colour=colour)))  # type: ignore[arg-type]
    return digests


def chain() -> str:
    """Return the digest of a tensor after steps that follow one another in float32, by channel and in both layouts."""
    image, pixels = ImageSpec(), picture("RGB", (75, 111))
    current: Pixels = pixels
    for step in (
        Jpeg(), Crop(width=64, height=64), Channels(order="BGR"), Scale(factor=1 / 255),
        Mean(values=(0.406, 0.456, 0.485)), Layout(order="NCHW"), Std(values=(0.225, 0.224, 0.229)), Cast(to="float16"),
    ):  # fmt: skip
        current = reference.FUNCTIONS[type(step)](current, step, image)
        image = step.after(image)
    return digest(current)


def main() -> None:
    """Print all digests."""
    digests = {
        "files": {path.name: of_file(path) for path in sorted(FOLDER.iterdir())},
        "steps": {name: of_step(step) for name, step in steps().items()},
        "chain": chain(),
    }
    sys.stdout.write(json.dumps(digests, indent=0) + "\n")


if __name__ == "__main__":
    main()

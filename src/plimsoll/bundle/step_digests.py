"""Which input step gives other pixels here than where the bundle was packed: a digest of each, by golden picture.

The first step's digest is that of the decoded picture. Each later step is given the same noise here and there, of the
picture's size, so a decoder that changed doesn't make the steps behind it look changed as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plimsoll.bundle.bundle import Bundle
from plimsoll.bundle.manifest import PICTURE_LIBRARIES, StepDigest
from plimsoll.errors import ImageError
from plimsoll.preprocessing import Preprocessor, libraries
from plimsoll.preprocessing.decode import Pixels, Reduced, as_array, as_image, read
from plimsoll.preprocessing.pillow_file import translate_errors

MEASUREMENT = "input steps"
SAME_PIXELS = "the same pixels as where it was packed"

_NOISE_BYTES = 65_521
"""A prime, so that repeated noise falls into other columns in each row."""
_GRAINS = {1: 2, 8: 3, 64: 3}
"""The sides of the noise's grains in pixels, and their weights."""


def step_digests(preprocessor: Preprocessor, picture: bytes) -> tuple[StepDigest, ...]:
    """Return the digest of each input step; raises ImageError."""
    digests = []
    pixels: Pixels | None = None
    with translate_errors():
        for name, stage in preprocessor.stages:
            if pixels is None:
                pixels = stage(picture)
                digests.append(StepDigest(step=name, digest=_digest(pixels)))
            else:
                digests.append(StepDigest(step=name, digest=_digest(stage(_noise_like(pixels)))))
                pixels = stage(pixels)
    return tuple(digests)


def input_steps(bundle: Bundle, preprocessor: Preprocessor) -> dict[str, str]:
    """Return the measurement "input steps": `SAME_PIXELS`, or which steps give other pixels here, and which of their
    libraries have another version; empty for a bundle packed before steps had digests."""
    stored = [vector for vector in bundle.manifest.golden if vector.steps]
    if not stored:
        return {}
    changed = dict.fromkeys(
        name for vector in stored for name in _changed(vector.steps, preprocessor, bundle.file(vector.picture))
    )
    if not changed:
        return {MEASUREMENT: SAME_PIXELS}
    recorded = bundle.manifest.environment.get(PICTURE_LIBRARIES)
    packed = recorded if isinstance(recorded, dict) else {}
    here = libraries.versions(preprocessor.preprocessing)
    behind = dict.fromkeys(name for step in changed for name in libraries.behind(step, preprocessor.preprocessing))
    others = [
        f"{name} {packed[name]}, here {here[name]}"
        for name in behind
        if name in packed and name in here and packed[name] != here[name]
    ]
    verb = "gives" if len(changed) == 1 else "give"
    return {
        MEASUREMENT: f"{' and '.join(changed)} {verb} other pixels here ({'; '.join(others) or 'the same libraries'})"
    }


def _changed(stored: Sequence[StepDigest], preprocessor: Preprocessor, picture: Path) -> Iterator[str]:
    """Yield the names of the steps whose pixels differ from the stored ones; the first alone where a picture is refused
    here or has another size."""
    try:
        here = step_digests(preprocessor, read(picture))
    except ImageError:
        yield stored[0].step
        return
    for before, now in zip_longest(stored, here):
        if before is None or now is None or before.step != now.step:
            yield (now or before).step
        elif before.digest != now.digest:
            yield now.step
            if now is here[0] and now.shape != before.shape:
                return


def _digest(pixels: Pixels) -> str:
    """Return the shape and the SHA-256 of the samples, little-endian and in C order."""
    array = as_array(pixels)
    samples = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    return f"{'x'.join(map(str, array.shape))} {hashlib.sha256(samples.data).hexdigest()}"


def _noise_like(pixels: Pixels) -> Pixels:
    """Return noise of the same kind and shape as `pixels`; whole levels of 0 to 255 in every dtype."""
    array = as_array(pixels)
    levels = _noise(*array.shape).astype(array.dtype, copy=False)
    if isinstance(pixels, Reduced):
        return replace(pixels, pixels=as_image(levels) if isinstance(pixels.pixels, Image.Image) else levels)
    return as_image(levels) if isinstance(pixels, Image.Image) else levels


def _noise(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Return noise, fine and coarse, so that a strong reduction leaves some of it."""
    # SplitMix64 of each position: the same on every machine, and in every version of NumPy.
    mixed = np.arange(_NOISE_BYTES, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    levels = (mixed >> np.uint64(56)).astype(np.uint8)
    sums = np.zeros((height, width, channels), np.uint16)
    for side, weight in _GRAINS.items():
        grains = np.resize(levels, (-(-height // side), -(-width // side), channels)).astype(np.uint16)
        sums += grains.repeat(side, axis=0)[:height].repeat(side, axis=1)[:, :width] * np.uint16(weight)
    return (sums // sum(_GRAINS.values())).astype(np.uint8)

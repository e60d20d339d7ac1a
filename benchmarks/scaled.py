"""How far scaled preprocessing lies from the reference, by the picture's size and by what the decoder leaves.

    python benchmarks/scaled.py PHOTOS [--count 16] [--sizes 4 8 12 24 48] [--typical]

Pictures of each size are made of the photographs (`large_pictures.py`): of those about which open_nsfw is least sure,
because there a small difference moves the score most. Each is stored as a phone stores it, and goes through open_nsfw's
own steps: by the reference, by fast preprocessing, and with a JPEG decoder that leaves at least 4, 2 or 1 times the 256
pixels that follow."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before ONNX Runtime is imported

import numpy as np
import onnxruntime
from large_pictures import SIZES, encode, picture
from numpy.typing import NDArray

from plimsoll import zoo
from plimsoll.preprocessing import Preprocessor, fast, fast_decode
from plimsoll.preprocessing.decode import as_array
from plimsoll.spec.steps import ImageSpec, Resize
from plimsoll.zoo import catalog

LEAST = {"fast": 1e9, "1024": 4.0, "512": 2.0, "256": 1.0}
"""What is compared, by its name: how many times as large as the result the decoder leaves a picture."""


class Steps:
    """open_nsfw's steps, with any way to the resized picture."""

    def __init__(self) -> None:
        spec = zoo.card("open_nsfw").spec.input
        self.decode = spec.decode
        self.resize = next(step for step in spec.steps if isinstance(step, Resize))
        self._reference = Preprocessor(spec).stages
        self._session = onnxruntime.InferenceSession(str(catalog.fetch("open_nsfw")))

    def reference(self, data: bytes) -> NDArray[np.uint8]:
        """Return the resized picture as the reference has it."""
        return as_array(self._reference[1][1](self._reference[0][1](data)))

    def scaled(self, data: bytes, least: float) -> tuple[NDArray[np.uint8], int]:
        """Return the resized picture, and the size of the squares whose means the decoder gave."""
        reduced = fast_decode.decode_for_resize(
            data,
            self.decode,
            "RGB",
            lambda width, height: fast.decoder_scale(width, height, self.resize, least),
        )
        return as_array(fast.resize(reduced, self.resize, ImageSpec())), reduced.mean

    def score(self, pixels: NDArray[np.uint8]) -> float:
        """Return the score of a resized picture."""
        value: Any = pixels
        for _, stage in self._reference[2:]:
            value = stage(value)
        return float(self._session.run(None, {"input:0": np.ascontiguousarray(value)[np.newaxis]})[0][0][1])


def least_sure(steps: Steps, photos: Sequence[Path], count: int) -> list[Path]:
    """Return the photos whose scores lie nearest to a half."""
    return sorted(photos, key=lambda photo: abs(steps.score(steps.reference(photo.read_bytes())) - 0.5))[:count]


def measure(steps: Steps, photos: Sequence[Path], megapixels: str, everything: Sequence[Path]) -> None:
    """Print one row for each way, for pictures of one size."""
    width, height = SIZES[megapixels]
    rows: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in LEAST}
    means: dict[str, int] = {}
    kilobytes = []
    for number, photo in enumerate(photos):
        pictures = [photo, *(other for other in everything if other != photo)]
        data = encode(picture(pictures, number * len(pictures), width, height), "jpeg", progressive=number % 8 == 7)
        kilobytes.append(len(data) / 1000)
        reference = steps.reference(data)
        score = steps.score(reference)
        for name, least in LEAST.items():
            pixels, means[name] = steps.scaled(data, least)
            apart = pixels.astype(np.int64) - reference
            rows[name].append(
                (abs(steps.score(pixels) - score), np.abs(apart).mean(), np.abs(apart).max(), apart.mean())
            )
    for name, values in rows.items():
        score_apart, mean, largest, bias = np.array(values).T
        print(
            f"| {megapixels} MP | {name} | 1/{means[name]} | {score_apart.mean():.4f} | {score_apart.max():.3f} |"
            f" {mean.mean():.2f} | {largest.max():.0f} | {bias.mean():+.2f} |",
            flush=True,
        )
    print(f"<!-- {megapixels} MP: {len(photos)} files of {np.mean(kilobytes):,.0f} kB on average -->", flush=True)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--typical", action="store_true", help="photographs evenly spread, not the least sure ones")
    parser.add_argument("--sizes", nargs="+", default=["4", "8", "12", "24", "48"], choices=SIZES)
    options = parser.parse_args()
    everything = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})
    if not everything:
        sys.exit(f"no JPEG photos in {options.photos}")
    steps = Steps()
    if options.typical:
        photos = everything[:: max(1, len(everything) // options.count)][: options.count]
    else:
        photos = least_sure(steps, everything, options.count)
    print("| size | least side | decoded at | score: mean | largest | levels: mean | largest | bias |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for megapixels in options.sizes:
        measure(steps, photos, megapixels, everything)


if __name__ == "__main__":
    main()

"""Run the open_nsfw loader of the TensorFlow port with real TensorFlow, and store what every stage gives.

The loader, step for step: decode a JPEG (fancy upscaling, fast integer cosine transform), resize it to 256 x 256
(bilinear, corners aligned), put it through a JPEG of quality 75, cut out the middle 224 x 224, turn RGB into BGR and
subtract the mean of each channel. The file written is JSON: `photos`, and for each of them the SHA-256 of each stage's
array. `tests/unit/image/test_resample.py` compares Plimsoll's `open_nsfw_tf` with it bit for bit, so the tests need no
TensorFlow.

    python benchmarks/tensorflow_loader.py examples/photos tests/unit/image/data/tensorflow_loader.json

`--arrays FOLDER` also writes the arrays, one .npz a photo, to see where another loader departs.
Needs tensorflow (2.21 made the stored file) and numpy.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

MEAN_BGR = (104.0, 117.0, 123.0)
SIDE = 256
CROP = 224


def stages(tensorflow: Any, data: bytes) -> dict[str, Any]:
    """Run the loader on one JPEG file.

    Returns `decoded` uint8 [H, W, 3], `resized` uint8 [256, 256, 3], `encoded` uint8 [bytes], `roundtrip` uint8 [256,
    256, 3], all RGB, and `final` float32 [224, 224, 3], BGR, the network's input.
    """
    tf = tensorflow
    decoded = tf.image.decode_jpeg(data, channels=3, fancy_upscaling=True, dct_method="INTEGER_FAST")
    unit = tf.image.convert_image_dtype(decoded, tf.float32, saturate=True)
    bilinear = tf.compat.v1.image.ResizeMethod.BILINEAR
    resized = tf.compat.v1.image.resize_images(unit, (SIDE, SIDE), method=bilinear, align_corners=True)
    resized = tf.image.convert_image_dtype(resized, tf.uint8, saturate=True)
    encoded = tf.image.encode_jpeg(
        resized, format="", quality=75, progressive=False, optimize_size=False, chroma_downsampling=True
    )
    roundtrip = tf.image.decode_jpeg(encoded, channels=3, fancy_upscaling=False, dct_method="INTEGER_ACCURATE")
    offset = (SIDE - CROP) // 2
    cropped = tf.image.crop_to_bounding_box(tf.cast(roundtrip, tf.float32), offset, offset, CROP, CROP)
    final = tf.reverse(cropped, axis=[2]) - tf.constant(MEAN_BGR, tf.float32)
    return {
        "decoded": decoded.numpy(),
        "resized": resized.numpy(),
        "encoded": np.frombuffer(encoded.numpy(), np.uint8),
        "roundtrip": roundtrip.numpy(),
        "final": final.numpy(),
    }


def digests(arrays: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each array's bytes, row by row, little-endian."""
    return {name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for name, array in arrays.items()}


def main() -> None:
    """Parse the arguments, run the loader over the folder and write the digests."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path, help="folder of JPEG photos")
    parser.add_argument("out", type=Path, help="the JSON file to write")
    parser.add_argument("--arrays", type=Path, help="folder for the arrays themselves")
    arguments = parser.parse_args()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    tensorflow = importlib.import_module("tensorflow")
    hashes: dict[str, dict[str, str]] = {}
    for path in sorted(arguments.photos.glob("*.jpg")):
        arrays = stages(tensorflow, path.read_bytes())
        hashes[path.name] = digests(arrays)
        if arguments.arrays:
            arguments.arrays.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(arguments.arrays / f"{path.stem}.npz", **arrays)
    text = json.dumps({"made_with": f"TensorFlow {tensorflow.__version__}", "photos": hashes}, indent=1)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(f"TensorFlow {tensorflow.__version__}: {len(hashes)} photos")


if __name__ == "__main__":
    main()

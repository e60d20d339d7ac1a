"""The loop that everybody writes first: Pillow in one thread, then one `session.run` an image with ONNX Runtime's
default threads.

Independent of Plimsoll on purpose: it is what `benchmarks/predict.py` compares with.

    python benchmarks/plain_loop.py MODEL.onnx LIST.txt > answers.jsonl
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before ONNX Runtime is imported
import onnxruntime

MEAN = np.array([104, 117, 123], np.float32)


def score(session: onnxruntime.InferenceSession, path: str) -> float:
    """Score one picture."""
    image: Image.Image = Image.open(path)
    if image.mode != "RGB":
        image = image.convert("RGB")
    image = image.resize(
        (256, image.height), Image.Resampling.BILINEAR
    )  # Pillow 12 did both passes in this order in one call; Pillow 13 may not.
    image = image.resize((256, 256), Image.Resampling.BILINEAR)
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=75)
    image = Image.open(stored)
    pixels = np.asarray(image)[16:240, 16:240, ::-1].astype(np.float32) - MEAN
    return float(session.run(None, {"input:0": pixels[np.newaxis]})[0][0][1])


def main() -> None:
    """Score every picture of the list, one after another."""
    session = onnxruntime.InferenceSession(sys.argv[1])
    for path in Path(sys.argv[2]).read_text().splitlines():
        print(json.dumps({"path": path, "score": score(session, path)}))


if __name__ == "__main__":
    main()

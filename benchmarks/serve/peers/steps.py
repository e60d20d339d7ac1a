"""What every peer computes: open_nsfw with its authors' input steps, one ONNX Runtime session a worker.

The same procedure as in `benchmarks/plain_loop.py`. `NETWORK` (environment) is the ONNX file, `THREADS` how many
threads a session computes with.
"""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before ONNX Runtime is imported
import onnxruntime

MEAN = np.array([104, 117, 123], np.float32)


def open_session() -> onnxruntime.InferenceSession:
    """Open the network with as many threads as this worker is source."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("THREADS", "1"))
    return onnxruntime.InferenceSession(os.environ["NETWORK"], options, providers=["CPUExecutionProvider"])


def score(session: onnxruntime.InferenceSession, photo: bytes) -> float:
    """Score one JPEG photo."""
    image: Image.Image = Image.open(io.BytesIO(photo))
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

"""Answers that are no scores, from a real service: boxes, and a class for every pixel, in the picture as it was
sent."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.detection_networks import encoded, model, picture
from helpers.service_process import start
from plimsoll.spec import files

SIZE, RECTANGLE = (512, 352), (200, 104, 280, 224)


@pytest.mark.parametrize("kind", ["yolov8", "segment"])
def test_positions_are_those_of_the_picture_as_it_was_sent(
    tmp_path: Path, example_photos: list[Path], kind: str
) -> None:
    network = model(
        tmp_path, kind, [{"step": "decode"}, {"step": "resize", "fit": "letterbox", "width": 256, "height": 256}]
    )
    spec = tmp_path / "spec.toml"
    spec.write_text(files.dumps(network.require_spec()))
    data = encoded(picture(example_photos[0], SIZE, RECTANGLE))
    with start(
        f"spots={network.path}", "--spec", str(spec), "--workers", "1", "--max-batch", "2", "--grace", "0"
    ) as running:
        answer = running.post("/v1/predict?masks=png", content=data).json()["results"][0]["answer"]
    if kind == "yolov8":
        (box,) = answer["boxes"]
        assert box["label"] == "white"
        assert box["box"] == pytest.approx(RECTANGLE, abs=1e-6)
    else:
        assert answer["mask"]["size"] == [352, 512]
        with Image.open(io.BytesIO(base64.b64decode(answer["mask"]["png"]))) as mask:
            left, top, right, bottom = RECTANGLE
            white = np.asarray(mask) == 1
        assert white[top + 4 : bottom - 4, left + 4 : right - 4].all()
        white[top - 4 : bottom + 4, left - 4 : right + 4] = False
        assert not white.any()

"""The camera of the page, in headless Chromium with a fake device that plays a clip: boxes move with the picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import detection_networks as spotting
from helpers.browser import Browser, browser
from helpers.service_process import ServiceProcess, start
from plimsoll.bundle.packing import pack
from plimsoll.core.target import Target
from plimsoll.export.web import chromium

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="Chromium is not installed")

WIDTH, HEIGHT, RATE = 320, 240, 20
LEFT, TOP, SIDE, SPEED = 20, 80, 80, 2
"""A white square begins at LEFT and moves by SPEED pixels a frame, there and back."""
COUNT = 100


def camera_clip(path: Path) -> Path:
    """Write what the camera sees, as Chromium's fake device reads it (YUV4MPEG2)."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{RATE}:1 Ip A1:1 C420jpeg\n".encode())
        grey = np.full(WIDTH * HEIGHT // 2, 128, np.uint8).tobytes()
        for index in [*range(COUNT // 2), *reversed(range(COUNT // 2))]:
            luma = np.full((HEIGHT, WIDTH), 40, np.uint8)
            left = LEFT + SPEED * index
            luma[TOP : TOP + SIDE, left : left + SIDE] = 250
            file.write(b"FRAME\n" + luma.tobytes() + grey)
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("camera")
    steps: list[dict[str, Any]] = [{"step": "decode"}, {"step": "resize", "width": WIDTH, "height": HEIGHT}]
    bundle = pack(spotting.model(folder, "yolov8", steps), Target("onnxruntime"), folder / "spots")
    with start(f"spots={bundle}", "--workers", "1", "--grace", "0") as running:
        yield running


@pytest.fixture
def page(tmp_path: Path, service: ServiceProcess) -> Iterator[Browser]:
    clip = camera_clip(tmp_path / "camera.y4m")
    flags = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"
    with browser(*flags, f"--use-file-for-fake-video-capture={clip}") as driven:
        driven.view(800, 900)
        driven.open(service.url + "/")
        yield driven


_BOX = "document.querySelector('#viewfinder .overlay rect.box')"


def test_boxes_move_with_the_picture(page: Browser) -> None:
    page.evaluate("document.getElementById('camera').click()")
    page.until("!document.getElementById('viewfinder').hidden")
    page.evaluate("document.getElementById('live').click()")
    positions: list[float] = []
    for _ in range(12):
        page.until(f"{_BOX} && Number({_BOX}.getAttribute('x')) !== {positions[-1] if positions else -1}")
        x, y, width, height = (
            float(page.evaluate(f"{_BOX}.getAttribute('{key}')")) for key in ("x", "y", "width", "height")
        )
        assert [y, width, height] == pytest.approx([TOP, SIDE, SIDE], abs=6)
        assert LEFT - 6 <= x <= LEFT + SPEED * COUNT / 2 + 6
        positions.append(x)
    assert max(positions) - min(positions) > 3 * SPEED
    assert page.said == []
    page.evaluate("document.getElementById('stop').click()")
    page.until("document.getElementById('video').srcObject === null")

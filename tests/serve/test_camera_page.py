"""The camera of the page, in headless Chromium with a fake device that plays a clip: boxes move with the picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import detection_networks as spotting
from helpers.browser import Browser, browser
from helpers.camera import COUNT, HEIGHT, LEFT, SIDE, SPEED, TOP, WIDTH, camera_clip
from helpers.service_process import ServiceProcess, start
from plimsoll.bundle.packing import pack
from plimsoll.core.target import Target
from plimsoll.export.web import chromium
from plimsoll.serve.http import sockets

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="Chromium is not installed")


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
    if sockets.available():  # else Chromium says that there is no WebSocket, and the page sends posts
        assert page.said == []
        entries = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert not [entry for entry in entries if "/v1/predict" in entry], "frames go over one connection"
    page.evaluate("document.getElementById('stop').click()")
    page.until("document.getElementById('video').srcObject === null")

"""Clips that a service answers: as `predict` does, within limits, whatever the bytes are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plimsoll
from helpers import clips
from helpers import detection_networks as spotting
from helpers.service_process import ServiceProcess, start
from plimsoll.bundle.packing import pack
from plimsoll.client import RejectedError
from plimsoll.core.target import Target
from plimsoll.inference.predictor import load
from plimsoll.inference.video import predict_clip
from plimsoll.inference.video.answers import Follower

WIDTH, HEIGHT, SIDE, COUNT = 160, 120, 40, 24
SETTINGS = """
max_body_bytes = 4000000
[clips]
max_frames = 40
max_megapixels = 0.2
at_once = 1
timeout = "20s"
memory_bytes = 1073741824
"""


def squares(count: int = COUNT) -> Iterator[clips.Frame]:
    """Draw a white square that moves by 4 pixels a frame."""
    for index in range(count):
        frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        left = 8 + 4 * (index % 24)
        frame[40 : 40 + SIDE, left : left + SIDE] = 250
        yield frame


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips.require_av()
    folder = tmp_path_factory.mktemp("clips")
    steps: list[dict[str, Any]] = [{"step": "decode"}, {"step": "resize", "width": WIDTH, "height": HEIGHT}]
    return pack(spotting.model(folder, "yolov8", steps), Target("onnxruntime"), folder / "spots").resolve()


@pytest.fixture(scope="module")
def service(bundle: Path) -> Iterator[ServiceProcess]:
    config = bundle.parent / "serve.toml"
    config.write_text(SETTINGS)
    with start(f"spots={bundle}", "--workers", "1", "--grace", "0", "--config", str(config)) as running:
        yield running


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.write(tmp_path_factory.mktemp("clip") / "clip.mp4", squares())


def lines(service: ServiceProcess, data: bytes, query: str = "") -> list[dict[str, Any]]:
    answer = service.post(f"/v1/predict/clip{query}", content=data, headers={"Content-Type": "video/mp4"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_frames_have_the_answers_and_times_of_predict(service: ServiceProcess, bundle: Path, clip: Path) -> None:
    for sample in ("all", "every=5", "seconds=0.2", "keyframes"):
        with load(bundle) as model:
            expected = [
                (answered.frame.number, round(answered.frame.time, 3), answered.prediction.answer.row())
                for answered in predict_clip(model, str(clip), sample=sample)
                if answered.frame is not None and answered.prediction.answer is not None
            ]
        rows = lines(service, clip.read_bytes(), f"?sample={sample}")
        assert [(row["frame"], row["time"], row["answer"]) for row in rows] == expected
        assert all(row["error"] is None and row["model"] == "spots" for row in rows)
    assert len(expected) >= 1


def test_the_client_asks_for_clips(service: ServiceProcess, clip: Path) -> None:
    with plimsoll.Client(service.url) as client:
        results = client.predict_clip(clip, sample="every=6")
        assert [result.frame for result in results] == [0, 6, 12, 18]
        assert results[1].time == pytest.approx(0.24)
        assert results[1].unwrap().boxes[0].corners[0] == pytest.approx(8 + 4 * 6, abs=2)
        with pytest.raises(RejectedError, match="no clip"):
            client.predict_clip(b"noise")


def test_objects_keep_their_numbers_and_a_clip_has_one_score(service: ServiceProcess, bundle: Path, clip: Path) -> None:
    with load(bundle) as model:
        follower = Follower(model, None, track=True)
        answered = [*predict_clip(model, str(clip), threshold=follower.threshold)]
        expected = [each.answer.row() for item in answered if (each := follower.update(item).prediction).answer]
    rows = lines(service, clip.read_bytes(), "?track=true")
    assert [row["answer"] for row in rows] == expected
    assert {box["track"] for row in rows for box in row["answer"]["boxes"]} == {1}
    with plimsoll.Client(service.url) as client:
        (result,) = client.predict_clip(clip, clip_score="nth=3", threshold=0.5)
        score = result.unwrap().row
        assert (result.frame, score["rule"], score["flagged"], score["frames"]) == (None, "nth=3", True, COUNT)
        assert [segment["start"] for segment in score["segments"]] == [0.0]
        assert score["segments"][0]["end"] == pytest.approx(COUNT / 25, abs=0.01)
        (early,) = client.predict_clip(clip, clip_score="nth=3", early_exit=True)
        assert early.unwrap().row["stopped"]
        assert early.unwrap().row["frames"] == 3
        assert client.predict_clip(clip, track=True, sample="every=4")[1].unwrap().boxes[0].track == 1
    long = clips.write(bundle.parent / "longer.mp4", squares(60)).read_bytes()
    (row,) = lines(service, long, "?clip_score=share=10%25")
    assert 0 < row["answer"]["frames"] <= 40
    assert row["error"]["kind"] == "image", "what could be read, and why not the rest"
    for query in ("clip_score=best", "clip_score=nth=99", "early_exit=true", "clip_score=share=5%25&early_exit=1"):
        assert service.post(f"/v1/predict/clip?{query}", content=b"x").status_code == 422
    assert "points" in service.post("/v1/predict/clip?smooth=true", content=b"x").json()["error"]["message"]


def test_a_form_gives_the_name_and_events_are_sent_where_they_are_asked_for(
    service: ServiceProcess, clip: Path
) -> None:
    answer = service.post(
        "/v1/predict/clip?sample=every=12",
        files={"file": ("street.mp4", clip.read_bytes(), "video/mp4")},
        headers={"Accept": "text/event-stream"},
    )
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    assert [json.loads(event)["frame"] for event in events[:-1]] == [0, 12]
    assert {json.loads(event)["name"] for event in events[:-1]} == {"street.mp4"}


def test_a_clip_that_is_damaged_or_too_long_has_its_frames_and_then_the_error(
    service: ServiceProcess, tmp_path: Path
) -> None:
    streamed = clips.write(tmp_path / "clip.mkv", squares(), rate=5, options={"g": "4"}).read_bytes()
    *frames, last = lines(service, streamed[: len(streamed) * 2 // 3])
    assert 4 <= len(frames) < COUNT
    assert all(row["answer"]["boxes"] for row in frames)
    assert last["frame"] is None
    assert last["error"]["kind"] == "image"
    long = clips.write(tmp_path / "long.mp4", squares(60)).read_bytes()
    *frames, last = lines(service, long)
    assert len(frames) == 40
    assert "longer than" in last["error"]["message"]


def test_what_is_no_clip_is_refused_before_any_frame(service: ServiceProcess, clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    wide = clips.write(tmp_path / "wide.mp4", (np.zeros((480, 640, 3), np.uint8) for _ in range(2))).read_bytes()
    huge = bytearray(data)
    at = huge.index(b"avc1") + 28  # width and height of the sample description (ISO 14496-12, 12.1.3)
    huge[at : at + 4] = b"\xff\xff\xff\xff"
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    refused = {
        "nothing": b"",
        "noise": bytes(range(256)) * 40,
        "a playlist": playlist,
        "its head alone": data[:200],
        "too large": wide,
    }
    for name, body in refused.items():
        answer = service.post("/v1/predict/clip", content=body, headers={"Content-Type": "video/mp4"})
        assert answer.status_code in (400, 415), f"{name}: {answer.text}"
        assert "passwd" not in answer.text
    answer = service.post("/v1/predict/clip", content=bytes(huge))
    assert answer.status_code in (200, 415)  # the coded size decides, not the container's
    assert service.post("/v1/predict/clip", content=b"x" * 4_000_001).status_code == 413
    assert service.post("/v1/predict/clip?sample=often", content=data).status_code == 422
    assert service.post("/v1/predict/clip?model=other", content=data).status_code == 404
    assert service.post("/v1/predict/clip", json={}).status_code == 415
    assert lines(service, data, "?sample=every=30")  # and it still answers


def test_a_frame_that_stands_for_ages_ends_at_the_limit(service: ServiceProcess, tmp_path: Path) -> None:
    slow = clips.write(tmp_path / "slow.mp4", squares(4), times=lambda index: 900.0 * index).read_bytes()
    answer = service.post("/v1/predict/clip", content=slow)
    assert answer.status_code == 415
    assert "lasts" in answer.text


def test_a_caller_that_hangs_up_leaves_its_place(service: ServiceProcess, clip: Path) -> None:
    import httpx

    with httpx.stream("POST", f"{service.url}/v1/predict/clip", content=clip.read_bytes(), timeout=60) as answer:
        next(answer.iter_lines())
        second = service.post("/v1/predict/clip", content=clip.read_bytes())
        assert second.status_code in (200, 503)
    for _ in range(50):
        if service.post("/v1/predict/clip?sample=every=20", content=clip.read_bytes()).status_code == 200:
            return
    raise AssertionError("the place was never given back")

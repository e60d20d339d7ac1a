"""The native interface of a real service."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

import plimsoll
from helpers.service_process import ServiceProcess


@pytest.fixture(scope="module")
def scores(example_photos: list[Path]) -> dict[str, float]:
    with plimsoll.load("open_nsfw") as model:
        return {photo.name: model.predict(photo).score for photo in example_photos[:6]}  # type: ignore[attr-defined]


def test_each_way_of_sending_a_picture_gives_the_answer_of_predict(
    served: ServiceProcess, example_photos: list[Path], scores: dict[str, float]
) -> None:
    photo = example_photos[0]
    data = photo.read_bytes()
    ways = [
        served.post("/v1/predict", content=data, headers={"Content-Type": "image/jpeg"}),
        served.post("/v1/predict", content=data),
        served.post("/v1/predict", files={"file": (photo.name, data, "image/jpeg")}),
        served.post("/v1/predict", json={"images": [{"data": base64.b64encode(data).decode(), "name": photo.name}]}),
    ]
    for answer in ways:
        assert answer.status_code == 200, answer.text
        (result,) = answer.json()["results"]
        assert result["answer"]["score"] == pytest.approx(scores[photo.name], abs=1e-6)
        assert result["milliseconds"].keys() == {"queue", "decode", "infer", "answer"}
    assert [way.json()["results"][0]["name"] for way in ways] == [None, None, photo.name, photo.name]


def test_many_pictures_are_answered_in_their_order_and_a_bad_one_is_an_entry(
    served: ServiceProcess, example_photos: list[Path], scores: dict[str, float]
) -> None:
    photos = example_photos[:6]
    files = [("file", (photo.name, photo.read_bytes(), "image/jpeg")) for photo in photos]
    files.insert(3, ("file", ("broken.jpg", photos[0].read_bytes()[:500], "image/jpeg")))
    answer = served.post("/v1/predict", files=files)
    assert answer.status_code == 200
    results = answer.json()["results"]
    broken = results.pop(3)
    assert broken["name"] == "broken.jpg"
    assert broken["answer"] is None
    assert broken["error"]["kind"] == "image"
    for photo, result in zip(photos, results, strict=True):
        assert result["name"] == photo.name
        assert result["answer"]["score"] == pytest.approx(scores[photo.name], abs=1e-6)


def test_top_and_threshold_are_kept_for_each_request(served: ServiceProcess, example_photos: list[Path]) -> None:
    data = example_photos[0].read_bytes()
    low, high = (
        served.post(f"/v1/predict?threshold={at}&top=1", content=data).json()["results"][0]["answer"] for at in (0, 1)
    )
    assert (low["label"], high["label"]) == ("nsfw", "sfw")
    assert len(low["scores"]) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ({"content": b""}, 400, "no picture"),
        ({"content": b"GIF89a"}, 415, "it begins like a picture"),
        ({"content": b"x", "headers": {"Content-Type": "text/html"}}, 415, "text/html"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "not JSON"),
        ({"json": {"images": []}}, 422, "images"),
        ({"json": {"images": [{"data": "!"}]}}, 400, "base64"),
        ({"json": {"images": [{"name": "a.jpg"}]}}, 422, "either data or url"),
        ({"json": {"images": [{"url": "https://example.org/a.jpg"}]}}, 400, "URL"),
        ({"json": {"images": [{"data": "aaaa"}], "model": "other"}}, 404, "unknown model 'other'"),
        ({"content": b"x", "params": {"top": "0"}}, 422, "top"),
        ({"content": b"x", "params": {"unheard": "of"}}, 422, "unheard"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        (
            {"content": b"--a\r\nContent-Dis", "headers": {"Content-Type": "multipart/form-data; boundary=a"}},
            400,
            "multipart",
        ),
    ],
)
def test_mistakes_in_a_request_are_reported(
    served: ServiceProcess, arguments: dict[str, object], status: int, words: str
) -> None:
    answer = served.post("/v1/predict", **arguments)
    assert answer.status_code == status, answer.text
    error = answer.json().get("error") or answer.json()["results"][0]["error"]
    assert words in error["message"]
    assert error["kind"] in ("input", "image")


def test_models_tells_what_they_are(served: ServiceProcess) -> None:
    (model,) = served.get("/v1/models").json()["models"]
    assert (model["name"], model["version"], model["state"], model["task"]) == ("open_nsfw", "1", "ready", "classify")
    assert model["labels"] == ["sfw", "nsfw"]
    assert [band["label"] for band in model["bands"]] == ["safe", "review", "not safe"]


def test_unknown_paths_and_methods_are_reported(served: ServiceProcess) -> None:
    assert "nothing at /nix" in served.get("/nix").json()["error"]["message"]
    wrong = served.get("/v1/predict")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"


def test_metrics_count_what_happened(served: ServiceProcess, example_photos: list[Path]) -> None:
    def now() -> tuple[float, float, float]:
        answered = served.metric("plimsoll_requests_total", interface="native", model="open_nsfw", status="200")
        return answered, served.metric("plimsoll_batch_size_sum"), served.metric("plimsoll_queue_seconds_count")

    before = now()
    served.score(example_photos[0])
    assert [after - earlier for earlier, after in zip(before, now(), strict=True)] == [1, 1, 1]
    assert served.metric("plimsoll_workers", state="ready") == 2
    assert served.metric("plimsoll_ready") == 1
    assert served.metric("plimsoll_shared_memory_bytes") == 0


def test_kserve_s_first_protocol(served: ServiceProcess, example_photos: list[Path]) -> None:
    texts = [base64.b64encode(photo.read_bytes()).decode() for photo in example_photos[:3]]
    instances = [texts[0], {"b64": texts[1]}, {"image_bytes": {"b64": texts[2]}}]
    reply = served.post("/v1/models/open_nsfw:predict", json={"instances": instances})
    assert reply.status_code == 200, reply.text
    scores = [prediction["score"] for prediction in reply.json()["predictions"]]
    assert scores == [served.score(photo) for photo in example_photos[:3]]
    for body, status in (
        ({"instances": [{"b64": "AAAA"}]}, 415),
        ({"instances": [{"b64": "!"}]}, 400),
        ({"instances": [[1, 2]]}, 400),
        ({"instances": []}, 400),
        ({}, 400),
    ):
        refused = served.post("/v1/models/open_nsfw:predict", json=body)
        assert (refused.status_code, list(refused.json())) == (status, ["error"]), refused.text
    assert served.post("/v1/models/nothing:predict", json={"instances": texts[:1]}).status_code == 404

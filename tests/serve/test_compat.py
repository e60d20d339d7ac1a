"""The interfaces of Misskey, PhotoPrism and pict-rs, asked as these applications ask."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import plimsoll
from helpers import detection_networks as spotting
from helpers.service_process import ServiceProcess, start
from plimsoll.spec import files

CLASSES = {"Drawing", "Hentai", "Neutral", "Porn", "Sexy"}


@pytest.fixture(scope="module")
def scores(example_photos: list[Path]) -> dict[str, float]:
    with plimsoll.load("open_nsfw") as model:
        return {photo.name: model.predict(photo).row()["score"] for photo in example_photos[:3]}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, nsfw_model_path: Path) -> Iterator[ServiceProcess]:
    """A service that calls everything unsafe, for which the thresholds are 0; with paths and a status of its own."""
    del nsfw_model_path
    config = tmp_path_factory.mktemp("strict") / "serve.toml"
    config.write_text(
        "max_items = 4\n[compat]\nthreshold = 0.0\n[compat.misskey]\nenabled ="
        ' false\n[compat.photoprism]\nprefixes = ["/v1/vision", "/api/v1/vision"]\n[compat.pictrs]\npath ='
        ' "/hooks/pictrs"\nerror_status = 422\n'
    )
    with start("open_nsfw", "--workers", "1", "--grace", "0", "--config", str(config)) as running:
        yield running


@pytest.fixture(scope="module")
def unfit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A detector, which can't say what is safe."""
    folder = tmp_path_factory.mktemp("unfit")
    detector = spotting.model(folder, "yolov8", [{"step": "decode"}, {"step": "resize", "width": 160, "height": 160}])
    assert detector.spec is not None
    (folder / "spec.toml").write_text(files.dumps(detector.spec))
    with start(str(detector.path), "--spec", str(folder / "spec.toml"), "--workers", "1", "--grace", "0") as running:
        yield running


def data_url(photo: Path) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(photo.read_bytes()).decode()}"


def detect(running: ServiceProcess, *parts: tuple[str, tuple[str | None, bytes, str]]) -> httpx.Response:
    return running.post("/v1/detect-images", files=list(parts))


def test_misskey_finds_its_five_classes_in_the_order_of_its_parts(
    served: ServiceProcess, example_photos: list[Path], scores: dict[str, float]
) -> None:
    photos = example_photos[:3]
    answer = detect(
        served,
        *[(f"image{index}", (f"{index}.png", photo.read_bytes(), "image/png")) for index, photo in enumerate(photos)],
    )
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    for photo, result in zip(photos, answer.json()["result"]["results"], strict=True):
        predictions = {prediction["className"]: prediction["probability"] for prediction in result["predictions"]}
        assert result["success"] is True
        assert predictions.keys() == CLASSES
        assert predictions["Porn"] == pytest.approx(scores[photo.name], abs=1e-6)
        assert predictions["Neutral"] == pytest.approx(1 - scores[photo.name], abs=1e-5)
        probabilities = [prediction["probability"] for prediction in result["predictions"]]
        assert probabilities == sorted(probabilities, reverse=True)


def test_misskeys_failing_parts_fail_inside_a_200(served: ServiceProcess, example_photos: list[Path]) -> None:
    good = example_photos[0].read_bytes()
    answer = detect(
        served,
        ("a", ("a.png", good[:1000], "image/png")),
        ("b", ("b.png", good, "image/png")),
        ("c", ("c.png", b"", "image/png")),
        ("d", ("d.mp4", good, "video/mp4")),
        ("e", (None, b"just a field", "text/plain")),
    )
    assert answer.status_code == 200
    results = answer.json()["result"]["results"]
    assert [result["success"] for result in results] == [False, True, False, False, False]
    codes = [result["error"]["code"] for result in results if not result["success"]]
    assert codes == ["IMAGE_DECODE_FAILED", "INVALID_REQUEST", "UNSUPPORTED_MEDIA_TYPE", "INVALID_REQUEST"]
    assert not any("predictions" in result for result in results if not result["success"])


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{}", "application/json", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"no parts here", "multipart/form-data; boundary=x", 400, "INVALID_REQUEST"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400, "INVALID_REQUEST"),
        (b"", "multipart/form-data", 400, "INVALID_REQUEST"),
        (b"x" * 70_000_000, "multipart/form-data; boundary=x", 413, "REQUEST_TOO_LARGE"),
        (b"x" * 70_000_000, "image/png", 413, "REQUEST_TOO_LARGE"),
    ],
)
def test_misskeys_whole_requests_that_cant_be_read(
    served: ServiceProcess, body: bytes, kind: str, status: int, code: str
) -> None:
    answer = served.post("/v1/detect-images", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.json()["success"] is False
    assert answer.json()["error"]["code"] == code
    assert "result" not in answer.json()


def photoprism(
    running: ServiceProcess, images: list[str], path: str = "/v1/vision/nsfw", **more: Any
) -> httpx.Response:
    """Ask as PhotoPrism's client does, with the fields that it sends whatever it asks."""
    return running.post(
        path, json={"id": "6ba7b810", "model": "nsfw", "suffix": "", "stream": False, "images": images, **more}
    )


def test_photoprism_gets_a_status_a_score_and_its_classes(
    served: ServiceProcess, example_photos: list[Path], scores: dict[str, float]
) -> None:
    photos = example_photos[:3]
    answer = photoprism(served, [data_url(photo) for photo in photos])
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["code"]) == ("6ba7b810", 200)
    for photo, entry in zip(photos, answer.json()["result"]["nsfw"], strict=True):
        assert entry["status"] == "safe"
        assert entry["score"] == pytest.approx(scores[photo.name], abs=1e-6)
        assert entry["threshold"] == 0.5
        assert entry.keys() >= CLASSES


def test_photoprism_is_answered_unsafe_under_each_prefix(strict: ServiceProcess, example_photos: list[Path]) -> None:
    for path in ("/v1/vision/nsfw", "/api/v1/vision/nsfw"):
        (entry,) = photoprism(strict, [data_url(example_photos[0])], path).json()["result"]["nsfw"]
        assert entry["status"] == "unsafe"


def test_what_photoprism_gets_no_answer_for_is_unavailable_and_says_nothing_else(
    served: ServiceProcess, example_photos: list[Path], awkward: Path
) -> None:
    """PhotoPrism decides again wherever there is a score or a class, so there must be none."""
    broken = [
        data_url(awkward / "truncated.jpg"),
        "data:image/jpeg;base64,%%%",
        "data:image/jpeg,plain",
        "https://photos.example.org/a.jpg",
        "",
        data_url(awkward / "empty.jpg"),
    ]
    answer = photoprism(served, [broken[0], data_url(example_photos[0]), *broken[1:]])
    entries = answer.json()["result"]["nsfw"]
    assert answer.status_code == 200
    assert len(entries) == 1 + len(broken)
    assert entries.pop(1)["status"] == "safe"
    for entry in entries:
        assert entry["status"] == "unavailable"
        assert entry.keys() == {"status", "reason"}
        assert entry["reason"]


def test_photoprisms_bad_requests_hold_no_result_that_could_be_taken_for_one(
    strict: ServiceProcess, example_photos: list[Path]
) -> None:
    nothing = photoprism(strict, [])
    much = photoprism(strict, [data_url(example_photos[0])] * 5)
    none = strict.post("/v1/vision/nsfw", content=b"{" * 210)
    other = strict.post("/v1/vision/nsfw", json={"images": "data:"})
    for answer, status in ((nothing, 400), (much, 413), (none, 400), (other, 400)):
        assert answer.status_code == status
        assert answer.json()["code"] == status
        assert answer.json()["error"]
        assert answer.json()["result"] == {"nsfw": []}


def test_pictrs_accepts_what_was_looked_at_and_is_safe(
    served: ServiceProcess, example_photos: list[Path], scores: dict[str, float]
) -> None:
    answer = served.post("/v1/validate", content=example_photos[0].read_bytes(), headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 200
    assert answer.json()["score"] == pytest.approx(scores[example_photos[0].name], abs=1e-6)


def test_pictrs_is_refused_what_is_unsafe_and_what_is_unknown_each_in_its_way(
    served: ServiceProcess, strict: ServiceProcess, example_photos: list[Path]
) -> None:
    photo = example_photos[0].read_bytes()
    unsafe = strict.post("/hooks/pictrs", content=photo, headers={"Content-Type": "image/jpeg"})
    assert (unsafe.status_code, unsafe.json()["status"]) == (406, "rejected")
    for running, path, status in ((served, "/v1/validate", 503), (strict, "/hooks/pictrs", 422)):
        for body in (photo[:1000], b"", b"\x00\x00\x00\x18ftypmp42"):
            answer = running.post(path, content=body, headers={"Content-Type": "video/mp4"})
            assert answer.status_code == status
            assert answer.json()["status"] == "unknown"
            assert "score" not in answer.json()


def test_a_contract_that_is_off_is_not_there(strict: ServiceProcess) -> None:
    assert strict.post("/v1/detect-images", content=b"").status_code == 404
    assert strict.post("/v1/validate", content=b"").status_code == 404


def test_a_model_that_cant_say_what_is_safe_never_does(unfit: ServiceProcess, example_photos: list[Path]) -> None:
    photo = example_photos[0]
    (part,) = detect(unfit, ("a", ("a.png", photo.read_bytes(), "image/png"))).json()["result"]["results"]
    assert part["error"]["code"] == "MODEL_UNAVAILABLE"
    assert "detect" in part["error"]["message"]
    prism = photoprism(unfit, [data_url(photo)])
    assert prism.status_code == 503
    assert [entry["status"] for entry in prism.json()["result"]["nsfw"]] == ["unavailable"]
    assert unfit.post("/v1/validate", content=photo.read_bytes()).status_code == 503

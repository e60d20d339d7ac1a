"""The page at / in headless Chromium, against a real service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

import plimsoll
from helpers import detection_networks as spotting
from helpers import sample_ship_report
from helpers.access_keys import write_keys
from helpers.browser import Browser, browser
from helpers.service_process import ServiceProcess, start
from plimsoll.bundle.packing import pack
from plimsoll.core.target import Target
from plimsoll.export.web import chromium
from plimsoll.report.page import render
from plimsoll.serve.access.keys import Terms

needs_chromium = pytest.mark.skipif(chromium.find() is None, reason="Chromium is not installed")

_UNNAMED = """[...document.querySelectorAll("button, input, select, a[href], [tabindex], summary")]
  .filter((one) => one.checkVisibility())
  .filter((element) => !(element.textContent.trim() || element.labels?.length))
  .filter((element) => !(element.getAttribute("aria-label") || element.getAttribute("aria-labelledby")))
  .map((one) => one.outerHTML)"""
_ASKED = """[...new Set(performance.getEntriesByType("resource").map((one) => new URL(one.name).origin))]"""
_VERDICTS = "[...document.querySelectorAll('.card .verdict strong')].map((one) => one.textContent)"


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as driven:
        yield driven


@pytest.fixture
def opened(page: Browser, served: ServiceProcess) -> Browser:
    """The page of open_nsfw, on a phone."""
    page.said.clear()
    page.view(390, 844)
    page.open(served.url + "/")
    return page


def cards(page: Browser, count: int) -> list[str]:
    """Wait until so many pictures have an outcome, and return what is said of them, the latest first."""
    page.until(f"document.querySelectorAll('#answers .timing, #answers .unknown').length === {count}")
    texts: list[str] = page.evaluate("[...document.querySelectorAll('#answers > li')].map((one) => one.innerText)")
    return texts


@needs_chromium
def test_dropped_photos_show_the_score_that_python_gives(
    opened: Browser, served: ServiceProcess, example_photos: list[Path]
) -> None:
    opened.drop(*example_photos[:2])
    first, second = cards(opened, 2)
    assert opened.evaluate(_VERDICTS) == ["safe", "safe"]
    with plimsoll.load("open_nsfw") as model:
        for photo, card in zip(example_photos[:2], (first, second), strict=True):
            score = model.predict(photo).row()["score"]
            assert photo.name in card
            assert f"nsfw {score:.3f}, below 0.50" in card
            assert all(stage in card for stage in ("network", "queue", "decode", "infer", "answer"))
    assert opened.evaluate("document.title") == "open_nsfw · Plimsoll"
    assert example_photos[0].name in opened.evaluate("document.getElementById('spoken').textContent") or example_photos[
        1
    ].name in opened.evaluate("document.getElementById('spoken').textContent")
    assert opened.evaluate(_ASKED) == [served.url]
    assert opened.evaluate(_UNNAMED) == [], "everything that can be reached by keyboard has a name"
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390, "nothing is wider than a phone"
    assert opened.said == [], "neither an exception nor anything that the policy forbids"


@needs_chromium
def test_everything_can_be_done_by_keyboard(opened: Browser, example_photos: list[Path]) -> None:
    opened.press("Tab")
    assert opened.evaluate("document.activeElement.id") == "files", "the first stop takes a photo"
    assert opened.evaluate("getComputedStyle(document.querySelector('label[for=files]')).outlineStyle") == "solid", (
        "and it is seen"
    )
    opened.choose("#files", example_photos[0])
    cards(opened, 1)
    assert opened.evaluate(_VERDICTS) == ["safe"]
    while opened.evaluate("document.activeElement.id") != "threshold":
        opened.press("Tab")
    opened.press(*["ArrowLeft"] * 50)
    assert opened.evaluate("document.getElementById('at').value") == "0.00"
    (card,) = cards(opened, 1)
    assert "at or above 0.00" in card
    assert opened.evaluate(_VERDICTS) == ["nsfw"], "the verdict is the model's label by the threshold that was chosen"
    opened.press("Tab", "Tab")
    assert opened.evaluate("document.activeElement.textContent") == "Show", (
        "what is flagged is blurred, and can be seen"
    )
    blur = "getComputedStyle(document.querySelector('.card .picture')).filter"
    assert "blur" in opened.evaluate(blur)
    opened.press("Enter")
    assert opened.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    opened.until(f"{blur} === 'none'")


@needs_chromium
def test_what_has_no_answer_is_unknown_and_never_safe(opened: Browser, awkward: Path) -> None:
    opened.drop(awkward / "truncated.jpg")
    (card,) = cards(opened, 1)
    assert "Unknown" in card
    assert "truncated" in card
    assert "safe" not in card
    assert "unknown" in opened.evaluate("document.getElementById('spoken').textContent")
    opened.call("Network.enable")
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    opened.call("Network.emulateNetworkConditions", offline=True, **offline)
    try:
        opened.choose("#files", awkward / "photo.webp")
        latest, _ = cards(opened, 2)
        assert "Unknown" in latest
        assert "can’t be reached" in latest
        assert "safe" not in latest
    finally:
        opened.call("Network.emulateNetworkConditions", offline=False, **offline)
    opened.evaluate("document.querySelector('#answers .refused .link').click()")
    opened.until("document.querySelectorAll('#answers .timing').length === 1")


@needs_chromium
def test_the_camera_gives_a_picture_and_live_answers(opened: Browser) -> None:
    opened.evaluate("document.getElementById('camera').click()")
    opened.until("!document.getElementById('viewfinder').hidden")
    assert opened.evaluate("document.activeElement.id") == "shoot"
    opened.press("Enter")
    (card,) = cards(opened, 1)
    assert "camera.jpg" in card
    opened.evaluate("document.getElementById('live').click()")
    opened.until("document.querySelector('#seen .verdict')")
    assert "nsfw" in opened.evaluate("document.getElementById('seen').innerText")
    opened.evaluate("document.getElementById('stop').click()")
    opened.until("document.getElementById('video').srcObject === null")
    assert opened.evaluate("document.getElementById('seen').childElementCount") == 0
    assert opened.said == []


@pytest.fixture(scope="module")
def keyed(
    tmp_path_factory: pytest.TempPathFactory, nsfw_model_path: Path, example_photos: list[Path]
) -> Iterator[tuple[ServiceProcess, str]]:
    """Two models behind keys: a detector in a bundle with a report, and open_nsfw without one."""
    del nsfw_model_path
    folder = tmp_path_factory.mktemp("keyed")
    report = sample_ship_report.report(sample_ship_report.details(example_photos[:3]))
    checks = {
        "checks": [
            {"name": "flips <b>at 0.5", "measured": 0, "bound": 2.5, "limit": 4.0, "unit": "%", "detail": "0 of 125"}
        ]
    }
    report = type(report).model_validate({**report.model_dump(), **checks})
    extras = {"report/report.json": report.to_json().encode(), "report/index.html": render(report).encode()}
    detector = spotting.model(folder, "yolov8", [{"step": "decode"}, {"step": "resize", "width": 160, "height": 160}])
    bundle = pack(detector, Target("onnxruntime"), folder / "spots", extras=extras)
    token = write_keys(folder / "keys.json", visitor=Terms())["visitor"]
    (folder / "serve.toml").write_text(f'[access]\nkeys = "{folder / "keys.json"}"\n')
    with start(
        f"spots={bundle}", "open_nsfw", "--workers", "1", "--grace", "0", "--config", str(folder / "serve.toml")
    ) as running:
        yield running, token


def test_reports_are_shut_in(keyed: tuple[ServiceProcess, str]) -> None:
    running, token = keyed
    with httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {token}"}) as client:
        report = client.get("/v1/models/spots/report")
        policy = report.headers["content-security-policy"]
        assert report.status_code == 200
        assert policy.startswith("sandbox allow-scripts;"), "a bundle's page has an origin of its own"
        assert "connect-src" not in policy
        assert "default-src 'none'" in policy
        proof = client.get("/v1/models/spots/proof").json()
        assert proof["passed"] is True
        assert proof["page"] is True
        assert (proof["checks"][0]["measured"], proof["checks"][0]["bound"]) == (0, 2.5)
        row = proof["rows"][0]
        assert [row[column].replace("\u00a0", " ") for column in ("measured", "bound", "limit")] == [
            "0 %",
            "2.5 %",
            "≤ 4 %",
        ]
        assert "details" not in proof
        assert client.get("/v1/models/open_nsfw/proof").status_code == 404
        assert client.get("/v1/models/nobody/report").status_code == 404
    assert httpx.get(running.url + "/v1/models/spots/report").status_code == 401


def test_a_report_is_not_shown_to_everybody(tmp_path: Path, example_photos: list[Path]) -> None:
    report = sample_ship_report.report(sample_ship_report.details(example_photos[:3]))
    checks = {"checks": [{"name": "answered", "measured": 1, "limit": 0, "detail": "/home/alice/holiday.jpg"}]}
    report = type(report).model_validate({**report.model_dump(), **checks})
    extras = {"report/report.json": report.to_json().encode(), "report/index.html": render(report).encode()}
    detector = spotting.model(tmp_path, "yolov8", [{"step": "decode"}, {"step": "resize", "width": 160, "height": 160}])
    bundle = pack(detector, Target("onnxruntime"), tmp_path / "spots", extras=extras)
    with start(f"spots={bundle}", "--workers", "1", "--grace", "0") as running:
        here = httpx.get(running.url + "/v1/models/spots/proof").json()
        assert here["page"] is True
        assert here["checks"][0]["detail"] == "/home/alice/holiday.jpg"
        assert httpx.get(running.url + "/v1/models/spots/report").status_code == 200
        elsewhere = {"X-Forwarded-For": "203.0.113.9"}
        assert httpx.get(running.url + "/v1/models/spots/report", headers=elsewhere).status_code == 403
        proof = httpx.get(running.url + "/v1/models/spots/proof", headers=elsewhere)
        assert proof.json()["page"] is False
        assert "alice" not in proof.text


@pytest.mark.parametrize(
    "path",
    [
        "/page/../page.py",
        "/page/%2e%2e/page.py",
        "/page/%2e%2e%2fpage.py",
        "/page/",
        "/page/no.js",
        "/page/index.html/x",
    ],
)
def test_only_the_pages_own_files_are_handed_out(served: ServiceProcess, path: str) -> None:
    with closing(HTTPConnection(served.url.removeprefix("http://"))) as connection:  # sends a path as it is
        connection.request("GET", path)
        assert connection.getresponse().status == 404


def test_the_page_has_a_strict_policy_and_is_not_sent_twice(served: ServiceProcess) -> None:
    first = served.get("/")
    policy = first.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "<script>" not in first.text
    assert " style=" not in first.text
    assert served.get("/", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    assert served.get("/page/serve.js").headers["content-type"].startswith("text/javascript")


@needs_chromium
def test_a_key_opens_the_page_and_boxes_are_drawn_where_they_are(
    page: Browser, keyed: tuple[ServiceProcess, str], example_photos: list[Path], tmp_path: Path
) -> None:
    running, token = keyed
    image = spotting.picture(example_photos[0], (640, 480), (100, 150, 300, 260))
    for turn in (1, 6):
        (tmp_path / f"turned{turn}.jpg").write_bytes(spotting.encoded(image, "JPEG", turn))
    page.view(1280, 900)
    page.open(running.url + "/")
    assert page.evaluate("document.activeElement.id") == "key"
    assert page.evaluate("document.getElementById('bench').hidden")
    page.call("Input.insertText", text="plm_wrong")
    page.press("Enter")
    page.until("document.getElementById('state').textContent.includes('not known')")
    page.evaluate("document.getElementById('key').value = ''")
    page.call("Input.insertText", text=token)
    page.press("Enter")
    page.until("!document.getElementById('bench').hidden")
    assert page.evaluate("document.getElementById('model').length") == 2
    page.until("document.querySelector('#checks tbody').innerText.includes('flips <b>at 0.5')")
    cells = page.evaluate("[...document.querySelectorAll('#checks tbody td')].map((cell) => cell.innerText)")
    assert [text.replace("\u00a0", " ") for text in cells] == ["0 %", "2.5 %", "≤ 4 %", "✓ passed"]
    page.said.clear()
    page.drop(tmp_path / "turned1.jpg", tmp_path / "turned6.jpg")
    cards(page, 2)
    straight, turned = (_box(page, index) for index in (0, 1))
    assert straight == pytest.approx([100 / 640, 150 / 480, 300 / 640, 260 / 480], abs=0.02)
    assert turned == pytest.approx([1 - 260 / 480, 100 / 640, 1 - 150 / 480, 300 / 640], abs=0.02), (
        "the browser turns the photo, and the box with it"
    )
    assert page.said == []


def _box(page: Browser, index: int) -> list[float]:
    """Return where a box is drawn, as shares of its picture."""
    rectangles: dict[str, Any] = page.evaluate(f"""(() => {{
          const card = document.querySelectorAll("#answers > li")[{index}];
          const [box, image] = [card.querySelector("rect.box"), card.querySelector("img")]
            .map((element) => element.getBoundingClientRect().toJSON());
          return {{ box, image }};
        }})()""")
    box, image = rectangles["box"], rectangles["image"]
    across = [(box[side] - image["left"]) / image["width"] for side in ("left", "right")]
    down = [(box[side] - image["top"]) / image["height"] for side in ("top", "bottom")]
    return [across[0], down[0], across[1], down[1]]

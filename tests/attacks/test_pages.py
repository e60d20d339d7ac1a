"""Names that somebody else chose, shown in real pages in headless Chromium: they are text, whatever they say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import sample_ship_report
from helpers.browser import Browser, browser
from helpers.service_process import start
from helpers.small_models import SPEC, small_model
from plimsoll.export.web import chromium
from plimsoll.report.page import render

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="Chromium is not installed")

HOSTILE = (
    "<script>window.reached = 1</script>",
    "</script><script>window.reached = 2</script>",
    '"><img src=x onerror="window.reached = 3">',
    "' onmouseover='window.reached = 4' x='",
    "</style><svg onload=window.reached=5>",
    "javascript:window.reached=6",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe",
)
_TOUCH_EVERYTHING = """[...document.querySelectorAll("*")].forEach((element) => {
  for (const kind of ["mouseover", "mouseenter", "mousemove", "focus", "pointerenter"]) {
    element.dispatchEvent(new Event(kind, { bubbles: true }));
  }
  if (element.matches("button[type=button], summary, [role=button], th, a[href^=javascript]")) element.click();
})"""
_ADDED = """[...document.querySelectorAll("*")].filter((element) =>
  [...element.attributes].some((attribute) => attribute.name.startsWith("on"))
  || element.matches("img[src='x'], a[href^='javascript:']")).map((element) => element.outerHTML)"""


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser() as driven:
        driven.view(1280, 900)
        yield driven


def is_only_text(page: Browser) -> None:
    """Touch every element, and require that nothing ran, nothing was added, and nothing had to be forbidden."""
    page.evaluate(_TOUCH_EVERYTHING)
    assert page.evaluate("window.reached") is None
    assert page.evaluate(_ADDED) == []
    # Clicks on everything may well send a form without a picture, which the service refuses.
    assert [said for said in page.said if said.get("entry", {}).get("source") not in ("network", "rendering")] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_report_shows_names_as_text(page: Browser, example_photos: list[Path], tmp_path: Path, name: str) -> None:
    details = sample_ship_report.details(example_photos)
    for layer in details["layers"]:
        layer["name"], layer["operator"] = name + layer["name"], name
    for score in (*details["scores"], *details["worst"]):
        score["path"] = f"photos/{name}/{name}.jpg"
    for trial in details["trials"]:
        if trial["status"] == "failed":
            trial["reason"]["message"] = name
    details["score_label"] = name
    details["notes"] = [name]
    details["commands"] = [f"plimsoll ship {name}"]
    report = sample_ship_report.report(details)
    report = report.model_copy(update={"subject": name, "environment": report.environment | {"processor": name}})
    file = tmp_path / "index.html"
    file.write_text(render(report), encoding="utf-8")
    page.said.clear()
    page.call("Page.navigate", url=file.as_uri())
    page.until("document.readyState === 'complete' && document.querySelector('svg')")
    shown = page.evaluate("document.documentElement.textContent")
    assert name.replace("\u202e", "") in shown or name in shown
    is_only_text(page)


def test_a_service_s_page_shows_names_as_text(page: Browser, example_photos: list[Path], tmp_path: Path) -> None:
    labels = [name for name in HOSTILE if "\u202e" not in name][:4]
    spec = SPEC.replace('labels = ["a", "b", "c", "d"]', f"labels = {labels!r}")
    (tmp_path / "spec.toml").write_text(spec, encoding="utf-8")
    model = small_model(tmp_path / "model")
    picture = Path(shutil.copy(example_photos[0], tmp_path / "' onerror='window.reached = 8' <b>.jpg"))
    with start(str(model.path), "--spec", str(tmp_path / "spec.toml"), "--grace", "0") as running:
        page.said.clear()
        page.open(running.url + "/")
        page.drop(picture)
        page.until("document.querySelectorAll('#answers .timing, #answers .unknown').length === 1")
        shown = page.evaluate("document.body.innerText")
        assert picture.name in shown
        assert any(label in shown for label in labels)
        is_only_text(page)

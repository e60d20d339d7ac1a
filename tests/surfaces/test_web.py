"""A web package in headless Chromium answers as Python does, keeps to its folder, and its page can be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import plimsoll
from helpers import answer_networks as coloured
from helpers import detection_networks as spotting
from helpers.camera import SIDE, SPEED, TOP, camera_clip
from plimsoll import backends
from plimsoll.core.target import Target
from plimsoll.errors import RunError
from plimsoll.export import web
from plimsoll.export.web import chromium
from plimsoll.inference.predictor import Predictor, ResolvedModel, open_model
from plimsoll.spec import files as spec_files
from surfaces.conftest import RunHere

pytestmark = [
    pytest.mark.skipif(chromium.find() is None, reason="Chromium is not installed"),
    pytest.mark.skipif(
        any(offer.missing for offer in backends.get("web").targets()), reason="Node.js or npm is not installed"
    ),
]

_PAGE = """
export default async function run() {
  const frame = Object.assign(document.createElement("iframe"), { src: "/index.html", width: 400, height: 900 });
  document.body.append(frame);
  await new Promise((resolve) => frame.addEventListener("load", resolve));
  const [page, view] = [frame.contentDocument, frame.contentWindow];
  const until = async (ready) => { while (!ready()) await new Promise((resolve) => setTimeout(resolve, 30)); };
  const failed = () => page.getElementById("state").textContent.startsWith("It can't");
  await until(() => page.documentElement.dataset.checked || failed());
  const files = new view.DataTransfer();
  for (const [address, name] of PICTURES) files.items.add(new view.File([await (await fetch(address)).blob()], name));
  if (HOW === "drop") view.dispatchEvent(new view.DragEvent("drop", { dataTransfer: files }));
  if (HOW === "paste") view.dispatchEvent(new view.ClipboardEvent("paste", { clipboardData: files }));
  if (HOW === "choose") {
    const input = page.getElementById("files");
    input.files = files.files;
    input.dispatchEvent(new view.Event("change"));
  }
  const cards = () => [...page.querySelectorAll("#answers > li")];
  if (HOW === "camera") {
    page.getElementById("camera").click();
    await until(() => !page.getElementById("viewfinder").hidden);
    page.getElementById("shoot").click();
    page.getElementById("stop").click();
  }
  const pictures = HOW === "camera" ? 1 : PICTURES.length;
  await until(() => cards().length === pictures && cards().every((card) => card.querySelector(".time, .no")));
  const interactive = [...page.querySelectorAll("button, input, a[href], [tabindex]")];
  const focusable = interactive.filter((element) => !element.hidden && element.checkVisibility());
  const label = (element) => element.getAttribute("aria-label") || element.getAttribute("aria-labelledby");
  const named = (element) => element.textContent.trim() || element.labels?.length || label(element);
  const unnamed = focusable.filter((element) => !named(element));
  const origins = view.performance.getEntriesByType("resource").map((entry) => new URL(entry.name).origin);
  const text = (id) => page.getElementById(id).textContent;
  return {
    title: page.title, state: text("state"), checked: page.documentElement.dataset.checked, spoken: text("spoken"),
    cards: cards().map((card) => card.innerText), unnamed: unnamed.map((element) => element.outerHTML),
    wide: page.documentElement.scrollWidth, origins: [...new Set(origins)], own: location.origin,
  };
}
"""


def use(package: Path, how: str, pictures: list[Path], flags: tuple[str, ...] = ()) -> dict[str, Any]:
    """Open the package's page and give it pictures; returns what it shows."""
    files = {f"_pictures/{index}": picture for index, picture in enumerate(pictures)}
    named = json.dumps([[f"/{address}", picture.name] for address, picture in zip(files, pictures, strict=True)])
    answers: dict[str, Any] = chromium.run(
        _PAGE.replace("PICTURES", named).replace("HOW", json.dumps(how)), package, files, flags=flags
    )
    return answers


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, nsfw_model_path: Path) -> Path:
    """open_nsfw as a web package."""
    del nsfw_model_path
    with open_model("open_nsfw") as opened:
        return web.package(
            opened.model, Target("web", "wasm"), tmp_path_factory.mktemp("web") / "open_nsfw", origin=opened.origin
        )


def test_it_answers_as_python_does(package: Path, example_photos: list[Path], awkward: Path) -> None:
    photos = [
        *example_photos[::12],
        *(
            awkward / name
            for name in ("alpha.png", "animated.gif", "cmyk.jpg", "photo.webp", "lossless_alpha.webp", "photo.bmp")
        ),
    ]
    refused = [awkward / "truncated.jpg", awkward / "not_an_image.jpg", awkward / "photo.tiff", awkward / "empty.jpg"]
    answers = web.browse(package, [*photos, *refused])
    with plimsoll.load("open_nsfw") as model:
        for photo, row in zip(photos, answers.rows, strict=False):
            expected = model.predict(photo).row()
            assert row is not None, answers.errors
            assert row["label"] == expected["label"]
            assert row["scores"] == pytest.approx(expected["scores"], abs=2e-6), photo.name
    assert [error for error in answers.errors if error] == list(answers.errors)[len(photos) :]
    assert all(check.passed for check in answers.checks)
    assert len(answers.checks) == 10


def test_the_page_takes_pictures_shows_answers_and_asks_nobody_else(
    package: Path, example_photos: list[Path], awkward: Path
) -> None:
    shown = use(package, "drop", [example_photos[0], awkward / "truncated.jpg"])
    assert shown["title"] == "open_nsfw · Plimsoll"
    assert shown["checked"] == "2/2"
    refused, answered = shown["cards"]
    assert "astronaut.jpg" in answered
    assert "safe" in answered
    assert "0.972" in answered
    assert "truncated" in refused
    assert "truncated" in shown["spoken"], "the last answer is told to those who listen"
    assert shown["origins"] == [shown["own"]]
    assert not shown["unnamed"], "everything that can be reached by keyboard has a name"
    assert shown["wide"] <= 400, "nothing is wider than a phone"


@pytest.mark.parametrize("how", ["paste", "choose"])
def test_pictures_come_by_other_ways_too(package: Path, example_photos: list[Path], how: str) -> None:
    (card,) = use(package, how, [example_photos[0]])["cards"]
    assert "0.972" in card


def test_a_picture_from_the_camera(package: Path) -> None:
    (card,) = use(package, "camera", [], ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"))[
        "cards"
    ]
    assert "camera" in card
    assert "nsfw" in card


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of white rectangles as a web package."""
    folder = tmp_path_factory.mktemp("detector")
    model = spotting.model(folder, "yolov8", [{"step": "decode"}, LETTERBOX])
    return web.package(model, Target("web", "wasm"), folder / "page")


LETTERBOX = {"step": "resize", "fit": "letterbox", "width": 320, "height": 320, "filter": "bilinear"}


@pytest.mark.parametrize("form", ["yolov8", "ssd", "landmarks", "segment"])
def test_tasks_with_positions_are_answered_as_in_python(form: str, tmp_path: Path, example_photos: list[Path]) -> None:
    model = spotting.model(tmp_path, form, [{"step": "decode", "exif_orientation": True}, LETTERBOX])
    package = web.package(model, Target("web", "wasm"), tmp_path / "page")
    pictures = []
    for turn in (1, 6):
        picture = tmp_path / f"{turn}.png"
        picture.write_bytes(
            spotting.encoded(spotting.picture(example_photos[0], (240, 180), (60, 40, 150, 110)), orientation=turn)
        )
        pictures.append(picture)
    answers = web.browse(package, pictures)
    assert all(check.passed for check in answers.checks), answers.checks
    with Predictor(ResolvedModel(model)) as predictor:
        for picture, row in zip(pictures, answers.rows, strict=True):
            assert row == predictor.predict(picture).row(), answers.errors


def test_boxes_are_drawn_and_move_with_the_camera(detector: Path, tmp_path: Path) -> None:
    clip = camera_clip(tmp_path / "camera.y4m")
    program = """
export default async function run() {
  const frame = Object.assign(document.createElement("iframe"), { src: "/index.html", width: 400, height: 900 });
  document.body.append(frame);
  await new Promise((resolve) => frame.addEventListener("load", resolve));
  const page = frame.contentDocument;
  const until = async (ready) => { while (!ready()) await new Promise((resolve) => setTimeout(resolve, 10)); };
  await until(() => page.documentElement.dataset.checked);
  page.getElementById("camera").click();
  await until(() => !page.getElementById("viewfinder").hidden);
  page.getElementById("live").click();
  const seen = [];
  const box = () => page.querySelector("#viewfinder .overlay rect.box");
  while (seen.length < 8) {
    await until(() => box() && Number(box().getAttribute("x")) !== seen.at(-1)?.x);
    const drawn = box();
    const value = (name) => Number(drawn.getAttribute(name));
    seen.push({ x: value("x"), y: value("y"), width: value("width"), height: value("height") });
  }
  const said = page.getElementById("seen").innerText;
  page.getElementById("stop").click();
  return { seen, said, checked: page.documentElement.dataset.checked, left: page.querySelectorAll(".overlay").length };
}
"""
    flags = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"
    shown = chromium.run(program, detector, flags=(*flags, f"--use-file-for-fake-video-capture={clip}"))
    assert shown["checked"] == "2/2"
    assert "1 box" in shown["said"]
    for box in shown["seen"]:
        assert [box["y"], box["width"], box["height"]] == pytest.approx([TOP, SIDE, SIDE], abs=6)
    lefts = [box["x"] for box in shown["seen"]]
    assert max(lefts) - min(lefts) > 3 * SPEED
    assert shown["left"] == 0


CASCADE = """
name = "marks"
[[stages]]
model = "detect.onnx"
spec = "detect.toml"
sampling = "SAMPLING"
[[stages]]
model = "landmarks.onnx"
spec = "landmarks.toml"
presence = 0.0
[stages.crop]
scale = 1.6
shift = [0.0, 0.1]
[[stages]]
model = "landmarks.onnx"
spec = "landmarks.toml"
presence = 0.0
points = [3, 0, 1, 2]
[stages.crop]
scale = 1.4
upright = [0, 1]
angle = 30.0
"""


@pytest.mark.parametrize("sampling", ["spec", "corners"])
def test_a_cascade_is_answered_as_in_python(run_here: RunHere, sampling: str, tmp_path: Path) -> None:
    for task in ("detect", "landmarks"):
        spec = coloured.spec_of(task)
        coloured.saved(coloured.network(task), tmp_path / f"{task}.onnx", spec)
        (tmp_path / f"{task}.toml").write_text(spec_files.dumps(spec))
    file = tmp_path / "marks.toml"
    file.write_text(CASCADE.replace("SAMPLING", sampling))
    pictures = coloured.draw(tmp_path / "drawn", 3)
    for turn in (3, 6):
        pictures.append(tmp_path / f"{turn}.png")
        pictures[-1].write_bytes(spotting.encoded(Image.open(pictures[0]), orientation=turn))
    given, page = file, tmp_path / "page"
    if sampling == "spec":  # a bundle brings its golden pictures along
        given = tmp_path / "marks"
        assert run_here("pack", file, "--out", given, "--images", tmp_path / "drawn").returncode == 0
    page.mkdir()
    for name in ("model.json", "spec.json", "plimsoll.js"):
        (page / name).touch()  # an older package
    done = run_here("convert", given, "--target", "web:wasm:float32", "--out", page, "--force")
    assert done.returncode == 0, done.stderr
    answers = web.browse(page, pictures)
    assert all(check.passed for check in answers.checks), answers.checks
    assert sum("whole cascade, 2 boxes" in check.name for check in answers.checks) == (3 if sampling == "spec" else 0)
    with plimsoll.load(file) as cascade:
        for picture, row in zip(pictures, answers.rows, strict=True):
            expected = cascade.predict(picture).row()
            assert row is not None
            assert len(row["boxes"]) == len(expected["boxes"]) == 2
            for box, same in zip(row["boxes"], expected["boxes"], strict=True):
                assert box["label"] == same["label"]
                assert box["score"] == pytest.approx(same["score"], abs=1e-5)
                assert box["box"] == pytest.approx(same["box"], abs=0.05)
                np.testing.assert_allclose(box["points"], same["points"], atol=0.05)
    if sampling == "spec":
        again = run_here("convert", file, "--target", "web:wasm:float32", "--out", page)
        assert again.returncode == 2
        assert b"--force" in again.stderr
        shown = use(page, "drop", [pictures[0]])
        assert shown["checked"].split("/")[0] == shown["checked"].split("/")[1]
        assert "2 boxes" in shown["cards"][0]
        refused = run_here("convert", file, "--target", "web:wasm:int8", "--out", tmp_path / "int8")
        assert refused.returncode == 2
        assert b"web:wasm:float32" in refused.stderr


def test_a_damaged_package_is_reported_and_not_silently_wrong(package: Path, tmp_path: Path) -> None:
    import shutil

    broken = Path(shutil.copytree(package, tmp_path / "broken"))
    steps = broken / "steps" / "arithmetic.js"
    text = steps.read_text()
    assert "value - by" in text
    steps.write_text(text.replace("value - by", "value + by"))
    assert not all(check.passed for check in web.browse(broken).checks)
    assert use(broken, "drop", [])["checked"] == "0/2"
    (broken / "model.onnx").unlink()
    with pytest.raises(RunError, match=r"model\.onnx can't be loaded: the server says 404"):
        web.browse(broken)
    assert "model.onnx" in use(broken, "drop", [])["state"]

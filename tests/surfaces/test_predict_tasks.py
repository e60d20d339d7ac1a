"""`plimsoll predict` for boxes, points and masks, in every format; bundles of such networks; and the commands that
don't take them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.detection_networks import ANCHOR, Rectangle, encoded, model, picture
from plimsoll.spec.files import dumps
from surfaces.conftest import Run

RECTANGLE: Rectangle = (200, 104, 280, 224)
STEPS: list[dict[str, Any]] = [{"step": "decode"}, {"step": "resize", "fit": "letterbox", "width": 256, "height": 256}]
BOXES = [{"label": "white", "score": 1.0, "box": [200.0, 104.0, 280.0, 224.0]}]


@pytest.fixture
def drawn(tmp_path: Path, example_photos: list[Path]) -> list[Path]:
    """A picture with a rectangle, and a file that is no picture."""
    good, bad = tmp_path / "drawn.png", tmp_path / "broken.png"
    good.write_bytes(encoded(picture(example_photos[0], (512, 352), RECTANGLE)))
    bad.write_bytes(b"no picture")
    return [good, bad]


def written(folder: Path, form: str) -> list[Path | str]:
    """Write a network and its Spec; return what the command line takes for it."""
    drawn_model = model(folder, form, STEPS)
    spec = folder / f"{form}.toml"
    spec.write_text(dumps(drawn_model.require_spec()))
    return [drawn_model.path, "--spec", spec]


ANSWERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "yolov8": ({"boxes": BOXES}, {"boxes": None}),
    "landmarks": ({"points": [[200.0, 104.0], [280.0, 224.0]], "presence": 1.0}, {"points": None, "presence": None}),
}


@pytest.mark.parametrize("form", ANSWERS)
def test_rows(plimsoll: Run, tmp_path: Path, drawn: list[Path], form: str) -> None:
    """A picture that could not be read has no answer: null, which is not the same as no boxes."""
    done = plimsoll("predict", *written(tmp_path, form), *drawn, "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    good, bad = map(json.loads, done.stdout.splitlines())
    expected, empty = ANSWERS[form]
    assert good == {"path": str(drawn[0]), **expected, "error": None}
    assert bad == {"path": str(drawn[1]), **empty, "error": bad["error"]}
    assert bad["error"]

    done = plimsoll("predict", *written(tmp_path, form), *drawn, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["path", *expected, "error"]
    assert {key: json.loads(rows[0][key]) for key in expected} == expected
    assert all(rows[1][key] == "" for key in expected)


def test_masks(plimsoll: Run, tmp_path: Path, drawn: list[Path]) -> None:
    done = plimsoll("predict", *written(tmp_path, "segment"), *drawn, "--format", "jsonl")
    good, bad = map(json.loads, done.stdout.splitlines())
    assert bad["mask"] is None
    mask = good["mask"]
    assert mask["size"] == [352, 512]
    assert [label["label"] for label in mask["labels"]] == ["dark", "white"]
    assert mask["labels"][1]["share"] == pytest.approx(80 * 120 / (512 * 352), abs=1e-4)
    counts = np.array(mask["rle"]["white"])
    assert counts[1::2].sum() == pytest.approx(80 * 120, abs=4)
    assert counts[0] == pytest.approx(200 * 352 + 104, abs=1)


def test_parquet(plimsoll: Run, tmp_path: Path, drawn: list[Path]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for form, key in (("yolov8", "boxes"), ("landmarks", "points"), ("segment", "mask")):
        out = tmp_path / f"{form}.parquet"
        done = plimsoll("predict", *written(tmp_path, form), *drawn, "--out", out)
        assert done.returncode == 0, done.stderr
        good, bad = parquet.read_table(out).to_pylist()
        assert bad[key] is None
        if form == "segment":
            assert good["mask"]["size"] == [352, 512]
            assert dict(good["mask"]["rle"])["white"][1] == pytest.approx(120, abs=2)
        else:
            assert good[key] == ANSWERS[form][0][key]


def test_the_table_says_it_in_words(plimsoll: Run, tmp_path: Path, drawn: list[Path]) -> None:
    for form, message, summed in (
        ("yolov8", "1 box: white 1.00", "1 white"),
        ("landmarks", "2 points, presence 1.0000", "1 with points"),
        ("segment", "dark 94.7 %, white 5.3 %", "1 dark"),
    ):
        done = plimsoll("predict", *written(tmp_path, form), *drawn, "--format", "table")
        lines = done.stdout.splitlines()
        assert message in lines[1]
        assert "✗" in lines[2]
        assert summed in lines[-1]
        assert "1 failed" in lines[-1]


def test_thresholds_and_top(plimsoll: Run, tmp_path: Path, drawn: list[Path]) -> None:
    taken = written(tmp_path, "yolov8")
    assert (
        len(json.loads(plimsoll("predict", *taken, drawn[0], "--threshold", "1.0", "--top", "1").stdout)["boxes"]) == 1
    )
    dark = tmp_path / "dark.png"
    dark.write_bytes(encoded(picture(drawn[0], (512, 352), (0, 0, 1, 1))))
    assert json.loads(plimsoll("predict", *taken, dark).stdout)["boxes"] == []


def test_a_bundle_carries_its_anchors(plimsoll: Run, tmp_path: Path, drawn: list[Path]) -> None:
    """The Spec names a file beside it; the bundle needs none."""
    drawn_model = model(tmp_path, "ssd", STEPS)
    folder = tmp_path / "mine"
    folder.mkdir()
    np.save(folder / "anchors.npy", np.array([ANCHOR], np.float32))
    text = dumps(drawn_model.require_spec())
    start, end = text.index("anchors = ["), text.index("]\n]") + 3 if "]\n]" in text else text.rindex("]") + 1
    (folder / "spec.toml").write_text(text[:start] + 'anchors_file = "anchors.npy"\n' + text[end:])
    bundle = tmp_path / "ssd.plimsoll.zip"
    done = plimsoll("pack", drawn_model.path, "--spec", folder / "spec.toml", "--out", bundle, "--images", drawn[0])
    assert done.returncode == 0, done.stderr
    assert plimsoll("verify", bundle).returncode == 0
    boxes = json.loads(plimsoll("predict", bundle, drawn[0]).stdout)["boxes"]
    assert boxes[0]["box"] == pytest.approx(RECTANGLE, abs=0.01)
    assert "anchors_file" not in plimsoll("spec", "show", bundle).stdout


@pytest.mark.parametrize("form", ["yolov8", "landmarks", "segment"])
def test_what_ship_and_prove_do_with_them(plimsoll: Run, tmp_path: Path, example_photos: list[Path], form: str) -> None:
    """`prove` compares boxes, points and masks, and says, as `ship` does, that they have no flips."""
    network, *spec = written(tmp_path, form)
    photos = ["--images", example_photos[0].parent]
    done = plimsoll("ship", network, *spec, *photos, "--out", tmp_path / "x.plimsoll", "--budget", "flips=4%")
    assert done.returncode == 2
    assert "flips" in done.stderr
    compared = ["prove", network, network, "--spec-a", spec[1], "--images", example_photos[0]]
    done = plimsoll(*compared, "--budget", "flips=4%")
    assert done.returncode == 2
    assert "the budget limits flips, which the answers of the task" in done.stderr

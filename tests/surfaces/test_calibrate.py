"""`plimsoll calibrate` and `plimsoll spec export`, as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plimsoll.quantize import Calibration
from surfaces.conftest import Run


@pytest.fixture
def few(tmp_path: Path, example_photos: list[Path]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in example_photos[:4]:
        (folder / photo.name).symlink_to(photo)
    return folder


def test_a_table_for_tensorrt_and_back(plimsoll: Run, tmp_path: Path, few: Path) -> None:
    cache, table = tmp_path / "cache", tmp_path / "table.json"
    done = plimsoll(
        "calibrate", "open_nsfw", "--images", few, "--method", "minmax", "--for", "tensorrt", "--out", cache
    )
    assert done.returncode == 0, done.stderr
    assert "72 tensors from 4 pictures" in done.stdout
    assert cache.read_text().startswith("TRT-")
    done = plimsoll("calibrate", "open_nsfw", "--from", cache, "--out", table)
    assert done.returncode == 0, done.stderr
    read = Calibration.read(table)
    assert read.ranges["input:0"][1] == pytest.approx(151, abs=1)


def test_a_damaged_picture_and_a_missing_one_are_left_out(plimsoll: Run, tmp_path: Path, few: Path) -> None:
    damaged = few / "damaged.jpg"
    damaged.write_bytes(next(few.iterdir()).read_bytes()[:3000])
    out = tmp_path / "table"
    done = plimsoll("calibrate", "open_nsfw", "--images", few, "--images", tmp_path / "gone.jpg", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "72 tensors from 4 pictures" in done.stdout
    for name in ("damaged.jpg", "gone.jpg"):
        assert f"{name}: " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --images"),
        (["--images", "x", "--from", "y"], "either --images"),
        (["--images", "x", "--for", "excel"], "excel"),
        (["--from", "absent"], "absent"),
        (["--images", "*.none"], "*.none"),
        (["--images", "absent.jpg"], "absent.jpg"),
        (["--images", __file__], Path(__file__).name),
    ],
    ids=["neither", "both", "format", "missing", "no pictures", "missing picture", "no picture"],
)
def test_mistakes_are_reported(plimsoll_here: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = plimsoll_here("calibrate", "open_nsfw", "--out", tmp_path / "table", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "table").exists()


def test_a_spec_for_mnn(plimsoll_here: Run, tmp_path: Path) -> None:
    done = plimsoll_here("spec", "export", "open_nsfw", "--for", "mnn", "--images", "my photos/")
    assert done.returncode == 0
    assert json.loads(done.stdout)["path"] == "my photos/"
    assert "JPEG" in done.stderr
    quiet = plimsoll_here("--quiet", "spec", "export", "open_nsfw", "--for", "mnn", "--out", tmp_path / "mnn.json")
    assert quiet.returncode == 0
    assert json.loads((tmp_path / "mnn.json").read_text())["width"] == 224


def test_an_unknown_tool_is_named(plimsoll_here: Run) -> None:
    done = plimsoll_here("spec", "export", "open_nsfw", "--for", "caffe")
    assert done.returncode == 2
    assert "mnn" in done.stderr

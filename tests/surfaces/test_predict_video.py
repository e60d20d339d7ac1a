"""`plimsoll predict` on clips: rows with times, beside pictures, in every format; and what can't be read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.answer_networks import network as landmark_network
from helpers.answer_networks import saved, spec_of
from helpers.clips import require_av, write
from helpers.detection_networks import model
from plimsoll.inference.video.clip import Clip
from plimsoll.spec.files import dumps
from plimsoll.spec.spec import Landmarks
from surfaces.conftest import Run

require_av()
STEPS: list[dict[str, Any]] = [{"step": "decode"}, {"step": "resize", "fit": "letterbox", "width": 256, "height": 256}]
RATE, COUNT, SPEED = 25, 40, 4


def frame(index: int) -> Any:
    """Return a dark frame with a white rectangle, which moves to the right."""
    pixels = np.full((256, 512, 3), 40, np.uint8)
    left = 40 + SPEED * index
    pixels[96:160, left : left + 80] = 255
    return pixels


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clip") / "moving.mp4", map(frame, range(COUNT)), rate=RATE)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return what the command line takes for a network that finds the rectangle."""
    folder = tmp_path_factory.mktemp("network")
    drawn = model(folder, "yolov8", STEPS)
    (folder / "spec.toml").write_text(dumps(drawn.require_spec()))
    return [str(drawn.path), "--spec", str(folder / "spec.toml")]


def test_a_row_a_frame(plimsoll: Run, network: list[str], clip: Path, example_photos: list[Path]) -> None:
    """The boxes move with the picture; a picture beside the clip has no time."""
    done = plimsoll("predict", *network, clip, example_photos[0], "--sample", "every=10", "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    *rows, photo = map(json.loads, done.stdout.splitlines())
    assert [(row["path"], row["frame"]) for row in rows] == [(str(clip), number) for number in (0, 10, 20, 30)]
    assert [row["time"] for row in rows] == [0.0, 0.4, 0.8, 1.2]
    for row in rows:
        left = 40 + SPEED * row["frame"]
        assert row["boxes"][0]["box"] == pytest.approx([left, 96, left + 80, 160], abs=3)
    assert (photo["path"], photo["frame"], photo["time"]) == (str(example_photos[0]), None, None)


def test_csv_and_parquet(plimsoll: Run, network: list[str], clip: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    done = plimsoll("predict", *network, clip, "--sample", "seconds=0.5", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["frame"], float(row["time"])) for row in rows] == [("0", 0.0), ("13", 0.52), ("25", 1.0), ("38", 1.52)]
    out = tmp_path / "rows.parquet"
    assert plimsoll("predict", *network, clip, "--sample", "seconds=0.5", "--out", out).returncode == 0
    table = parquet.read_table(out).to_pydict()
    assert (table["frame"], table["time"]) == ([0, 13, 25, 38], [0.0, 0.52, 1.0, 1.52])
    boxes = [
        {**box, "track": None} for box in json.loads(rows[1]["boxes"])
    ]  # A column, whether tracks are asked or not.
    assert boxes == table["boxes"][1]


def test_a_clip_that_cannot_be_read_is_a_row(plimsoll: Run, network: list[str], clip: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip" * 50)
    missing = tmp_path / "missing.mp4"
    done = plimsoll("predict", *network, broken, missing, clip, "--max-frames", "3", "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    rows = [*map(json.loads, done.stdout.splitlines())]
    assert [row["frame"] for row in rows] == [None, None, 0, 1, 2]
    assert "no clip that can be read" in rows[0]["error"]
    assert rows[1]["error"] == "no such file"
    assert rows[0]["boxes"] is None
    assert plimsoll("predict", *network, broken).returncode == 1, "nothing could be read"


def test_a_list_opens_no_address(plimsoll: Run, network: list[str], clip: Path) -> None:
    listed = f"http://127.0.0.1:9/photo.jpg\n{clip}\n"
    done = plimsoll("predict", *network, "-", "--max-frames", "1", "--format", "jsonl", stdin=listed)
    assert done.returncode == 0, done.stderr
    address, frame_row = map(json.loads, done.stdout.splitlines())
    assert "not opened from a list" in address["error"]
    assert frame_row["frame"] == 0


def test_options_that_exclude_each_other(plimsoll: Run, network: list[str], clip: Path, tmp_path: Path) -> None:
    done = plimsoll("predict", *network, clip, "--sample", "often")
    assert done.returncode == 2
    assert "unknown sampling 'often'" in done.stderr
    out = tmp_path / "rows.jsonl"
    assert plimsoll("predict", *network, clip, "--out", out).returncode == 0
    done = plimsoll("predict", *network, clip, "--out", out, "--append")
    assert done.returncode == 2
    assert "--append doesn't go with clips" in done.stderr


def test_a_folder_s_clips_are_left_out_and_named_ones_are_not(
    plimsoll: Run, network: list[str], clip: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(clip.read_bytes())
    done = plimsoll("predict", *network, folder)
    assert done.returncode == 2
    assert "1 video" in done.stderr
    done = plimsoll("predict", *network, f"{folder}/*.mp4", "--sample", "keyframes", "--format", "jsonl")
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == [0]


def test_a_clip_s_score(plimsoll: Run, network: list[str], clip: Path, tmp_path: Path) -> None:
    done = plimsoll("predict", *network, clip, "--clip-score", "share=50%", "--early-exit", "--thumbnails", "small")
    assert done.returncode == 0, done.stderr
    (row,) = map(json.loads, done.stdout.splitlines())
    assert (row["path"], row["flagged"], row["stopped"], row["rule"]) == (str(clip), True, True, "share=0.5")
    assert row["frames"] < COUNT
    assert (tmp_path / "empty" / row["thumbnails"][0]).is_file()
    for wrong in (("--early-exit",), ("--clip-score", "best"), ("--clip-score", "nth=0")):
        assert plimsoll("predict", *network, clip, *wrong).returncode == 2


def test_tracks_are_drawn(plimsoll: Run, network: list[str], clip: Path, tmp_path: Path) -> None:
    """One object, one number; the drawn clip has every frame."""
    from plimsoll.inference.video import Clip

    drawn = tmp_path / "drawn.mp4"
    done = plimsoll("predict", *network, clip, "--track", "--draw", drawn, "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    rows = [*map(json.loads, done.stdout.splitlines())]
    assert {box["track"] for row in rows for box in row["boxes"]} == {1}
    with Clip(drawn) as frames:
        shown = [frame.pixels.samples for frame in frames]
    assert len(shown) == COUNT
    assert np.ptp(shown[20][96:160, 40 + 80].astype(int), axis=1).max() > 60, "a coloured edge where the box begins"
    assert plimsoll("predict", *network, clip, "--draw", drawn).returncode == 2, "it exists"
    assert plimsoll("predict", *network, clip, "--smooth").returncode == 2, "no points"


def test_effects_say_what_they_need(plimsoll: Run, network: list[str], clip: Path, tmp_path: Path) -> None:
    comments = tmp_path / "comments.txt"
    comments.write_text("0.5 Hello")
    cases = {
        ("--comments", str(comments)): "--comments draws, and needs --draw",
        ("--comments", str(comments), "--draw", "a.mp4"): "--comments needs a mask of people",
        ("--avatar", "built-in", "--draw", "a.mp4"): "an avatar needs the points of a face",
        ("--over", str(clip), "--draw", "a.mp4"): "--over needs --avatar",
        ("--sprite", "a.png", "--draw", "a.mp4"): "'a.png' is not FILE=ANCHOR",
        ("--draw", "a.gif"): "the ending means no format",
    }
    for options, expected in cases.items():
        done = plimsoll("predict", *network, clip, *options)
        assert (done.returncode, expected in done.stderr) == (2, True), (options, done.stderr)


def test_a_cascade_answers_clips_as_networks_do(
    plimsoll: Run, network: list[str], clip: Path, tmp_path: Path, example_photos: list[Path]
) -> None:
    """Its boxes, which the last network's points span, are tracked, smoothed and drawn, and sprites stand at them."""
    spec = spec_of("landmarks")
    saved(landmark_network("landmarks"), tmp_path / "points.onnx", spec)
    (tmp_path / "points.toml").write_text(dumps(spec))
    first = {"model": network[0], "spec": network[2]}
    second = {"model": "points.onnx", "spec": "points.toml", "presence": 0.0}
    stages = "".join(
        "[[stages]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in stage.items())
        for stage in (first, second)
    )
    cascade = tmp_path / "cascade.toml"
    cascade.write_text(f"name = 'points'\n{stages}[stages.crop]\nscale = 1.0\n")
    Image.new("RGBA", (8, 8), (255, 0, 0, 255)).save(tmp_path / "sprite.png")
    done = plimsoll(
        *("predict", cascade, clip, example_photos[0], "--track", "--smooth", "--max-frames", "6", "--format", "jsonl"),
        *("--draw", tmp_path / "drawn.mp4", "--sprite", f"{tmp_path / 'sprite.png'}=0"),
    )
    assert done.returncode == 0, done.stderr
    *rows, photo = map(json.loads, done.stdout.splitlines())
    assert [row["frame"] for row in rows] == [*range(6)]
    assert photo["frame"] is None
    for row in rows:
        (box,) = row["boxes"]
        assert box["track"] == 1
        assert isinstance(spec.output, Landmarks)
        assert len(box["points"]) == spec.output.points
    last = [*Clip(str(tmp_path / "drawn.mp4"))][-2]  # It fades in.
    reds = last.pixels.samples.reshape(-1, 3).astype(int)
    assert ((reds[:, 0] > 180) & (reds[:, 1] < 90)).any(), "the sprite is at the first point"

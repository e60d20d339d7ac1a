"""A file of several frames is answered by its worst, alone and in a stream; a Spec that can't say which is worst is
refused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from pydantic import ValidationError

from helpers.brightness_network import brightness, steps
from plimsoll.cli.parquet import Parquet
from plimsoll.cli.rows import Csv, JsonLines, Writer
from plimsoll.core.target import Preprocessing
from plimsoll.inference.frames import answer_worst
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.inference.rows import keys
from plimsoll.spec import Input, Spec
from plimsoll.spec.spec import Classify, Tensors
from plimsoll.spec.steps import Decode
from plimsoll.tasks.detect.task import Box, Detection

LEVELS = (10, 240, 120, 239, 30)


def spec(**options: Any) -> Spec:
    decode = Decode(**{"frames": "all", "formats": ("gif", "png", "jpeg"), **options})
    return Spec(
        name="brightness",
        input=Input(steps=(decode, *steps()[1:])),
        output=Classify(labels=("dark", "bright"), positive="bright"),
    )


def animation(path: Path, levels: tuple[int, ...] = LEVELS) -> str:
    frames = [Image.new("L", (24, 16), level) for level in levels]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    return str(path)


def predictor(tmp_path: Path, preprocessing: Preprocessing = "reference", **options: Any) -> Predictor:
    model = brightness(tmp_path / "brightness.onnx", spec(**options))
    return Predictor(ResolvedModel(model, preprocessing=preprocessing), cores=2)


@pytest.mark.parametrize("preprocessing", ["reference", "fast"])
def test_the_brightest_frame_is_the_answer(tmp_path: Path, preprocessing: Preprocessing) -> None:
    path, still = animation(tmp_path / "a.gif"), tmp_path / "still.png"
    Image.new("L", (24, 16), 240).save(still)
    with predictor(tmp_path, preprocessing) as model:
        (answered,) = model.predict_many([path])
        alone = model.predict(path)
        expected = model.predict(str(still))
    assert (answered.frame, answered.frames, answered.error) == (1, 5, None)
    assert answered.answer is not None
    assert answered.answer.row() == alone.row() == expected.row()


def test_still_pictures_share_batches_and_order_with_animations(tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    Image.new("L", (24, 16), 50).save(still)
    files = [animation(tmp_path / "a.gif"), *[str(still)] * 9, animation(tmp_path / "b.gif", (5, 6, 7)), str(still)]
    with predictor(tmp_path) as model:
        answered = [*model.predict_many(files)]
    assert [prediction.path for prediction in answered] == files
    assert [(prediction.frame, prediction.frames) for prediction in answered] == [(1, 5), *[(0, 1)] * 9, (2, 3), (0, 1)]


def test_only_selected_frames_count(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.gif")
    with predictor(tmp_path, frames="every 2") as model:
        (answered,) = model.predict_many([path])
    assert (answered.frame, answered.frames) == (2, 3)
    with predictor(tmp_path, frames="first") as model:
        (answered,) = model.predict_many([path])
    assert (answered.frame, answered.frames) == (0, 1)


def test_a_file_is_answered_whole_or_not_at_all(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.gif")
    with predictor(tmp_path, max_frames=4) as model:
        (refused,) = model.predict_many([path])
    assert refused.answer is None
    assert refused.error is not None
    assert "more than 4 frames" in refused.error


def test_frames_are_answered_as_they_come(tmp_path: Path) -> None:
    """No more than a batch of them exists at a time."""
    alive = most = 0
    with predictor(tmp_path) as model:
        tensor = np.zeros((8, 8, 3), np.float32)
        geometry = next(model.frames(Path(animation(tmp_path / "a.gif"))))[2]

        def many() -> Iterator[Any]:
            nonlocal alive, most
            for number in range(100):
                alive += 1
                most = max(most, alive)
                yield number, tensor + number, geometry

        def infer(batch: Any) -> Any:
            nonlocal alive
            alive -= len(batch)
            return model.runner("latency").infer(batch)

        worst = answer_worst(many(), infer, model.task, None)
    assert (worst.frame, worst.frames) == (99, 100)
    assert most <= 9


def test_the_surest_box_decides_between_detections() -> None:
    sure, unsure = Box("cat", 0.9, (0, 0, 1, 1)), Box("cat", 0.4, (0, 0, 1, 1))
    assert Detection((sure,)).severity() > Detection((unsure, unsure)).severity() > Detection(()).severity()


@pytest.mark.parametrize("output", [Classify(labels=("dark", "bright")), Tensors()])
def test_a_task_that_knows_no_worst_frame_is_refused(output: Any) -> None:
    with pytest.raises(ValidationError, match="its worst frame"):
        Spec(name="brightness", input=spec().input, output=output)


def test_rows_name_the_frame_and_how_many_were_answered(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.gif")
    with predictor(tmp_path) as model:
        answered = [*model.predict_many([animation(tmp_path / "a.gif"), missing])]
        written = {"jsonl": io.StringIO(), "csv": io.StringIO()}
        writers: list[Writer] = [
            JsonLines(written["jsonl"], model.task, None),
            Csv(written["csv"], model.task, None),
            Parquet(tmp_path / "rows.parquet", model.task, None),
        ]
        for writer in writers:
            for prediction in answered:
                writer.write(prediction)
            writer.close()
    lines = [json.loads(line) for line in written["jsonl"].getvalue().splitlines()]
    table = [*csv.DictReader(io.StringIO(written["csv"].getvalue()))]
    stored = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [(row["frame"], row["frames"]) for row in lines] == [(1, 5), (None, None)]
    assert [(row["frame"], row["frames"]) for row in table] == [("1", "5"), ("", "")]
    assert [(row["frame"], row["frames"]) for row in stored] == [(1, 5), (None, None)]
    with predictor(tmp_path, frames="first") as model:
        assert "frame" not in keys(model.task)

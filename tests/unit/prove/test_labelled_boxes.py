"""Detectors against labelled boxes, from the file to the verdict: a network that sees red and blue rectangles."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from helpers.answer_networks import draw, network, saved, spec_of
from plimsoll.core.budget import Budget
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.prove import prove, read_labels
from plimsoll.prove.annotations import TrueBox
from plimsoll.prove.contract import check_contract
from plimsoll.prove.labels import Truth
from plimsoll.ship import Search, SearchConfig
from plimsoll.ship.evaluation import Judge
from plimsoll.ship.jobs import Answer, comparer_of
from plimsoll.ship.split import check_provable, split
from plimsoll.ship.store import WorkFolder
from plimsoll.spec.files import validate
from plimsoll.spec.spec import Detect

pytest.importorskip("pycocotools")
COUNT = 40


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw(tmp_path_factory.mktemp("drawn"), COUNT)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return saved(network("detect"), tmp_path_factory.mktemp("network") / "detect.onnx", spec_of("detect"))


@pytest.fixture(scope="module")
def labels(pictures: list[Path], model: Model) -> dict[str, Truth]:
    """COCO's file of what was drawn, read back: the pixels that are red, and those that are blue."""
    objects = []
    for number, path in enumerate(pictures):
        red, green, blue = np.moveaxis(np.asarray(Image.open(path)).astype(int), 2, 0)
        for category, pixels in enumerate((red - green - blue > 80, blue - green - red > 80)):
            rows, columns = np.nonzero(pixels)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            objects.append({"image_id": number, "category_id": category, "bbox": list(map(int, box))})
    images = [{"id": number, "file_name": path.name} for number, path in enumerate(pictures)]
    categories = [{"id": number, "name": name} for number, name in enumerate(("red", "blue"))]
    file = pictures[0].parent.parent / "coco.json"
    file.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return read_labels(file, model.require_spec().output, [pictures[0].parent])


def test_key_points_are_read_from_coco_s_file(pictures: list[Path], tmp_path: Path) -> None:
    output = Detect(head="yolov8", labels=("red",), points=2)
    row = {"image_id": 1, "category_id": 0, "bbox": [0, 0, 9, 8], "area": 50, "keypoints": [1, 2, 2, 0, 0, 0]}
    data = {"images": [{"id": 1, "file_name": pictures[0].name}], "categories": [{"id": 0, "name": "red"}]}
    file = tmp_path / "coco.json"
    file.write_text(json.dumps({**data, "annotations": [row]}))
    (truth,) = read_labels(file, output, [pictures[0].parent]).values()
    (box,) = cast("tuple[TrueBox, ...]", truth)
    assert (box.points, box.area) == (((1.5, 2.5, 2), (0.5, 0.5, 0)), 50.0)
    file.write_text(json.dumps({**data, "annotations": [{**row, "keypoints": [1, 2, 2] * 3}]}))
    with pytest.raises(InputError, match="has 3 key points; the model finds 2"):
        read_labels(file, output, [pictures[0].parent])


def reversed_channels(model: Model) -> Model:
    """The same network behind a Spec that gives it BGR."""
    data = model.require_spec().model_dump()
    steps = list(data["input"]["steps"])
    data["input"]["steps"] = [*steps[:2], {"step": "channels", "order": "BGR"}, *steps[2:]]
    return replace(model, spec=validate(data))


def test_a_detector_behind_the_wrong_channels_shouts(
    model: Model, pictures: list[Path], labels: dict[str, Truth], tmp_path: Path
) -> None:
    paths = [str(path) for path in pictures]
    right = check_contract(ResolvedModel(model), paths, labels)
    assert right.problem == ""
    words = rf"the model finds {right.correct} of 80 \(\d\d %\) labelled objects \(40 of 40 pictures have a label\)"
    assert re.fullmatch(words, right.in_words)
    assert right.correct >= 60
    wrong = check_contract(ResolvedModel(reversed_channels(model)), paths, labels).problem
    assert "finds 0 of 80 (0 %) labelled objects" in wrong
    assert f"Under another label it finds {right.correct} of 80" in wrong
    assert re.search(r"the channels in the order RGB it finds [67]\d of 80", wrong)
    parts, other = split(paths, 2000), reversed_channels(model)
    config = SearchConfig((Target("onnxruntime"),), ("minmax",), Budget.parse("agreement=80%"))
    search = Search(ResolvedModel(other), parts, WorkFolder.of(tmp_path / "work", other, parts), config, labels)
    with pytest.raises(InputError, match="finds 0 of") as failure:
        search.run()
    assert "--accept-accuracy" in failure.value.hint


def test_a_proof_says_what_it_has_against_the_labels(
    model: Model, pictures: list[Path], labels: dict[str, Truth]
) -> None:
    unlabelled = str(pictures[0].resolve())
    some = {path: truth for path, truth in labels.items() if path != unlabelled}
    proof = prove(ResolvedModel(model), ResolvedModel(model), pictures, labels=some, budget=Budget.parse("map=-10"))
    check = next(check for check in proof.checks if check.name == "change of map")
    assert (check.measured, check.unit, check.passed) == (0.0, "points", True)
    assert check.judged == pytest.approx(100 * (0.05 ** (1 / 78) - 1)), "none of 78 objects was lost"
    assert proof.comparison is not None
    comparison = json.loads(json.dumps(proof.details()["comparison"]))
    assert comparison["labelled_count"] == 39
    assert comparison["labelled"]["map50"]["reference"] > 0.6
    assert "Against the labels of 39 pictures: map " in "\n".join(proof.comparison.notes)
    with pytest.raises(InputError, match="needs labelled pictures"):
        prove(ResolvedModel(model), ResolvedModel(model), pictures, budget=Budget.parse("map=-10"))


def test_ship_judges_the_loss_against_the_labels(model: Model, pictures: list[Path], labels: dict[str, Truth]) -> None:
    judge, comparer = Judge(model, Budget.parse("map=-10"), labels), comparer_of(model, labelled=True)
    with Predictor(ResolvedModel(model)) as predictor:
        detections = [predictor.predict(path, threshold=comparer.threshold(predictor.task)) for path in pictures]
    answers = [
        Answer(path=str(path), answer=comparer.dump(answer)) for path, answer in zip(pictures, detections, strict=True)
    ]
    judge.reference = {answer.path: answer for answer in answers}
    same = judge.test(answers).evaluation
    assert same.passed
    assert same.labelled_count == COUNT
    assert same.labelled["map"].drop == 0
    whole = same.labelled["map"].reference
    assert whole > 0.25
    lossy = [*answers[:30], *(Answer(path=answer.path, answer={"boxes": []}) for answer in answers[30:])]
    lost = judge.test(lossy).evaluation
    assert not lost.passed
    assert 0.15 * whole < lost.labelled["map"].drop < 0.4 * whole


def test_a_loss_that_so_few_objects_cannot_prove_is_refused(pictures: list[Path], labels: dict[str, Truth]) -> None:
    parts = split([str(path) for path in pictures], 2000)
    with pytest.raises(InputError, match="40 labelled objects to test, and even without a loss it takes 598") as error:
        check_provable(Budget.parse("map=-0.5"), parts, labels)
    assert "allow map=-" in error.value.hint

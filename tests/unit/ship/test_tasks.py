"""The main job for every task: answers without scores are stored, compared, judged and drawn."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.answer_networks import draw, network, saved, spec_of
from plimsoll.core.budget import Budget
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.prove.run import budget_for, comparer_for
from plimsoll.report import summary
from plimsoll.report.page import render
from plimsoll.ship import Pictures, Search, SearchConfig, export
from plimsoll.ship.evaluation import Judge
from plimsoll.ship.jobs import Answer, comparer_of
from plimsoll.ship.results import most_changed
from plimsoll.ship.split import split
from plimsoll.ship.store import WorkFolder
from plimsoll.spec.files import validate
from plimsoll.tasks.detect import Box, Detection

pytestmark = pytest.mark.usefixtures("jobs_here")
TASKS = ("classify", "detect", "landmarks", "segment")


def model_of(task: str, folder: Path) -> Model:
    return saved(network(task), folder / f"{task}.onnx", spec_of(task))


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_every_task_ships_within_its_own_budget(task: str, tmp_path: Path) -> None:
    model = model_of(task, tmp_path)
    pictures = [str(path) for path in draw(tmp_path / "drawn", 60)]
    parts = split(pictures, 2000)
    budget = Budget.parse({"detect": "agreement=80%", "segment": "miou=90%"}[task])
    config = SearchConfig((Target("onnxruntime"),), ("minmax",), budget, search_seconds=1000.0, measure_seconds=0.1)
    search = Search(ResolvedModel(model), parts, WorkFolder.of(tmp_path / "work", model, parts), config)
    result = search.run()
    (check,) = result.test.checks
    assert check.passed
    assert result.test.passed
    assert result.test.count == len(parts.test)
    assert not result.test.flips
    assert not result.scores
    assert len(result.changes) == len(parts.test)
    assert result.test.headline in " ".join(summary.sentences(result))
    assert summary.judged_figures(result.trials) == (check.name,)
    exported = export(search, result, tmp_path / "bundle", pictures=Pictures(golden=True, in_report=True))
    page = render(exported.report)
    assert check.name in page
    for picture in result.worst:
        shown = Image.open(io.BytesIO(base64.b64decode(picture.thumbnail.partition(",")[2])))
        assert picture.change
        assert max(shown.size) <= 480


@pytest.mark.parametrize("task", TASKS)
def test_what_is_stored_of_an_answer_compares_as_the_answer_does(task: str, tmp_path: Path) -> None:
    model = model_of(task, tmp_path)
    paths = draw(tmp_path / "drawn", 4)
    comparer = comparer_for(model.require_spec().output, model.require_spec().output)
    assert comparer is not None
    with Predictor(ResolvedModel(model)) as predictor:
        answers = [predictor.predict(path, threshold=comparer.threshold(predictor.task)) for path in paths]
    loaded = [comparer.load(comparer.dump(answer)) for answer in answers]
    same = [comparer.change(comparer.measure(*pair)) for pair in zip(answers, loaded, strict=True)]
    other = comparer.change(comparer.measure(loaded[0], loaded[1]))
    assert all(change.moved == pytest.approx(0, abs=1e-9) for change in same)
    assert other.moved > 0


def judged(model: Model, budget: str, boxes: list[tuple[Box, ...]], reference: tuple[Box, ...]) -> Any:
    judge = Judge(model, Budget.parse(budget), None)
    comparer = comparer_of(model)
    judge.reference = {str(at): Answer(path=str(at), answer=comparer.dump(Detection(reference))) for at in range(40)}
    answers = [
        Answer(path=str(at), answer=comparer.dump(Detection(own))) if own else Answer(path=str(at), error="it died")
        for at, own in enumerate(boxes)
    ]
    return judge, judge.test(answers)


def test_lost_boxes_and_pictures_without_an_answer_break_the_budget(tmp_path: Path) -> None:
    model = model_of("detect", tmp_path)
    red, blue = Box("red", 0.9, (0, 0, 10, 10)), Box("blue", 0.8, (20, 0, 30, 10))
    both = (red, blue)
    _, good = judged(model, "agreement=90%", [both] * 40, both)
    assert good.evaluation.passed
    judge, lossy = judged(model, "agreement=90%", [both] * 30 + [(red,)] * 10, both)
    assert not lossy.evaluation.passed
    changes = judge.changes(lossy.pictures)
    assert [change.path for change in most_changed(changes)] == [str(at) for at in range(30, 40)]
    assert "1 lost" in changes[-1].change
    _, failing = judged(model, "box_recall=90%", [both] * 20 + [()] * 20, both)
    assert failing.evaluation.failed == 20
    moved = replace(red, box=(1, 0, 11, 10))
    _, shifted = judged(model, "box_shift=3%", [(moved, blue)] * 40, both)
    assert not shifted.evaluation.passed


def test_a_budget_of_another_task_is_refused(tmp_path: Path) -> None:
    model = model_of("detect", tmp_path)
    for budget, reason in (("flips=5%", "don't have"), ("snr=30", "does not measure")):
        with pytest.raises(InputError, match=reason):
            Judge(model, Budget.parse(budget), None)


def test_points_and_masks_in_boxes_have_budgets_where_a_network_gives_them() -> None:
    plain = spec_of("detect").output
    posed = spec_of("detect", points=4).output
    masked = spec_of("detect", prototypes="planes").output
    assert "nme" not in budget_for(plain).metrics
    assert "mask_iou" not in budget_for(plain).metrics
    assert "nme" in budget_for(posed).metrics
    assert "mask_iou" in budget_for(masked).metrics
    assert "presence_deviation" not in budget_for(spec_of("landmarks", presence=None).output).metrics


def test_raw_outputs_ship_by_their_signal_to_noise(tmp_path: Path) -> None:
    detect = model_of("detect", tmp_path)
    data = {**detect.require_spec().model_dump(exclude_unset=True), "output": {"task": "tensor"}}
    model = Model(detect.path, "onnx", validate(data))
    comparer = comparer_of(model)
    with Predictor(ResolvedModel(model)) as predictor:
        answers = [predictor.predict(path) for path in draw(tmp_path / "drawn", 6)]
    stored = [comparer.load(comparer.dump(answer)) for answer in answers]
    noisy = [
        replace(answer, tensors={name: value + np.float32(0.1) for name, value in answer.tensors.items()})  # type: ignore[attr-defined, type-var]
        for answer in stored
    ]
    exact = comparer.comparison([comparer.measure(*pair) for pair in zip(answers, stored, strict=True)], 0)
    off = comparer.comparison([comparer.measure(*pair) for pair in zip(answers, noisy, strict=True)], 0)
    assert exact.evidence()["snr"][0].value == 200.0
    assert off.evidence()["snr"][0].bound < exact.evidence()["snr"][0].value

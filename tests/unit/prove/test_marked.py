"""Masks and points that people marked: read from their files, and what two models have against them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.answer_networks import draw, network, saved, spec_of
from plimsoll.core.budget import Budget
from plimsoll.core.model import Model
from plimsoll.errors import InputError
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.prove import prove, read_labels
from plimsoll.prove.contract import check_contract
from plimsoll.prove.marked import TrueMask, TruePoints, mask_changes, point_changes
from plimsoll.prove.run import comparer_for
from plimsoll.ship.evaluation import Judge
from plimsoll.ship.jobs import Answer, comparer_of
from plimsoll.ship.split import check_provable, split
from plimsoll.tasks.landmarks import Points
from plimsoll.tasks.segment import LabelMap

COUNT = 24


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw(tmp_path_factory.mktemp("drawn"), COUNT)


def model_of(task: str, folder: Path) -> Model:
    return saved(network(task), folder / f"{task}.onnx", spec_of(task))


def drawn_masks(pictures: Sequence[Path], folder: Path) -> Path:
    """Write what was drawn: 0 the ground, 1 red, 2 blue, and a corner that doesn't count."""
    folder.mkdir()
    for path in pictures:
        red, green, blue = np.moveaxis(np.asarray(Image.open(path)).astype(int), 2, 0)
        mask = np.where(red - green - blue > 80, 1, np.where(blue - green - red > 80, 2, 0)).astype(np.uint8)
        mask[:5, :5] = 255
        Image.fromarray(mask).save(folder / f"{path.stem}.png")
    return folder


def answers(model: Model, pictures: Sequence[Path]) -> list[Any]:
    with Predictor(ResolvedModel(model)) as predictor:
        return [predictor.predict(path) for path in pictures]


def test_masks_are_judged_against_labels(pictures: list[Path], tmp_path: Path) -> None:
    model = model_of("segment", tmp_path)
    spec = model.require_spec()
    labels = read_labels(drawn_masks(pictures, tmp_path / "masks"), spec.output, [pictures[0].parent])
    assert len(labels) == COUNT
    proof = prove(ResolvedModel(model), ResolvedModel(model), pictures, labels=labels, budget=Budget.parse("miou=-0.5"))
    check, *_ = proof.checks
    assert (check.name, check.measured, check.limit, check.unit) == ("change of miou", 0.0, -0.5, "points")
    assert proof.passed
    measured = proof.details()["comparison"]["labelled"]["miou"]["reference"]  # type: ignore[index, call-overload]
    # By hand, over all pixels of all pictures.
    shared, union = np.zeros(3), np.zeros(3)
    for path, answer in zip(pictures, answers(model, pictures), strict=True):
        truth, own = np.asarray(Image.open(tmp_path / "masks" / f"{path.stem}.png")), answer.pixels()
        for label in range(3):
            inside = [(pixels == label) & (truth != 255) for pixels in (truth, own)]
            shared[label] += (inside[0] & inside[1]).sum()
            union[label] += (inside[0] | inside[1]).sum()
    assert measured == pytest.approx((shared / union).mean())
    assert 0.8 < float(measured) < 1  # type: ignore[arg-type]
    assert check_contract(ResolvedModel(model), [str(path) for path in pictures], labels).problem == ""


def test_masks_that_do_not_lie_where_they_are_marked_shout(pictures: list[Path], tmp_path: Path) -> None:
    model, paths = model_of("segment", tmp_path), [str(path) for path in pictures]
    folder = drawn_masks(pictures, tmp_path / "masks")

    def problem(change: Callable[[Any], Any]) -> str:
        other = tmp_path / "changed"
        other.mkdir(exist_ok=True)
        for file in folder.iterdir():
            Image.fromarray(np.ascontiguousarray(change(np.asarray(Image.open(file))))).save(other / file.name)
        labels = read_labels(other, model.require_spec().output, [pictures[0].parent])
        return check_contract(ResolvedModel(model), paths, labels).problem

    assert problem(lambda mask: mask) == ""
    assert "With its masks mirrored it is right on" in problem(lambda mask: mask[:, ::-1])
    assert "With its masks upside down it is right on" in problem(lambda mask: mask[::-1])
    assert "With its labels exchanged (where 1 is marked it answers 2) it is right on" in problem(
        lambda mask: np.choose(np.minimum(mask, 2), [0, 2, 1]).astype(np.uint8)
    )
    nowhere = problem(lambda mask: np.full_like(mask, 1))
    assert re.search(r"lie where they are marked in 0 of 24 \(0 %\) .*hardly ever", nowhere)


def test_points_that_do_not_lie_where_they_are_marked_shout(pictures: list[Path], tmp_path: Path) -> None:
    model, paths = model_of("landmarks", tmp_path), [str(path) for path in pictures]
    marked = [answer.points for answer in answers(model, pictures)]

    def problem(order: Sequence[int] = (0, 1, 2, 3), shift: float = 0.0, **output: Any) -> str:
        labels = {
            str(path.resolve()): TruePoints(tuple((float(points[at][0]) + shift, float(points[at][1])) for at in order))
            for path, points in zip(pictures, marked, strict=True)
        }
        other = replace(model, spec=spec_of("landmarks", **output))
        return check_contract(ResolvedModel(other), paths, labels).problem

    assert problem() == ""
    assert "With its points in another order (where point 0 is marked lies its point 1) it is right on 24" in problem(
        (1, 0, 2, 3)
    )
    assert "With normalized = false it is right on 24 of 24" in problem(normalized=True)
    assert "With columns = ['x', 'y'] it is right on 24 of 24" in problem(columns=["y", "x"])
    assert "hardly ever" in problem(shift=500.0)


def test_a_loss_of_masks_shows_in_ship(pictures: list[Path], tmp_path: Path) -> None:
    model = model_of("segment", tmp_path)
    labels = read_labels(drawn_masks(pictures, tmp_path / "masks"), model.require_spec().output, [pictures[0].parent])
    judge, comparer = Judge(model, Budget.parse("miou=-2"), labels), comparer_of(model, labelled=True)
    dumped = [comparer.dump(answer) for answer in answers(model, pictures)]
    stored = [Answer(path=str(path), answer=answer) for path, answer in zip(pictures, dumped, strict=True)]
    judge.reference = {answer.path: answer for answer in stored}
    assert judge.test(stored).evaluation.passed
    others = [*stored[:18], *(Answer(path=answer.path, answer=dumped[0]) for answer in stored[18:])]
    lossy = judge.test(others).evaluation
    assert not lossy.passed
    assert lossy.labelled_count == COUNT
    assert 0.02 < lossy.labelled["miou"].drop < 0.4
    judge.validate(stored)


def test_pixels_without_a_label_and_labels_that_nobody_marked_do_not_count(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0, 255], [1, 1, 255]], np.uint8)).save(tmp_path / "a.png")
    right = LabelMap.of(np.array([[0, 0, 2], [1, 1, 0]], np.uint16))
    wrong = LabelMap.of(np.array([[0, 2, 2], [1, 1, 65_535]], np.uint16))
    (change,), count = mask_changes([TrueMask(tmp_path / "a.png")], [(right, wrong)], 3, lambda mask: mask)
    assert (count, change.reference, change.other) == (1, 1.0, 0.75)


def face(scale: float = 1.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    return scale * np.random.default_rng(2).uniform(0, 100, (68, 2))


def test_errors_of_faces_are_shares_of_the_distance_between_the_eyes() -> None:
    truth = TruePoints(tuple((float(x), float(y)) for x, y in face()))
    eyes = np.linalg.norm(face()[36] - face()[45])
    moved = [face() + np.array([0.05 * eyes, 0]), face() + np.array([0.1 * eyes, 0]), face()]
    points = [(face() + np.array([0.02 * eyes, 0]), other) for other in moved]
    changes, count = point_changes([truth] * 3, points)
    figures = {change.name: [change.reference, change.other] for change in changes}
    assert count == 3
    assert figures["nme"] == [pytest.approx(0.02), pytest.approx(0.05)]
    assert figures["failure_rate"] == [0, pytest.approx(1 / 3)], "from 8 % on"
    areas = [1 - 0.05 / 0.08, 0, 1]
    assert figures["point_auc"] == [pytest.approx(1 - 0.02 / 0.08), pytest.approx(np.mean(areas))]
    bound = next(change for change in changes if change.name == "nme").lower
    assert bound is not None
    assert 0.03 < bound <= 0.08, "the upper one: errors get worse upwards"
    hidden = TruePoints((None, *truth.points[1:36], None, *truth.points[37:]))
    spread = face()[[*range(1, 36), *range(37, 68)]]
    extent = np.sqrt((np.ptp(spread, axis=0) ** 2).mean())
    assert hidden.errors(face() + np.array([0, 3])) == pytest.approx(3 / extent)


def test_points_come_from_files_of_300_w_and_of_coco(pictures: list[Path], tmp_path: Path) -> None:
    output = spec_of("landmarks").output
    pts, second = tmp_path / "pts", pictures[1]
    pts.mkdir()
    (pts / f"{pictures[0].stem}.pts").write_text("version: 1\nn_points: 4\n{\n1 1\n2.5 3\n4 5\n6 7\n}\n")
    truths = read_labels(pts, output, [pictures[0].parent])
    expected = TruePoints(((0.5, 0.5), (2.0, 2.5), (3.5, 4.5), (5.5, 6.5)))
    assert truths == {str(pictures[0].resolve()): expected}, "pixels are counted from 1, and lie at their centres"
    annotation = {"image_id": 4, "keypoints": [0, 0, 2, 3, 4, 1, 9, 9, 0, 5, 6, 2]}
    images = [{"id": 4, "file_name": second.name}, {"id": 5, "file_name": pictures[2].name}]
    empty = {"image_id": 5, "keypoints": [0] * 12}
    file = tmp_path / "coco.json"
    file.write_text(json.dumps({"images": images, "annotations": [annotation, empty]}))
    assert read_labels(file, output, [pictures[0].parent]) == {
        str(second.resolve()): TruePoints(((0.5, 0.5), (3.5, 4.5), None, (5.5, 6.5)))
    }
    file.write_text(json.dumps({"images": images, "annotations": [annotation, annotation]}))
    with pytest.raises(InputError, match="2 objects with 4 points"):
        read_labels(file, output, [pictures[0].parent])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\nn_points: 4\n{\n1 1\n2 2\n3 3\n}\n", "not a file of points"),
        ("version: 1\nn_points: 1\n{\n1 1\n}\n", "1 points; the model finds 4"),
        ("version: 1\nn_points: 4\n{\n1 1\n2 2\n3 3\n4 nan\n}\n", "not a file of points"),
        ("version: 1\nn_points: 4\n{\n1 1\n1 1\n1 1\n1 1\n}\n", "all in one place"),
        ("points", "not a file of points"),
    ],
)
def test_bad_points_are_named(pictures: list[Path], tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / f"{pictures[0].stem}.pts").write_text(text)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path, spec_of("landmarks").output, [pictures[0].parent])


def test_bad_masks_are_named(pictures: list[Path], tmp_path: Path) -> None:
    output, mask = spec_of("segment").output, tmp_path / f"{pictures[0].stem}.png"
    for image, message in (
        (Image.new("L", (96, 80), 3), "a pixel has the label 3; .* from 0 to 2, and 255 is none"),
        (Image.new("RGB", (96, 80)), "mode RGB; a mask has one channel"),
    ):
        image.save(mask)
        with pytest.raises(InputError, match=message):
            read_labels(tmp_path, output, [pictures[0].parent])
    mask.write_bytes(b"no picture")
    with pytest.raises(InputError, match="can't be read as a mask"):
        read_labels(tmp_path, output, [pictures[0].parent])


def test_points_are_judged_against_labels(pictures: list[Path], tmp_path: Path) -> None:
    model = model_of("landmarks", tmp_path)
    own = [np.array(answer.points) for answer in answers(model, pictures)]
    truths = {
        str(path.resolve()): TruePoints(tuple((float(x) + 1, float(y)) for x, y in points))
        for path, points in zip(pictures, own, strict=True)
    }
    budget = Budget.parse("nme=+0.002 failure_rate=+15% point_auc=-1%")
    assert str(budget) == "nme=+0.002 failure_rate=+15% point_auc=-1%"
    assert Budget.parse(str(budget)) == budget
    assert Budget.parse("nme=2%").metrics == ("nme",)
    proof = prove(ResolvedModel(model), ResolvedModel(model), pictures, labels=truths, budget=budget)
    assert [check.name for check in proof.checks[:3]] == [
        "change of nme",
        "change of failure_rate",
        "change of point_auc",
    ]
    assert proof.passed
    assert proof.comparison is not None
    assert f"Against the labels of {COUNT} pictures: nme 0.0" in "\n".join(proof.comparison.notes)
    comparer = comparer_for(model.require_spec().output, model.require_spec().output, labelled=True)
    assert comparer is not None
    moved = [Points(tuple((float(x) - 1, float(y)) for x, y in points), 1.0) for points in own]
    exact = [Points(tuple((float(x), float(y)) for x, y in points), 1.0) for points in own]
    measured = [comparer.measure(*pair) for pair in zip(exact, moved, strict=True)]
    comparison = comparer.comparison(measured, 0, list(truths.values()))
    failing = [check.name for check in budget.verdict(comparison.evidence()) if not check.passed]
    assert "change of nme" in failing
    with pytest.raises(InputError, match="label_nme, which needs labelled pictures"):
        prove(ResolvedModel(model), ResolvedModel(model), pictures, budget=budget)
    parts = split([str(path) for path in pictures], 2000)
    check_provable(Budget.parse("nme=+0.002"), parts, truths)
    with pytest.raises(InputError, match="failure_rate=\\+1% can't be proven"):
        check_provable(Budget.parse("failure_rate=+1%"), parts, truths)
    for text in ("nme=-0.002", "failure_rate=+100%", "miou=+1", "miou=-0.005"):
        with pytest.raises(InputError):
            Budget.parse(text)

"""Proofs: nothing is dropped, and verdict, headline and report follow from the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from helpers.brightness_network import BUDGET, brightness, classify
from plimsoll.core.budget import Budget
from plimsoll.core.model import Model
from plimsoll.errors import InputError
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.preprocessing.folded import fold
from plimsoll.prove import Proof, prove
from plimsoll.prove.classifications import ClassificationComparison
from plimsoll.prove.texts import TextComparer
from plimsoll.report.report import Report
from plimsoll.spec.spec import Tensors, Text
from plimsoll.tasks.text import Line


@pytest.mark.parametrize("preprocessing", ["reference", "fast"])
def test_a_folded_network_is_proven(
    nsfw: ResolvedModel, photos: list[Path], tmp_path: Path, preprocessing: Any
) -> None:
    proof = prove(nsfw, ResolvedModel(fold(nsfw.model, tmp_path), preprocessing=preprocessing), photos, budget=BUDGET)
    assert proof.passed
    assert proof.exchange == "pixels"
    assert proof.mismatches == ()
    assert proof.network_only is not None
    assert proof.network_only.mean < 1e-6
    assert (proof.preprocessing_only is not None and proof.preprocessing_only.mean > 1e-6) is (preprocessing == "fast")
    assert ("'resize'" in proof.cause) is (preprocessing == "fast")


def test_the_headline_states_the_sample(nsfw: ResolvedModel, photos: list[Path]) -> None:
    proof = prove(nsfw, nsfw, photos, budget=BUDGET)
    assert proof.headline == "0 of 12 decisions flipped at any threshold; with 95 % confidence at most 22.1 % do"
    assert proof.cause == ""
    assert isinstance(proof.comparison, ClassificationComparison)
    assert [threshold for threshold, _ in proof.comparison.flips] == [0.5, 0.2, 0.8]
    assert proof.comparison.rank_correlation == 1.0


def test_too_few_pictures_are_distinguished_from_a_bad_model(nsfw: ResolvedModel, photos: list[Path]) -> None:
    message, hint = prove(nsfw, nsfw, photos).refusal()
    assert "flips at 0.5 22.1 % (limit 4)" in message
    assert hint == "12 pictures are too few to prove 4 %: with 0 flipped it takes 74"


def test_the_report_is_whole_and_legal_json(nsfw: ResolvedModel, photos: list[Path], tmp_path: Path) -> None:
    proof = prove(nsfw, ResolvedModel(fold(nsfw.model, tmp_path)), photos[:3], budget=BUDGET, layers=True)
    text = proof.report().to_json()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    data = json.loads(text, parse_constant=refuse)
    assert data["kind"] == "prove"
    assert [row["path"] for row in data["details"]["scores"]] == [str(photo) for photo in photos[:3]]
    assert len(data["details"]["layers"]) > 100
    (tmp_path / "report.json").write_text(text)
    assert Report.read(tmp_path / "report.json").passed is proof.passed


def test_nan_counts_as_no_answer_and_refuses_whatever_the_budget(tmp_path: Path, greys: list[Path]) -> None:
    good, bad = (
        brightness(tmp_path / "good.onnx", classify(positive="bright")),
        brightness(tmp_path / "bad.onnx", classify(positive="bright"), least=40),
    )
    proof = prove(ResolvedModel(good), ResolvedModel(bad), greys, budget=Budget.parse("flips=99%"))
    assert not proof.passed
    assert [Path(failure.path).name for failure in proof.unanswered] == ["grey00.png", "grey01.png", "grey02.png"]
    assert isinstance(proof.comparison, ClassificationComparison)
    assert [flipped.count for _, flipped in proof.comparison.flips] == [3]
    assert "pictures that only the reference answers 3" in proof.refusal()[0]
    assert "non-finite" in proof.refusal()[1]


def test_pictures_that_neither_can_read_are_reported_and_hold_nothing_against_the_other(
    tmp_path: Path, greys: list[Path], awkward: Path
) -> None:
    model = ResolvedModel(brightness(tmp_path / "good.onnx", classify(positive="bright")))
    proof = prove(model, model, [*greys, awkward / "truncated.jpg", tmp_path / "missing.png"], budget=BUDGET)
    assert proof.passed
    assert [bool(failure.reference and failure.other) for failure in proof.failures] == [True, True]
    assert (proof.pictures, proof.unanswered) == (20, ())


def test_nothing_to_prove_on_is_refused(tmp_path: Path, greys: list[Path], awkward: Path) -> None:
    model = ResolvedModel(brightness(tmp_path / "good.onnx", classify(positive="bright")))
    with pytest.raises(InputError, match="no pictures"):
        prove(model, model, [])
    with pytest.raises(InputError, match="answers none of the 1 pictures"):
        prove(model, model, [awkward / "truncated.jpg"])
    with pytest.raises(InputError, match="the budget limits recall, which needs labelled pictures"):
        prove(model, model, greys, budget=Budget.parse("recall=-1%"))


def test_two_questions_are_not_compared(tmp_path: Path, greys: list[Path]) -> None:
    bright, dark = (
        ResolvedModel(brightness(tmp_path / f"{name}.onnx", classify(positive=name))) for name in ("bright", "dark")
    )
    with pytest.raises(InputError, match=r"positive: bright.*positive: dark"):
        prove(bright, dark, greys)
    raw = ResolvedModel(Model(bright.model.path, "onnx", classify().model_copy(update={"output": Tensors()})))
    with pytest.raises(InputError, match="task is 'classify', the other's 'tensor'"):
        prove(bright, raw, greys)


def test_labels_and_outputs_of_another_name(tmp_path: Path, greys: list[Path]) -> None:
    good = brightness(tmp_path / "good.onnx", classify(positive="bright"))
    other = brightness(tmp_path / "other.onnx", classify(positive="bright"), output="quantized")
    labels = {str(path.resolve()): "bright" if count >= 9 else "dark" for count, path in enumerate(greys)}
    proof = prove(ResolvedModel(good), ResolvedModel(other), greys, labels=labels, budget=Budget.parse("accuracy=-20%"))
    assert proof.passed
    assert isinstance(proof.comparison, ClassificationComparison)
    assert proof.comparison.labelled == 20
    assert {change.name: change.reference for change in proof.comparison.changes}["auc"] == 1.0
    assert list(proof.outputs.columns) == ["scores"]


def test_raw_tensors_are_proven_by_signal_to_noise(tmp_path: Path, greys: list[Path]) -> None:
    raw = classify().model_copy(update={"output": Tensors()})
    model = brightness(tmp_path / "good.onnx", raw)
    proof = prove(ResolvedModel(model), ResolvedModel(model), greys)
    assert proof.passed
    assert proof.checks[0].name == "signal to noise of the outputs"
    proof = prove(ResolvedModel(model), ResolvedModel(brightness(tmp_path / "bad.onnx", raw, least=40)), greys)
    assert not proof.passed
    assert [failure.other for failure in proof.unanswered] == [
        "the output 'scores' has NaN or infinity in 2 of 2 values"
    ] * 3
    with pytest.raises(InputError, match="the budget limits flips, which the answers of the task 'tensor' don't have"):
        prove(ResolvedModel(model), ResolvedModel(model), greys, budget=Budget.parse("flips=4%"))


def test_memory_holds_no_tensors(nsfw: ResolvedModel, photos: list[Path]) -> None:
    proof: Proof = prove(nsfw, nsfw, photos[:2], budget=BUDGET)

    def arrays(value: Any) -> list[NDArray[Any]]:
        if isinstance(value, np.ndarray):
            return [value]
        inside = (
            value if isinstance(value, (list, tuple)) else vars(value).values() if hasattr(value, "__dict__") else ()
        )
        return [array for item in inside for array in arrays(item)]

    assert not arrays(proof)


def raw_network(path: Path, *nodes: onnx.NodeProto, outputs: Mapping[str, list[Any]]) -> ResolvedModel:
    """Write a network whose `level` [N, 3] is each channel's mean, followed by what the nodes make of it."""
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 8, 8, 3])
    own = helper.make_node("ReduceMean", ["picture"], ["level"], axes=[1, 2], keepdims=0)
    graph = helper.make_graph([own, *nodes], "raw", [picture], infos)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    spec = classify().model_copy(update={"output": Tensors()})
    return ResolvedModel(Model(path, "onnx", spec))


def test_raw_outputs_that_can_not_be_compared_are_named(tmp_path: Path, greys: list[Path]) -> None:
    pair = helper.make_node("Concat", ["level", "level"], ["pair"], axis=1)
    grid = helper.make_node("Reshape", ["pair", "grid"], ["table"])
    shape = helper.make_node("Constant", [], ["grid"], value_ints=[-1, 2, 3])
    turned = helper.make_node("Transpose", ["table"], ["turned"], perm=[0, 2, 1])
    reference = raw_network(
        tmp_path / "reference.onnx", pair, shape, grid, outputs={"level": ["N", 3], "table": ["N", 2, 3]}
    )
    other = raw_network(tmp_path / "turned.onnx", pair, shape, grid, turned, outputs={"turned": ["N", 3, 2]})
    proof = prove(reference, other, greys[:3])
    assert not proof.passed
    text = " ".join([*proof.refusal(), proof.headline])
    assert "the output 'level' is missing" in text or "'table' is missing" in text
    assert "nan" not in text

    same_name = raw_network(
        tmp_path / "same.onnx", pair, shape, grid, turned, outputs={"level": ["N", 3], "turned": ["N", 3, 2]}
    )
    proof = prove(reference, same_name, greys[:3])
    assert "the output 'turned' is [1, 3, 2], the reference's [1, 2, 3]: transposed" in proof.refusal()[1]
    assert not proof.passed

    constant = helper.make_node("Sub", ["level", "level"], ["nothing"])
    proof = prove(
        reference,
        raw_network(
            tmp_path / "zero.onnx", pair, shape, grid, constant, outputs={"nothing": ["N", 3], "table": ["N", 2, 3]}
        ),
        greys[:3],
    )
    assert "the output 'level' is the same for every picture" in proof.refusal()[1]


def test_texts_are_compared_character_by_character() -> None:
    output = Text(alphabet=tuple("abc"))
    comparer = TextComparer(output, output)
    pairs = [("abc", "abc"), ("abc", "abb"), ("ab", ""), ("", "")]
    measured = [comparer.measure(Line(first, None, ()), Line(second, None, ())) for first, second in pairs]
    compared = comparer.comparison(measured, 0)
    agreement, changes, errors = (figures[0] for figures in compared.evidence().values())
    assert agreement.value == 2 / 4
    assert (changes.value, errors.value) == (2 / 4, 3 / 8)
    assert changes.bound > changes.value
    assert compared.notes == ["Texts that changed: 'abc' → 'abb', 'ab' → ''"]
    nothing = comparer.comparison(measured[3:], 0)
    assert "reads no text in 1 pictures" in nothing.headline

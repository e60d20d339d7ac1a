"""Faults planted into networks and Specs are all named, and harmless changes are none called wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers.answer_networks import OUTPUTS, draw, network, saved, spec_of
from helpers.mutations import FAULTS, HARMLESS, Case, boxes
from helpers.network_changes import times
from plimsoll.core.budget import Budget
from plimsoll.errors import PlimsollError
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.metrics import decisions
from plimsoll.preprocessing.folded import fold
from plimsoll.prove import Proof, prove
from plimsoll.spec import Spec
from plimsoll.spec.files import validate

PICTURES = 24
BUDGETS = {"classify": Budget.parse("flips=15% mean_deviation=0.01 max_deviation=0.25")}
"""Where the default budget takes more pictures than there are."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw(tmp_path_factory.mktemp("drawn"), PICTURES)


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "RESAMPLES", 200)


def proof_of(case: Case, folder: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> Proof:
    spec = spec_of(case.task, **case.reference_output)
    protos = [network(case.task), network(case.task)]
    for proto in protos:
        for change in case.reference:
            change(proto)
    for change in case.network:
        change(protos[1])
    data = spec_of(case.task, **{**case.reference_output, **case.output}).model_dump(mode="json")
    if case.steps is not None:
        data["input"]["steps"] = case.steps(data["input"]["steps"])
    changed: Spec = validate({**data, "name": "other"})
    if case.session is not None:
        monkeypatch.setattr("plimsoll.prove.run.Runner", case.session)
    models = (saved(protos[0], folder / "reference.onnx", spec), saved(protos[1], folder / "other.onnx", changed))
    return prove(
        ResolvedModel(models[0]),
        ResolvedModel(models[1], case.target, case.preprocessing),
        pictures,
        budget=BUDGETS.get(case.task),
        cores=1,
    )


@pytest.mark.parametrize("case", FAULTS, ids=str)
def test_a_planted_fault_is_named(
    case: Case, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        proof = proof_of(case, tmp_path, pictures, monkeypatch)
    except PlimsollError as error:
        text = f"{error.message} {error.hint}"
    else:
        assert not proof.passed, proof.headline
        text = " ".join([*proof.refusal(), proof.cause])
    assert re.search(case.words, text), text


@pytest.mark.parametrize("case", HARMLESS, ids=str)
def test_a_harmless_change_is_not_called_wrong(
    case: Case, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.preprocessing == "fast":
        pytest.importorskip("cv2")
    proof = proof_of(case, tmp_path, pictures, monkeypatch)
    assert proof.passed, proof.refusal()


def test_there_are_forty_of_each() -> None:
    assert len(FAULTS) >= 40
    assert len(HARMLESS) >= 40
    assert {case.task for case in FAULTS} == {case.task for case in HARMLESS} == OUTPUTS.keys()


def test_a_folded_network_is_not_called_wrong(tmp_path: Path, pictures: list[Path]) -> None:
    for task in OUTPUTS:
        model = saved(network(task), tmp_path / f"{task}.onnx", spec_of(task))
        folder = tmp_path / task
        folder.mkdir()
        proof = prove(
            ResolvedModel(model), ResolvedModel(fold(model, folder)), pictures, budget=BUDGETS.get(task), cores=1
        )
        assert proof.passed, proof.refusal()


def test_a_reference_that_finds_nothing_proves_nothing(tmp_path: Path, pictures: list[Path]) -> None:
    proto = network("detect")
    times("head", boxes([1, 1, 1, 1, 0, 0]))(proto)
    model = saved(proto, tmp_path / "blind.onnx", spec_of("detect"))
    for budget in (None, Budget.parse("snr=10")):
        proof = prove(ResolvedModel(model), ResolvedModel(model), pictures, budget=budget, cores=1)
        assert not proof.passed
        assert "the reference finds no box in 24 pictures" in proof.headline
        assert not re.search(r"\bnan\b", " ".join([proof.headline, *proof.refusal()]).lower())


def test_too_few_boxes_are_distinguished_from_a_bad_detector(tmp_path: Path, pictures: list[Path]) -> None:
    model = ResolvedModel(saved(network("detect"), tmp_path / "network.onnx", spec_of("detect")))
    message, hint = prove(model, model, pictures[:5], cores=1).refusal()
    assert "recall of the reference's boxes 74.1 % (limit 90)" in message
    assert "10 boxes are too few to prove a box_recall of 90 %: with 0 lost it takes 29" in hint

"""Proofs: planted mistakes are refused with the stage that differs, nothing is dropped, and figures follow from the answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from PIL import Image

from plimsoll import onnx_graph
from plimsoll.budget import Budget
from plimsoll.errors import InputError, ModelError
from plimsoll.fold import fold
from plimsoll.image import InputPlan
from plimsoll.model import Model
from plimsoll.opener import Opened, open_reference
from plimsoll.prove import Proof, compare, compare_layers, default_thresholds, prove, read_labels
from plimsoll.report import Report
from plimsoll.spec import Input, Spec
from plimsoll.spec.output import Band, Classify, Tensors
from plimsoll.spec.steps import Step
from plimsoll.target import Target
from unit.folding import convolution, spec

BUDGET = Budget.parse("flips=40%,drift=0.02")
"""What a dozen photos can prove."""

Change = Callable[[dict[str, Any]], dict[str, Any] | None]


def changed(model: Model, change: Change, *more: dict[str, Any]) -> Model:
    """Return the model with another Spec: `change` maps each input step to another, or to None to leave it out."""
    contract = model.contract()
    steps = [made for step in contract.input.steps if (made := change(step.model_dump(exclude_unset=True) | {"step": step.step})) is not None]
    other = Input.model_validate({"tensor": contract.input.tensor, "steps": [*steps, *more]})
    return Model(model.path, model.format, contract.model_copy(update={"input": other}))


def same(step: dict[str, Any]) -> dict[str, Any]:
    return step


def without(name: str) -> Change:
    return lambda step: None if step["step"] == name else step


def with_values(name: str, **values: Any) -> Change:
    return lambda step: {**step, **values} if step["step"] == name else step


@pytest.fixture
def nsfw(nsfw_model_path: Path) -> Opened:
    del nsfw_model_path
    return open_reference("open_nsfw")


@pytest.fixture
def photos(example_photos: list[Path]) -> list[Path]:
    return example_photos[::5]


MISTAKES: dict[str, tuple[Change, tuple[dict[str, Any], ...], str]] = {
    "RGB for BGR": (without("channels"), (), "'channels': it gives the network RGB where the reference gives BGR"),
    "another mean": (with_values("mean", values=[127.5]), (), "'mean': it subtracts 127.5, the reference 104, 117, 123"),
    "a mean of fractions": (with_values("mean", values=[103.939, 116.779, 123.68]), (), "'mean': it subtracts 103.94, 116.78, 123.68"),
    "no mean": (without("mean"), ({"step": "dtype", "to": "float32"},), "'mean': it subtracts 0, the reference 104, 117, 123"),
    "another scale": (same, ({"step": "scale", "divisor": 127.5},), "'scale': it multiplies by 0.007843, the reference by 1"),
}


@pytest.mark.parametrize("folded", [False, True], ids=["in the Spec", "baked into the graph"])
@pytest.mark.parametrize(("change", "more", "cause"), MISTAKES.values(), ids=MISTAKES)
def test_a_wrong_normalization_is_refused_and_named(
    nsfw: Opened, photos: list[Path], tmp_path: Path, change: Change, more: tuple[dict[str, Any], ...], cause: str, folded: bool
) -> None:
    wrong = changed(nsfw.model, change, *more)
    proof = prove(nsfw, Opened(fold(wrong, tmp_path) if folded else wrong), photos[:6], budget=Budget.parse("flips=99%,drift=0.9"))
    assert not proof.passed
    assert cause in proof.cause
    assert ("inside its graph" if folded else "in its input steps") in proof.cause
    assert cause in " ".join(proof.refusal())
    # The half that is at fault carries the drift, the other none.
    assert proof.input_only is not None
    assert proof.network_only is not None
    guilty, innocent = (proof.network_only, proof.input_only) if folded else (proof.input_only, proof.network_only)
    assert guilty.size > 1e-5 > innocent.size


STAGES: dict[str, tuple[Change, str]] = {
    "another resize": (with_values("resize", filter="nearest"), "'resize': filter = nearest, the reference has bilinear"),
    "no JPEG round trip": (without("jpeg"), "'jpeg': it has no 'jpeg' step here"),
    "crop elsewhere": (with_values("crop", x=0, y=0), "'crop': x = 0, the reference has none"),
    "EXIF": (with_values("decode", exif_orientation=True), "'decode': exif_orientation = true"),
}


@pytest.mark.parametrize(("change", "cause"), STAGES.values(), ids=STAGES)
def test_a_step_on_pixels_that_differs_is_named(nsfw: Opened, photos: list[Path], tmp_path: Path, change: Change, cause: str) -> None:
    turned = tmp_path / "turned.jpg"
    image = Image.open(photos[0])
    exif = image.getexif()
    exif[0x0112] = 3
    image.save(turned, exif=exif)
    proof = prove(nsfw, Opened(changed(nsfw.model, change)), [turned, *photos[:4]], budget=Budget.parse("drift=0.000001"))
    assert not proof.passed
    assert cause in proof.refusal()[1]
    assert proof.mistakes == ()
    differing = [stage.stage for stage in proof.stages if stage.mean_levels > 0]
    assert differing == [cause.split("'")[1]], "a difference is counted where it arises and nowhere else"


def test_a_step_that_only_the_other_has_is_named(nsfw: Opened, photos: list[Path]) -> None:
    proof = prove(Opened(changed(nsfw.model, without("jpeg"))), nsfw, photos[:4], budget=Budget.parse("drift=0.000001"))
    assert "'jpeg': it has a 'jpeg' step here, the reference has none" in proof.refusal()[1]
    assert [stage.stage for stage in proof.stages if stage.mean_levels > 0] == ["jpeg"]


@pytest.mark.parametrize("implementation", ["reference", "fast"])
def test_channels_turned_before_the_last_step_on_pixels_are_no_difference(nsfw: Opened, photos: list[Path], implementation: Any) -> None:
    early = changed(nsfw.model, without("channels"))
    steps_ = [step.model_dump(exclude_unset=True) | {"step": step.step} for step in early.contract().input.steps]
    at = next(place for place, step in enumerate(steps_) if step["step"] == "jpeg")
    order = Input.model_validate({"tensor": "input:0", "steps": [*steps_[:at], {"step": "channels", "order": "BGR"}, *steps_[at:]]})
    other = Model(nsfw.model.path, "onnx", nsfw.model.contract().model_copy(update={"input": order}))
    proof = prove(Opened(nsfw.model, implementation=implementation), Opened(other, implementation=implementation), photos[:4], budget=BUDGET)
    assert proof.mistakes == ()
    assert proof.input_only is not None
    assert proof.input_only.size == 0
    assert all(stage.mean_levels == 0 for stage in proof.stages)


@pytest.mark.parametrize("implementation", ["reference", "fast"])
def test_a_folded_network_is_proven(nsfw: Opened, photos: list[Path], tmp_path: Path, implementation: Any) -> None:
    proof = prove(nsfw, Opened(fold(nsfw.model, tmp_path), implementation=implementation), photos, budget=BUDGET)
    assert proof.passed
    assert proof.exchange == "pixels"
    assert proof.mistakes == ()
    assert proof.network_only is not None
    assert proof.network_only.size < 1e-6
    assert (proof.input_only is not None and proof.input_only.size > 1e-6) is (implementation == "fast")
    assert ("'resize'" in proof.cause) is (implementation == "fast")


def test_the_headline_states_the_sample(nsfw: Opened, photos: list[Path]) -> None:
    proof = prove(nsfw, nsfw, photos, budget=BUDGET)
    assert proof.headline == "0 of 12 decisions flipped at any threshold; with 95 % confidence fewer than 23 % do"
    assert proof.cause == ""
    assert proof.answers is not None
    assert [threshold for threshold, _ in proof.answers.flips] == [0.5, 0.2, 0.8]
    assert proof.answers.rank_correlation == 1.0


def test_too_few_pictures_are_told_apart_from_a_bad_model(nsfw: Opened, photos: list[Path]) -> None:
    message, hint = prove(nsfw, nsfw, photos).refusal()
    assert "flips at 0.5 22.1 % (limit 4)" in message
    assert hint == "12 pictures are too few to prove 4 %: with 0 flipped it takes 74"


def test_the_report_is_whole_and_legal_json(nsfw: Opened, photos: list[Path], tmp_path: Path) -> None:
    proof = prove(nsfw, Opened(fold(nsfw.model, tmp_path)), photos[:3], budget=BUDGET, layers=True)
    text = proof.report().to_json()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    data = json.loads(text, parse_constant=refuse)
    assert data["kind"] == "prove"
    assert [row["path"] for row in data["details"]["scores"]] == [str(photo) for photo in photos[:3]]
    assert len(data["details"]["layers"]) > 100
    (tmp_path / "report.json").write_text(text)
    assert Report.read(tmp_path / "report.json").passed is proof.passed


def test_layers_show_where_the_drift_enters(nsfw: Opened, photos: list[Path], tmp_path: Path) -> None:
    proto = onnx.load(nsfw.model.path)
    hurt = [node for node in proto.graph.node if node.op_type == "Conv"][4]
    name = hurt.output[0]
    stored = next(one for one in proto.graph.initializer if one.name == hurt.input[1])
    stored.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored) * np.float32(1.2), stored.name))
    onnx.save(proto, tmp_path / "hurt.onnx")
    proof = prove(nsfw, Opened(Model(tmp_path / "hurt.onnx", "onnx", nsfw.model.spec)), photos[:3], budget=BUDGET, layers=True)
    first = next(layer for layer in proof.layers if layer.snr_db < 60)
    assert (first.name, first.operator) == (name, "Conv")
    assert first.snr_db == pytest.approx(14.0, abs=3)
    assert "the network differs" in proof.cause


class _Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, name: str, tensors: list[NDArray[Any]]) -> None:
        self._feeds = iter([{name: tensor[np.newaxis]} for tensor in tensors])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)


def quantized(model: Model, path: Path, photos: list[Path]) -> Model:
    """Return the model in explicit Q/DQ, weights per channel, as ONNX Runtime's quantizer makes it."""
    plan = InputPlan(model.contract().input)
    feeds = _Calibration(onnx.load(model.path).graph.input[0].name, [plan(photo) for photo in photos])
    quantization.quantize_static(str(model.path), str(path), feeds, quant_format=quantization.QuantFormat.QDQ, per_channel=True)
    return Model(path, "onnx", model.spec)


def test_a_quantized_network_is_looked_into_as_well(tmp_path: Path, photos: list[Path]) -> None:
    resize: dict[str, Any] = {"step": "resize", "width": 40, "height": 32}
    rest: list[dict[str, Any]] = [{"step": "scale", "divisor": 255.0}, {"step": "mean", "values": [0.485, 0.456, 0.406]}, {"step": "layout", "order": "NCHW"}]
    reference = convolution(tmp_path, spec(resize, {"step": "channels", "order": "BGR"}, *rest))
    wrong = Model(reference.path, "onnx", spec(resize, *rest))
    noise: list[float] = []
    for folder, model, mistakes in (("right", reference, []), ("wrong", wrong, ["channels"])):
        (tmp_path / folder).mkdir()
        int8 = quantized(fold(model, tmp_path / folder), tmp_path / folder / "int8.onnx", photos)
        proof = prove(Opened(reference), Opened(int8, Target("onnxruntime", "cpu", "int8")), photos, layers=True, budget=Budget.parse("snr=20"))
        assert proof.mistakes is not None
        assert [one.stage for one in proof.mistakes] == mistakes
        assert proof.passed is not bool(mistakes)
        proto = onnx.load(int8.path)
        assert dict(onnx_graph.values(proto))["rectified"] != "rectified", "what the next operator reads is the dequantized one"
        first = onnx_graph.first_convolution(proto, "picture")
        assert first is not None
        assert first.source == "picture/centred", "before it is quantized"
        noise.append(next(layer.snr_db for layer in proof.layers if layer.name == "rectified"))
    assert noise[0] > noise[1] + 6


def small(path: Path, nodes: list[Any], constants: list[Any], spec: Spec, output: str = "scores") -> Model:
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 8, 8, 3])
    scores = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 2])
    graph = helper.make_graph(nodes, "small", [picture], [scores], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return Model(path, "onnx", spec)


@cache
def steps() -> tuple[Step, ...]:
    return Input.model_validate({"steps": [{"step": "decode"}, {"step": "resize", "width": 8, "height": 8}, {"step": "dtype", "to": "float32"}]}).steps


def brightness(path: Path, spec: Spec, least: float = -1.0, output: str = "scores") -> Model:
    """[dark, bright] by the mean level; what is not above `least` becomes NaN."""
    nodes = [
        helper.make_node("ReduceMean", ["picture"], ["level"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["level", "least"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["root"]),
        helper.make_node("Mul", ["root", "none"], ["nothing"]),
        helper.make_node("Add", ["level", "nothing"], ["kept"]),
        helper.make_node("Unsqueeze", ["kept", "axis"], ["column"]),
        helper.make_node("Gemm", ["column", "weights", "offset"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [output], axis=-1),
    ]
    values = {"least": np.array(least), "none": np.array(0.0), "weights": np.array([[-0.02, 0.02]]), "offset": np.array([2.0, -2.0])}
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()]
    return small(path, nodes, [*constants, numpy_helper.from_array(np.array([1], np.int64), "axis")], spec, output)


def classify(**more: Any) -> Spec:
    return Spec(name="brightness", input=Input(steps=steps()), output=Classify(labels=("dark", "bright"), **more))


@pytest.fixture
def greys(tmp_path: Path) -> list[Path]:
    """Twenty pictures of one level each, from dark to bright."""
    paths = []
    for count, level in enumerate(np.linspace(5, 250, 20)):
        paths.append(tmp_path / f"grey{count:02}.png")
        Image.new("RGB", (9, 9), (int(level),) * 3).save(paths[-1])
    return paths


def test_nan_counts_as_no_answer_and_refuses_whatever_the_budget(tmp_path: Path, greys: list[Path]) -> None:
    good, bad = brightness(tmp_path / "good.onnx", classify(positive="bright")), brightness(tmp_path / "bad.onnx", classify(positive="bright"), least=40)
    proof = prove(Opened(good), Opened(bad), greys, budget=Budget.parse("flips=99%"))
    assert not proof.passed
    assert [Path(one.path).name for one in proof.lost] == ["grey00.png", "grey01.png", "grey02.png"]
    assert proof.answers is not None
    assert [one.count for _, one in proof.answers.flips] == [3]
    assert "pictures that only the reference answers 3" in proof.refusal()[0]
    assert "no numbers" in proof.refusal()[1]


def test_pictures_that_neither_can_read_are_told_and_hold_nothing_against_the_other(tmp_path: Path, greys: list[Path], awkward: Path) -> None:
    model = Opened(brightness(tmp_path / "good.onnx", classify(positive="bright")))
    proof = prove(model, model, [*greys, awkward / "truncated.jpg", tmp_path / "missing.png"], budget=BUDGET)
    assert proof.passed
    assert [bool(one.reference and one.other) for one in proof.failures] == [True, True]
    assert (proof.pictures, proof.lost) == (20, ())


def test_nothing_to_prove_on_is_refused(tmp_path: Path, greys: list[Path], awkward: Path) -> None:
    model = Opened(brightness(tmp_path / "good.onnx", classify(positive="bright")))
    with pytest.raises(InputError, match="no pictures"):
        prove(model, model, [])
    with pytest.raises(InputError, match="answers none of the 1 pictures"):
        prove(model, model, [awkward / "truncated.jpg"])
    with pytest.raises(InputError, match="the budget limits recall, which needs labelled pictures"):
        prove(model, model, greys, budget=Budget.parse("recall=-1%"))


def test_two_questions_are_not_compared(tmp_path: Path, greys: list[Path]) -> None:
    bright, dark = (Opened(brightness(tmp_path / f"{name}.onnx", classify(positive=name))) for name in ("bright", "dark"))
    with pytest.raises(InputError, match=r"positive: bright.*positive: dark"):
        prove(bright, dark, greys)
    raw = Opened(Model(bright.model.path, "onnx", classify().model_copy(update={"output": Tensors()})))
    with pytest.raises(InputError, match="task is 'classify', the other's 'tensor'"):
        prove(bright, raw, greys)


def test_labels_and_outputs_of_another_name(tmp_path: Path, greys: list[Path]) -> None:
    good = brightness(tmp_path / "good.onnx", classify(positive="bright"))
    other = brightness(tmp_path / "other.onnx", classify(positive="bright"), output="quantized")
    labels = {str(path.resolve()): "bright" if count >= 9 else "dark" for count, path in enumerate(greys)}
    proof = prove(Opened(good), Opened(other), greys, labels=labels, budget=Budget.parse("accuracy=-20%"))
    assert proof.passed
    assert proof.answers is not None
    assert proof.answers.labelled == 20
    assert {one.name: one.reference for one in proof.answers.changes}["auc"] == 1.0
    assert list(proof.outputs) == ["scores"]


def test_raw_tensors_are_proven_by_signal_to_noise(tmp_path: Path, greys: list[Path]) -> None:
    raw = classify().model_copy(update={"output": Tensors()})
    model = brightness(tmp_path / "good.onnx", raw)
    proof = prove(Opened(model), Opened(model), greys)
    assert proof.passed
    assert proof.checks[0].name == "signal to noise of the outputs"
    proof = prove(Opened(model), Opened(brightness(tmp_path / "bad.onnx", raw, least=40)), greys)
    assert not proof.passed
    assert math.isnan(proof.checks[0].measured)
    with pytest.raises(InputError, match="needs scores"):
        prove(Opened(model), Opened(model), greys, budget=Budget.parse("flips=4%"))


def test_layers_need_shared_values(tmp_path: Path, nsfw: Opened) -> None:
    model = brightness(tmp_path / "good.onnx", classify())
    with pytest.raises(ModelError, match="shares no named value"):
        compare_layers(nsfw.model, model, [])


POSITIVE = Classify(labels=("no", "yes"), positive="yes", threshold=0.3, bands=(Band(label="low", below=0.2), Band(label="high", below=None)))


def yes(score: float) -> dict[str, float]:
    return {"yes": score, "no": 1 - score}


def test_thresholds_are_the_specs_then_half_then_the_edges_each_once() -> None:
    assert default_thresholds(POSITIVE) == (0.3, 0.5, 0.2)
    assert default_thresholds(Classify(labels=("a", "b"))) == ()


def test_comparison_by_hand() -> None:
    found = compare(POSITIVE, [(yes(0.1), yes(0.25)), (yes(0.4), yes(0.35)), (yes(0.6), yes(0.45)), (yes(0.9), None)])
    assert {threshold: (one.count, one.total) for threshold, one in found.flips} == {0.3: (1, 4), 0.5: (2, 4), 0.2: (2, 4)}
    assert found.lost == 1
    assert found.drift is not None
    assert found.drift.maximum == pytest.approx(0.15)
    assert found.headline.startswith("2 of 4 decisions flipped at 0.5; with 95 % confidence fewer than")


def test_best_label_decides_where_none_is_positive() -> None:
    output = Classify(labels=("a", "b", "c"), threshold=0.5)
    pairs = [
        ({"a": 0.6, "b": 0.3, "c": 0.1}, {"a": 0.55, "b": 0.35, "c": 0.1}),
        ({"a": 0.6, "b": 0.3, "c": 0.1}, {"a": 0.45, "b": 0.35, "c": 0.2}),
        ({"a": 0.1, "b": 0.8, "c": 0.1}, {"a": 0.7, "b": 0.2, "c": 0.1}),
    ]
    found = compare(output, pairs, truths=["a", "a", None])
    assert [(threshold, one.count, one.total) for threshold, one in found.flips] == [(None, 2, 3)]
    assert found.drift is not None
    assert found.drift.maximum == pytest.approx(0.6)
    top1 = found.changes[0]
    assert (top1.name, top1.reference, top1.other) == ("top1", 1.0, 0.5)
    assert found.labelled == 2


def test_constant_scores_have_no_rank_and_nothing_answered_has_no_drift() -> None:
    assert compare(POSITIVE, [(yes(0.5), yes(0.5))] * 4).rank_correlation is None
    nothing = compare(POSITIVE, [(yes(0.5), None)])
    assert nothing.drift is None
    assert nothing.headline.startswith("1 of 1 decisions flipped")
    assert compare(POSITIVE, []).headline == "no decision was compared"


def test_labels_from_csv_and_folders(tmp_path: Path) -> None:
    for name in ("cat/one.png", "dog/two.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = {str((tmp_path / "cat/one.png").resolve()): "cat", str((tmp_path / "dog/two.png").resolve()): "dog"}
    assert read_labels(tmp_path, ["cat", "dog"]) == expected
    for heading in ("path,label\n", ""):
        (tmp_path / "labels.csv").write_text(f"{heading}cat/one.png,cat\n\ndog/two.png, dog\n")
        assert read_labels(tmp_path / "labels.csv", ["cat", "dog"]) == expected
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "labels.csv").rename(tmp_path / "elsewhere" / "labels.csv")
    assert read_labels(tmp_path / "elsewhere" / "labels.csv", ["cat", "dog"], tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,cot\n", "has the label 'cot', which the model doesn't know; did you mean 'cat'"),
        ("a.png\n", "expected path,label"),
        ("a.png,cat\na.png,dog\n", "has two labels"),
        ("", "no labels in it"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "labels.csv", ["cat", "dog"])


def test_memory_holds_no_tensors(nsfw: Opened, photos: list[Path]) -> None:
    proof: Proof = prove(nsfw, nsfw, photos[:2], budget=BUDGET)

    def arrays(value: Any) -> list[NDArray[Any]]:
        if isinstance(value, np.ndarray):
            return [value]
        inside = value if isinstance(value, (list, tuple)) else vars(value).values() if hasattr(value, "__dict__") else ()
        return [found for one in inside for found in arrays(one)]

    assert not arrays(proof)

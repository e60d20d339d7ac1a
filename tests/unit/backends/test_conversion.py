"""The check of conversions names every planted fault, and calls no harmless change wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from helpers import crashing_runtime
from helpers.answer_networks import ANSWER, draw, network, saved, spec_of
from plimsoll import backends, quantize
from plimsoll.backends import conversion
from plimsoll.backends.base import Session, ThreadPlan
from plimsoll.backends.comparison import Conversion, Outcome, compare
from plimsoll.core.model import Model, Tensors
from plimsoll.core.target import Target
from plimsoll.errors import BuildError
from plimsoll.onnx.form import metadata
from plimsoll.preprocessing import Preprocessor

TASKS = ("classify", "detect", "landmarks", "segment")
Change = Callable[[onnx.ModelProto, str], None]
ORT = {name: Target("onnxruntime", "cpu", name) for name in ("float32", "float16", "int8")}


def weights(proto: onnx.ModelProto, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    (tensor,) = [tensor for tensor in proto.graph.initializer if tensor.name == name]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()).astype(np.float32), name))


def after(proto: onnx.ModelProto, value: str, operator: str, *constants: Any, **attributes: Any) -> None:
    """Put an operator behind a value; its readers, or the caller, get what the operator gives."""
    inner = f"{value}_before{len(proto.graph.node)}"
    for index, maker in enumerate(proto.graph.node):
        if value in maker.output:
            maker.output[:] = [inner if name == value else name for name in maker.output]
            index_after = index + 1
    stored = [
        numpy_helper.from_array(np.asarray(constant), f"{inner}_{operator}_{index}")
        for index, constant in enumerate(constants)
    ]
    proto.graph.initializer.extend(stored)
    added = helper.make_node(
        operator, [inner, *[tensor.name for tensor in stored]], [value], f"{inner}_x", **attributes
    )
    proto.graph.node.insert(index_after, added)


def scaled(value: str | None, factor: float) -> Change:
    return lambda proto, answer: after(proto, value or answer, "Mul", np.float32(factor))


def padded_at_one_side(proto: onnx.ModelProto, answer: str) -> None:
    del answer
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "pads":
                attribute.ints[:] = [2, 2, 0, 0]


def nan_in_bright_pictures(proto: onnx.ModelProto, answer: str) -> None:
    """Some pictures get NaN: the square root of a negative number."""
    after(proto, "smooth", "Add", np.float32(0))
    nodes = [
        helper.make_node("ReduceMean", ["picture"], ["bright"], keepdims=1, axes=None),
        helper.make_node("Sub", ["threshold", "bright"], ["dark"]),
        helper.make_node("Sqrt", ["dark"], ["root"]),
        helper.make_node("Mul", ["root", "nothing_at_all"], ["poison"]),
    ]
    del nodes[0].attribute[1:]
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.35), "threshold"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing_at_all"))
    for index, node in enumerate(nodes):
        proto.graph.node.insert(index, node)
    (added,) = [node for node in proto.graph.node if node.name.startswith("smooth_before")]
    added.input[1] = "poison"
    del answer


def of_whole_numbers(proto: onnx.ModelProto, answer: str) -> None:
    after(proto, answer, "Cast", to=onnx.TensorProto.INT32)
    for value in proto.graph.output:
        if value.name == answer:
            value.type.tensor_type.elem_type = onnx.TensorProto.INT32


def there_and_back(proto: onnx.ModelProto, answer: str) -> None:
    del answer
    after(proto, "smooth", "Transpose", perm=[0, 2, 3, 1])
    after(proto, "smooth", "Transpose", perm=[0, 3, 1, 2])


def without_a_channel(proto: onnx.ModelProto, answer: str) -> None:
    del answer

    def zero(array: NDArray[Any]) -> NDArray[Any]:
        array[1] = 0
        return array

    weights(proto, "colour_weights", zero)


FAULTS: dict[str, Change] = {
    "scores × 0": scaled(None, 0.0),
    "scores × 1.02": scaled(None, 1.02),
    "a layer × 2": scaled("smooth", 2.0),
    "a layer × 0.5": scaled("colours", 0.5),
    "bias dropped": lambda proto, _: weights(proto, "colour_bias", lambda bias: bias * 0),
    "a channel's weights are zero": without_a_channel,
    "channels swapped": lambda proto, _: weights(proto, "colour_weights", lambda array: array[::-1]),
    "BGR for RGB": lambda proto, _: weights(proto, "stem_weights", lambda array: array[:, ::-1]),
    "transposed inside": lambda proto, _: after(proto, "smooth", "Transpose", perm=[0, 1, 3, 2]),
    "padding at one side": padded_at_one_side,
    "another activation": lambda proto, _: after(proto, "colours", "Relu"),
    "clipped": lambda proto, _: after(proto, "smooth", "Clip", np.float32(0), np.float32(0.5)),
    "NaN in some pictures": nan_in_bright_pictures,
    "infinite": lambda proto, answer: after(proto, answer, "Div", np.float32(0)),
    "constant": lambda proto, answer: after(proto, answer, "Clip", np.float32(0.25), np.float32(0.25)),
    "of another shape": lambda proto, answer: after(proto, answer, "Unsqueeze", np.array([1], np.int64)),
    "of another dtype": of_whole_numbers,
    "negative": scaled(None, -1.0),
    "shifted": lambda proto, answer: after(proto, answer, "Add", np.float32(0.05)),
}
UNSEEN: Mapping[str, frozenset[str]] = {
    "float16": frozenset({"padding at one side"}),
    "int8": frozenset({"scores × 1.02", "padding at one side"}),
}
"""Faults that leave more than a precision asks for: in these small networks, 26 to 58 dB."""
UNSEEN_IN_POINTS = {"a layer × 2", "shifted"}
"""What moves points by a twentieth of a pixel, and by a twentieth of their size: 26 dB at int8."""
INVISIBLE = {("classify", "transposed inside")}
"""Faults that change no answer: an average over all pixels is the same of a transposed picture."""

HARMLESS: dict[str, Change] = {
    "nothing": lambda *_: None,
    "identity": lambda proto, _: after(proto, "smooth", "Identity"),
    "× 1": scaled("colours", 1.0),
    "rounded like another kernel": scaled(None, 1.0 + 2e-6),
    "there and back": there_and_back,
    "Relu twice": lambda proto, _: after(proto, "smooth", "Relu"),
    "weights rounded at the last digit": lambda proto, _: weights(
        proto, "colour_weights", lambda array: array * (1 + 1e-7)
    ),
    "another name inside": lambda proto, _: setattr(proto.graph, "name", "renamed"),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return tuple(draw(tmp_path_factory.mktemp("drawn"), 8))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("sources")
    return {task: saved(network(task), folder / f"{task}.onnx", spec_of(task)) for task in TASKS}


def built_from(source: Model, folder: Path, task: str, change: Change) -> Model:
    proto = onnx.load(source.path)
    change(proto, ANSWER[task])
    return Model(saved(proto, folder / "built.onnx", spec_of(task)).path, "onnx", source.spec, parent=source)


def compared(built: Model, target: Target, pictures: tuple[Path, ...], wrap: Any = None) -> Outcome:
    backend = backends.get("onnxruntime")
    session: Session = backend.load(built, target, None, ThreadPlan(1, 1))
    session = wrap(session) if wrap is not None else session
    return compare(Conversion(built, target, backend.options(), pictures=pictures), session)


def faults_in(outcome: Outcome) -> list[str]:
    return [f"{figure.name} {figure.fault}" for figure in (*outcome.figures, *outcome.state) if figure.fault]


@pytest.mark.parametrize("task", TASKS)
def test_every_planted_fault_is_named(
    task: str, sources: dict[str, Model], pictures: tuple[Path, ...], tmp_path: Path
) -> None:
    missed = [
        name
        for name, change in FAULTS.items()
        if (task, name) not in INVISIBLE
        and not faults_in(compared(built_from(sources[task], tmp_path, task, change), ORT["float32"], pictures))
    ]
    assert missed == []


@pytest.mark.parametrize("task", TASKS)
def test_nothing_harmless_is_called_wrong(
    task: str, sources: dict[str, Model], pictures: tuple[Path, ...], tmp_path: Path
) -> None:
    wrong = {
        name: faults
        for name, change in HARMLESS.items()
        if (faults := faults_in(compared(built_from(sources[task], tmp_path, task, change), ORT["float32"], pictures)))
    }
    assert wrong == {}


def in_float16(model: Model, folder: Path, pictures: tuple[Path, ...]) -> Model:
    del pictures
    return quantize.float16(model, folder)


def in_int8(model: Model, folder: Path, pictures: tuple[Path, ...]) -> Model:
    preprocessor = Preprocessor(model.require_spec().input)
    statistics = quantize.observe(model, [np.stack([preprocessor(picture) for picture in pictures])], cores=1)
    return quantize.static(model, statistics.calibration("minmax"), folder)


COARSE: Mapping[str, Callable[[Model, Path, tuple[Path, ...]], Model]] = {"float16": in_float16, "int8": in_int8}


@pytest.mark.parametrize("precision", COARSE)
@pytest.mark.parametrize("task", TASKS)
def test_faults_are_named_in_coarse_precisions_and_rounding_is_none(
    task: str, precision: str, sources: dict[str, Model], pictures: tuple[Path, ...], tmp_path: Path
) -> None:
    def outcome(change: Change) -> list[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        coarse = COARSE[precision](built_from(sources[task], folder, task, change), folder, pictures)
        return faults_in(compared(coarse, ORT[precision], pictures))

    assert {name: faults for name, change in HARMLESS.items() if (faults := outcome(change))} == {}
    unseen = UNSEEN[precision] | (UNSEEN_IN_POINTS if task == "landmarks" else set())
    planted = {name: change for name, change in FAULTS.items() if name not in (*unseen, "of another shape")}
    missed = [name for name, change in planted.items() if not outcome(change) and (task, name) not in INVISIBLE]
    assert missed == []


class Stateful:
    """Adds a share of its last answer to the next, as a network does that keeps its state."""

    concurrent = False

    def __init__(self, session: Session) -> None:
        self.session, self.inputs, self.outputs = session, session.inputs, session.outputs
        self.last: Tensors = {}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        answer = self.session.run(feeds)
        outputs = {
            name: value + 0.01 * self.last[name]
            if name in self.last and self.last[name].shape == value.shape
            else value
            for name, value in answer.items()
        }
        self.last = answer
        return outputs

    def close(self) -> None:
        self.session.close()


class FirstOfBatch(Stateful):
    """Gives every picture of a batch the first one's answer."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        return {name: np.repeat(value[:1], len(value), 0) for name, value in self.session.run(feeds).items()}


class Random(Stateful):
    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        noise = np.random.default_rng().normal(0, 0.01)
        return {name: value + np.float32(noise) for name, value in self.session.run(feeds).items()}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("fault", [Stateful, FirstOfBatch, Random])
def test_what_shows_only_from_call_to_call_is_named(
    task: str, fault: type[Stateful], sources: dict[str, Model], pictures: tuple[Path, ...], tmp_path: Path
) -> None:
    built = built_from(sources[task], tmp_path, task, HARMLESS["nothing"])
    assert faults_in(compared(built, ORT["float32"], pictures, fault))


def test_a_network_that_draws_random_numbers_is_refused_by_name(
    sources: dict[str, Model], pictures: tuple[Path, ...], tmp_path: Path
) -> None:
    def noisy(proto: onnx.ModelProto, _: str) -> None:
        after(proto, "smooth", "Add", np.float32(0))
        (added,) = [node for node in proto.graph.node if node.name.startswith("smooth_before")]
        added.input[1] = "noise"
        proto.graph.node.insert(0, helper.make_node("RandomNormal", [], ["noise"], "dice", shape=[1], scale=0.1))

    built = built_from(sources["classify"], tmp_path, "classify", noisy)
    alone = Model(built.path, "onnx", built.spec)
    outcome = compared(alone, ORT["float32"], pictures)
    assert "RandomNormal ('dice') draws random numbers" in outcome.unrepeatable


def test_a_file_that_only_the_checker_refuses_is_compared_as_any_other(
    sources: dict[str, Model], pictures: tuple[Path, ...], tmp_path: Path
) -> None:
    """ONNX Runtime reads a file of IR 3 whose weights are not listed as inputs, and so does the normal form."""

    def old(proto: onnx.ModelProto, _: str) -> None:
        proto.ir_version = 3

    alone = Model(built_from(sources["classify"], tmp_path, "classify", old).path, "onnx", sources["classify"].spec)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(onnx.load(alone.path))
    assert not faults_in(compared(alone, ORT["float32"], pictures))


def test_the_first_wrong_layer_is_named(sources: dict[str, Model], tmp_path: Path, monkeypatch: Any) -> None:
    """A converter that doubles every value called `smooth` is caught at that layer, in a user's words."""
    backend = backends.get("openvino")

    def build(model: Model, target: Target, folder: Path, calibration: Any = None) -> Model:
        del target, calibration
        proto = onnx.load(model.path)
        if any("smooth" in node.output for node in proto.graph.node):
            scaled("smooth", 2.0)(proto, "")
        path = folder / "converted.onnx"
        onnx.save(proto, path)
        return Model(path, "onnx", model.spec, parent=model)

    monkeypatch.setattr(type(backend), "build", lambda _, *arguments: build(*arguments))
    with pytest.raises(BuildError) as caught:
        conversion.build(sources["classify"], Target("openvino"), tmp_path)
    assert f"{sources['classify'].path}: openvino:cpu:float32 answers otherwise" in caught.value.message
    assert "first wrong at layer 'smooth' (Conv + Relu)" in caught.value.message
    assert "the limit at float32 is 60 dB" in caught.value.message


def test_a_crash_of_the_runtime_is_a_sentence_or_avoided(
    sources: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "outsider").mkdir()
    for name, value in crashing_runtime.install(tmp_path / "outsider").items():
        monkeypatch.setenv(name, value)
    backend = crashing_runtime.Fragile()
    monkeypatch.setattr(backends, "get", lambda _: backend)
    monkeypatch.setattr(backends, "for_target", lambda _: backend)
    source = sources["segment"]
    path = Path(shutil.copy(source.path, tmp_path / f"{crashing_runtime.CRASHES}.onnx"))
    model = Model(path, "onnx", source.spec)
    with monkeypatch.context() as patch:
        patch.setattr(backend, "after_crash", lambda *_: iter(()))
        with pytest.raises(BuildError) as caught:
            conversion.build(model, Target("fragile"), tmp_path)
    assert f"{path}: " in caught.value.message
    assert "crashed while it loaded or ran the network for fragile:cpu:float32" in caught.value.message
    assert "a segmentation fault (SIGSEGV)" in caught.value.message
    assert conversion.build(model, Target("fragile"), tmp_path).path == tmp_path / "tamed.onnx"


def test_onnx_runtime_obeys_the_note_of_a_crash(sources: dict[str, Model], tmp_path: Path) -> None:
    backend = backends.get("onnxruntime")
    safer = list(backend.after_crash(sources["segment"], ORT["float32"], tmp_path))
    assert [metadata(model.path)["plimsoll.graph_optimization"] for model in safer] == ["extended", "basic", "off"]
    assert not faults_in(compared(safer[0], ORT["float32"], ()))


def test_what_passed_is_checked_again_when_a_byte_or_the_code_changes(
    sources: dict[str, Model], pictures: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path / "cache"))
    checked: list[str] = []

    def counted(given: Conversion, session: Session) -> Outcome:
        checked.append(str(given.target))
        return compare(given, session)

    monkeypatch.setattr(conversion, "compare", counted)
    built = built_from(sources["classify"], tmp_path, "classify", there_and_back)
    backend = backends.get("onnxruntime")
    session = backend.load(built, ORT["float32"], None, ThreadPlan(1, 1))

    def times_checked(*given: Path) -> int:
        checked.clear()
        conversion.check(Conversion(built, ORT["float32"], backend.options(), pictures=given), session)
        return len(checked)

    picture = Path(shutil.copy(pictures[0], tmp_path / "picture.png"))
    assert (times_checked(picture), times_checked(picture)) == (1, 0)
    assert times_checked(Path(shutil.copy(picture, tmp_path / "moved.png"))) == 0
    shutil.copy(pictures[1], picture)
    assert (times_checked(picture), times_checked(picture)) == (1, 0)
    monkeypatch.setattr(conversion, "_code_of_checks", lambda: "another check")
    assert (times_checked(picture), times_checked(picture)) == (1, 0)
    monkeypatch.setattr(conversion, "_code_of", lambda _: "another session")
    assert (times_checked(picture), times_checked(picture)) == (1, 0)

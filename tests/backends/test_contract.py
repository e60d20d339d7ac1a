"""The contract that every backend keeps, run over every target that this machine has."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.contract_networks import expected, network, two_inputs
from helpers.toolchain_required import require
from plimsoll import backends
from plimsoll.backends.base import ThreadPlan
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import BackendError, BuildError, InputError, RunError, TargetError
from plimsoll.onnx.form import OnnxForm

Array = NDArray[np.float32]
Pictures = Callable[[int], Array]
Built = Callable[[Model], Model]

QUANTIZED_FOR_GPUS = ("int8", "fp8")
"""GPUs quantize around zero, the suite's networks to uint8: tests/backends/test_tensorrt.py and benchmarks/gpu.py bring
their own."""

TARGETS = [
    offer.target
    for name in backends.names()
    for offer in backends.get(name).targets()
    if not offer.missing and not (offer.target.device == "gpu" and offer.target.precision in QUANTIZED_FOR_GPUS)
]
TOLERANCE = {
    "float32": 1e-5,
    "float16": 3e-4,
    "bfloat16": 5e-3,
    "int8": 2e-3,
    "int16x8": 2e-3,
    "dynamic": 3e-3,
    "int8_weights": 2e-4,
}
"""What scores in [0, 1] may be off by: five times what was seen. Half of all pairs of pictures lie 0.04 or more apart.

float16 and bfloat16 keep 11 and 8 bits. int8 rounds pictures in [0, 1], means in [0, 0.5] and weights to 1/510 of their
range; with `dynamic`, the range of a whole batch and one for all rows of the weights.
"""
FORMS: tuple[OnnxForm, ...] = ("float32", "float16", "qdq", "dynamic")


@pytest.fixture(params=TARGETS, ids=str)
def target(request: pytest.FixtureRequest) -> Target:
    assert isinstance(request.param, Target)
    offer = next(
        available for available in backends.get(request.param.runtime).targets() if available.target == request.param
    )
    if offer.toolchain:
        require(offer.toolchain)
    return request.param


@pytest.fixture
def form(target: Target) -> OnnxForm:
    return backends.get(target.runtime).onnx_form(target)


@pytest.fixture
def built(target: Target, build: Callable[[Model, Target], Model]) -> Built:
    """Give a network in the form that the target's runtime loads."""
    return lambda model: build(model, target)


CONVERTED_INT8 = 2e-2
"""Runtimes that quantize the float32 network themselves round everything on its way, the logits too: 0.011 was seen."""


def tolerance(target: Target) -> float:
    converted = backends.get(target.runtime).takes_calibration(target)
    return CONVERTED_INT8 if converted and target.precision == "int8" else TOLERANCE[target.precision]


def test_every_runtime_is_covered_at_every_precision_that_any_processor_has() -> None:
    assert {str(target) for target in TARGETS} >= {
        "onnxruntime:cpu:float32",
        "onnxruntime:cpu:float16",
        "onnxruntime:cpu:int8",
        "onnxruntime:cpu:dynamic",
        "openvino:cpu:float32",
        "openvino:cpu:int8",
        "reference:cpu:float32",
    }


@pytest.mark.parametrize("count", [1, 2, 5])
def test_it_computes_what_the_graph_means(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, pictures: Pictures, count: int
) -> None:
    batch = pictures(count)
    with Runner.open(built(network(tmp_path / "net.onnx", form=form)), target) as runner:
        outputs = runner.infer(batch)
    assert list(outputs) == ["scores"]
    assert outputs["scores"].shape == (count, 4)
    assert outputs["scores"].dtype == np.float32
    np.testing.assert_allclose(outputs["scores"], expected(batch), atol=tolerance(target))


def test_it_says_what_it_takes_and_gives(target: Target, form: OnnxForm, built: Built, tmp_path: Path) -> None:
    with Runner.open(built(network(tmp_path / "net.onnx", form=form)), target) as runner:
        (taken,), (given,) = runner.inputs, runner.outputs
    batch = taken.shape[0]
    assert batch in (None, 1), "free, or fixed where the runtime's own files are"
    assert (taken.name, taken.shape, taken.dtype) == ("picture", (batch, 5, 6, 3), "float32")
    assert (given.name, given.shape, given.dtype) == ("scores", (batch, 4), "float32")


def test_it_leaves_its_input_alone(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, pictures: Pictures
) -> None:
    batch = pictures(2)
    before = batch.copy()
    with Runner.open(built(network(tmp_path / "net.onnx", form=form)), target) as runner:
        runner.infer(batch)
    np.testing.assert_array_equal(batch, before)


def test_an_output_outlives_the_next_call_and_the_session(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, pictures: Pictures
) -> None:
    batch = pictures(2)
    with Runner.open(built(network(tmp_path / "net.onnx", form=form)), target) as runner:
        first = runner.infer(batch)["scores"]
        stored = first.copy()
        runner.infer(1 - batch)
    np.testing.assert_array_equal(first, stored)


def test_a_view_that_is_not_contiguous_counts_like_its_copy(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, pictures: Pictures
) -> None:
    batch = pictures(4)[::2, :, ::-1]
    with Runner.open(built(network(tmp_path / "net.onnx", form=form)), target) as runner:
        np.testing.assert_allclose(runner.infer(batch)["scores"], expected(batch), atol=tolerance(target))


def test_several_inputs_and_outputs_go_by_name(target: Target, form: OnnxForm, built: Built, tmp_path: Path) -> None:
    a, b = np.array([[1, 2], [3, 4]], np.float32), np.array([[52, 104], [156, 259]], np.float32)
    with Runner.open(built(two_inputs(tmp_path / "two.onnx", form)), target) as runner:
        outputs = runner.run({"b": b, "a": a})
    np.testing.assert_allclose(outputs["total"], a + b, rtol=tolerance(target))
    np.testing.assert_allclose(outputs["difference"], a - b, rtol=tolerance(target))


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_a_fixed_batch_size_takes_any_number(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, pictures: Pictures, count: int
) -> None:
    batch = pictures(count)
    with Runner.open(built(network(tmp_path / "net.onnx", 3, form)), target) as runner:
        outputs = runner.infer(batch)
    np.testing.assert_allclose(outputs["scores"], expected(batch), atol=tolerance(target))


def test_many_threads_get_each_their_own_answer(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, pictures: Pictures
) -> None:
    batches = [pictures(count) for count in range(1, 25)]
    with (
        Runner.open(
            built(network(tmp_path / "net.onnx", form=form)), target, objective="throughput", cores=4
        ) as runner,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(runner.infer, batches))
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer["scores"], expected(batch), atol=tolerance(target))
    assert runner.timing.calls == 24 if runner.inputs[0].shape[0] is None else sum(range(1, 25))
    assert runner.timing.items == sum(range(1, 25))
    assert runner.timing.seconds > 0


def test_a_stream_for_each_thread_and_many_calls_of_the_same_size(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, pictures: Pictures
) -> None:
    batches = np.split(pictures(200), 200)
    with (
        Runner.open(
            built(network(tmp_path / "net.onnx", form=form)), target, plan=ThreadPlan(streams=3, threads=1)
        ) as runner,
        ThreadPoolExecutor(6) as pool,
    ):
        assert runner.streams in (1, 3)
        answers = list(pool.map(runner.infer, batches))
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer["scores"], expected(batch), atol=tolerance(target))


def test_it_is_loaded_in_one_thread_and_used_and_closed_in_others(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, pictures: Pictures
) -> None:
    batch = pictures(2)
    with ThreadPoolExecutor(1) as loading, ThreadPoolExecutor(1) as other:
        runner = loading.submit(Runner.open, built(network(tmp_path / "net.onnx", form=form)), target).result()
        answer = other.submit(runner.infer, batch).result()
        loading.submit(runner.close).result()
    np.testing.assert_allclose(answer["scores"], expected(batch), atol=tolerance(target))


def test_a_picture_that_may_not_be_written_is_taken(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, pictures: Pictures
) -> None:
    batch = pictures(2)
    batch.flags.writeable = False
    with Runner.open(built(network(tmp_path / "net.onnx", form=form)), target) as runner:
        np.testing.assert_allclose(runner.infer(batch)["scores"], expected(batch), atol=tolerance(target))


def test_not_a_number_stays_not_a_number(target: Target, form: OnnxForm, built: Built, tmp_path: Path) -> None:
    with Runner.open(built(two_inputs(tmp_path / "two.onnx", form)), target) as runner:
        total = runner.run({"a": np.array([[np.nan, 1]], np.float32), "b": np.ones((1, 2), np.float32)})["total"]
    assert np.isnan(total[0, 0])
    assert total[0, 1] == 2


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"picture": np.zeros((1, 5, 6, 3), np.uint8)}, "uint8"),
        ({"picture": np.zeros((1, 3, 5, 6), np.float32)}, r"\[[N1], 5, 6, 3\]"),
        ({"picture": np.zeros((5, 6, 3), np.float32)}, r"\[[N1], 5, 6, 3\]"),
        ({"picture": np.zeros((0, 5, 6, 3), np.float32)}, "at least 1"),
        ({"image": np.zeros((1, 5, 6, 3), np.float32)}, "'image'"),
        ({}, "nothing"),
    ],
    ids=["dtype", "shape", "rank", "empty", "name", "none"],
)
def test_what_does_not_fit_is_reported(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, feeds: dict[str, Array], message: str
) -> None:
    with (
        Runner.open(built(network(tmp_path / "net.onnx", form=form)), target) as runner,
        pytest.raises(InputError, match=message),
    ):
        runner.run(feeds)


def test_inputs_of_different_batch_sizes_are_refused(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path
) -> None:
    with (
        Runner.open(built(two_inputs(tmp_path / "two.onnx", form)), target) as runner,
        pytest.raises(InputError, match="same number"),
    ):
        runner.run({"a": np.ones((1, 2), np.float32), "b": np.ones((3, 2), np.float32)})


@pytest.mark.parametrize(
    "content", [b"", b"not a network", b"\x08\x07" + b"\xff" * 200], ids=["empty", "text", "garbage"]
)
def test_a_damaged_file_is_build_failed(target: Target, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(BuildError, match=r"net\.onnx"):
        Runner.open(Model(tmp_path / "net.onnx", "onnx"), target)


def test_a_foreign_format_is_build_failed(target: Target, tmp_path: Path) -> None:
    (tmp_path / "net.keras").write_bytes(b"x")
    with pytest.raises(BuildError, match="keras"):
        Runner.open(Model(tmp_path / "net.keras", "keras"), target)


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_written_by_hand_mean_what_they_should(tmp_path: Path, pictures: Pictures, form: OnnxForm) -> None:
    """By ONNX's own evaluator, which takes every form: it is asked what a graph means, not how fast it is."""
    batch = pictures(3)
    with Runner.open(network(tmp_path / "net.onnx", form=form), Target("reference")) as runner:
        np.testing.assert_allclose(
            runner.infer(batch)["scores"], expected(batch), atol=1e-5 if form == "float32" else 1e-2
        )


@pytest.mark.parametrize("given", FORMS)
def test_a_form_that_does_not_fit_is_build_failed(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, given: OnnxForm
) -> None:
    model = network(tmp_path / "net.onnx", form=given)
    if given == form or target.runtime == "reference" or (target == REFERENCE_TARGET and given == "qdq"):
        # The reference's runtime computes Q/DQ pairs as they are written, in float32.
        Runner.open(built(model), target).close()
        return
    with pytest.raises(BuildError, match=rf"net\.onnx: {target} needs .*; this one has"):
        Runner.open(model, target)


def test_closing_twice_is_harmless_and_then_nothing_runs(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, pictures: Pictures
) -> None:
    runner = Runner.open(built(network(tmp_path / "net.onnx", form=form)), target)
    runner.close()
    runner.close()
    with pytest.raises(RunError, match="closed"):
        runner.infer(pictures(1))


def test_an_unknown_option_is_named(target: Target, form: OnnxForm, built: Built, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="turbo"):
        Runner.open(built(network(tmp_path / "net.onnx", form=form)), target, options={"turbo": "1"})


def test_an_unknown_precision_of_the_runtime_is_refused(target: Target) -> None:
    backend = backends.get(target.runtime)
    with pytest.raises((TargetError, BackendError)):
        backend.check(Target(target.runtime, "moon", "float32"))


def test_nothing_is_written_beside_the_model(
    target: Target, form: OnnxForm, built: Built, tmp_path: Path, pictures: Pictures
) -> None:
    model = network(tmp_path / "net.onnx", form=form)
    before = model.path.read_bytes()
    with Runner.open(built(model), target) as runner:
        runner.infer(pictures(1))
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert model.path.read_bytes() == before

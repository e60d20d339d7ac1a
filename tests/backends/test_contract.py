"""The contract that every backend keeps, run over every target that this machine has."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.networks import expected, network, two_inputs
from plimsoll import backends
from plimsoll.errors import BackendError, BuildFailed, InputError, RunFailed, TargetError
from plimsoll.model import Model
from plimsoll.runner import Runner
from plimsoll.target import Target

Array = NDArray[np.float32]
Pictures = Callable[[int], Array]

TARGETS = [offer.target for name in backends.names() for offer in backends.get(name).offers() if not offer.missing]
TOLERANCE = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 3e-2}


@pytest.fixture(params=TARGETS, ids=str)
def target(request: pytest.FixtureRequest) -> Target:
    assert isinstance(request.param, Target)
    return request.param


def tolerance(target: Target) -> float:
    return TOLERANCE[target.precision]


def test_the_two_backends_of_the_core_are_covered() -> None:
    assert {str(target) for target in TARGETS} >= {"onnxruntime:cpu:float32", "reference:cpu:float32"}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_it_computes_what_the_graph_means(target: Target, tmp_path: Path, pictures: Pictures, count: int) -> None:
    batch = pictures(count)
    with Runner.open(network(tmp_path / "net.onnx"), target) as runner:
        outputs = runner.infer(batch)
    assert list(outputs) == ["scores"]
    assert outputs["scores"].shape == (count, 4)
    assert outputs["scores"].dtype == np.float32
    np.testing.assert_allclose(outputs["scores"], expected(batch), atol=tolerance(target))


def test_it_says_what_it_takes_and_gives(target: Target, tmp_path: Path) -> None:
    with Runner.open(network(tmp_path / "net.onnx"), target) as runner:
        (taken,), (given,) = runner.inputs, runner.outputs
    assert (taken.name, taken.shape, taken.dtype) == ("picture", (None, 5, 6, 3), "float32")
    assert (given.name, given.shape, given.dtype) == ("scores", (None, 4), "float32")


def test_it_leaves_its_input_alone(target: Target, tmp_path: Path, pictures: Pictures) -> None:
    batch = pictures(2)
    before = batch.copy()
    with Runner.open(network(tmp_path / "net.onnx"), target) as runner:
        runner.infer(batch)
    np.testing.assert_array_equal(batch, before)


def test_an_output_outlives_the_next_call_and_the_session(target: Target, tmp_path: Path, pictures: Pictures) -> None:
    batch = pictures(2)
    with Runner.open(network(tmp_path / "net.onnx"), target) as runner:
        first = runner.infer(batch)["scores"]
        kept = first.copy()
        runner.infer(1 - batch)
    np.testing.assert_array_equal(first, kept)


def test_a_view_that_is_not_contiguous_counts_like_its_copy(target: Target, tmp_path: Path, pictures: Pictures) -> None:
    batch = pictures(4)[::2, :, ::-1]
    with Runner.open(network(tmp_path / "net.onnx"), target) as runner:
        np.testing.assert_allclose(runner.infer(batch)["scores"], expected(batch), atol=tolerance(target))


def test_several_inputs_and_outputs_go_by_name(target: Target, tmp_path: Path) -> None:
    a, b = np.array([[1, 2], [3, 4]], np.float32), np.array([[10, 20], [30, 40]], np.float32)
    with Runner.open(two_inputs(tmp_path / "two.onnx"), target) as runner:
        outputs = runner.run({"b": b, "a": a})
    np.testing.assert_allclose(outputs["total"], a + b, rtol=tolerance(target))
    np.testing.assert_allclose(outputs["difference"], a - b, rtol=tolerance(target))


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_a_fixed_batch_size_takes_any_number(target: Target, tmp_path: Path, pictures: Pictures, count: int) -> None:
    batch = pictures(count)
    with Runner.open(network(tmp_path / "net.onnx", batch=3), target) as runner:
        outputs = runner.infer(batch)
    np.testing.assert_allclose(outputs["scores"], expected(batch), atol=tolerance(target))


def test_many_threads_get_each_their_own_answer(target: Target, tmp_path: Path, pictures: Pictures) -> None:
    batches = [pictures(count) for count in range(1, 25)]
    with Runner.open(network(tmp_path / "net.onnx"), target, objective="throughput", cores=4) as runner, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(runner.infer, batches))
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer["scores"], expected(batch), atol=tolerance(target))
    assert runner.timing.calls == 24
    assert runner.timing.items == sum(range(1, 25))
    assert runner.timing.seconds > 0


def test_not_a_number_stays_not_a_number(target: Target, tmp_path: Path, pictures: Pictures) -> None:
    batch = pictures(2)
    batch[1, 0, 0, 0] = np.nan
    with Runner.open(two_inputs(tmp_path / "two.onnx"), target) as runner:
        total = runner.run({"a": np.array([[np.nan, 1]], np.float32), "b": np.ones((1, 2), np.float32)})["total"]
    assert np.isnan(total[0, 0])
    assert total[0, 1] == 2


@pytest.mark.parametrize(
    ("feeds", "told"),
    [
        ({"picture": np.zeros((1, 5, 6, 3), np.uint8)}, "uint8"),
        ({"picture": np.zeros((1, 3, 5, 6), np.float32)}, r"\[N, 5, 6, 3\]"),
        ({"picture": np.zeros((5, 6, 3), np.float32)}, r"\[N, 5, 6, 3\]"),
        ({"picture": np.zeros((0, 5, 6, 3), np.float32)}, "at least 1"),
        ({"image": np.zeros((1, 5, 6, 3), np.float32)}, "'image'"),
        ({}, "nothing"),
    ],
    ids=["dtype", "shape", "rank", "empty", "name", "none"],
)
def test_what_does_not_fit_is_said(target: Target, tmp_path: Path, feeds: dict[str, Array], told: str) -> None:
    with Runner.open(network(tmp_path / "net.onnx"), target) as runner, pytest.raises(InputError, match=told):
        runner.run(feeds)


def test_inputs_of_different_batch_sizes_are_refused(target: Target, tmp_path: Path) -> None:
    with Runner.open(two_inputs(tmp_path / "two.onnx"), target) as runner, pytest.raises(InputError, match="same number"):
        runner.run({"a": np.ones((1, 2), np.float32), "b": np.ones((3, 2), np.float32)})


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x07" + b"\xff" * 200], ids=["empty", "text", "garbage"])
def test_a_damaged_file_is_build_failed(target: Target, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(BuildFailed, match=r"net\.onnx"):
        Runner.open(Model(tmp_path / "net.onnx", "onnx"), target)


def test_a_foreign_format_is_build_failed(target: Target, tmp_path: Path) -> None:
    (tmp_path / "net.keras").write_bytes(b"x")
    with pytest.raises(BuildFailed, match="keras"):
        Runner.open(Model(tmp_path / "net.keras", "keras"), target)


def test_closing_twice_is_harmless_and_then_nothing_runs(target: Target, tmp_path: Path, pictures: Pictures) -> None:
    runner = Runner.open(network(tmp_path / "net.onnx"), target)
    runner.close()
    runner.close()
    with pytest.raises(RunFailed, match="closed"):
        runner.infer(pictures(1))


def test_an_unknown_option_is_named(target: Target, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="turbo"):
        Runner.open(network(tmp_path / "net.onnx"), target, options={"turbo": "1"})


def test_an_unknown_precision_of_the_runtime_is_refused(target: Target) -> None:
    backend = backends.get(target.runtime)
    with pytest.raises((TargetError, BackendError)):
        backend.check(Target(target.runtime, "moon", "float32"))


def test_nothing_is_written_beside_the_model(target: Target, tmp_path: Path, pictures: Pictures) -> None:
    model = network(tmp_path / "net.onnx")
    before = model.path.read_bytes()
    with Runner.open(model, target) as runner:
        runner.infer(pictures(1))
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert model.path.read_bytes() == before

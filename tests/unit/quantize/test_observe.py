"""Calibration: one pass, bounded memory, clear errors, tables that are kept and checked."""

from __future__ import annotations

import hashlib
import importlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers import networks_to_quantize as networks
from helpers.networks_to_quantize import Array, node
from plimsoll import quantize
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import InputError, ModelError
from plimsoll.onnx import graph
from plimsoll.quantize.calibrators import TensorStatistics

observe = importlib.import_module("plimsoll.quantize.calibration")  # The package has a verb of that name.


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return networks.residual(tmp_path / "net.onnx")


def test_ranges_are_those_of_the_float_networks_tensors(model: Model, tmp_path: Path) -> None:
    batch = networks.pictures(6)
    statistics = quantize.observe(model, [batch])
    names = [name for name in statistics.tensors if name != "x"]
    exposed = graph.expose(quantize.prepare(model, tmp_path), names, tmp_path / "exposed.onnx")
    with Runner.open(exposed, Target("onnxruntime")) as runner:
        values = {**runner.infer(batch), "x": batch}
    ranges = statistics.ranges("minmax")
    assert set(ranges) >= {"x", "r0", "r1", "c2", "r2", "r3"}
    for name, (low, high) in ranges.items():
        assert low == pytest.approx(min(0, values[name].min()), abs=1e-5), name
        assert high == pytest.approx(max(0, values[name].max()), abs=1e-5), name


def test_how_the_pictures_are_batched_changes_nothing(model: Model) -> None:
    batch = networks.pictures(7)
    whole = quantize.observe(model, [batch])
    other = quantize.observe(model, [batch[:1], batch[1:5], batch[5:]], cores=1)
    digest = hashlib.sha256()
    for picture in batch:
        digest.update(b"<f4(16, 16, 3)" + picture.tobytes())
    assert whole.digest == other.digest == digest.hexdigest()
    assert whole.images == other.images == 7
    for method in quantize.METHODS:
        first, second = whole.ranges(method), other.ranges(method)
        assert first.keys() == second.keys()
        for name, ends in first.items():
            assert ends == pytest.approx(second[name], rel=1e-6), (method, name)


def test_memory_does_not_grow_with_the_number_of_pictures(model: Model) -> None:
    batch = networks.pictures(4)

    def peak(rounds: int) -> int:
        tracemalloc.start()
        try:
            quantize.observe(model, (batch for _ in range(rounds)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many, more = peak(10), peak(10), peak(100)
    assert more < max(few, many) + 1_500_000  # 360 pictures more: their histograms alone would be 240 MB.


def test_pictures_are_taken_as_they_are_worked_on(model: Model) -> None:
    taken: list[int] = []
    seen_at: list[int] = []

    def batches() -> Iterator[Array]:
        for index in range(30):
            taken.append(index)
            yield networks.pictures(1, seed=index)

    original = TensorStatistics.of

    class Watching(TensorStatistics):
        @classmethod
        def of(cls, values: Array) -> TensorStatistics:  # type: ignore[override]
            seen_at.append(len(taken))
            return original(values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observe, "TensorStatistics", Watching)
        quantize.observe(model, batches(), cores=2)
    assert max(seen_at[: len(seen_at) // 2]) < 25


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_picture_that_makes_nan_or_infinity_is_named(model: Model, bad: float) -> None:
    batch = networks.pictures(5)
    batch[3, 2, 2, 1] = bad
    with pytest.raises(ModelError, match=r"picture 4 the tensor '.*' becomes NaN or infinite"):
        quantize.observe(model, [batch])


def test_wrong_batches_are_refused(model: Model) -> None:
    with pytest.raises(InputError, match="no calibration picture"):
        quantize.observe(model, [])
    with pytest.raises(InputError, match="expected a NumPy array"):
        quantize.observe(model, [[1, 2]])  # type: ignore[list-item]
    with pytest.raises(InputError, match="expected float32"):
        quantize.observe(model, [networks.pictures(2, 8)])


def test_networks_that_cannot_be_calibrated_are_named(tmp_path: Path) -> None:
    plain = networks.save(tmp_path / "plain.onnx", [node("Relu", ["x"], ["y"])], [["N", 3], ["N", 3]], {})
    with pytest.raises(ModelError, match="nothing in it to quantize"):
        quantize.observe(plain, [np.ones((1, 3), np.float32)])


def test_a_fixed_batch_may_lie_in_any_axis_of_an_inner_value(tmp_path: Path) -> None:
    """A transformer's products hold the tokens of all pictures in one axis."""
    nodes = [
        node("Reshape", ["x", "rows"], ["r"]),
        node("MatMul", ["r", "w"], ["m"]),
        node("Relu", ["m"], ["a"]),
        node("MatMul", ["a", "w"], ["b"]),
        node("Reshape", ["b", "batch"], ["y"]),
    ]
    constants = {"rows": np.array([20, 6]), "batch": np.array([4, 5, 6]), "w": np.eye(6, dtype=np.float32)}
    model = networks.save(tmp_path / "net.onnx", nodes, [[4, 5, 6], [4, 5, 6]], constants)
    pictures = np.random.default_rng(1).uniform(-1, 1, (3, 5, 6)).astype(np.float32)
    statistics = quantize.observe(model, [pictures])
    assert statistics.images == 3
    low, high = statistics.ranges("minmax")["x"]
    assert (low, high) == (pictures.min(), pictures.max())


def test_padding_with_infinity_has_no_part_in_the_range(tmp_path: Path) -> None:
    """TensorFlow pads so before a maximum."""
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Pad", ["c", "pads", "least"], ["p"]),
        node("MaxPool", ["p"], ["m"], kernel_shape=[3, 3]),
        node("Conv", ["m", "w"], ["a"]),
        node("Conv", ["a", "w"], ["y"]),
    ]
    constants: dict[str, Array] = {
        "w": np.eye(3, dtype=np.float32)[:, :, None, None],
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "least": np.array(-np.inf, np.float32),
    }
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 3, 6, 6], ["N", 3, 6, 6]], constants)
    pictures = np.random.default_rng(1).uniform(-1, 1, (3, 3, 6, 6)).astype(np.float32)
    table = quantize.calibrate(model, [pictures], "minmax")
    assert all(np.isfinite(ends).all() for ends in table.ranges.values())
    quantized = quantize.static(model, table, tmp_path)
    reference, answer = networks.run(model, pictures), networks.run(quantized, pictures, "onnxruntime:cpu:int8")
    np.testing.assert_allclose(answer, reference, rtol=0, atol=0.02)

"""Calibration: one pass, bounded memory, clear errors, tables that are kept and checked."""

from __future__ import annotations

import importlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantize_networks as networks
from plimsoll import quantize
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import InputError, ModelError
from plimsoll.onnx import graph
from plimsoll.quantize import Calibration
from plimsoll.quantize.histogram import TensorStatistics
from quantize_networks import Array, node

collect = importlib.import_module("plimsoll.quantize.observe")  # The package has a verb of that name.


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return networks.residual(tmp_path / "net.onnx")


def test_ranges_are_those_of_the_float_networks_tensors(model: Model, tmp_path: Path) -> None:
    batch = networks.pictures(6)
    statistics = quantize.collect(model, [batch])
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
    one = quantize.collect(model, [batch])
    other = quantize.collect(model, [batch[:1], batch[1:5], batch[5:]], cores=1)
    assert one.digest == other.digest == quantize.digest_of([batch[:3], batch[3:]])
    assert one.images == other.images == 7
    for method in quantize.METHODS:
        first, second = one.ranges(method), other.ranges(method)
        assert first.keys() == second.keys()
        for name, ends in first.items():
            assert ends == pytest.approx(second[name], rel=1e-6), (method, name)


def test_memory_does_not_grow_with_the_number_of_pictures(model: Model) -> None:
    batch = networks.pictures(4)

    def peak(rounds: int) -> int:
        tracemalloc.start()
        try:
            quantize.collect(model, (batch for _ in range(rounds)))
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
        patch.setattr(collect, "TensorStatistics", Watching)
        quantize.collect(model, batches(), cores=2)
    assert max(seen_at[: len(seen_at) // 2]) < 25


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_picture_that_makes_nan_or_infinity_is_named(model: Model, bad: float) -> None:
    batch = networks.pictures(5)
    batch[3, 2, 2, 1] = bad
    with pytest.raises(ModelError, match=r"picture 4 the tensor '.*' becomes NaN or infinite"):
        quantize.collect(model, [batch])


def test_wrong_batches_are_refused(model: Model) -> None:
    with pytest.raises(InputError, match="no calibration picture"):
        quantize.collect(model, [])
    with pytest.raises(InputError, match="expected a NumPy array"):
        quantize.collect(model, [[1, 2]])  # type: ignore[list-item]
    with pytest.raises(InputError, match="the network takes float32"):
        quantize.collect(model, [networks.pictures(2, 8)])


def test_networks_that_cannot_be_calibrated_are_named(tmp_path: Path) -> None:
    plain = networks.save(tmp_path / "plain.onnx", [node("Relu", ["x"], ["y"])], [["N", 3], ["N", 3]], {})
    with pytest.raises(ModelError, match="nothing in it to quantize"):
        quantize.collect(plain, [np.ones((1, 3), np.float32)])


def test_a_table_is_written_readably_and_read_again(model: Model, tmp_path: Path) -> None:
    table = quantize.calibrate(model, [networks.pictures(3)], "percentile", parameter=99.9)
    file = tmp_path / "table.json"
    table.write(file)
    assert Calibration.read(file) == table
    assert (table.method, table.parameter, table.images, table.model) == ("percentile", 99.9, 3, model.sha256)
    lines = file.read_text().splitlines()
    assert sum(line.lstrip().startswith('"r1": [0.0, ') for line in lines) == 1
    assert json.loads(file.read_text())["method"] == "percentile"


def test_a_table_of_ones_own_needs_ranges_only(model: Model, tmp_path: Path) -> None:
    made = quantize.calibrate(model, [networks.pictures(3)], "minmax")
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"ranges": made.ranges}))
    quantized = quantize.static(model, Calibration.read(file), tmp_path)
    assert "QuantizeLinear" in networks.operators(quantized)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "Invalid JSON"),
        ("{}", "ranges: missing"),
        ('{"ranges": {}}', "ranges"),
        ('{"ranges": {"a": [2, 1]}}', "'a' is .2, 1.: its low end lies above"),
        ('{"ranges": {"a": [0, "NaN"]}}', "finite number"),
        ('{"ranges": {"a": [0, 1e39]}}', "can't hold"),
        ('{"ranges": {"a": [0]}}', "ranges.a"),
        ('{"ranges": {"a": [0, 1]}, "mood": 1}', "mood"),
        ('{"ranges": {"a": [0, 1]}, "model": "short"}', "model"),
    ],
)
def test_a_bad_table_says_what_is_wrong(tmp_path: Path, text: str, found: str) -> None:
    file = tmp_path / "table.json"
    file.write_text(text)
    with pytest.raises(InputError, match=found):
        Calibration.read(file)


def test_a_table_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        Calibration.read(tmp_path / "none.json")


def test_a_table_for_another_network_or_with_a_gap_is_refused(model: Model, tmp_path: Path) -> None:
    made = quantize.calibrate(model, [networks.pictures(3)], "minmax")
    other = networks.residual(tmp_path / "other.onnx", channels=4)
    with pytest.raises(ModelError, match="made with another network"):
        quantize.static(other, made, tmp_path)
    less = made.model_copy(update={"ranges": {name: ends for name, ends in made.ranges.items() if name != "r1"}})
    with pytest.raises(ModelError, match=r"no range for 1 of the .*'r1'"):
        quantize.static(model, less, tmp_path)


def test_cached_tables_are_used_and_made_anew_where_they_must(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, batches = tmp_path / "tables", [networks.pictures(3)]
    passes = []
    original = collect.collect

    def counted(*args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(collect, "collect", counted)
    first = quantize.cached_calibration(folder, model, batches, "mse")
    assert quantize.cached_calibration(folder, model, batches, "mse") == first
    assert len(passes) == 1
    (file,) = folder.iterdir()
    assert model.sha256[:16] in file.name
    quantize.cached_calibration(folder, model, batches, "percentile", parameter=99.0)
    quantize.cached_calibration(folder, model, batches, "percentile")
    quantize.cached_calibration(folder, model, [networks.pictures(3, seed=9)], "mse")
    assert len(passes) == 4
    file.write_text("damaged")
    assert quantize.cached_calibration(folder, model, batches, "mse") == first
    assert len(passes) == 5
    with pytest.raises(InputError, match="an iterator"):
        quantize.cached_calibration(folder, model, iter(batches), "mse")  # type: ignore[arg-type]

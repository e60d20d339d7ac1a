"""Biases take out what rounded weights add on average."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import networks_to_quantize as networks
from helpers.networks_to_quantize import Array, node
from plimsoll import quantize
from plimsoll.core.model import Model
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx.graph import Graph
from plimsoll.quantize import StaticOptions
from plimsoll.quantize.bias_correction import mean_error
from plimsoll.quantize.parameters import quantize_weights

OPTIONS = StaticOptions(weights="minmax", activations="uint8", weight_bits=8, space_to_depth=False)
CHANNELS = 12


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A depthwise convolution of few bits, since each of its filters has one large weight, and one without a bias."""
    rng = np.random.default_rng(5)
    depthwise = 0.05 * networks.weights(rng, CHANNELS, 1, 3, 3)
    depthwise[:, 0, 1, 1] = 3
    constants = {
        "w0": networks.weights(rng, CHANNELS, 3, 3, 3),
        "b0": np.full(CHANNELS, 1.0, np.float32),
        "w1": depthwise,
        "w2": networks.weights(rng, 8, CHANNELS, 1, 1),
        "b2": np.zeros(8, np.float32),
        "w3": networks.weights(rng, 4, 8, 1, 1),
    }
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], "conv0"),
        node("Relu", ["c0"], ["r0"], "relu0"),
        node("MaxPool", ["r0"], ["p0"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p0", "w1"], ["c1"], "conv1", group=CHANNELS),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2"),
        node("Relu", ["c2"], ["r2"], "relu2"),
        node("Conv", ["r2", "w3"], ["y"], "conv3"),
    ]
    return networks.save(tmp_path / "net.onnx", nodes, [["N", 3, 16, 16], ["N", 4, 5, 5]], constants)


def pictures(seed: int) -> Array:
    return np.ascontiguousarray(networks.pictures(12, seed=seed).transpose(0, 3, 1, 2))


def test_less_deviation_on_other_pictures(model: Model, tmp_path: Path) -> None:
    table = quantize.calibrate(model, [pictures(0)], "minmax")
    truth = networks.run(model, pictures(1))
    noise = []
    for correct in (False, True):
        folder = tmp_path / str(correct)
        folder.mkdir()
        options = StaticOptions(**{**vars(OPTIONS), "correct_bias": correct})
        quantized = quantize.static(model, table, folder, options)
        difference = networks.run(quantized, pictures(1), "onnxruntime:cpu:int8") - truth
        noise.append((np.abs(difference.mean(axis=(0, 2, 3))).max(), np.sqrt(np.mean(difference**2))))
    (mean_before, before), (mean_after, after) = noise
    assert mean_after < 0.5 * mean_before
    assert after < before


def test_the_table_has_the_mean_of_each_channel_that_a_convolution_reads(model: Model, tmp_path: Path) -> None:
    table = quantize.calibrate(model, [pictures(0)], "minmax")
    assert set(table.means) == {"x", "p0", "r1", "r2"}
    np.testing.assert_allclose(table.means["x"], pictures(0).mean(axis=(0, 2, 3)), rtol=1e-4)
    table.write(tmp_path / "table.json")
    assert quantize.Calibration.read(tmp_path / "table.json") == table
    without = table.model_copy(update={"means": {}})
    without.write(tmp_path / "table.json")
    assert "means" not in (tmp_path / "table.json").read_text()


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_the_error_of_a_convolution_is_that_of_a_picture_of_means(groups: int) -> None:
    rng = np.random.default_rng(groups)
    exact, means = networks.weights(rng, 16, 8 // groups, 3, 3), rng.normal(size=8)
    weights = quantize_weights(exact, 0, bits=7)
    rounded = weights.values * weights.scales.reshape(-1, 1, 1, 1)
    expected = [
        ((rounded - exact)[output].sum(axis=(1, 2)) * means.reshape(groups, -1)[output // (16 // groups)]).sum()
        for output in range(16)
    ]
    error_mean = mean_error(node("Conv", ["x", "w"], ["y"], group=groups), weights, exact, means)
    assert error_mean is not None
    np.testing.assert_allclose(error_mean, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("transposed", [0, 1])
def test_the_error_of_a_product(transposed: int) -> None:
    rng = np.random.default_rng(transposed)
    exact, means = networks.weights(rng, 6, 9), rng.normal(size=9)
    stored = exact if transposed else np.ascontiguousarray(exact.T)
    weights = quantize_weights(stored, 0 if transposed else 1, bits=7)
    rounded = weights.values * (weights.scales[:, None] if transposed else weights.scales)
    error = rounded - stored if transposed else (rounded - stored).T
    gemm = node("Gemm", ["x", "w"], ["y"], transB=transposed)
    error_mean = mean_error(gemm, weights, stored, means)
    assert error_mean is not None
    np.testing.assert_allclose(error_mean, error @ means, rtol=1e-4, atol=1e-6)


def test_means_of_another_size_correct_nothing() -> None:
    exact = networks.weights(np.random.default_rng(0), 4, 3, 1, 1)
    weights = quantize_weights(exact, 0)
    assert mean_error(node("Conv", ["x", "w"], ["y"]), weights, exact, np.ones(4)) is None


def test_a_converter_gets_weights_on_its_grid_and_biases_that_fit_them(model: Model, tmp_path: Path) -> None:
    table = quantize.calibrate(model, [pictures(0)], "minmax")
    (tmp_path / "rounded").mkdir()
    rounded = quantize.round_weights(model, table.means, tmp_path / "rounded")
    before, after = (Graph(onnx_graph.load(network)) for network in (model, rounded))
    for node_before, node_after in zip(before.nodes, after.nodes, strict=True):
        if node_before.op_type == "Conv":
            exact, stored = before.constant(node_before.input[1]), after.constant(node_after.input[1])
            is_head = node_before.output[0] == "y"
            expected = exact if is_head else quantize_weights(exact, 0).real()
            np.testing.assert_allclose(stored, expected, rtol=1e-6, atol=1e-9)
            np.testing.assert_array_equal(quantize_weights(stored, 0).values, quantize_weights(exact, 0).values)
    truth = networks.run(model, pictures(1))
    off = np.abs((networks.run(rounded, pictures(1)) - truth).mean(axis=(0, 2, 3))).max()
    without = {name: tuple(0 * np.array(mean)) for name, mean in table.means.items()}
    (tmp_path / "biased").mkdir()
    biased = quantize.round_weights(model, without, tmp_path / "biased")
    assert off < 0.2 * np.abs((networks.run(biased, pictures(1)) - truth).mean(axis=(0, 2, 3))).max()


def test_without_means_a_network_stays_as_it_is(model: Model, tmp_path: Path) -> None:
    assert quantize.round_weights(model, {}, tmp_path) is model
    assert quantize.round_weights(model, {"another": (0.0,)}, tmp_path) is model

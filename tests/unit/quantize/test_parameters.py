"""Scales, zero points and weights in 8 bits."""

from __future__ import annotations

import numpy as np
import pytest

from plimsoll.quantize import parameters
from plimsoll.quantize.parameters import ActivationType, QuantizationParams, Symmetry


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("symmetry", ["auto", "always", "never"])
@pytest.mark.parametrize(
    "ends", [(-1.3, 2.7), (0.0, 6.0), (-5.0, 0.0), (0.2, 3.0), (-0.01, 4.0), (-1e-30, 1e30), (0.0, 1e-44)]
)
def test_zero_is_represented_exactly_and_the_range_within_half_a_step(
    ends: tuple[float, float], symmetry: Symmetry, dtype: ActivationType
) -> None:
    params = QuantizationParams.of_range(*ends, dtype=dtype, symmetry=symmetry)
    assert float(params.fake_quantize(np.array(0.0))) == 0.0
    assert float(np.float32(params.scale)) == params.scale > 0
    low, high = min(ends[0], 0), max(ends[1], 0)
    assert params.low <= low + params.scale * 0.501
    assert params.high >= high - params.scale * 0.501
    least, most = (0, 255) if dtype == "uint8" else (-128, 127)
    assert least <= params.zero_point <= most


def test_symmetric_ranges_have_their_zero_in_the_middle_and_lopsided_ones_dont() -> None:
    assert QuantizationParams.of_range(-1, 0.8).zero_point == 128
    assert QuantizationParams.of_range(-1, 0.8, "int8").zero_point == 0
    assert QuantizationParams.of_range(-0.1, 1).zero_point == 23
    assert QuantizationParams.of_range(0, 1).zero_point == 0
    assert QuantizationParams.of_range(0, 1, "int8").zero_point == -128
    assert QuantizationParams.of_range(0, 1, symmetry="always").zero_point == 128


def test_fake_quantize_rounds_halves_to_even_and_clips() -> None:
    params = QuantizationParams.of_range(0, 255)
    np.testing.assert_array_equal(params.fake_quantize(np.array([0.5, 1.5, 2.5, -7, 300])), [0, 2, 2, 0, 255])


def test_weights_have_a_scale_for_each_channel_and_are_within_half_a_step() -> None:
    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(5, 4, 3, 3)) * np.array([1, 10, 0.01, 3, 0]).reshape(-1, 1, 1, 1)).astype(np.float32)
    quantized = parameters.quantize_weights(weights, 0)
    np.testing.assert_allclose(quantized.scales[:4], np.abs(weights[:4]).max(axis=(1, 2, 3)) / 127, rtol=1e-6)
    assert quantized.scales[4] == 1
    error = np.abs(quantized.values * quantized.scales.reshape(-1, 1, 1, 1) - weights)
    assert (error <= 0.5001 * quantized.scales.reshape(-1, 1, 1, 1)).all()


def test_seven_bits_stay_within_63() -> None:
    weights = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    assert np.abs(parameters.quantize_weights(weights, 0, bits=7).values).max() == 63


def test_mse_weights_err_less_than_minmax_where_there_is_an_outlier() -> None:
    weights = np.random.default_rng(0).normal(size=(1, 40_000)).astype(np.float32)
    weights[0, 0] = 6

    def error(method: parameters.WeightMethod) -> float:
        quantized = parameters.quantize_weights(weights, 0, method)
        return float(((quantized.values * quantized.scales[:, None] - weights) ** 2).mean())

    assert error("mse") < 0.9 * error("minmax")


def test_a_bias_far_beyond_its_weights_still_fits_into_int32() -> None:
    weights, bias, scale = np.array([[1e-12], [1.0]], np.float32), np.array([5.0, 5.0], np.float32), 0.02
    quantized = parameters.quantize_weights(weights, 0, least_scales=parameters.least_weight_scales(bias, scale))
    scales = quantized.scales.astype(np.float64) * scale
    integers = parameters.quantize_bias(bias, scales)
    np.testing.assert_allclose(integers * scales, bias, rtol=1e-6)
    assert np.abs(integers.astype(np.float64)).max() < 2**31 / 1.9

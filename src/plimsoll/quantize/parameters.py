"""Scales and zero points: how real numbers become 8-bit ones and back, `real = scale × (integer - zero point)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ActivationType = Literal["uint8", "int8"]
Symmetry = Literal["auto", "always", "never"]

LOPSIDED = 0.8
"""With symmetry `auto`: a range whose shorter side is less than this share of the longer one gets a zero point of its
own.

Symmetric parameters for such a range would leave a tenth of the 256 steps unused, and more; a zero point costs
runtimes 1 or 2 % of the time, or nothing (docs/decisions/0006-quantization.md)."""

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""Smaller ones would be subnormal in float32, which runtimes flush to zero."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class QuantizationParams:
    """The scale and zero point of an activation: its 256 steps."""

    scale: float
    """Exactly representable in float32, and above 0."""
    zero_point: int
    dtype: ActivationType = "uint8"

    @classmethod
    def of_range(
        cls, low: float, high: float, dtype: ActivationType = "uint8", symmetry: Symmetry = "auto"
    ) -> QuantizationParams:
        """Return the parameters for a range; zero is always represented exactly.

        A range without negative numbers uses all 256 steps above zero, except with symmetry `always`. A range of zeros
        alone gets the scale 1.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        least = _least(dtype)
        if low == high:
            return cls(1.0, least, dtype)
        shorter, longer = sorted((-low, high))
        if symmetry == "always" or (symmetry == "auto" and shorter >= LOPSIDED * longer):
            return cls(_scale(longer / 127), least + 128, dtype)
        scale = _scale((high - low) / 255)
        return cls(scale, int(np.clip(round(least - low / scale), least, least + 255)), dtype)

    @property
    def low(self) -> float:
        """The smallest number that can be represented."""
        return self.scale * (_least(self.dtype) - self.zero_point)

    @property
    def high(self) -> float:
        """The largest number that can be represented."""
        return self.scale * (_least(self.dtype) + 255 - self.zero_point)

    def fake_quantize(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the representable numbers nearest to `values` (halves to even), as QuantizeLinear and
        DequantizeLinear do."""
        least = _least(self.dtype)
        steps = np.rint(np.asarray(values, np.float64) / self.scale) + self.zero_point
        return np.asarray(self.scale * (np.clip(steps, least, least + 255) - self.zero_point), np.float64)


def _least(dtype: ActivationType) -> int:
    return 0 if dtype == "uint8" else -128


def _scale(value: float) -> float:
    return float(np.float32(max(value, SMALLEST_SCALE)))


@dataclass(frozen=True)
class Weights:
    """A weight tensor in int8, symmetric: `real = scales × values`, one scale for each output channel."""

    values: NDArray[np.int8]
    scales: Floats
    axis: int

    def real(self) -> NDArray[np.float64]:
        """Return the real values that they stand for."""
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        return np.asarray(self.values * self.scales.astype(np.float64).reshape(shape), np.float64)


WeightMethod = Literal["minmax", "mse"]
_SHRINKS = np.linspace(1.0, 0.6, 21)
"""Shares of the largest weight that `mse` tries as the end of the range."""


def quantize_weights(
    weights: Floats, axis: int, method: WeightMethod = "minmax", bits: int = 8, least_scales: Floats | None = None
) -> Weights:
    """Return weights in int8 with a scale for each index along `axis`.

    `minmax`: the range ends at a channel's largest weight. `mse`: it ends, from 60 % of it on, where the mean squared
    error is least. `bits` 7 keeps values within ±63, for processors whose int8 products saturate. No scale is below
    `least_scales`, which keeps a bias within int32. Channels of zeros get the scale 1.
    """
    top = 2 ** (bits - 1) - 1
    channels = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    largest = np.abs(channels).max(axis=1, initial=0.0)
    ends = largest if method == "minmax" else _best_ends(channels, largest, top)
    scales = np.maximum(ends.astype(np.float64) / top, SMALLEST_SCALE)
    if least_scales is not None:
        scales = np.maximum(scales, least_scales)
    scales[largest == 0] = 1.0
    scales = scales.astype(np.float32).astype(np.float64)
    shape = [1] * weights.ndim
    shape[axis] = -1
    steps = np.clip(np.rint(weights / scales.reshape(shape)), -top, top)
    return Weights(steps.astype(np.int8), scales.astype(np.float32), axis)


def _best_ends(channels: Floats, largest: Floats, top: int) -> Floats:
    """Return for each row the end of the range with the least squared error."""
    best = largest.copy()
    least = np.full(len(channels), np.inf)
    work = np.empty_like(channels)
    for share in _SHRINKS:
        scales = np.maximum(share * largest / top, SMALLEST_SCALE).astype(np.float32)[:, None]
        np.divide(channels, scales, out=work)
        np.rint(work, out=work)
        np.clip(work, -top, top, out=work)
        work *= scales
        work -= channels
        error = np.einsum("ij,ij->i", work, work)
        better = error < least
        best[better], least[better] = share * largest[better], error[better]
    return best


_MOST = 2.0**31 - 1


def quantize_bias(bias: Floats, scales: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return a bias in int32 by the scales `input scale × weight scale`, rounded to nearest."""
    return np.asarray(np.clip(np.rint(bias.astype(np.float64) / scales), -_MOST, _MOST), np.int32)


def least_weight_scales(bias: Floats, input_scale: float) -> Floats:
    """Return the smallest weight scales with which the bias fits into half of int32's range; the other half is the
    sum's."""
    return np.asarray(np.abs(bias.astype(np.float64)) / (input_scale * _MOST / 2), np.float32)

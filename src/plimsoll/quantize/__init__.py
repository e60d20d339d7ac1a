"""Make networks smaller and faster with fewer bits, and find what that costs where.

static          int8 with calibrated ranges, as explicit Q/DQ; its options
data_free       `dynamic` (int8 as it comes) and `float16`: no calibration
half            which operators compute in float16, and the casts between them and the others
calibration     `Calibration`: a table of ranges, also in the runtimes' formats; `observe`, which measures them
calibrators     statistics of a tensor, and five methods that make a range of them
parameters      scales, zero points, int8 weights and biases
prepare         the network's form that quantizes best; strides moved up
bias_correction biases that take out what rounded weights add; weights rounded for converters
placement       which operators and tensors are quantized
pixel_input     a folded network's first convolution on the picture's bytes
space_to_depth  a first convolution with stride 2 on fewer, deeper pixels
diagnosis       which operators deviate most when quantized; what is likely to go wrong
"""

from __future__ import annotations

from plimsoll.quantize.bias_correction import round_weights
from plimsoll.quantize.calibration import Calibration, Statistics, calibrate, observe
from plimsoll.quantize.calibrators import METHODS
from plimsoll.quantize.data_free import dynamic, float16
from plimsoll.quantize.diagnosis import Finding, OperatorDeviation, before_float16, lint, sensitivity
from plimsoll.quantize.prepare import float32, is_quantized, prepare
from plimsoll.quantize.static import StaticOptions, reads_bytes, static

__all__ = [
    "METHODS",
    "Calibration",
    "Finding",
    "OperatorDeviation",
    "StaticOptions",
    "Statistics",
    "before_float16",
    "calibrate",
    "dynamic",
    "float16",
    "float32",
    "is_quantized",
    "lint",
    "observe",
    "prepare",
    "reads_bytes",
    "round_weights",
    "sensitivity",
    "static",
]

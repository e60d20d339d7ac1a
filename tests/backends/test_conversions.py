"""A few of the generated networks, each built for a runtime and held against ONNX Runtime on photographs.

Each was wrong once, without a word. `make support` builds hundreds, for every target and calibrator.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.generated_networks import Case
from plimsoll import backends
from plimsoll.core.target import Target
from plimsoll.system import toolchains
from support.conversions import LIMITS, Source


@pytest.mark.parametrize(
    ("name", "target", "calibrator"),
    [
        ("conv3x3-silu-conv_relu-two_heads", "mnn:cpu:int8", "minmax"),
        ("dead_channels-max_pool-conv-exp", "mnn:cpu:int8", "kl"),
        ("grouped-prelu-conv-joined_heads", "mnn:cpu:int8", "minmax"),
        ("strided-focus-conv-softmax_channels", "ncnn:cpu:float32", None),
        ("conv1x1-depth_to_space_dcr-conv_relu-gemm", "ncnn:cpu:int8", "minmax"),
        ("conv3x3-relu_mul-conv-gemm_softmax", "litert:cpu:int8", "minmax"),
        ("dead_channels-relu-conv-gemm", "litert:cpu:int8", "minmax"),
        ("conv3x3-max_pool_dilated-conv_relu-gemm", "litert:cpu:int8", "minmax"),
        ("conv3x3-max_pool_dilated-conv_relu-gemm", "mnn:cpu:int8", "minmax"),
        ("strided-mean_two-conv_relu-two_heads", "ncnn:cpu:float32", None),
        ("transposed2-resize_linear-conv-tanh", "openvino:cpu:int8", "minmax"),
        ("strided-average_pool_counting-conv_relu-tokens", "openvino:cpu:int8", "minmax"),
        ("transposed4_grouped-max_of_channels-time_first", "openvino:cpu:float32", None),
    ],
)
def test_a_generated_network_answers_right(tmp_path: Path, name: str, target: str, calibrator: str | None) -> None:
    chosen = Target.parse(target)
    offer = next(offer for offer in backends.get(chosen.runtime).targets() if offer.target == chosen)
    if offer.missing or (offer.toolchain and not toolchains.is_ready(offer.toolchain)):
        pytest.skip(f"{target} can't be built here")
    figures = Source(Case.named(name), tmp_path).decibels(chosen, calibrator)
    assert min(figures.values()) >= LIMITS[chosen.precision], figures

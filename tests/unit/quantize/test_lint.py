"""Each finding, and its absence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import networks_to_quantize as networks
from helpers.networks_to_quantize import node
from plimsoll import quantize
from plimsoll.core.model import Model
from plimsoll.quantize import Calibration, Finding
from plimsoll.system import host


def codes(findings: tuple[Finding, ...]) -> set[str]:
    assert all(finding.message and finding.advice for finding in findings)
    return {finding.code for finding in findings}


def head(path: Path, *, scored: bool, quantized: bool = False) -> Model:
    """A head that joins boxes with scores, as YOLO's does, or with more boxes."""
    rng = np.random.default_rng(0)
    constants = {name: networks.weights(rng, 4, 8, 1, 1) for name in ("boxes", "scores")} | {
        "stem": networks.weights(rng, 8, 3, 3, 3)
    }
    nodes = [
        node("Conv", ["x", "stem"], ["t0"]),
        node("Relu", ["t0"], ["t1"]),
        node("Conv", ["t1", "boxes"], ["t2"]),
        node("Conv", ["t1", "scores"], ["t3"]),
        *([node("Sigmoid", ["t3"], ["t4"])] if scored else [node("Identity", ["t3"], ["t4"])]),
        node("Concat", ["t2", "t4"], ["t5"], "join", axis=1),
        *(
            [node("QuantizeLinear", ["t5", "step"], ["t6"]), node("DequantizeLinear", ["t6", "step"], ["t7"])]
            * quantized
        ),
        node("Transpose", ["t7" if quantized else "t5"], ["y"], perm=[0, 2, 3, 1]),
    ]
    if quantized:
        constants["step"] = np.array(2.5, np.float32)
    return networks.save(path, nodes, [["N", 3, 8, 8], ["N", 6, 6, 8]], constants)


@pytest.fixture(autouse=True)
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(host, "instruction_sets", lambda: ("avx2", "avx512_vnni"))


def test_boxes_beside_scores_are_found_without_a_calibration(tmp_path: Path) -> None:
    findings = quantize.lint(head(tmp_path / "net.onnx", scored=True))
    assert codes(findings) == {"mixed-ranges"}
    assert "'t4' stays within ±1, 't2' is not bounded" in findings[0].message
    assert not quantize.lint(head(tmp_path / "alike.onnx", scored=False))


def test_boxes_that_share_a_scale_with_scores_are_found_in_a_quantized_network(tmp_path: Path) -> None:
    findings = quantize.lint(head(tmp_path / "net.onnx", scored=True, quantized=True))
    assert codes(findings) == {"mixed-ranges"}
    assert "the small ones have no steps left" in findings[0].message
    assert not quantize.lint(head(tmp_path / "alike.onnx", scored=False, quantized=True))


def test_a_head_that_joins_what_each_stride_joined_is_found(tmp_path: Path) -> None:
    """YOLOv5's: boxes are joined with the slice of a sigmoid, and the strides' results with one another."""
    constants = {name: networks.weights(np.random.default_rng(0), 8, 3, 1, 1) for name in ("first", "second")}
    nodes = []
    for stride in constants:
        nodes += [
            node("Conv", ["x", stride], [f"{stride} values"]),
            node("Sigmoid", [f"{stride} values"], [f"{stride} shares"]),
            node("Split", [f"{stride} shares"], [f"{stride} places", f"{stride} scores"], axis=1),
            node("Exp", [f"{stride} places"], [f"{stride} boxes"]),
            node("Concat", [f"{stride} boxes", f"{stride} scores"], [f"{stride} rows"], axis=1),
        ]
    nodes.append(node("Concat", [f"{stride} rows" for stride in constants], ["y"], axis=1))
    findings = quantize.lint(networks.save(tmp_path / "net.onnx", nodes, [["N", 3, 8, 8], ["N", 16, 8, 8]], constants))
    assert codes(findings) == {"mixed-ranges"}
    assert "'first scores' stays within ±1, 'first boxes' is not bounded" in findings[0].message


def test_measured_ranges_decide_where_there_are_any(tmp_path: Path) -> None:
    model = head(tmp_path / "net.onnx", scored=False)
    apart = Calibration(ranges={"t2": (-3.0, 640.0), "t3": (-1.0, 1.0)})
    assert codes(quantize.lint(model, apart)) == {"mixed-ranges"}
    assert not quantize.lint(model, Calibration(ranges={"t2": (-3.0, 5.0), "t3": (-1.0, 1.0)}))


def test_a_processor_without_vnni_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = networks.residual(tmp_path / "net.onnx")
    assert not quantize.lint(model)
    monkeypatch.setattr(host, "instruction_sets", lambda: ("avx2", "avx512f"))
    assert codes(quantize.lint(model)) == {"no-vnni"}
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not quantize.lint(model)


def test_too_few_pictures_are_found(tmp_path: Path) -> None:
    model = networks.residual(tmp_path / "net.onnx")
    assert codes(quantize.lint(model, images=8)) == {"few-images"}
    assert not quantize.lint(model, images=100)
    table = quantize.calibrate(model, [networks.pictures(3)], "minmax")
    assert codes(quantize.lint(model, table)) == {"few-images"}


def test_an_old_opset_is_found(tmp_path: Path) -> None:
    model = networks.save(tmp_path / "net.onnx", [node("Relu", ["x"], ["y"])], [["N", 3], ["N", 3]], {}, opset=11)
    assert codes(quantize.lint(model)) == {"old-opset"}


def test_weights_that_lose_digits_in_float16_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    constants = {"small": (1e-6 * rng.normal(size=(3, 3))).astype(np.float32)}
    model = networks.save(
        tmp_path / "net.onnx", [node("MatMul", ["x", "small"], ["y"])], [["N", 3], ["N", 3]], constants
    )
    findings = quantize.before_float16(model)
    assert codes(findings) == {"float16-subnormal"}
    assert "'small' is off by" in findings[0].message
    assert not quantize.before_float16(networks.residual(tmp_path / "fine.onnx"))

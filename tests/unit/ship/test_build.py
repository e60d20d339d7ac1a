"""Networks of candidates: what a folded int8 one reads, and that it answers as the float one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import networks_to_quantize as networks
from helpers.foldable_networks import spec
from helpers.networks_to_quantize import Array, node
from plimsoll import quantize
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.preprocessing import Preprocessor
from plimsoll.report.trial import Candidate
from plimsoll.ship import build
from plimsoll.ship.build import Artifacts

RESIZE: dict[str, Any] = {"step": "resize", "width": 24, "height": 16}
IMAGENET: list[dict[str, Any]] = [
    {"step": "scale", "divisor": 255.0},
    {"step": "mean", "values": [0.485, 0.456, 0.406]},
    {"step": "std", "values": [0.229, 0.224, 0.225]},
]
CASES: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "caffe": ([{"step": "channels", "order": "BGR"}, {"step": "mean", "values": [104.0, 117.0, 123.0]}], True),
    "imagenet": (IMAGENET, True),
    "a mean below all pixels": ([{"step": "mean", "values": [-30.0, -30.0, -30.0]}], False),
}


def network(path: Path, steps: list[dict[str, Any]]) -> Model:
    """A padded 5×5 convolution with stride 2, and a head."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "w"], ["c"], "first", pads=[2, 2, 2, 2], strides=[2, 2]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v"], ["y"], "head"),
    ]
    constants = {"w": networks.weights(rng, 8, 3, 5, 5), "v": networks.weights(rng, 4, 8, 1, 1)}
    saved = networks.save(path, nodes, [["N", 16, 24, 3], ["N", 4, "h", "w"]], constants)
    return Model(saved.path, "onnx", spec(RESIZE, *steps, tensor="x"))


def tensors(model: Model, photos: list[Path]) -> Array:
    preprocessor = Preprocessor(model.require_spec().input)
    return np.stack([preprocessor(photo) for photo in photos])


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_folded_int8_network_reads_bytes_where_it_can_and_answers_as_the_float_one(
    tmp_path: Path, example_photos: list[Path], case: str, runtime: str
) -> None:
    pytest.importorskip(runtime)
    steps, reads_bytes = CASES[case]
    model = network(tmp_path / "net.onnx", steps)
    photos = example_photos[:16]
    inputs = tensors(model, photos)
    table = tmp_path / "table.json"
    quantize.calibrate(model, [inputs], "minmax").write(table)
    target = Target(runtime, "cpu", "int8")
    for folded in (True, False):
        candidate_network = build.network(
            model, Candidate("fast", folded, target, "minmax"), tmp_path / "built", Artifacts(tables={"minmax": table})
        )
        assert ("Sub" in networks.operators(candidate_network)) is (folded and not reads_bytes)
        truth = networks.run(model, inputs)
        answers = networks.run(candidate_network, tensors(candidate_network, photos), str(target))
        assert np.abs(answers - truth).max() < 0.03 * np.abs(truth).max()
        assert np.abs(answers - truth).mean() < 0.005 * np.abs(truth).max()


def test_each_runtime_gets_the_network_that_suits_it(tmp_path: Path, example_photos: list[Path]) -> None:
    pytest.importorskip("openvino")
    model = network(tmp_path / "net.onnx", IMAGENET)
    table = tmp_path / "table.json"
    quantize.calibrate(model, [tensors(model, example_photos[:4])], "minmax").write(table)
    kinds = {
        runtime: networks.operators(
            build.network(
                model,
                Candidate("fast", False, Target(runtime, "cpu", "int8"), "minmax"),
                tmp_path,
                Artifacts(tables={"minmax": table}),
            )
        )
        for runtime in ("onnxruntime", "openvino")
    }
    assert "Split" in kinds["onnxruntime"]  # the first convolution reads squares of pixels
    assert "Split" not in kinds["openvino"]

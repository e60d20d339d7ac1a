"""Networks of candidates: what a folded int8 one reads, and that it answers as the float one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import networks_to_quantize as networks
from helpers.foldable_networks import spec
from helpers.networks_to_quantize import Array, node
from plimsoll import backends, quantize
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


pytestmark = pytest.mark.usefixtures("jobs_here")


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


@pytest.mark.parametrize("runtime", ["mnn", "ncnn"])
def test_what_a_converter_quantizes_has_corrected_biases(
    tmp_path: Path, example_photos: list[Path], runtime: str
) -> None:
    target = Target(runtime, "cpu", "int8")
    if next(here.missing for here in backends.get(runtime).targets() if here.target == target):
        pytest.skip(f"{runtime} is not installed")
    model = coarse_network(tmp_path / "net.onnx")
    calibrating, judging = (tensors(model, example_photos[start : start + 16]) for start in (0, 16))
    np.save(tmp_path / "tensors.npy", calibrating)
    table = quantize.calibrate(model, [calibrating], "minmax")
    truth, noise = networks.run(model, judging), []
    for name, means in (("without", {}), ("with", table.means)):
        table.model_copy(update={"means": means}).write(tmp_path / f"{name}.json")
        artifacts = Artifacts(tables={"minmax": tmp_path / f"{name}.json"}, tensors={False: tmp_path / "tensors.npy"})
        candidate = Candidate("reference", False, target, "minmax")
        built = build.network(model, candidate, tmp_path / name, artifacts)
        noise.append(np.abs((networks.run(built, judging, str(target)) - truth).mean(axis=(0, 2, 3))).max())
    assert noise[1] < 0.3 * noise[0]


def coarse_network(path: Path) -> Model:
    """A convolution each of whose filters has one weight that leaves few steps to the others."""
    rng = np.random.default_rng(5)
    coarse = 0.2 * networks.weights(rng, 8, 8, 3, 3)
    coarse[range(8), range(8), 1, 1] = 3
    constants = {
        "w": networks.weights(rng, 8, 3, 3, 3),
        "b": np.full(8, 1.0, np.float32),
        "v": coarse,
        "u": networks.weights(rng, 4, 8, 1, 1),
    }
    nodes = [
        node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "w", "b"], ["c"], "first", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v"], ["d"], "coarse"),
        node("Relu", ["d"], ["s"]),
        node("Conv", ["s", "u"], ["y"], "head"),
    ]
    saved = networks.save(path, nodes, [["N", 16, 24, 3], ["N", 4, 14, 22]], constants)
    return Model(saved.path, "onnx", spec(RESIZE, *IMAGENET, tensor="x"))

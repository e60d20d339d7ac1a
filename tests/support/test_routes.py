"""Every way in × every way out: a small network in each form that frameworks save, built for each target, and held
against its source's answers.

Takes many minutes and toolchains, so it runs with `make support` alone, which writes docs/support.md from its results.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import tfjs_writer
from helpers.caffe_writer import inputs as caffe_inputs
from helpers.caffe_writer import layer, write_pair
from helpers.toolchain_required import program
from helpers.wts_writer import resnet_tensors, write_wts
from plimsoll import backends, importers, quantize
from plimsoll.backends.base import AvailableTarget
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.importers.conversion import import_model
from plimsoll.report.trial import Candidate
from plimsoll.ship.build import Artifacts, network
from plimsoll.ship.strategy import calibrators_of
from plimsoll.spec import Spec

pytestmark = [
    pytest.mark.skipif(not os.environ.get("PLIMSOLL_SUPPORT"), reason="takes many minutes: make support"),
    pytest.mark.timeout(600),
]

SIDE = 32
OFFERS = [offer for name in backends.names() for offer in backends.get(name).targets()]
TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}
"""Of the largest answer; networks of whole numbers are held to 0.1: these small ones have random weights, and few of
them."""
CHANCE = np.random.default_rng(5)

Written = Callable[[Path], Path]


def caffe(folder: Path) -> Path:
    def weights(*shape: int) -> NDArray[np.float32]:
        return CHANCE.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)

    text = caffe_inputs(1, 3, SIDE, SIDE)
    text += layer("conv", "Convolution", "data", "conv", "convolution_param { num_output: 8 kernel_size: 3 pad: 1 }")
    text += layer("relu", "ReLU", "conv", "conv")
    text += layer("pool", "Pooling", "conv", "pool", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    text += layer("fc", "InnerProduct", "pool", "fc", "inner_product_param { num_output: 5 }")
    text += layer("prob", "Softmax", "fc", "prob")
    blobs = {
        "conv": [weights(8, 3, 3, 3), np.zeros(8, np.float32)],
        "fc": [weights(5, 8 * 16 * 16), np.zeros(5, np.float32)],
    }
    return write_pair(folder, text, blobs)[1]


def wts(folder: Path) -> Path:
    return write_wts(folder / "resnet18.wts", resnet_tensors((2, 2, 2, 2), bottleneck=False, classes=5))


def tensorflow(file: str) -> Written:
    def write(folder: Path) -> Path:
        program("tensorflow", "write_tensorflow.py", "small", folder)
        return folder / file

    return write


def torch(form: str, file: str) -> Written:
    def write(folder: Path) -> Path:
        program("torch", "write_torch.py", folder, form, "unet")
        return folder / "unet" / file

    return write


def tfjs(folder: Path) -> Path:
    layers = [
        tfjs_writer.input_layer("x", SIDE, SIDE, 3),
        tfjs_writer.layer(
            "conv", "Conv2D", "x", filters=8, kernel_size=[3, 3], padding="same", activation="relu", use_bias=True
        ),
        tfjs_writer.layer("pool", "GlobalAveragePooling2D", "conv"),
        tfjs_writer.layer("dense", "Dense", "pool", units=5, activation="softmax"),
    ]
    weights = {
        "conv/kernel": tfjs_writer.normal(3, 3, 3, 8),
        "conv/bias": tfjs_writer.normal(8),
        "dense/kernel": tfjs_writer.normal(8, 5),
        "dense/bias": tfjs_writer.normal(5),
    }
    return tfjs_writer.write(folder, tfjs_writer.keras(tfjs_writer.functional(layers, ["x"], ["dense"])), weights)


def onnx(folder: Path) -> Path:
    return import_model(caffe(folder), folder / "imported").model.path


WAYS_IN: dict[str, Written] = {
    "ONNX": onnx,
    "Caffe": caffe,
    "tensorrtx .wts": wts,
    "Keras .keras": tensorflow("network.keras"),
    "Keras .h5": tensorflow("network.h5"),
    "SavedModel": tensorflow("savedmodel"),
    "frozen graph": tensorflow("frozen.pb"),
    "TensorFlow 1 checkpoint": tensorflow("checkpoint"),
    "TFLite": tensorflow("network.tflite"),
    "TF.js": tfjs,
    "PyTorch .pt2": torch("pt2", "network.pt2"),
    "TorchScript": torch("torchscript", "network.torchscript"),
}


def contract(shape: tuple[int | None, ...]) -> Spec:
    """Return a Spec that fits a network of pictures."""
    height, width = (shape[1], shape[2]) if shape[-1] == 3 else (shape[2], shape[3])
    steps = [
        {"step": "decode"},
        {"step": "resize", "width": width, "height": height},
        {"step": "scale", "divisor": 255.0},
    ]
    if shape[-1] != 3:
        steps.append({"step": "layout", "order": "NCHW"})
    return Spec.model_validate({"name": "route", "input": {"steps": steps}, "output": {"task": "tensor"}})


@pytest.fixture(scope="module", params=WAYS_IN.items(), ids=list(WAYS_IN))
def imported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, NDArray[np.float32], NDArray[np.float32]]:
    """The network as ONNX, pictures for it, and what it answers to them. Its answers were held against its framework's
    when it was imported."""
    _, write = request.param
    folder = tmp_path_factory.mktemp("way-in")
    path = write(folder)
    if path.suffix != ".onnx":
        path = import_model(path, folder / "onnx").model.path
    with Runner.open(importers.read(path), REFERENCE_TARGET) as runner:
        (taken,) = runner.inputs
        pictures = np.random.default_rng(3).random((24, *(size or 1 for size in taken.shape[1:])), np.float32)
        (answers,) = runner.infer(pictures).values()
    return importers.read(path, contract(taken.shape)), pictures, answers


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: str(offer.target))
def test_a_route(
    imported: tuple[Model, NDArray[np.float32], NDArray[np.float32]], offer: AvailableTarget, tmp_path: Path
) -> None:
    if offer.missing:
        pytest.skip(offer.missing)
    model, pictures, answers = imported
    candidate = Candidate("reference", False, offer.target, next(iter(calibrators_of(offer.target, ("minmax",))), None))
    built = network(model, candidate, tmp_path / "built", artifacts(model, pictures, tmp_path))
    with Runner.open(built, offer.target) as runner:
        (output,) = runner.infer(pictures[:5]).values()
    largest = float(np.abs(answers).max())
    np.testing.assert_allclose(output, answers[:5], atol=largest * TOLERANCE.get(offer.target.precision, 0.1), rtol=0)


def artifacts(model: Model, pictures: NDArray[np.float32], folder: Path) -> Artifacts:
    table, tensors = folder / "minmax.json", folder / "tensors.npy"
    quantize.observe(model, iter([pictures])).calibration("minmax").write(table)
    np.save(tensors, pictures)
    return Artifacts(tables={"minmax": table}, tensors={False: tensors})

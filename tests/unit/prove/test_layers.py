"""The values inside two networks, compared: where the deviation enters, in a quantized network too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime import quantization

from helpers.brightness_network import BUDGET, brightness, classify
from helpers.foldable_networks import convolution, spec
from plimsoll.core.budget import Budget
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import ModelError
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.onnx import graph
from plimsoll.preprocessing import Preprocessor
from plimsoll.preprocessing.folded import fold
from plimsoll.prove import compare_layers, prove


def test_layers_show_where_the_drift_enters(nsfw: ResolvedModel, photos: list[Path], tmp_path: Path) -> None:
    proto = onnx.load(nsfw.model.path)
    hurt = [node for node in proto.graph.node if node.op_type == "Conv"][4]
    name = hurt.output[0]
    stored = next(tensor for tensor in proto.graph.initializer if tensor.name == hurt.input[1])
    stored.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored) * np.float32(1.2), stored.name))
    onnx.save(proto, tmp_path / "hurt.onnx")
    proof = prove(
        nsfw,
        ResolvedModel(Model(tmp_path / "hurt.onnx", "onnx", nsfw.model.spec)),
        photos[:3],
        budget=BUDGET,
        layers=True,
    )
    first = next(layer for layer in proof.layers if layer.snr_db < 60)
    assert (first.name, first.operator) == (name, "Conv")
    assert first.snr_db == pytest.approx(14.0, abs=3)
    assert "the network differs" in proof.cause


class _Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, name: str, tensors: list[NDArray[Any]]) -> None:
        self._feeds = iter([{name: tensor[np.newaxis]} for tensor in tensors])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)


def quantized(model: Model, path: Path, photos: list[Path]) -> Model:
    """Return the model in explicit Q/DQ, weights per channel, as ONNX Runtime's quantizer makes it."""
    preprocessor = Preprocessor(model.require_spec().input)
    feeds = _Calibration(onnx.load(model.path).graph.input[0].name, [preprocessor(photo) for photo in photos])
    quantization.quantize_static(
        str(model.path), str(path), feeds, quant_format=quantization.QuantFormat.QDQ, per_channel=True
    )
    return Model(path, "onnx", model.spec)


def test_a_quantized_network_is_looked_into_as_well(tmp_path: Path, photos: list[Path]) -> None:
    resize: dict[str, Any] = {"step": "resize", "width": 40, "height": 32}
    rest: list[dict[str, Any]] = [
        {"step": "scale", "divisor": 255.0},
        {"step": "mean", "values": [0.485, 0.456, 0.406]},
        {"step": "layout", "order": "NCHW"},
    ]
    reference = convolution(tmp_path, spec(resize, {"step": "channels", "order": "BGR"}, *rest))
    wrong = Model(reference.path, "onnx", spec(resize, *rest))
    noise: list[float] = []
    for folder, model, mistakes in (("right", reference, []), ("wrong", wrong, ["channels"])):
        (tmp_path / folder).mkdir()
        int8 = quantized(fold(model, tmp_path / folder), tmp_path / folder / "int8.onnx", photos)
        proof = prove(
            ResolvedModel(reference),
            ResolvedModel(int8, Target("onnxruntime", "cpu", "int8")),
            photos,
            layers=True,
            budget=Budget.parse("snr=20"),
        )
        assert proof.mismatches is not None
        assert [mismatch.stage for mismatch in proof.mismatches] == mistakes
        assert proof.passed is not bool(mistakes)
        proto = onnx.load(int8.path)
        assert dict(graph.computed_values(proto))["rectified"] != "rectified", (
            "what the next operator reads is the dequantized one"
        )
        first = graph.first_convolution(proto, "picture")
        assert first is not None
        assert first.source == "picture/centred", "before it is quantized"
        noise.append(next(layer.snr_db for layer in proof.layers if layer.name == "rectified"))
    assert noise[0] > noise[1] + 6


def test_layers_need_shared_values(tmp_path: Path, nsfw: ResolvedModel) -> None:
    model = brightness(tmp_path / "good.onnx", classify())
    with pytest.raises(ModelError, match="shares no named value"):
        compare_layers(nsfw.model, model, [])

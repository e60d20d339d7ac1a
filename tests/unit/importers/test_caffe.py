"""Caffe pairs: every kind of layer against Caffe's own loops written out in NumPy, and open_nsfw as a pair."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from helpers.caffe_writer import caffemodel, inputs, layer, write_pair
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import InputError, ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.importers.conversion import import_model

Array = NDArray[np.float64]
RANDOM = np.random.default_rng(4)


def normal(*shape: int) -> Array:
    return RANDOM.normal(size=shape)


def answer(model: Model, **feeds: Array) -> dict[str, NDArray[Any]]:
    with Runner.open(model, REFERENCE_TARGET) as runner:
        return runner.run({name: feed.astype(np.float32) for name, feed in feeds.items()})


def run(
    folder: Path,
    text: str,
    blobs: dict[str, list[Array]],
    feed: Array,
    options: ImportOptions | None = None,
    **more: Array,
) -> NDArray[Any]:
    """Convert a pair and answer a batch of two; the prototxt has a batch of one."""
    prototxt, _ = write_pair(folder, text, blobs)
    imported = import_model(prototxt, folder / "out", options)
    (only,) = answer(imported.model, data=feed, **more).values()
    return only


def convolved(
    x: Array, w: Array, b: Array, *, stride: int = 1, pad: int = 0, dilation: int = 1, group: int = 1
) -> Array:
    """caffe_conv in test_convolution_layer.cpp: loops over the output and the kernel, sizes rounded down."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    span = (w.shape[2] - 1) * dilation + 1
    height, width = ((size - span) // stride + 1 for size in x.shape[2:])
    out = np.zeros((len(x), len(w), height, width))
    ins, outs = x.shape[1] // group, len(w) // group
    for o in range(len(w)):
        seen = x[:, o // outs * ins : (o // outs + 1) * ins]
        for row in range(height):
            for column in range(width):
                patch = seen[
                    :,
                    :,
                    row * stride : row * stride + span : dilation,
                    column * stride : column * stride + span : dilation,
                ]
                out[:, o, row, column] = (patch * w[o]).sum(axis=(1, 2, 3)) + b[o]
    return out


def pooled(x: Array, method: str, kernel: int, stride: int, pad: int) -> Array:
    """PoolingLayer::Forward_cpu, as its loops stand there."""
    height, width = x.shape[2:]
    sizes = []
    for size in (height, width):
        count = math.ceil((size + 2 * pad - kernel) / stride) + 1
        if pad and (count - 1) * stride >= size + pad:
            count -= 1
        sizes.append(count)
    out = np.zeros((*x.shape[:2], *sizes))
    for ph in range(sizes[0]):
        for pw in range(sizes[1]):
            hstart, wstart = ph * stride - pad, pw * stride - pad
            hend, wend = min(hstart + kernel, height + pad), min(wstart + kernel, width + pad)
            pool_size = (hend - hstart) * (wend - wstart)
            patch = x[:, :, max(hstart, 0) : min(hend, height), max(wstart, 0) : min(wend, width)]
            out[:, :, ph, pw] = patch.max(axis=(2, 3)) if method == "MAX" else patch.sum(axis=(2, 3)) / pool_size
    return out


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        ("kernel_size: 3", {}),
        ("kernel_size: 3 stride: 2 pad: 1", {"stride": 2, "pad": 1}),
        ("kernel_size: 3 pad: 2 dilation: 2 group: 2", {"pad": 2, "dilation": 2, "group": 2}),
        (
            "kernel_h: 3 kernel_w: 3 stride_h: 3 stride_w: 3 group: 4 engine: CAFFE weight_filler { type: 'msra' }",
            {"stride": 3, "group": 4},
        ),
    ],
)
def test_convolution(tmp_path: Path, settings: str, arguments: dict[str, int]) -> None:
    x, w, b = normal(2, 4, 9, 10), normal(8, 4 // arguments.get("group", 1), 3, 3), normal(8)
    text = inputs(1, 4, 9, 10) + layer(
        "c", "Convolution", "data", "c", f"param {{ lr_mult: 1 }} convolution_param {{ num_output: 8 {settings} }}"
    )
    np.testing.assert_allclose(
        run(tmp_path, text, {"c": [w, b]}, x), convolved(x, w, b, **arguments), rtol=1e-4, atol=1e-5
    )


def test_deconvolution_is_the_transpose_of_convolution(tmp_path: Path) -> None:
    """<deconv(x), y> = <x, conv(y)> for every y, with the same weights."""
    x, w = normal(2, 6, 5, 4), normal(6, 3, 4, 4)
    settings = "convolution_param { num_output: 3 kernel_size: 4 stride: 2 pad: 1 bias_term: false }"
    actual = run(tmp_path, inputs(1, 6, 5, 4) + layer("d", "Deconvolution", "data", "d", settings), {"d": [w]}, x)
    assert actual.shape == (2, 3, 10, 8)
    y = normal(2, 3, 10, 8)
    assert (actual * y).sum() == pytest.approx((x * convolved(y, w, np.zeros(6), stride=2, pad=1)).sum(), rel=1e-4)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad"),
    [(3, 2, 0), (2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 2, 1), (3, 3, 1), (5, 4, 2), (1, 3, 0), (2, 3, 1)],
    ids=lambda size: str(size),
)
@pytest.mark.parametrize("size", [7, 8, 10])
def test_pooling_rounds_up_and_clips_as_caffe_does(
    tmp_path: Path, method: str, kernel: int, stride: int, pad: int, size: int
) -> None:
    x = normal(2, 3, size, size + 1)
    text = inputs(1, 3, size, size + 1) + layer(
        "p",
        "Pooling",
        "data",
        "p",
        f"pooling_param {{ pool: {method} kernel_size: {kernel} stride: {stride} pad: {pad} }}",
    )
    if not pad and any(math.ceil((side - kernel) / stride) * stride >= side for side in x.shape[2:]):
        with pytest.raises(ModelError, match="don't fit"):  # Caffe itself answers with -FLT_MAX or 0/0 there.
            run(tmp_path, text, {"p": []}, x)
        return
    blobs: dict[str, list[Array]] = {"p": []}
    np.testing.assert_allclose(
        run(tmp_path, text, blobs, x), pooled(x, method, kernel, stride, pad), rtol=1e-5, atol=1e-6
    )


def test_global_pooling(tmp_path: Path) -> None:
    x = normal(2, 3, 5, 6)
    actual = run(
        tmp_path,
        inputs(1, 3, 5, 6) + layer("p", "Pooling", "data", "p", "pooling_param { pool: AVE global_pooling: true }"),
        {"p": []},
        x,
    )
    np.testing.assert_allclose(actual, x.mean(axis=(2, 3), keepdims=True), rtol=1e-5, atol=1e-6)


def test_batch_norm_and_scale_in_place_are_one_operator(tmp_path: Path) -> None:
    mean, variance, gain, shift, x = normal(4), RANDOM.uniform(0.5, 2, 4), normal(4), normal(4), normal(2, 4, 3, 3)
    text = inputs(1, 4, 3, 3)
    text += layer(
        "c", "Convolution", "data", "c", "convolution_param { num_output: 4 kernel_size: 1 bias_term: false }"
    )
    text += layer("bn", "BatchNorm", "c", "c", "batch_norm_param { use_global_stats: true eps: 1e-3 }") + layer(
        "s", "Scale", "c", "c", "scale_param { bias_term: true }"
    )
    text += layer("r", "ReLU", "c", "c")
    eye = np.eye(4).reshape(4, 4, 1, 1)
    # Caffe keeps sums of the statistics and their weight.
    blobs = {"c": [eye], "bn": [mean * 2.5, variance * 2.5, np.array([2.5])], "s": [gain, shift]}
    expected = (x - mean.reshape(-1, 1, 1)) / np.sqrt(variance + 1e-3).reshape(-1, 1, 1) * gain.reshape(
        -1, 1, 1
    ) + shift.reshape(-1, 1, 1)
    np.testing.assert_allclose(run(tmp_path, text, blobs, x), np.maximum(expected, 0), rtol=1e-4, atol=1e-5)
    kinds = [node.op_type for node in onnx.load(tmp_path / "out" / "deploy.onnx").graph.node]
    assert kinds == ["Conv", "BatchNormalization", "Relu"]


def test_a_batch_norm_that_others_read_too_stays_by_itself(tmp_path: Path) -> None:
    gain, x = normal(4), normal(2, 4, 3, 3)
    text = (
        inputs(1, 4, 3, 3)
        + layer("bn", "BatchNorm", "data", "n")
        + layer("s", "Scale", "n", "s")
        + layer("sum", "Eltwise", "n s", "sum")
    )
    blobs = {"bn": [np.zeros(4), np.ones(4), np.array([1.0])], "s": [gain]}
    expected = x / np.sqrt(1 + 1e-5) * (1 + gain.reshape(-1, 1, 1))
    np.testing.assert_allclose(run(tmp_path, text, blobs, x), expected, rtol=1e-4, atol=1e-5)


def windowed(x: Array, size: int, axes: int) -> Array:
    """The sum of squares over a window across channels (1 axis) or within each (2)."""
    margin = size // 2
    if axes == 1:
        padded = np.pad(x**2, ((0, 0), (margin, margin), (0, 0), (0, 0)))
        return np.asarray(sum(padded[:, index : index + x.shape[1]] for index in range(size)))
    padded = np.pad(x**2, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    return np.asarray(
        sum(padded[:, :, a : a + x.shape[2], b : b + x.shape[3]] for a in range(size) for b in range(size))
    )


X = normal(2, 4, 5, 6)
Y = normal(2, 4, 5, 6)
SLOPES = normal(4)
POINTWISE: dict[str, tuple[str, str, list[Array], Array]] = {
    "relu": ("ReLU", "", [], np.maximum(X, 0)),
    "leaky": ("ReLU", "relu_param { negative_slope: 0.1 }", [], np.where(X > 0, X, 0.1 * X)),
    "relu6": ("ReLU6", "", [], np.clip(X, 0, 6)),
    "prelu": ("PReLU", "", [SLOPES], np.where(X > 0, X, SLOPES.reshape(-1, 1, 1) * X)),
    "prelu shared": ("PReLU", "prelu_param { channel_shared: true }", [np.array([0.3])], np.where(X > 0, X, 0.3 * X)),
    "elu": ("ELU", "elu_param { alpha: 0.5 }", [], np.where(X > 0, X, 0.5 * (np.exp(np.minimum(X, 0)) - 1))),
    "sigmoid": ("Sigmoid", "", [], 1 / (1 + np.exp(-X))),
    "tanh": ("TanH", "", [], np.tanh(X)),
    "abs": ("AbsVal", "", [], np.abs(X)),
    "power": ("Power", "power_param { power: 2 scale: 0.5 shift: 3 }", [], (3 + 0.5 * X) ** 2),
    "power of nothing": ("Power", "", [], X),
    "dropout": ("Dropout", "dropout_param { dropout_ratio: 0.9 }", [], X),
    "softmax": ("Softmax", "", [], np.exp(X) / np.exp(X).sum(axis=1, keepdims=True)),
    "softmax axis": ("Softmax", "softmax_param { axis: -1 }", [], np.exp(X) / np.exp(X).sum(axis=3, keepdims=True)),
    "bias": ("Bias", "", [SLOPES], X + SLOPES.reshape(-1, 1, 1)),
    "scale": (
        "Scale",
        "scale_param { bias_term: true }",
        [SLOPES, SLOPES + 1],
        X * SLOPES.reshape(-1, 1, 1) + SLOPES.reshape(-1, 1, 1) + 1,
    ),
    "lrn": (
        "LRN",
        "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 k: 2 }",
        [],
        X / (2 + 0.5 / 3 * windowed(X, 3, 1)) ** 0.6,
    ),
    "lrn within": (
        "LRN",
        "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 norm_region: WITHIN_CHANNEL }",
        [],
        X / (1 + 0.5 / 9 * windowed(X, 3, 2)) ** 0.6,
    ),
    "flatten": ("Flatten", "", [], X.reshape(2, -1)),
    "flatten some": ("Flatten", "flatten_param { axis: 2 }", [], X.reshape(2, 4, -1)),
    "reshape": ("Reshape", "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 3 } }", [], X.reshape(2, 2, -1, 3)),
    "reshape batch of one": ("Reshape", "reshape_param { shape { dim: 1 dim: 120 } }", [], X.reshape(2, 120)),
    "permute": ("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", [], X.transpose(0, 2, 3, 1)),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_layers_that_read_one_blob(tmp_path: Path, name: str) -> None:
    kind, settings, blobs, expected = POINTWISE[name]
    actual = run(tmp_path, inputs(1, 4, 5, 6) + layer("l", kind, "data", "l", settings), {"l": blobs}, X)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


TWO: dict[str, tuple[str, str, Array]] = {
    "sum": ("Eltwise", "", X + Y),
    "weighted sum": ("Eltwise", "eltwise_param { operation: SUM coeff: 1 coeff: -0.5 }", X - 0.5 * Y),
    "product": ("Eltwise", "eltwise_param { operation: PROD }", X * Y),
    "maximum": ("Eltwise", "eltwise_param { operation: MAX }", np.maximum(X, Y)),
    "concat": ("Concat", "", np.concatenate([X, Y], axis=1)),
    "concat rows": ("Concat", "concat_param { axis: 2 }", np.concatenate([X, Y], axis=2)),
}


@pytest.mark.parametrize("name", TWO)
def test_layers_that_read_two_blobs(tmp_path: Path, name: str) -> None:
    kind, settings, expected = TWO[name]
    text = inputs(1, 4, 5, 6) + inputs(1, 4, 5, 6, name="other") + layer("l", kind, "data other", "l", settings)
    np.testing.assert_allclose(run(tmp_path, text, {"l": []}, X, other=Y), expected, rtol=1e-4, atol=1e-6)


def test_crop_scale_by_a_blob_slice_and_split(tmp_path: Path) -> None:
    small, weights = normal(2, 4, 2, 3), normal(2, 4)
    text = inputs(1, 4, 5, 6) + inputs(1, 9, 2, 3, name="small")
    cropped = text + layer("l", "Crop", "data small", "l", "crop_param { axis: 2 offset: 3 offset: 1 }")
    np.testing.assert_allclose(
        run(tmp_path / "a", cropped, {"l": []}, X, small=normal(2, 9, 2, 3)), X[:, :, 3:5, 1:4], rtol=1e-6
    )
    scaled = (
        inputs(1, 4, 5, 6)
        + inputs(1, 4, name="weights")
        + layer("l", "Scale", "data weights", "l", "scale_param { axis: 0 }")
    )
    np.testing.assert_allclose(
        run(tmp_path / "b", scaled, {"l": []}, X, weights=weights), X * weights[:, :, None, None], rtol=1e-5
    )
    cut = (
        inputs(1, 4, 2, 3)
        + layer("c", "Slice", "data", "a b", "slice_param { slice_point: 1 }")
        + layer("t", "Split", "b", "b1 b2")
    )
    cut += layer("p", "Power", "b1", "p", "power_param { scale: 2 }") + layer("e", "Concat", "p a b2", "e")
    expected = np.concatenate([small[:, 1:] * 2, small], axis=1)
    np.testing.assert_allclose(
        run(tmp_path / "c", cut, {"c": []}, small),
        np.concatenate([expected[:, :3], small[:, :1], small[:, 1:]], axis=1),
        rtol=1e-6,
    )


def test_the_form_of_before_2015(tmp_path: Path) -> None:
    w, b, x = normal(5, 4 * 5 * 6), normal(5), X
    text = 'name: "old"\ninput: "data"\ninput_dim: 10 input_dim: 4 input_dim: 5 input_dim: 6  # ten crops\n'
    text += (
        'layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" blobs_lr: 1 blobs_lr: 2 inner_product_param {'
        " num_output: 5 } }\n"
    )
    text += 'layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip" top: "loss" include: { phase: TRAIN } }'
    prototxt, _ = write_pair(tmp_path, text, {"ip": [w, b]}, legacy=True)
    (actual,) = answer(import_model(prototxt, tmp_path / "out").model, data=x).values()
    np.testing.assert_allclose(actual, x.reshape(2, -1) @ w.T + b, rtol=1e-4, atol=1e-5)


def test_options_choose_outputs_batch_and_shapes(tmp_path: Path) -> None:
    text = inputs(1, 4, 5, 6) + layer("a", "ReLU", "data", "a") + layer("b", "Sigmoid", "a", "b")
    prototxt, _ = write_pair(tmp_path, text, {"a": []})
    options = ImportOptions(outputs=("a", "b"), batch=3, input_shapes={"data": (1, 4, 7, 8)})
    model = import_model(prototxt, tmp_path / "out", options).model
    assert list(answer(model, data=normal(3, 4, 7, 8))) == ["a", "b"]
    (given,) = onnx.load(model.path).graph.input
    assert [axis.dim_value for axis in given.type.tensor_type.shape.dim] == [3, 4, 7, 8]
    with pytest.raises(InputError, match="no blob c") as caught:
        import_model(prototxt, tmp_path / "out", ImportOptions(outputs=("c",)))
    assert "data, a, b" in caught.value.hint


def as_caffe(graph: Any) -> tuple[str, dict[str, list[Array]]]:
    """open_nsfw's ONNX graph as a Caffe pair: NCHW, names of layers as its blobs, half of the batch norms taken apart
    again."""
    stored = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in graph.initializer}
    text, blobs, names = inputs(1, 3, 224, 224), {}, {"conv_1/Conv2D__7:0": "data"}
    for index, node in enumerate(graph.node):
        settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        bottoms = [names[name] for name in node.input if name in names]
        top = f"l{index}"
        if node.op_type == "Conv":
            w, b = stored[node.input[1]], stored[node.input[2]]
            geometry = (
                f"num_output: {len(w)} kernel_size: {w.shape[2]} stride: {settings['strides'][0]} pad:"
                f" {settings.get('pads', [0])[0]}"
            )
            blobs[top] = [w]
            text += layer(top, "Convolution", bottoms[0], top, f"convolution_param {{ {geometry} bias_term: false }}")
            mean, variance, gain = normal(len(w)), RANDOM.uniform(0.5, 2, len(w)), RANDOM.uniform(0.5, 2, len(w))
            blobs[top] = [w * (np.sqrt(variance + 1e-5) / gain).reshape(-1, 1, 1, 1)]
            blobs[f"bn{index}"] = [mean * 999.98, variance * 999.98, np.array([999.98])]
            blobs[f"s{index}"] = [gain, b + mean * gain / np.sqrt(variance + 1e-5)]
            text += layer(f"bn{index}", "BatchNorm", top, top) + layer(
                f"s{index}", "Scale", top, top, "scale_param { bias_term: true }"
            )
        elif node.op_type == "Relu":
            top = bottoms[0]
            text += layer(f"l{index}", "ReLU", top, top)
        elif node.op_type == "MaxPool":
            text += layer(top, "Pooling", bottoms[0], top, "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
        elif node.op_type == "AveragePool":
            text += layer(top, "Pooling", bottoms[0], top, "pooling_param { pool: AVE kernel_size: 7 stride: 1 }")
        elif node.op_type == "Add" and len(bottoms) == 2:
            text += layer(top, "Eltwise", f"{bottoms[0]} {bottoms[1]}", top, "eltwise_param { operation: SUM }")
        elif node.op_type == "MatMul":
            blobs[top] = [stored[node.input[1]].T, stored["fc_nsfw/BiasAdd/ReadVariableOp:0"]]
            text += layer(top, "InnerProduct", bottoms[0], top, "inner_product_param { num_output: 2 }")
        elif node.op_type == "Softmax":
            text += layer("prob", "Softmax", bottoms[0], "prob")
        else:
            top = bottoms[0] if bottoms else "data"
        names[node.output[0]] = top
    return text, blobs


def test_open_nsfw_as_a_caffe_pair(tmp_path: Path, nsfw_model_path: Path) -> None:
    prototxt, _ = write_pair(tmp_path, *as_caffe(onnx.load(nsfw_model_path).graph))
    text = prototxt.read_text()
    assert text.count('"BatchNorm"') == 53
    imported = import_model(prototxt, tmp_path / "out")
    assert any("not compared with Caffe" in note for note in imported.notes)
    pictures = RANDOM.uniform(-120, 150, (3, 224, 224, 3))
    expected = answer(Model(nsfw_model_path, "onnx"), **{"input:0": pictures})["outputs"]
    actual = answer(imported.model, data=pictures.transpose(0, 3, 1, 2))["prob"]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            layer("l", "DetectionOutput", "data", "l") + layer("m", "PriorBox", "data", "m"),
            "unsupported layers: DetectionOutput, PriorBox",
        ),
        (layer("l", "ReLU", "other", "l"), "reads the blob 'other', which no layer before it makes"),
        (
            layer("l", "Convolution", "data", "l", "convolution_param { num_output: 8 kernel_size: 3 }"),
            "caffemodel lacks its weights",
        ),
        (
            layer("l", "InnerProduct", "data", "l", "inner_product_param { num_output: 5 }"),
            r"blob 1 is \[5, 7\], expected \[5, 120\]",
        ),
        (
            layer("l", "Pooling", "data", "l", "pooling_param { pool: STOCHASTIC kernel_size: 2 }"),
            "pooling method 'STOCHASTIC'",
        ),
        (layer("l", "ReLU", "data", "l", "relu_param { slope: 0.1 }"), 'unknown setting: line 2: .*"slope"'),
        (layer("l", "ReLU", "data", "l", "prelu_param { }"), "unsupported settings: prelu_param"),
        (
            layer("l", "BatchNorm", "data", "l", "batch_norm_param { use_global_stats: false }"),
            "statistics of the batch",
        ),
        (layer("l", "Softmax", "data", "l", "softmax_param { axis: 0 }"), "the first is the batch"),
        (layer("l", "Convolution", "data", "l", "convolution_param { num_output: many }"), "layer 'l', line 2: .*many"),
    ],
)
def test_what_cannot_be_converted_names_the_layer(tmp_path: Path, text: str, message: str) -> None:
    prototxt, _ = write_pair(
        tmp_path,
        inputs(1, 4, 5, 6) + text,
        {"l": [normal(5, 7), normal(5), np.array([1.0])] if "Inner" in text else []},
    )
    with pytest.raises(ModelError, match=message):
        import_model(prototxt, tmp_path / "out")


def test_a_layer_for_training_alone_may_have_settings_that_are_not_known(tmp_path: Path) -> None:
    text = inputs(1, 4, 5, 6) + layer("l", "ReLU", "data", "l")
    loss = layer("loss", "MultiBoxLoss", "l", "loss", "multibox_loss_param { loc_weight: 1 } include { phase: TRAIN }")
    prototxt, _ = write_pair(tmp_path, text + loss, {"l": []})
    assert import_model(prototxt, tmp_path / "out").model.path.is_file()
    prototxt.write_text(text + loss.replace("TRAIN", "TEST"))
    with pytest.raises(ModelError, match="MultiBoxLoss"):
        import_model(prototxt, tmp_path / "out")
    prototxt.write_text(f"optimizer: 'sgd' {text}")
    with pytest.raises(ModelError, match=r'line 1: .*"optimizer"'):
        import_model(prototxt, tmp_path / "out")


def test_a_setting_that_is_not_known_is_named_with_its_line_wherever_the_layer_stands(tmp_path: Path) -> None:
    odd = 'layer  # {\n: [{\nname: "r" type: \'ReLU\' bottom: "data" top: "r"}, {name: "l" type: "ReLU" bottom: "r"'
    odd += ' top: "l"\n\n relu_param < negative_slope: 0.5, engine: CAFFE; >}],\n'
    text = "name: '{' # a comment {\n" + inputs(1, 4, 5, 6) + odd
    prototxt, _ = write_pair(tmp_path, text, {"l": []})
    (actual,) = answer(import_model(prototxt, tmp_path / "out").model, data=X).values()
    np.testing.assert_allclose(actual, np.maximum(X, 0), rtol=1e-6)
    prototxt.write_text(text.replace("engine: CAFFE", "speed: 2"))
    with pytest.raises(ModelError, match=r'line 7: .*"speed"'):
        import_model(prototxt, tmp_path / "out")


@pytest.mark.parametrize("coefficient", ["nan", "1e400", "-inf"])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, coefficient: str) -> None:
    text = inputs(1, 4, 5, 6) + layer("l", "Power", "data", "l", f"power_param {{ shift: {coefficient} }}")
    prototxt, _ = write_pair(tmp_path, text, {"l": []})
    with pytest.raises(ModelError, match=r"'shift' is .*finite"):
        import_model(prototxt, tmp_path / "out")


def test_the_other_half_of_a_pair_is_found_or_asked_for(tmp_path: Path) -> None:
    text = inputs(1, 4, 5, 6) + layer("l", "ReLU", "data", "l")
    prototxt, weights = write_pair(tmp_path, text, {"l": []})
    (tmp_path / "train_val.prototxt").write_text("nonsense")
    assert import_model(weights, tmp_path / "out").model.path.name == "net.onnx"  # deploy.prototxt is preferred
    (tmp_path / "more.caffemodel").write_bytes(caffemodel({"l": []}))
    with pytest.raises(
        ModelError, match=r"which \.caffemodel belongs to it; its folder has: more.caffemodel, net.caffemodel"
    ):
        import_model(prototxt, tmp_path / "out")

"""TensorFlow.js models against TensorFlow.js itself in Node.js, and nsfwjs's networks against what it answered."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from helpers.tfjs_writer import (
    CHANCE,
    functional,
    graph,
    input_layer,
    keras,
    layer,
    listed,
    node,
    normal,
    placeholder,
    text,
    write,
)
from plimsoll import zoo
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import BackendMissingError, InputError, ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.importers.conversion import ImportedModel, import_model
from plimsoll.importers.tfjs import files, importer
from plimsoll.system import npm
from plimsoll.zoo import catalog


@pytest.fixture(scope="module")
def tensorflow_js() -> None:
    """Node.js and TensorFlow.js, fetched once; without them the comparisons are skipped, but never in CI."""
    reason = "Node.js is not installed" if shutil.which("node") is None else ""
    try:
        if not reason:
            npm.fetch(importer.LIBRARY)
    except BackendMissingError as error:
        reason = error.message
    if reason and os.environ.get("CI"):
        raise AssertionError(reason)
    if reason:
        pytest.skip(reason)


def compared(imported: ImportedModel, within: float = 1e-5) -> None:
    assert imported.parity is not None, imported.notes
    assert imported.parity.framework.startswith("TensorFlow.js 4")
    assert imported.parity.worst.relative < within, str(imported.parity)


def statistics(name: str, channels: int) -> dict[str, NDArray[Any]]:
    parts = {part: normal(channels) for part in ("gamma", "beta", "moving_mean")}
    return {f"{name}/{part}": entry for part, entry in parts.items()} | {
        f"{name}/moving_variance": CHANCE.uniform(0.5, 2, channels).astype(np.float32)
    }


@pytest.mark.usefixtures("tensorflow_js")
def test_layers_of_all_kinds(tmp_path: Path) -> None:
    """One network with every kind of layer, each result an output of its own."""
    sides = {"data_format": "channels_last"}
    chain = [
        layer(
            "conv",
            "Conv2D",
            "x",
            filters=8,
            kernel_size=[3, 3],
            strides=[2, 2],
            padding="same",
            activation="relu",
            use_bias=True,
            **sides,
        ),
        layer("bn", "BatchNormalization", "conv", axis=-1, epsilon=0.01, momentum=0.9),
        layer(
            "dilated",
            "Conv2D",
            "bn",
            filters=4,
            kernel_size=[3, 2],
            strides=[1, 1],
            dilation_rate=[2, 2],
            padding="valid",
            use_bias=False,
            **sides,
        ),
        layer(
            "deep",
            "DepthwiseConv2D",
            "bn",
            kernel_size=[3, 3],
            strides=[2, 2],
            padding="same",
            depth_multiplier=2,
            activation="tanh",
            **sides,
        ),
        layer("apart", "SeparableConv2D", "bn", filters=5, kernel_size=[3, 3], padding="same", **sides),
        layer("back", "Conv2DTranspose", "bn", filters=3, kernel_size=[3, 3], strides=[2, 2], padding="same", **sides),
        layer(
            "back_valid",
            "Conv2DTranspose",
            "bn",
            filters=3,
            kernel_size=[4, 4],
            strides=[3, 3],
            padding="valid",
            **sides,
        ),
        layer("max", "MaxPooling2D", "bn", pool_size=[3, 3], strides=[2, 2], padding="same", **sides),
        layer("mean", "AveragePooling2D", "bn", pool_size=[2, 2], strides=[2, 2], padding="same", **sides),
        layer("mean_valid", "AveragePooling2D", "bn", pool_size=[3, 3], padding="valid", **sides),
        layer("pad", "ZeroPadding2D", "bn", padding=[[0, 1], [2, 0]], **sides),
        layer("crop", "Cropping2D", "bn", cropping=[[1, 0], [2, 1]], **sides),
        layer("up", "UpSampling2D", "max", size=[2, 3], **sides),
        layer("leaky", "LeakyReLU", "bn", alpha=0.2),
        layer("prelu", "PReLU", "bn", shared_axes=[1, 2]),
        layer("elu", "ELU", "bn", alpha=1),
        layer("limited", "ReLU", "bn", max_value=6),
        layer("softmax", "Softmax", "bn", axis=-1),
        *(
            layer(kind, "Activation", "bn", activation=kind)
            for kind in ("sigmoid", "hard_sigmoid", "selu", "softplus", "softsign", "relu6", "swish")
        ),
        layer("drop", "Dropout", "bn", rate=0.5),
        layer("add", "Add", "bn", "drop", "elu"),
        layer("mul", "Multiply", "bn", "elu"),
        layer("average", "Average", "bn", "elu", "leaky"),
        layer("largest", "Maximum", "bn", "elu"),
        layer("smallest", "Minimum", "bn", "leaky"),
        layer("join", "Concatenate", "bn", "leaky", "elu", axis=-1),
        layer("join_rows", "Concatenate", "bn", "leaky", axis=1),
        layer("pooled", "GlobalAveragePooling2D", "bn", **sides),
        layer("peak", "GlobalMaxPooling2D", "bn", **sides),
        layer("flat", "Flatten", "max"),
        layer("shaped", "Reshape", "max", target_shape=[-1, 4]),
        layer("turned", "Permute", "bn", dims=[3, 1, 2]),
        layer("dense", "Dense", "flat", units=6, activation="softmax"),
        layer("dense_rows", "Dense", "shaped", units=3, activation="elu"),
    ]
    channels, flat = 8, 4 * 4 * 8
    weights = {
        "conv/kernel": normal(3, 3, 3, 8), "conv/bias": normal(8), **statistics("bn", channels),
        "dilated/kernel": normal(3, 2, 8, 4), "deep/depthwise_kernel": normal(3, 3, 8, 2), "deep/bias": normal(16),
        "apart/depthwise_kernel": normal(3, 3, 8, 1), "apart/pointwise_kernel": normal(1, 1, 8, 5),
        "apart/bias": normal(5),
        "back/kernel": normal(3, 3, 3, 8), "back/bias": normal(3), "back_valid/kernel": normal(4, 4, 3, 8),
        "back_valid/bias": normal(3),
        "prelu/alpha": normal(1, 1, 8), "dense/kernel": normal(flat, 6), "dense/bias": normal(6),
        "dense_rows/kernel": normal(4, 3), "dense_rows/bias": normal(3),
    }  # fmt: skip
    outputs = [entry["name"] for entry in chain]
    model = write(tmp_path, keras(functional([input_layer("x", 15, 14, 3), *chain], ["x"], outputs)), weights)
    imported = import_model(model, tmp_path / "out")
    compared(imported)
    assert [tensor.name for tensor in onnx.load(imported.model.path).graph.output] == outputs


@pytest.mark.usefixtures("tensorflow_js")
def test_sequences_models_within_models_and_shared_layers(tmp_path: Path) -> None:
    first = {
        "class_name": "Conv2D",
        "config": {
            "name": "c",
            "filters": 4,
            "kernel_size": [3, 3],
            "activation": "relu",
            "batch_input_shape": [None, 9, 9, 3],
        },
    }
    inner = {
        "class_name": "Sequential",
        "config": {"name": "inner", "layers": [first, {"class_name": "Flatten", "config": {"name": "f"}}]},
    }
    layers = [
        input_layer("a", 9, 9, 3),
        input_layer("b", 9, 9, 3),
        {"name": "inner", **inner, "inbound_nodes": [[["a", 0, 0, {}]], [["b", 0, 0, {}]]]},
        {
            "name": "join",
            "class_name": "Concatenate",
            "config": {"name": "join"},
            "inbound_nodes": [[["inner", 2, 0, {}], ["inner", 1, 0, {}]]],
        },
        layer("d", "Dense", "join", units=2),
    ]
    weights = {
        "inner/c/kernel": normal(3, 3, 3, 4),
        "inner/c/bias": normal(4),
        "d/kernel": normal(2 * 7 * 7 * 4, 2),
        "d/bias": normal(2),
    }
    # TensorFlow.js knows the weights of a nested layer by the layer's name alone.
    weights = {name.removeprefix("inner/"): weight for name, weight in weights.items()}
    compared(
        import_model(
            write(tmp_path / "nested", keras(functional(layers, ["b", "a"], ["d"])), weights), tmp_path / "out"
        )
    )
    alone = import_model(
        write(tmp_path / "alone", keras(inner), {"c/kernel": weights["c/kernel"], "c/bias": weights["c/bias"]}),
        tmp_path / "out",
    )
    compared(alone)


@pytest.mark.usefixtures("tensorflow_js")
def test_nodes_of_all_kinds(tmp_path: Path) -> None:
    window: dict[str, Any] = {
        "strides": listed(1, 2, 2, 1),
        "padding": text("SAME"),
        "data_format": text("NHWC"),
        "dilations": listed(1, 1, 1, 1),
    }
    fused = {"fused_ops": {"list": {"s": [text("BiasAdd")["s"], text("Relu6")["s"]]}}}
    weights: dict[str, NDArray[Any]] = {
        "k": normal(3, 3, 3, 6), "kd": normal(3, 3, 6, 1), "b6": normal(6),
        "var": CHANCE.uniform(0.5, 2, 6).astype(np.float32), "m": normal(6, 4),
        "b4": normal(4),
        "two": np.array(2, np.float32), "axes": np.array([1, 2], np.int32), "last": np.array(3, np.int32),
        "one": np.array([1], np.int32),
        "pads": np.array([[0, 0], [1, 0], [0, 2], [0, 0]], np.int32), "size": np.array([9, 11], np.int32),
        "zero": np.array([0], np.int32),
        "n": np.array(5 * 5 * 6, np.int32), "turn": np.array([0, 3, 1, 2], np.int32), "first": np.array(0, np.int32),
    }  # fmt: skip
    explicit = window | {"padding": text("EXPLICIT"), "explicit_paddings": listed(0, 0, 1, 0, 2, 1, 0, 0)}
    nodes = [
        placeholder("x", -1, 9, 10, 3),
        node("conv", "_FusedConv2D", "x", "k", "b6", **window, **fused, num_args={"i": "1"}),
        node("plain", "Conv2D", "x", "k", **explicit),
        node("deep", "FusedDepthwiseConv2dNative", "conv", "kd", "b6", **window | {"strides": listed(1, 1, 1, 1)},
            **fused, num_args={"i": "1"}),
        node("deep2", "DepthwiseConv2dNative", "conv", "kd", **window),
        node("biased", "BiasAdd", "plain", "b6"),
        node("bn", "FusedBatchNormV3", "conv", "b6", "b6", "b6", "var", epsilon={"f": 0.01}, is_training={"b": False},
            data_format=text("NHWC")),
        node("max", "MaxPool", "bn", ksize=listed(1, 3, 3, 1), **{key: window[key] for key in ("strides", "padding")}),
        node("avg", "AvgPool", "bn", ksize=listed(1, 2, 2, 1), **{key: window[key] for key in ("strides", "padding")}),
        node("mean", "Mean", "bn", "axes", keep_dims={"b": False}),
        node("kept", "Mean", "bn", "axes", keep_dims={"b": True}),
        node("sum", "Sum", "bn", "last", keep_dims={"b": False}),
        node("top", "Max", "bn", "last", keep_dims={"b": True}),
        node("gated", "Mul", "bn", "kept"),
        node("scaled", "Mul", "two", "bn"),
        node("shifted", "AddV2", "bn", "b6"),
        node("less", "Sub", "bn", "b6"),
        node("share", "RealDiv", "bn", "two"),
        node("root", "Rsqrt", "var_like"), node("var_like", "Exp", "bn"),
        *(node(f"a_{kind}", kind, "bn") for kind in ("Relu", "Relu6", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus",
            "Square", "Neg", "Abs")),
        node("leaky", "LeakyRelu", "bn", alpha={"f": 0.3}),
        node("padded", "Pad", "bn", "pads"),
        node("near", "ResizeNearestNeighbor", "bn", "size", align_corners={"b": True}),
        node("linear", "ResizeBilinear", "bn", "size", half_pixel_centers={"b": True}),
        node("corners", "ResizeBilinear", "bn", "size", align_corners={"b": True}),
        node("joined", "ConcatV2", "bn", "gated", "last", N={"i": "2"}),
        node("turned", "Transpose", "bn", "turn"),
        node("product", "_FusedMatMul", "mean", "m", "b4", fused_ops={"list": {"s": [text("BiasAdd")["s"]]}},
            num_args={"i": "1"}),
        node("scores", "Softmax", "product"),
        node("shape", "Shape", "bn"),
        node("batch", "StridedSlice", "shape", "zero", "one", "one", shrink_axis_mask={"i": "1"}),
        node("wanted", "Pack", "batch", "n", axis={"i": "0"}, N={"i": "2"}),
        node("flat", "Reshape", "bn", "wanted"),
        node("thin", "Squeeze", "kept", squeeze_dims=listed(1, 2)),
        node("wide", "ExpandDims", "mean", "one"),
    ]  # fmt: skip
    outputs = [entry["name"] for entry in nodes if entry["op"] not in ("Placeholder", "Shape", "StridedSlice", "Pack")]
    model = write(tmp_path, graph(nodes, weights), weights, "graph-model")
    imported = import_model(model, tmp_path / "out", ImportOptions(outputs=tuple(outputs)))
    compared(imported)
    assert [tensor.name for tensor in onnx.load(imported.model.path).graph.output] == outputs


def integers(*values: int) -> NDArray[np.int32]:
    return np.array(values, np.int32)


FURTHER: dict[str, NDArray[Any]] = {
    "k4": normal(4, 4, 5, 6), "like": integers(1, 8, 8, 5), "c6": normal(6), "half": np.array(0.5, np.float32),
    "three": np.array(3, np.float32), "last": np.array(-1, np.int32), "rows": np.array(1, np.int32),
    "uneven": integers(1, 3, 2), "k": np.array(3, np.int32), "begin": integers(0, 1, 0, 2),
    "end": integers(0, 2, 4, 6), "steps": integers(1, 1, 2, 2), "ones": integers(1, 1, 1, 1),
    "back": integers(0, 0, 0, 5),
    "to_begin": integers(0, 0, 0, 0), "down": integers(1, 1, 1, -2), "slice_size": integers(1, 2, -1, 3),
    "slice_begin": integers(0, 1, 1, 2), "repeats": integers(1, 2, 1, 1), "channels": integers(1, 1, 1, 2),
    "wide": integers(1, 4, 4, 12),
    "order": integers(3, 0, 3), "turned": integers(2), "block": integers(2, 2),
    "pads": np.array([[0, 0], [0, 0]], np.int32), "crops": np.array([[0, 1], [1, 0]], np.int32),
    "depth": np.array(6, np.int32), "on": np.array(2, np.float32), "off": np.array(-1, np.float32),
    "four": integers(1, 4, 4, 6), "m6": normal(6, 6), "both": integers(1, 2), "nothing": np.array(0, np.int32),
    "places": np.array([[0], [2]], np.int32), "dense_shape": integers(4), "two_values": integers(3, 5),
    "sixteen": integers(16, 6), "sixteens": integers(1, 16, 6), "low": np.array(-0.2, np.float32),
    "high": np.array(0.4, np.float32), "one": np.array(1, np.int32), "nine": np.array(9, np.int32),
}  # fmt: skip


def further_nodes(batch: int) -> list[dict[str, Any]]:
    """Nodes of the kinds that came later, of x `[batch, 4, 4, 6]`."""
    whole = {"DstT": {"type": "DT_INT32"}}
    blocks = {"block_size": {"i": "2"}, "data_format": text("NHWC")}
    masks = {"begin_mask": {"i": "1"}, "end_mask": {"i": "1"}}
    return [
        placeholder("x", batch, 4, 4, 6),
        node("apart", "Split", "last", "x", num_split={"i": "3"}),
        node("swapped", "ConcatV2", "apart:2", "apart", "apart:1", "last", N={"i": "3"}),
        node("uneven_parts", "SplitV", "x", "uneven", "last", num_split={"i": "3"}),
        node("second", "Neg", "uneven_parts:1"),
        node("unpacked", "Unpack", "x", axis={"i": "1"}, num={"i": "4"}),
        node("packed", "Pack", "unpacked:3", "unpacked", axis={"i": "1"}, N={"i": "2"}),
        node("best", "TopKV2", "x", "k", sorted={"b": True}),
        node("best_index", "Cast", "best:1", DstT={"type": "DT_FLOAT"}),
        node("total", "AddN", "x", "swapped", "mirrored"),
        node("sliced", "StridedSlice", "x", "begin", "end", "steps", **masks),
        node("backwards", "StridedSlice", "x", "back", "to_begin", "down", begin_mask={"i": "7"}, end_mask={"i": "15"}),
        node("taken", "StridedSlice", "x", "begin", "end", "ones", **masks, shrink_axis_mask={"i": "2"}),
        node("wider", "Tile", "x", "repeats"),
        node("looked_up", "GatherV2", "x", "order", "last", batch_dims={"i": "0"}),
        node("mirrored", "ReverseV2", "x", "turned"),
        node("deep", "Tile", "x", "channels"), node("shallow", "DepthToSpace", "deep", **blocks),
        node("floored", "FloorDiv", "x", "half"), node("rest", "FloorMod", "x", "half"),
        node("unlike", "SquaredDifference", "x", "c6"), node("no_nan", "DivNoNan", "x", "c6"),
        node("angle", "Atan2", "x", "swapped"), node("positive", "Greater", "x", "half"),
        node("chosen", "SelectV2", "positive", "x", "half"), node("negative", "LogicalNot", "positive"),
        node("either", "LogicalOr", "positive", "negative"), node("said", "Cast", "either", DstT={"type": "DT_FLOAT"}),
        node("any", "Any", "positive", "both", keep_dims={"b": False}),
        node("any_number", "Cast", "any", DstT={"type": "DT_FLOAT"}),
        node("product", "Prod", "x", "both", keep_dims={"b": True}),
        node("running", "Cumsum", "x", "k", exclusive={"b": True}, reverse={"b": True}),
        node("limited", "ClipByValue", "x", "low", "high"),
        node("largest", "ArgMax", "x", "last", output_type={"type": "DT_INT32"}),
        node("hot", "OneHot", "largest", "depth", "on", "off", axis={"i": "-1"}),
        node("whole", "Cast", "scaled", **whole), node("scaled", "Mul", "x", "three"),
        node("halves", "FloorDiv", "whole", "k"), node("halved", "Cast", "halves", DstT={"type": "DT_FLOAT"}),
        node("logs", "LogSoftmax", "x"), node("more", "Log1p", "squares"), node("squares", "Square", "x"),
        node("less", "Expm1", "x"), node("up", "Ceil", "x"), node("wave", "Sin", "x"), node("inverse", "Reciprocal",
        "more2"), node("more2", "AddV2", "squares", "three"),
        node("lrn", "LRN", "x", depth_radius={"i": "2"}, alpha={"f": 0.2}, beta={"f": 0.75}, bias={"f": 1.0}),
        node("up_sides", "Conv2DBackpropInput", "like", "k4", "x", strides=listed(1, 2, 2, 1), padding=text("SAME"),
             data_format=text("NHWC"), dilations=listed(1, 1, 1, 1)),
    ]  # fmt: skip


SINKS = (
    "swapped", "second", "packed", "best", "best_index", "total", "sliced", "backwards", "taken", "wider", "looked_up",
    "mirrored", "shallow", "floored", "rest", "unlike", "no_nan", "angle", "chosen", "said", "any_number", "product",
    "running", "limited", "hot", "halved", "logs", "more", "less", "up", "wave", "inverse", "lrn", "up_sides",
    "apart:1",
)  # fmt: skip


@pytest.mark.usefixtures("tensorflow_js")
@pytest.mark.parametrize("batch", [-1, 1])
def test_nodes_of_further_kinds(tmp_path: Path, batch: int) -> None:
    model = write(tmp_path, graph(further_nodes(batch), FURTHER), FURTHER, "graph-model")
    outputs = tuple(name for name in SINKS if batch == 1 or name != "up_sides")  # Its sizes say a batch of one.
    imported = import_model(model, tmp_path / "out", ImportOptions(outputs=outputs))
    compared(imported)
    assert imported.parity is not None
    assert imported.parity.items == (1 if batch == 1 else 2)


@pytest.mark.usefixtures("tensorflow_js")
def test_nodes_that_reckon_with_a_batch_of_one(tmp_path: Path) -> None:
    """As in MoveNet: the place of the largest value, looked up elsewhere."""
    nodes = [
        placeholder("x", 1, 4, 4, 6),
        node("rows_first", "Reshape", "x", "sixteen"),
        node("peak", "ArgMax", "rows_first", "nothing", output_type={"type": "DT_INT32"}),
        node("row", "FloorDiv", "peak", "four_wide"),
        node("column", "FloorMod", "peak", "four_wide"),
        node("channel", "Range", "nothing", "depth", "one", Tidx={"type": "DT_INT32"}),
        node("where", "Pack", "row", "column", "channel", axis={"i": "1"}, N={"i": "3"}),
        node("picture", "Squeeze", "x", squeeze_dims=listed(0)),
        node("peaks", "GatherNd", "picture", "where"),
        node("tokens", "Reshape", "x", "sixteens"),
        node("scores", "BatchMatMulV2", "tokens", "tokens", adj_x={"b": False}, adj_y={"b": True}),
        node("mixed", "Einsum", "scores", "tokens", equation=text("bij,bjk->bik"), N={"i": "2"}),
        node("batches", "SpaceToBatchND", "x", "block", "pads"),
        node("joined", "BatchToSpaceND", "batches", "block", "crops"),
        node("first", "StridedSlice", "rows_first", "peak_place", "next", "one1", shrink_axis_mask={"i": "1"}),
        node("peak_place", "Reshape", "peak_one", "one1"), node("peak_one", "ArgMax", "flat", "nothing"),
        node("flat", "Max", "rows_first", "last", keep_dims={"b": False}), node("next", "AddV2", "peak_place", "one1"),
        node("spread", "BroadcastTo", "flat1", "full"), node("flat1", "Mean", "x", "both", keep_dims={"b": True}),
    ]  # fmt: skip
    weights = FURTHER | {"four_wide": np.array(4, np.int32), "one1": integers(1), "full": integers(1, 3, 3, 6)}
    model = write(tmp_path, graph(nodes, weights), weights, "graph-model")
    outputs = ("peaks", "mixed", "joined", "first", "spread", "peak")
    imported = import_model(model, tmp_path / "out", ImportOptions(outputs=outputs))
    compared(imported)
    assert [tensor.type.tensor_type.elem_type for tensor in onnx.load(imported.model.path).graph.output][-1] == 6


@pytest.mark.usefixtures("without_node")
def test_parts_and_lookups_are_numpys(tmp_path: Path) -> None:
    model = write(tmp_path, graph(further_nodes(-1), FURTHER), FURTHER, "graph-model")
    outputs = ("apart:1", "second", "best", "backwards", "taken", "floored", "hot")
    imported = import_model(model, tmp_path / "out", ImportOptions(outputs=outputs))
    x = normal(3, 4, 4, 6)
    with Runner.open(imported.model, REFERENCE_TARGET) as runner:
        answers = runner.infer(x)
    np.testing.assert_array_equal(answers["apart:1"], x[..., 2:4])
    np.testing.assert_array_equal(answers["second"], -x[..., 1:4])
    np.testing.assert_array_equal(answers["best"], np.sort(x, -1)[..., :-4:-1])
    np.testing.assert_array_equal(answers["backwards"], x[..., 5::-2])
    np.testing.assert_array_equal(answers["taken"], x[:, 1, :, 2:])
    np.testing.assert_array_equal(answers["floored"], np.floor(x / np.float32(0.5)))
    np.testing.assert_array_equal(answers["hot"], np.where(np.arange(6) == x.argmax(-1)[..., None], 2, -1))


LOOP = [
    placeholder("pixels", 1, 4, 4, 3),
    node("enter", "Enter", "pixels"),
    node("merge", "Merge", "enter", "again"),
    node("again", "NextIteration", "merge"),
    node("left", "Exit", "merge"),
    node("core", "Mul", "left", "half"),
    node("scores", "Sigmoid", "core"),
    node("boxes", "NonMaxSuppressionV5", "scores", "scores", "k", "half", "half", "half"),
]


@pytest.mark.usefixtures("without_node")
def test_control_flow_is_cut_away_before_it_is_read(tmp_path: Path) -> None:
    model = write(tmp_path, graph(LOOP, FURTHER), FURTHER, "graph-model")
    for outputs, message in ((("scores",), "read each other: a loop"), (("left",), "a loop"), ((), "a loop")):
        with pytest.raises(ModelError, match=message) as caught:
            import_model(model, tmp_path / "out", ImportOptions(outputs=outputs))
        assert "--inputs and --outputs" in caught.value.hint
    with pytest.raises(ModelError, match=r"the node 'left' \(Exit\): its sizes are not known") as caught:
        import_model(model, tmp_path / "out", ImportOptions(inputs=("left",), outputs=("scores",)))
    assert "--shape left=" in caught.value.hint
    shape = {"left": (None, 4, 4, 3)}
    with pytest.raises(ModelError, match=r"the node 'boxes' \(NonMaxSuppressionV5\).*depends on the picture"):
        import_model(model, tmp_path / "out", ImportOptions(inputs=("left",), outputs=("boxes",), input_shapes=shape))
    options = ImportOptions(inputs=("left",), outputs=("scores",), input_shapes=shape)
    with Runner.open(import_model(model, tmp_path / "out", options).model, REFERENCE_TARGET) as runner:
        answers = runner.infer(np.zeros((2, 4, 4, 3), np.float32))
    np.testing.assert_array_equal(answers["scores"], np.full((2, 4, 4, 3), 0.5, np.float32))
    with pytest.raises(InputError, match="does not depend on pixels"):
        import_model(model, tmp_path / "out", ImportOptions(("left", "pixels"), ("scores",), shape))


ANSWERS = {
    "nsfwjs_mobilenet": [
        0.9872497916221619,
        0.0030939695425331593,
        0.009581290185451508,
        5.2749259339179844e-05,
        2.218359622929711e-05,
    ],
    "nsfwjs_mobilenet_mid": [
        0.0831456407904625,
        0.013579824939370155,
        0.8925125002861023,
        0.0025814338587224483,
        0.008180560544133186,
    ],
    "nsfwjs_inception": [
        0.21336476504802704,
        0.010765686631202698,
        0.7661519050598145,
        0.005008744541555643,
        0.004708875436335802,
    ],
}
"""What TensorFlow.js 4.22 (CPU, Node.js 20) answered, with the shards as nsfwjs 4.3.0 publishes them, to the picture
below."""


@pytest.mark.parametrize("name", ANSWERS)
def test_the_networks_of_nsfwjs(name: str) -> None:
    try:
        file = catalog.fetch(name)
    except (BackendMissingError, ModelError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"nsfwjs can't be fetched: {error.message}")
    spec = zoo.card(name).spec
    side = spec.input.tensor_spec.width or 0
    row, column, channel = np.ogrid[:side, :side, :3]
    picture = ((row * 7 + column * 13 + channel * 29 + row * column) % 256 / 255).astype(np.float32)
    with Runner.open(Model(file, "onnx", spec), REFERENCE_TARGET) as runner:
        (scores,) = runner.infer(np.stack([picture, picture])).values()
    np.testing.assert_allclose(scores, [ANSWERS[name]] * 2, atol=2e-6)


def simple(folder: Path, **options: Any) -> Path:
    layers = [
        input_layer("x", 4, 4, 3),
        layer("c", "Conv2D", "x", filters=2, kernel_size=[1, 1], **options),
        layer("r", "ReLU", "c"),
    ]
    return write(folder, keras(functional(layers, ["x"], ["r"])), {"c/kernel": normal(1, 1, 3, 2), "c/bias": normal(2)})


@pytest.fixture
def without_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_: None)


@pytest.mark.usefixtures("without_node")
def test_without_node_the_model_is_converted_and_that_is_reported(tmp_path: Path) -> None:
    imported = import_model(simple(tmp_path), tmp_path / "out")
    assert imported.parity is None
    assert imported.notes == ("not compared with TensorFlow.js: Node.js is not installed",)


@pytest.mark.usefixtures("without_node")
def test_quantized_weights_are_widened_as_tensorflow_js_does(tmp_path: Path) -> None:
    model = simple(tmp_path)
    document = json.loads(model.read_text())
    entry = {
        "name": "c/kernel",
        "shape": [1, 1, 3, 2],
        "dtype": "float32",
        "quantization": {"dtype": "uint8", "min": -0.3, "scale": 0.01},
    }
    half = {"name": "c/bias", "shape": [2], "dtype": "float32", "quantization": {"dtype": "float16"}}
    document["weightsManifest"] = [{"paths": ["q.bin"], "weights": [entry, half]}]
    (tmp_path / "q.bin").write_bytes(bytes([0, 1, 2, 128, 254, 255]) + np.array([0.5, -2], np.float16).tobytes())
    model.write_text(json.dumps(document))
    kernel = files.read(model).weights["c/kernel"]
    np.testing.assert_array_equal(
        kernel.reshape(-1), (np.array([0, 1, 2, 128, 254, 255]) * 0.01 - 0.3).astype(np.float32)
    )
    np.testing.assert_array_equal(files.read(model).weights["c/bias"], [0.5, -2])


@pytest.mark.usefixtures("without_node")
def test_options_choose_outputs_and_sizes(tmp_path: Path) -> None:
    model = simple(tmp_path)
    options = ImportOptions(outputs=("c",), batch=2, input_shapes={"x": (None, 8, 6, 3)})
    given = onnx.load(import_model(model, tmp_path / "out", options).model.path).graph
    assert [axis.dim_value for axis in given.input[0].type.tensor_type.shape.dim] == [2, 8, 6, 3]
    assert [tensor.name for tensor in given.output] == ["c"]
    with pytest.raises(InputError, match="no layer q"):
        import_model(model, tmp_path / "out", ImportOptions(outputs=("q",)))


@pytest.mark.usefixtures("without_node")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_name": "Lambda"}, r"the layer 'c' \(Lambda\): unknown layer"),
        ({"config": {"padding": "causal"}}, r"the layer 'c' \(Conv2D\): its padding is 'causal'"),
        ({"config": {"data_format": "channels_first"}}, "its data_format is 'channels_first'"),
        ({"config": {"activation": "mish"}}, "its activation is 'mish'"),
        ({"config": {"strides": [0, 1]}}, "a window of kernel"),
        ({"name": "d"}, r"the layer 'd' \(Conv2D\): its weights 'kernel' are not in the shards"),
        ({"inbound_nodes": [[["nobody", 0, 0, {}]]]}, "reads values that no layer before it makes"),
        ({"inbound_nodes": [{"args": []}]}, "Keras 3"),
    ],
)
def test_what_cannot_be_converted_names_the_layer(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    model = simple(tmp_path)
    document = json.loads(model.read_text())
    changed = document["modelTopology"]["model_config"]["config"]["layers"][1]
    changed.update(change | {"config": changed["config"] | change.get("config", {})})
    model.write_text(json.dumps(document))
    with pytest.raises(ModelError, match=message):
        import_model(model, tmp_path / "out")

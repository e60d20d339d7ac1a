"""A folded network's first convolution reads the picture's bytes, and answers as with the mean subtracted first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers import networks_to_quantize as networks
from helpers.networks_to_quantize import Array, node
from plimsoll import quantize, zoo
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.preprocessing import Preprocessor
from plimsoll.preprocessing import folded as fold
from plimsoll.quantize import Calibration, StaticOptions

MEAN = np.array([104, 117, 123], np.float32)


def folded(path: Path, mean: Array, pads: int = 2, layout: str = "cast first") -> Model:
    """uint8 pixels [N, 8, 12, 3], their mean subtracted, a 5×5 convolution, and one that is the head.

    The first one's weights are whole numbers from -127 to 127, each channel with 127 among them, so int8 holds them
    exactly.
    """
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (4, 3, 5, 5)).astype(np.float32)
    weights[:, 0, 0, 0] = 127
    constants = {
        "w": weights,
        "b": np.array([1000, -50, 0, 7], np.float32),
        "v": networks.weights(rng, 2, 4, 1, 1),
        "m": mean,
    }
    nodes = [
        node("Cast", ["x"], ["float"], to=1),
        node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        node("Sub", ["planes", "m"], ["centred"]),
    ]
    if layout == "transpose first":
        nodes[:2] = [node("Transpose", ["x"], ["bytes"], perm=[0, 3, 1, 2]), node("Cast", ["bytes"], ["planes"], to=1)]
    if layout == "pixels first":
        nodes[1:] = [node("Sub", ["float", "m"], ["less"]), node("Transpose", ["less"], ["centred"], perm=[0, 3, 1, 2])]
    nodes += [
        node("Conv", ["centred", "w", "b"], ["c"], "first", pads=[pads] * 4, strides=[2, 2]),
        node("Conv", ["c", "v"], ["y"], "head"),
    ]
    model = networks.save(path, nodes, [["N", 8, 12, 3], ["N", 2, "h", "w"]], constants)
    proto = onnx.load(path)
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return model


def pixels(count: int = 4) -> Array:
    return np.random.default_rng(1).integers(0, 256, (count, 8, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize("layout", ["cast first", "transpose first", "pixels first"])
@pytest.mark.parametrize("pads", [0, 2])
@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("bias", ["int32", "float32"])
def test_it_is_exact_but_for_its_outputs_steps_borders_too(
    tmp_path: Path, layout: str, pads: int, deep: bool, bias: str
) -> None:
    shape = (1, 1, 1, 3) if layout == "pixels first" else (1, 3, 1, 1)
    model = folded(tmp_path / "net.onnx", MEAN.reshape(shape), pads, layout)
    table = Calibration(ranges={"c": (-4e5, 4e5)})
    options = StaticOptions(space_to_depth=deep, bias=bias, activations="uint8", weight_bits=8)  # type: ignore[arg-type]
    quantized = quantize.static(model, table, tmp_path, options)
    assert not {"Cast", "Sub"} & set(networks.operators(quantized))
    assert networks.operators(quantized).count("QuantizeLinear") == 1
    batch = pixels()
    truth, answers = (
        networks.run(network, batch, f"onnxruntime:cpu:{kind}")
        for network, kind in ((model, "float32"), (quantized, "int8"))
    )
    head = networks.stored(model)["v"]
    step = 4e5 / 127
    assert np.abs(answers - truth).max() <= 0.51 * step * np.abs(head).sum(axis=1).max()
    # Within half a step everywhere: then the border is not off by a mean, which would be hundreds of steps.
    assert np.abs(answers - truth).max() > 0


@pytest.mark.parametrize("pads", [0, 2])
def test_a_fractional_mean_puts_the_border_alone_off_by_its_rounding(tmp_path: Path, pads: int) -> None:
    mean = np.array([103.6, 117.5, 123.2], np.float32)
    model = folded(tmp_path / "net.onnx", mean.reshape(1, 3, 1, 1), pads)
    quantized = quantize.static(
        model, Calibration(ranges={"c": (-4e5, 4e5)}), tmp_path, StaticOptions(activations="uint8", weight_bits=8)
    )
    assert "Sub" not in networks.operators(quantized)
    batch = pixels()
    truth, answers = (
        networks.run(network, batch, f"onnxruntime:cpu:{kind}")
        for network, kind in ((model, "float32"), (quantized, "int8"))
    )
    head = np.abs(networks.stored(model)["v"]).sum(axis=1).max()
    taps = np.abs(networks.stored(model)["w"]).sum(axis=(1, 2, 3)).max()
    off = np.abs(answers - truth).max(axis=(0, 1))
    assert off[pads and 1 : -1, pads and 1 : -1].max() <= 0.51 * 4e5 / 127 * head
    assert off.max() <= (0.51 * 4e5 / 127 + 0.5 * taps) * head


@pytest.mark.parametrize(
    "mean",
    [
        np.full((1, 3, 1, 1), -3, np.float32),
        np.full((1, 3, 1, 1), 300, np.float32),
        np.arange(96, dtype=np.float32).reshape(1, 1, 8, 12),
    ],
    ids=["below any byte", "above any byte", "a value a pixel"],
)
def test_means_that_bytes_cannot_pad_with_stay_as_they_are(tmp_path: Path, mean: Array) -> None:
    model = folded(tmp_path / "net.onnx", mean)
    assert not quantize.reads_bytes(model)
    quantized = quantize.static(model, quantize.calibrate(model, [pixels()], "minmax"), tmp_path)
    assert "Sub" in networks.operators(quantized)
    batch = pixels()
    truth, answers = (
        networks.run(network, batch, f"onnxruntime:cpu:{kind}")
        for network, kind in ((model, "float32"), (quantized, "int8"))
    )
    assert np.abs(answers - truth).max() < 0.03 * np.abs(truth).max()


@pytest.mark.parametrize("side", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("free", [False, True])
def test_padding_by_same_is_worked_out_where_the_size_is_known(
    tmp_path: Path, side: str, kernel: int, free: bool
) -> None:
    model = folded(tmp_path / "net.onnx", MEAN.reshape(1, 3, 1, 1))
    proto = onnx.load(model.path)
    convolution = next(node for node in proto.graph.node if node.name == "first")
    weights = next(tensor for tensor in proto.graph.initializer if tensor.name == "w")
    weights.CopyFrom(
        onnx.numpy_helper.from_array(
            np.ascontiguousarray(onnx.numpy_helper.to_array(weights)[:, :, :kernel, :kernel]), "w"
        )
    )
    del convolution.attribute[:]
    convolution.attribute.extend(
        [onnx.helper.make_attribute("strides", [2, 2]), onnx.helper.make_attribute("auto_pad", side)]
    )
    if free:
        proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    onnx.save(proto, model.path)
    assert quantize.reads_bytes(model) is not free
    if not free:
        quantized = quantize.static(
            model, Calibration(ranges={"c": (-4e5, 4e5)}), tmp_path, StaticOptions(activations="uint8", weight_bits=8)
        )
        batch = pixels()
        truth, answers = (
            networks.run(network, batch, f"onnxruntime:cpu:{kind}")
            for network, kind in ((model, "float32"), (quantized, "int8"))
        )
        assert np.abs(answers - truth).max() <= 0.51 * 4e5 / 127 * np.abs(networks.stored(model)["v"]).sum(axis=1).max()


def test_activations_in_int8_leave_the_picture_alone(tmp_path: Path) -> None:
    assert not quantize.reads_bytes(
        folded(tmp_path / "net.onnx", MEAN.reshape(1, 3, 1, 1)), StaticOptions(activations="int8")
    )


def test_open_nsfw_folded_takes_the_table_of_the_network_that_it_was_folded_from(
    nsfw_model_path: Path, example_photos: list[Path], tmp_path: Path
) -> None:
    spec = zoo.card("open_nsfw").spec
    model = Model(nsfw_model_path, "onnx", spec)
    preprocessor = Preprocessor(spec.input)
    tensors = np.stack([preprocessor(photo) for photo in example_photos[:8]])
    table = quantize.calibrate(model, [tensors], "percentile")
    whole = fold.fold(model, tmp_path)
    pictures = np.stack([Preprocessor(whole.require_spec().input)(photo) for photo in example_photos[:8]])
    for runtime in ("onnxruntime", "openvino"):
        pytest.importorskip(runtime)
        target = Target(runtime, "cpu", "int8")
        quantized = quantize.static(whole, table, tmp_path, StaticOptions.for_target(target))
        assert not {"Cast", "Sub", "Gather"} & set(networks.operators(quantized))
        difference = np.abs(networks.run(quantized, pictures, str(target)) - networks.run(model, tensors))
        assert difference.max() < 0.1
        assert difference.mean() < 0.01

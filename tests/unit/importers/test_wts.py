"""tensorrtx's `.wts`: LeNet and ResNets against the same networks in NumPy, and files that are damaged or of another
network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from helpers.wts_writer import Tensors, resnet_tensors, write_wts
from plimsoll.backends.runner import Runner
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import InputError, ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.importers.conversion import ImportedModel, import_model

Array = NDArray[Any]
CHANCE = np.random.default_rng(3)


def answer(imported: ImportedModel, feed: Array) -> Array:
    with Runner.open(imported.model, REFERENCE_TARGET) as runner:
        return np.asarray(runner.run({"data": feed.astype(np.float32)})["prob"])


def convolved(x: Array, w: Array, stride: int = 1, pad: int = 0) -> Array:
    windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad))), w.shape[2:], axis=(2, 3))[
        :, :, ::stride, ::stride
    ]
    return np.tensordot(windows, w, ([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2)


def lenet_tensors() -> Tensors:
    shapes = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}
    parts = {f"{name}.weight": shape for name, shape in shapes.items()} | {
        f"{name}.bias": shape[:1] for name, shape in shapes.items()
    }
    return {name: CHANCE.normal(0, 0.2, shape).astype(np.float32) for name, shape in parts.items()}


def lenet(t: Tensors, x: Array) -> Array:
    for index in ("1", "2"):
        x = np.maximum(convolved(x, t[f"conv{index}.weight"]) + t[f"conv{index}.bias"].reshape(-1, 1, 1), 0)
        x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean(axis=(3, 5))
    x = x.reshape(len(x), -1)
    for index in ("1", "2", "3"):
        x = x @ t[f"fc{index}.weight"].T + t[f"fc{index}.bias"]
        x = np.maximum(x, 0) if index != "3" else x
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def resnet(t: Tensors, x: Array, blocks: tuple[int, ...], *, bottleneck: bool) -> Array:
    def normed(x: Array, convolution: str, norm: str, stride: int) -> Array:
        w = t[f"{convolution}.weight"]
        x = convolved(x, w, stride, w.shape[2] // 2)
        gain, bias, mean, variance = (
            t[f"{norm}.{part}"].reshape(-1, 1, 1) for part in ("weight", "bias", "running_mean", "running_var")
        )
        return np.asarray((x - mean) / np.sqrt(variance + 1e-5) * gain + bias)

    x = np.maximum(normed(x, "conv1", "bn1", 2), 0)
    x = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf), (3, 3), axis=(2, 3))[
        :, :, ::2, ::2
    ].max(axis=(4, 5))
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            strides = [1, stride, 1] if bottleneck else [stride, 1]
            y = x
            for index, step in enumerate(strides, 1):
                y = normed(y, f"{name}.conv{index}", f"{name}.bn{index}", step)
                y = np.maximum(y, 0) if index < len(strides) else y
            beside = (
                normed(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
                if f"{name}.downsample.0.weight" in t
                else x
            )
            x = np.maximum(y + beside, 0)
    return np.asarray(x.mean(axis=(2, 3)) @ t["fc.weight"].T + t["fc.bias"])


@pytest.mark.parametrize("short", [False, True], ids=["8 digits", "without leading zeros"])
def test_lenet(tmp_path: Path, short: bool) -> None:
    tensors, x = lenet_tensors(), CHANCE.normal(size=(3, 1, 32, 32))
    tensors["conv1.bias"][:2] = [0.0, 1e-40]  # digits that begin with zeros
    imported = import_model(write_wts(tmp_path / "lenet5.wts", tensors, short=short), tmp_path / "out")
    assert "recognised as lenet by the names of its tensors" in imported.notes
    np.testing.assert_allclose(answer(imported, x), lenet(tensors, x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "blocks", "bottleneck"), [("resnet18", (2, 2, 2, 2), False), ("resnet50", (3, 4, 6, 3), True)]
)
def test_resnets(tmp_path: Path, name: str, blocks: tuple[int, ...], bottleneck: bool) -> None:
    tensors, x = resnet_tensors(blocks, bottleneck=bottleneck, classes=7), CHANCE.normal(size=(2, 3, 64, 96))
    options = ImportOptions(architecture=name, input_shapes={"data": (1, 3, 64, 96)})
    imported = import_model(write_wts(tmp_path / "net.wts", tensors), tmp_path / "out", options)
    expected = resnet(tensors, x, blocks, bottleneck=bottleneck)
    np.testing.assert_allclose(answer(imported, x), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_resnet_is_recognised_by_its_blocks(tmp_path: Path) -> None:
    wts = write_wts(tmp_path / "net.wts", resnet_tensors((3, 4, 6, 3), bottleneck=False, classes=2))
    assert "recognised as resnet34 by the names of its tensors" in import_model(wts, tmp_path / "out").notes
    with pytest.raises(
        ModelError, match=r"'layer1.0.conv1.weight' has 36,864 numbers, expected the shape \[64, 64, 1, 1\]"
    ):
        import_model(wts, tmp_path / "out", ImportOptions(architecture="resnet50"))
    with pytest.raises(InputError, match="unknown architecture 'yolov5s'") as caught:
        import_model(wts, tmp_path / "out", ImportOptions(architecture="yolov5s"))
    assert "lenet, resnet18" in caught.value.hint


GOOD = "2\na 2 3f800000 40000000\nb 1 00000000\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line is '', expected the number of tensors"),
        ("a 2 3f800000", "expected the number of tensors"),
        ("99999999999\n", "expected the number of tensors"),
        (GOOD.replace("b 1", "b 2"), "line 3: the tensor 'b' has 1 numbers, but declares '2'"),
        (GOOD.replace("3f800000", "3f80000z"), "line 2: the tensor 'a' has a number that is not 1 to 8 hex digits"),
        (GOOD.replace("3f800000", "3f8000001"), "not 1 to 8 hex digits"),
        (GOOD.replace("3f800000 40000000", "3f8000004 0000000"), "not 1 to 8 hex digits"),
        (GOOD.replace("3f800000", "\xff" * 8), "not 1 to 8 hex digits"),
        (GOOD.replace("b 1", "a 1"), "line 3: duplicate tensor 'a'"),
        (GOOD.replace("2\n", "3\n", 1), "declares 3 tensors, found 2"),
        (GOOD + "c " + "9" * 5000, "declares"),
        (GOOD, "match no known network: a, b"),
    ],
)
def test_a_damaged_file_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "net.wts").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=message):
        import_model(tmp_path / "net.wts", tmp_path / "out")


def test_tensors_that_have_no_place_in_the_network_are_named(tmp_path: Path) -> None:
    wts = write_wts(tmp_path / "net.wts", lenet_tensors() | {"fc4.weight": np.ones(3, np.float32)})
    with pytest.raises(ModelError, match=r"1 of its tensors are not the network's: fc4\.weight"):
        import_model(wts, tmp_path / "out")

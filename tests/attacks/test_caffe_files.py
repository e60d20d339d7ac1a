"""Hostile Caffe pairs: cut off, nested without end, of absurd sizes, and of bytes at random."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.caffe_writer import blob, caffemodel, delimited, inputs, layer, varint
from plimsoll.errors import ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.importers.conversion import import_model

TEXT = (
    inputs(1, 3, 8, 8)
    + layer("c", "Convolution", "data", "c", "convolution_param { num_output: 4 kernel_size: 3 }")
    + layer("r", "ReLU", "c", "c")
)
WEIGHTS = caffemodel({"c": [np.ones((4, 3, 3, 3)), np.ones(4)]})

SHAPE_OF_81 = delimited(7, delimited(1, bytes([9, 9])))


def attempt(folder: Path, text: str | bytes, weights: bytes = WEIGHTS) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "net.prototxt").write_bytes(text.encode() if isinstance(text, str) else text)
    (folder / "net.caffemodel").write_bytes(weights)
    import_model(folder / "net.prototxt", folder / "out", ImportOptions())


def test_the_pair_that_the_attacks_start_from_is_read(tmp_path: Path) -> None:
    attempt(tmp_path, TEXT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{" * 100_000,
        "layer " + "{ a " * 50_000,
        "layer " + "<a:1" * 3,
        'layer { name: "' + "x" * 1_000_000,
        "layer { name: [" + '"a", ' * 1000,
        "\x00\x01\x02",
        b"\xff\xfe layer",
        "layer: 5",
        "# only a comment",
        TEXT.replace("Input", "Data"),
        TEXT.replace("dim: 8", "dim: 99999999999999999999"),
        TEXT.replace("dim: 8", "dim: 2000000000"),
        TEXT.replace("dim: 8", "dim: -1"),
        TEXT.replace("dim: 8", "dim: 0"),
        TEXT.replace("num_output: 4", "num_output: 2147483647"),
        TEXT.replace("kernel_size: 3", "kernel_size: 3 stride: 0"),
        TEXT.replace("kernel_size: 3", "kernel_size: 3 group: 0"),
        TEXT.replace("kernel_size: 3", "kernel_size: 3 pad: 4294967295"),
        TEXT.replace("kernel_size: 3", "kernel_size: 3 dilation: 2000000"),
        TEXT + layer("p", "Pooling", "c", "p", "pooling_param { pool: AVE kernel_size: 2 stride: 1 pad: 70000 }"),
        TEXT + layer("s", "Slice", "c", "a b", "slice_param { slice_point: 1e9 }"),
        TEXT + layer("s", "Crop", "c data", "s", "crop_param { axis: 1 offset: 4000000 }"),
        TEXT + layer("s", "Reshape", "c", "s", "reshape_param { shape { dim: 0 dim: 0 dim: 0 dim: 0 dim: 0 dim: 0 } }"),
        TEXT + layer("s", "Permute", "c", "s", "permute_param { order: 0 order: 0 }"),
        TEXT + layer("e", "Eltwise", "c c", "e", "eltwise_param { coeff: nan coeff: 1e400 }"),
        TEXT + layer("n", "LRN", "c", "n", "lrn_param { local_size: 999999999 }"),
    ],
    ids=range(27),
)
def test_a_hostile_description_is_refused(tmp_path: Path, text: str | bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(ModelError):
        attempt(tmp_path, text)
    assert time.perf_counter() - started < 60


def test_a_chain_of_layers_takes_time_in_proportion(tmp_path: Path) -> None:
    text = TEXT + "".join(layer(f"n{index}", "ReLU", "c", "c") for index in range(5000))
    started = time.perf_counter()
    attempt(tmp_path, text)
    assert time.perf_counter() - started < 60


def test_layers_that_multiply_sizes_end(tmp_path: Path) -> None:
    doubling = "".join(layer(f"d{index}", "Concat", "c c", "c") for index in range(64))
    with pytest.raises(ModelError, match="its output would have the shape"):
        attempt(tmp_path, TEXT + doubling)


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\xff" * 100,
        WEIGHTS[:-1],
        WEIGHTS[: len(WEIGHTS) // 2],
        delimited(100, delimited(1, b"\xff\xff")),
        delimited(100, delimited(1, b"c") + delimited(7, delimited(5, b"abc"))),
        delimited(
            100,
            delimited(1, b"c")
            + delimited(7, delimited(7, delimited(1, varint(2**62) * 8)) + delimited(5, b"\0\0\0\0")),
        ),
        delimited(100, delimited(1, b"c") + delimited(7, varint(1 << 3) + varint(2**60) + delimited(5, b"\0\0\0\0"))),
        delimited(100, delimited(1, b"c") + delimited(7, blob(np.ones(107))) + delimited(7, blob(np.ones(4)))),
        delimited(
            100,
            delimited(1, b"c")
            + delimited(7, SHAPE_OF_81 + delimited(5, bytes(4 * 108)))
            + delimited(7, blob(np.ones(4))),
        ),
        b"PK\x03\x04" + b"\0" * 100,
    ],
    ids=range(11),
)
def test_hostile_weights_are_refused(tmp_path: Path, weights: bytes) -> None:
    with pytest.raises(ModelError):
        attempt(tmp_path, TEXT, weights)


def test_damaged_bytes_anywhere_end_in_words(tmp_path: Path) -> None:
    chance = random.Random(5)
    for index in range(300):
        text, weights = bytearray(TEXT.encode()), bytearray(WEIGHTS)
        damaged = text if index % 2 else weights
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            attempt(tmp_path, bytes(text), bytes(weights))
        except ModelError as error:
            assert error.message  # noqa: PT017 - either outcome is right

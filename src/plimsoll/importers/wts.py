"""tensorrtx's `.wts` files: weights without a network, for networks that Plimsoll knows.

A file is a line with the number of tensors, then a line each: name, count, and every float32 as hex digits. LeNet-5 is
tensorrtx's own; the ResNets are torchvision's, whose names tensorrtx keeps (`layer1.0.conv1.weight` …; the stride of a
bottleneck is in its 3×3 convolution, batch norms have epsilon 1e-5, the answer is logits).
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import InputError, ModelError
from plimsoll.importers.base import Conversion, Converter, ImportOptions
from plimsoll.onnx.writer import GraphWriter, require_names

RESNETS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Residual blocks in each of the four stages (He et al. 2015, table 1)."""

NAMES = ("lenet", *RESNETS)
_BASIC = ("resnet18", "resnet34")
_EPSILON = 1e-5
_NOT_READ = "num_batches_tracked"

MAX_LINE = 2_000_000_000
"""Bytes of the longest tensor's line: 9 a number."""
MAX_TENSORS = 100_000
_WIDTH = 9
"""A number's 8 digits and the space behind them."""

Tensors = dict[str, NDArray[np.float32]]

_HINT = "Was it copied completely, and written by a gen_wts.py of tensorrtx?"


class Wts(Converter):
    """tensorrtx weights."""

    name = "tensorrtx weights"
    suffixes = (".wts",)

    def convert(self, path: Path, folder: Path, options: ImportOptions) -> Conversion:
        """Convert weights of the network that `options.architecture` names, or that the tensors' names imply.

        The input is `data` (NCHW) and the output `prob`, tensorrtx's names. There is no probe: the file holds weights
        alone.
        """
        tensors = read_tensors(path)
        name = options.architecture or recognise(tensors)
        known = ", ".join(NAMES)
        if not name:
            raise ModelError(
                f"{path}: its tensors match no known network: {', '.join(list(tensors)[:6])} …",
                f"Known networks: {known}.",
            )
        if name not in NAMES:
            raise InputError(f"{path}: unknown architecture '{name}'", f"Choose from {known}.")
        require_names([*options.inputs, *options.input_shapes], ["data"], "input", str(path))
        require_names(options.outputs, ["prob"], "output", str(path))
        graph = GraphWriter(path.name, options.batch)
        _write(name, Weights(tensors, str(path)), graph, _size(options, path))
        chosen = f"as {name}" if options.architecture else f"recognised as {name} by the names of its tensors"
        notes = (chosen, "not compared with the original network: the file holds weights alone")
        return Conversion(graph.save(folder / f"{path.stem}.onnx"), None, notes=notes)


def _size(options: ImportOptions, path: Path) -> tuple[int, int] | None:
    """Return the height and width that the user gave."""
    shape = options.input_shapes.get("data")
    if shape is None:
        return None
    if len(shape) != 4 or any(size is None or not 0 < size <= 65_535 for size in shape[2:]):
        raise InputError(f"{path}: the shape {list(shape)} for 'data'", "Give [N, channels, height, width].")
    return int(shape[2] or 0), int(shape[3] or 0)


def read_tensors(path: Path) -> Tensors:
    """Return the tensors, flat, by their names in the file's order; raises ModelError with the line where the file is
    damaged."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelError(f"{path}: no regular file; expected tensorrtx's .wts", "Give the .wts file itself.")
        with path.open("rb") as stream:
            first = stream.readline(100).strip()
            if not first.isdigit() or not 0 < int(first) <= MAX_TENSORS:
                raise ModelError(
                    f"{path}: not a .wts file: its first line is {_shown(first)}, expected the number of tensors", _HINT
                )
            tensors: Tensors = {}
            for number, (name, values) in enumerate(_lines(stream, path), 2):
                if name in tensors:
                    raise ModelError(f"{path}: line {number}: duplicate tensor '{name}'", _HINT)
                tensors[name] = values
    except OSError as error:
        raise ModelError(f"{path}: can't read the file: {error.strerror or error}", "Check the path.") from error
    if len(tensors) != int(first):
        raise ModelError(f"{path}: its first line declares {int(first)} tensors, found {len(tensors)}", _HINT)
    return tensors


def _lines(stream: Iterator[bytes], path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for number, line in enumerate(stream, 2):
        words = line.split(maxsplit=2)
        if not words:
            continue
        where = f"{path}: line {number}"
        if len(line) > MAX_LINE:
            raise ModelError(f"{where}: {len(line):,} bytes; at most {MAX_LINE:,} are read", _HINT)
        if len(words) < 2 or not words[1].isdigit():
            raise ModelError(f"{where}: {_shown(line)}, expected a name, a count and that many numbers", _HINT)
        name = words[0].decode("utf-8", "replace")
        try:
            values = _floats(words[2].rstrip() if len(words) > 2 else b"")
        except ValueError as error:
            raise ModelError(
                f"{where}: the tensor '{name}' has a number that is not 1 to 8 hex digits", _HINT
            ) from error
        if int(words[1][:20]) != values.size:
            raise ModelError(
                f"{where}: the tensor '{name}' has {values.size:,} numbers, but declares {_shown(words[1])}", _HINT
            )
        yield name, values


def _floats(text: bytes) -> NDArray[np.float32]:
    """Return big-endian float32, written as hex digits between white space; raises ValueError."""
    letters = np.frombuffer(text + b" ", np.uint8)
    if letters.size % _WIDTH == 0 and (letters[_WIDTH - 1 :: _WIDTH] == ord(" ")).all():
        digits = letters.reshape(-1, _WIDTH)[
            :, :-1
        ].tobytes()  # As all writers in Python do; 50 times as fast as word by word.
    else:
        words = text.split()
        digits = b"".join(word.rjust(_WIDTH - 1, b"0") for word in words)  # C++ streams leave leading zeros out.
        if len(digits) != len(words) * (_WIDTH - 1):
            raise ValueError
    data = bytes.fromhex(digits.decode("ascii"))
    if len(data) * 2 != len(digits):  # fromhex passes over white space.
        raise ValueError
    return np.frombuffer(data, ">f4").astype(np.float32)


def _shown(data: bytes) -> str:
    return repr(data[:40].decode("utf-8", "replace"))


@dataclass
class Weights:
    """Tensors that are taken one at a time, each in the shape that the network defines."""

    tensors: Tensors
    where: str

    def __post_init__(self) -> None:
        self._left = {name for name in self.tensors if not name.endswith(_NOT_READ)}

    def take(self, name: str, *shape: int) -> NDArray[Any]:
        """Return a tensor; -1 is a size to infer. Raises ModelError if it is missing or of another size."""
        values = self.tensors.get(name)
        if values is None:
            raise ModelError(
                f"{self.where}: no tensor '{name}'",
                f"Does it belong to another network? Its tensors: {', '.join(list(self.tensors)[:8])} …",
            )
        self._left.discard(name)
        try:
            if values.size:
                return values.reshape(shape)
        except ValueError as error:
            raise ModelError(
                f"{self.where}: the tensor '{name}' has {values.size:,} numbers, expected the shape {list(shape)}"
            ) from error
        raise ModelError(f"{self.where}: the tensor '{name}' is empty, expected the shape {list(shape)}")

    def require_all_read(self) -> None:
        """Raise ModelError for tensors left over: then it is another network."""
        if self._left:
            raise ModelError(
                f"{self.where}: {len(self._left)} of its tensors are not the network's:"
                f" {', '.join(sorted(self._left)[:8])}"
            )


def recognise(tensors: Tensors) -> str:
    """Return which of `NAMES` has tensors with these names; empty for none."""
    if "layer1.0.conv1.weight" in tensors:
        stages = tuple(
            len({name.split(".")[1] for name in tensors if name.startswith(f"layer{stage}.")}) for stage in (1, 2, 3, 4)
        )
        basic = "layer1.0.conv3.weight" not in tensors
        return next((name for name, blocks in RESNETS.items() if blocks == stages and (name in _BASIC) == basic), "")
    return "lenet" if {"conv1.weight", "conv2.weight", "fc1.weight", "fc3.weight"} <= tensors.keys() else ""


def _write(name: str, weights: Weights, graph: GraphWriter, size: tuple[int, int] | None) -> None:
    """Write a network of `NAMES` with its weights; `size` is the picture's height and width. Raises ModelError or
    InputError."""
    if name == "lenet":
        if size not in (None, (32, 32)):
            raise InputError(f"{weights.where}: LeNet-5 takes pictures of 32 x 32 pixels, not {size}")
        _lenet(weights, graph)
    else:
        _resnet(name, weights, graph, size or (224, 224))
    weights.require_all_read()


def _lenet(weights: Weights, graph: GraphWriter) -> None:
    """LeNet-5: one channel of 32 × 32, average pooling, ReLU, ten scores after softmax."""
    value = graph.input("data", (graph.batch, 1, 32, 32))
    channels = 1
    for index, outputs in (("1", 6), ("2", 16)):
        kernel = graph.constant(f"conv{index}.weight", weights.take(f"conv{index}.weight", outputs, channels, 5, 5))
        bias = graph.constant(f"conv{index}.bias", weights.take(f"conv{index}.bias", outputs))
        value = graph.add("Conv", [value, kernel, bias], f"conv{index}", kernel_shape=[5, 5])
        value = graph.add("Relu", [value], f"relu{index}")
        value = graph.add("AveragePool", [value], f"pool{index}", kernel_shape=[2, 2], strides=[2, 2])
        channels = outputs
    value = graph.add("Flatten", [value], "flat", axis=1)
    for index, taken, given in (("1", 400, 120), ("2", 120, 84), ("3", 84, -1)):
        value, classes = _dense(weights, graph, value, f"fc{index}", (given, taken))
        if index != "3":
            value = graph.add("Relu", [value], f"relu.fc{index}")
    graph.output(graph.add("Softmax", [value], "prob", axis=1), "prob", (graph.batch, classes))


def _resnet(name: str, weights: Weights, graph: GraphWriter, size: tuple[int, int]) -> None:
    value = graph.input("data", (graph.batch, 3, *size))
    value = _convolution(weights, graph, value, ("conv1", "bn1"), (64, 3, 7, 2))
    value = graph.add("Relu", [value], "relu1")
    value = graph.add("MaxPool", [value], "maxpool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, blocks in enumerate(RESNETS[name], 1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            value, channels = _block(
                weights, graph, value, f"layer{stage}.{block}", (channels, 32 << stage, stride, name in _BASIC)
            )
    value = graph.add("GlobalAveragePool", [value], "avgpool")
    value = graph.add("Flatten", [value], "flat", axis=1)
    value, classes = _dense(weights, graph, value, "fc", (-1, channels))
    graph.output(value, "prob", (graph.batch, classes))


def _block(
    weights: Weights, graph: GraphWriter, value: str, name: str, form: tuple[int, int, int, bool]
) -> tuple[str, int]:
    """Write a residual block: two 3×3 convolutions, or 1×1, 3×3, 1×1 with four times the channels at its end."""
    channels, width, stride, basic = form
    outputs = width if basic else width * 4
    two = [(width, channels, 3, stride), (width, width, 3, 1)]
    three = [(width, channels, 1, 1), (width, width, 3, stride), (outputs, width, 1, 1)]
    chain = two if basic else three
    inner = value
    for index, geometry in enumerate(chain, 1):
        inner = _convolution(weights, graph, inner, (f"{name}.conv{index}", f"{name}.bn{index}"), geometry)
        if index < len(chain):
            inner = graph.add("Relu", [inner], f"{name}.relu{index}")
    beside = value
    if stride != 1 or channels != outputs:
        beside = _convolution(
            weights, graph, value, (f"{name}.downsample.0", f"{name}.downsample.1"), (outputs, channels, 1, stride)
        )
    total = graph.add("Add", [inner, beside], f"{name}.add")
    return graph.add("Relu", [total], f"{name}.relu"), outputs


def _convolution(
    weights: Weights, graph: GraphWriter, value: str, names: tuple[str, str], geometry: tuple[int, int, int, int]
) -> str:
    """Write a convolution without bias and the batch norm behind it; geometry: outputs, inputs, kernel, stride."""
    outputs, channels, kernel, stride = geometry
    convolution, norm = names
    stored = graph.constant(
        f"{convolution}.weight", weights.take(f"{convolution}.weight", outputs, channels, kernel, kernel)
    )
    value = graph.add(
        "Conv", [value, stored], convolution, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4
    )
    parts = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    statistics = [graph.constant(part, weights.take(part, outputs)) for part in parts]
    return graph.add("BatchNormalization", [value, *statistics], norm, epsilon=_EPSILON)


def _dense(weights: Weights, graph: GraphWriter, value: str, name: str, shape: tuple[int, int]) -> tuple[str, int]:
    matrix = weights.take(f"{name}.weight", *shape)
    outputs = len(matrix)
    stored = [
        graph.constant(f"{name}.weight", matrix),
        graph.constant(f"{name}.bias", np.asarray(weights.take(f"{name}.bias", outputs))),
    ]
    return graph.add("Gemm", [value, *stored], name, transB=1), outputs


IMPORTER = Wts()

"""ncnn's network files: the graph as text (`.param`), the weights one after another (`.bin`).

Which numbers a layer keeps in the `.bin`, and in which order, only its kind and its parameters tell: what is here
follows `load_model` of each layer in ncnn's `src/layer`, and `ModelBinFromDataReader` for how a block of weights
begins.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.model import INCOMPLETE, Model, Reader, model_file_size
from plimsoll.errors import BuildError, ModelError
from plimsoll.onnx.signature import signature_files
from plimsoll.spec import Spec

MAGIC = "7767517"
_MAX_TEXT = 512_000_000
_MAX_LAYERS = 1_000_000
_FLOAT32, _FLOAT16, _INT8 = 0, 0x01306B47, 0x000D4B38

Floats = NDArray[np.float32]
Block = tuple[bool, int]
"""Whether a tag comes first, as for weights that may be stored in fewer bits; and how many numbers follow."""


class NcnnFiles(Reader):
    """ncnn: a .param that describes the network, and a .bin with its weights."""

    name = "ncnn"
    suffixes = (".param",)

    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Check the outline; raises ModelError. The weights are the .bin of the same name."""
        model_file_size(path, _MAX_TEXT)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except ValueError as error:
            raise ModelError(
                f"{path}: not ncnn's text form: it is not UTF-8", "Give the .param, not the .param.bin."
            ) from error
        counts = lines[1].split() if len(lines) > 1 and lines[0].strip() == MAGIC else []
        if len(counts) != 2 or not all(count.isdecimal() and int(count) <= _MAX_LAYERS for count in counts):
            raise ModelError(
                f"{path}: not an ncnn network: expected {MAGIC} and the numbers of layers and blobs in its first lines",
                INCOMPLETE,
            )
        layers = [line.split() for line in lines[2:] if line.strip()]
        if len(layers) != int(counts[0]) or any(len(words) < 4 for words in layers):
            raise ModelError(f"{path}: its second line says {counts[0]} layers, {len(layers)} are there", INCOMPLETE)
        weights = path.with_suffix(".bin")
        model_file_size(weights)
        return Model(path, self.name, spec, files=(weights, *signature_files(path)))


@dataclass(frozen=True)
class Layer:
    """A line of the `.param`, with what it keeps in the `.bin`."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[int, str]
    """By number; arrays have numbers below −23300 and begin with their length."""
    blocks: tuple[Floats, ...] = ()

    def whole(self, number: int, default: int = 0) -> int:
        """Return a parameter that is a whole number."""
        return int(self.parameters.get(number, default))

    @property
    def is_quantizable(self) -> bool:
        """Whether ncnn computes it in int8 if it has scales."""
        return self.kind in ("Convolution", "ConvolutionDepthWise", "InnerProduct") and bool(self.blocks)

    @property
    def rows(self) -> int:
        """How many scales its weights have: one an output channel, or one a group where there are groups."""
        return self.whole(7, 1) if self.kind == "ConvolutionDepthWise" else self.whole(0)


@dataclass(frozen=True)
class NcnnNetwork:
    """A network in float32."""

    layers: tuple[Layer, ...]
    blobs: int

    @classmethod
    def read(cls, param: Path, weights: Path) -> NcnnNetwork:
        """Read both files; raises BuildError for what is damaged, and for layers that keep weights in a way that isn't
        known here."""
        lines = param.read_text(encoding="utf-8").splitlines()
        if not lines or lines[0].strip() != MAGIC:
            raise BuildError(f"{param.name}: it doesn't begin with {MAGIC}, as ncnn's networks do")
        data = weights.read_bytes()
        position, layers = 0, []
        try:
            blobs = int(lines[1].split()[1])
            for line in lines[2:]:
                layer, position = _filled(_layer(line), data, position)
                layers.append(layer)
        except (ValueError, IndexError, struct.error) as error:
            raise BuildError(f"{param.name}: it can't be read as ncnn's network: {error}") from error
        if position != len(data):
            kinds = ", ".join(sorted({unread.kind for unread in layers if unread.kind not in _BLOCKS}))
            raise BuildError(
                f"{weights.name}: {len(data) - position:,} bytes of weights, of layers among {kinds}, can't be read",
                "Choose ncnn:cpu:float32, or another runtime.",
            )
        return cls(tuple(layers), blobs)

    def with_inputs(self, shapes: Sequence[Sequence[int]]) -> NcnnNetwork:
        """Return the network with its inputs' shapes written down, outermost axis first, as many axes as its layers
        expect."""
        numbers = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 11, 1, 0)}
        layers, given = [], {f"in{index}": shape for index, shape in enumerate(shapes)}
        for layer in self.layers:
            shape = given.get(layer.outputs[0]) if layer.kind == "Input" else None
            sized = {} if shape is None else dict(zip(numbers[len(shape)], map(str, shape), strict=True))
            layers.append(replace(layer, parameters={**layer.parameters, **sized}))
        return replace(self, layers=tuple(layers))

    def write(
        self,
        param: Path,
        weights: Path,
        *,
        half: bool = False,
        scales: Mapping[str, tuple[Floats, float]] | None = None,
    ) -> None:
        """Write both files: weights in float16 with `half`, and in int8 for the layers that `scales` names.

        `scales` holds for a layer's weights a scale for each of its `rows`, and one for what it reads; a value is
        stored as `round(value × scale)`.
        """
        chosen = scales or {}
        lines = [MAGIC, f"{len(self.layers)} {self.blobs}"]
        with weights.open("wb") as stream:
            for layer in self.layers:
                quantized = chosen.get(layer.name)
                lines.append(_line(layer if quantized is None else _in_int8(layer)))
                for number, (block, (tagged, _)) in enumerate(zip(layer.blocks, _blocks(layer), strict=True)):
                    if quantized is not None and number == 0:
                        stream.write(_int8(block.reshape(layer.rows, -1), quantized[0]))
                    else:
                        stream.write(_stored(block, half=half and tagged, tagged=tagged))
                if quantized is not None:
                    stream.write(quantized[0].astype("<f4").tobytes() + struct.pack("<f", quantized[1]))
        param.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def heads(self) -> set[str]:
        """Return the names of the last layers with weights before the outputs."""
        makers = {blob: layer for layer in self.layers for blob in layer.outputs}
        read = {blob for layer in self.layers for blob in layer.inputs}
        open_ = [blob for blob in makers if blob not in read]
        last: set[str] = set()
        seen = set(open_)
        while open_:
            maker = makers[open_.pop()]
            if maker.is_quantizable:
                last.add(maker.name)
                continue
            open_ += [blob for blob in maker.inputs if blob not in seen]
            seen.update(maker.inputs)
        return last


def layer_kinds(param: Path) -> set[str]:
    """Return the kinds of a network's layers."""
    lines = param.read_text(encoding="utf-8").splitlines()[2:]
    return {words[0] for words in map(str.split, lines) if words}


def input_shapes(param: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's inputs by their blobs, as `with_inputs` wrote them; raises BuildError where they
    are missing."""
    lines = [line for line in param.read_text(encoding="utf-8").splitlines() if line.split()[:1] == ["Input"]]
    layers = [_layer(line) for line in lines]
    shapes = {
        layer.outputs[0]: tuple(layer.whole(number) for number in (2, 11, 1, 0) if layer.whole(number))
        for layer in layers
    }
    if not shapes or not all(shapes.values()):
        raise BuildError(
            f"{param.name}: it doesn't say how large its inputs are",
            "Write it into its Input lines: 0=224 1=224 2=3 (width, height, channels). Or give the ONNX network.",
        )
    return shapes


def _layer(line: str) -> Layer:
    words = line.split()
    kind, name, taken, given = words[0], words[1], int(words[2]), int(words[3])
    parameters = {int(key): value for key, _, value in (word.partition("=") for word in words[4 + taken + given :])}
    return Layer(kind, name, tuple(words[4 : 4 + taken]), tuple(words[4 + taken : 4 + taken + given]), parameters)


def _line(layer: Layer) -> str:
    values = " ".join(f"{key}={value}" for key, value in layer.parameters.items())
    blobs = " ".join((*layer.inputs, *layer.outputs))
    return f"{layer.kind:<24} {layer.name:<24} {len(layer.inputs)} {len(layer.outputs)} {blobs} {values}".rstrip()


def _filled(layer: Layer, data: bytes, position: int) -> tuple[Layer, int]:
    blocks = []
    for tagged, count in _blocks(layer):
        if tagged:
            (tag,) = struct.unpack_from("<I", data, position)
            if tag != _FLOAT32:
                raise ValueError(f"the weights of {layer.name} are not float32")
            position += 4
        if count < 0 or position + 4 * count > len(data):
            raise ValueError(f"the weights of {layer.name} reach beyond the file")
        blocks.append(np.frombuffer(data, "<f4", count, position))
        position += 4 * count
    return replace(layer, blocks=tuple(blocks)), position


def _in_int8(layer: Layer) -> Layer:
    return replace(layer, parameters={**layer.parameters, 8: "1" if layer.kind == "ConvolutionDepthWise" else "2"})


def _int8(weights: Floats, scales: Floats) -> bytes:
    values: bytes = np.clip(np.rint(weights * scales[:, np.newaxis]), -127, 127).astype(np.int8).tobytes()
    return struct.pack("<I", _INT8) + values + bytes(-len(values) % 4)


def _stored(block: Floats, *, half: bool, tagged: bool) -> bytes:
    if half and not np.any(np.abs(block) > np.finfo(np.float16).max):
        halves: bytes = block.astype("<f2").tobytes()  # To the nearest, subnormal numbers included.
        return struct.pack("<I", _FLOAT16) + halves + bytes(-len(halves) % 4)
    values: bytes = block.astype("<f4").tobytes()
    return struct.pack("<I", _FLOAT32) + values if tagged else values


def _blocks(layer: Layer) -> list[Block]:
    return _BLOCKS[layer.kind](layer) if layer.kind in _BLOCKS else []


def _convolution(layer: Layer) -> list[Block]:
    if layer.whole(19) or layer.whole(28):
        return []  # Its weights come as an input.
    return [(True, layer.whole(6)), *([(False, layer.whole(0))] if layer.whole(5) else [])]


def _inner_product(layer: Layer) -> list[Block]:
    return [(True, layer.whole(2)), *([(False, layer.whole(0))] if layer.whole(1) else [])]


def _scale(layer: Layer) -> list[Block]:
    count = layer.whole(0)
    return [] if count == -233 else [(False, count)] * (2 if layer.whole(1) else 1)


def _affine(size: int, flag: int, count: int) -> Callable[[Layer], list[Block]]:
    """Return the blocks of a normalization with so many numbers for each channel, unless it has none."""
    return lambda layer: [(False, layer.whole(size))] * count if layer.whole(flag, 1) else []


def _memory(layer: Layer) -> list[Block]:
    sizes = [size for size in (layer.whole(number) for number in (0, 1, 11, 2)) if size]
    return [(layer.whole(21, 1) == 0, math.prod(sizes))]


def _gemm(layer: Layer) -> list[Block]:
    m, n, k = (layer.whole(number) for number in (7, 8, 9))
    added = {0: 1, 1: m, 2: m, 3: m * n, 4: n}.get(layer.whole(10))
    matrices = [m * k] * bool(layer.whole(4)) + [k * n] * bool(layer.whole(5))
    return [(True, count) for count in (*matrices, *([added] if layer.whole(6) and added is not None else []))]


_BLOCKS: dict[str, Callable[[Layer], list[Block]]] = {
    **dict.fromkeys(("Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise"), _convolution),
    **dict.fromkeys(
        ("Convolution1D", "ConvolutionDepthWise1D", "Convolution3D", "Deconvolution1D", "Deconvolution3D"), _convolution
    ),
    "InnerProduct": _inner_product,
    "BatchNorm": lambda layer: [(False, layer.whole(0))] * 4,
    "Bias": lambda layer: [(False, layer.whole(0))],
    "PReLU": lambda layer: [(False, layer.whole(0))],
    "Scale": _scale,
    "InstanceNorm": _affine(0, 2, 2),
    "GroupNorm": _affine(1, 3, 2),
    "LayerNorm": _affine(0, 2, 2),
    "RMSNorm": _affine(0, 2, 1),
    "MemoryData": _memory,
    "Gemm": _gemm,
    "Padding": lambda layer: [(False, layer.whole(6))] * bool(layer.whole(6)),
    "Embed": lambda layer: [(True, layer.whole(3)), *([(False, layer.whole(0))] if layer.whole(2) else [])],
}

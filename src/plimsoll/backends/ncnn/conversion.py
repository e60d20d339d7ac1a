"""Make ncnn's networks: convert a float32 ONNX network with pnnx, and write its weights in fewer bits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.base import CalibrationData, calibration_missing
from plimsoll.backends.calibration_tables import CalibrationTable, Range, Ranges, decode, symmetric
from plimsoll.backends.conversion import check_stage
from plimsoll.backends.ncnn import dialect
from plimsoll.backends.ncnn.int8_table import Table
from plimsoll.backends.ncnn.network import NcnnNetwork, input_shapes, layer_kinds
from plimsoll.backends.ncnn.session import LoadedNetwork, NcnnSession
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, ModelError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx import load, lowering, names
from plimsoll.onnx.answers import random_feeds, reference_answers
from plimsoll.onnx.form import require_form
from plimsoll.onnx.signature import SUFFIX, Signature
from plimsoll.system import native_output, toolchains

if TYPE_CHECKING:
    from onnx import ModelProto

TOOLCHAIN = "pnnx"
INSTALL = "pip install 'plimsoll-line[ncnn]'"

Array = NDArray[Any]

_STEPS = 127.0
_FAILED_LAYER = re.compile(r"(?:load_param|load_model|create_pipeline) \d+ (\S+) failed")
"""How ncnn names a layer that it can't load."""
_NO_BATCH = 233
"""What pnnx writes where it sees no axis that counts pictures."""
_MOST_AXES = 4
_TAKEN = ("float32", "uint8")
"""What inputs may hold: bytes are handed over as float32."""
_SAME = 1e-3
"""How far a tensor of ncnn may lie from the same one of ONNX, as a share of its largest value."""
_MOVING = (
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "MaxPool",
    "Slice",
    "DepthToSpace",
    "SpaceToDepth",
    "Identity",
    "Dropout",
)
"""Operators whose output holds values of their input."""


@dataclass(frozen=True)
class Converted:
    """A network as pnnx made it, and the ONNX network that it read."""

    onnx: Model
    """With a batch of one and all sizes fixed."""
    network: NcnnNetwork
    files: tuple[Path, Path]
    """Param and bin."""
    signature: Signature
    """Of the network that was given."""
    renamed: Mapping[str, str]
    """The tensors of the network that was given whose names are others in the one that pnnx read."""

    @property
    def read(self) -> Signature:
        """That of the ONNX network that pnnx read."""
        inputs = tuple(
            replace(info, name=names.stored(info.name, "input", index), dtype="float32", shape=(1, *info.shape[1:]))
            for index, info in enumerate(self.signature.inputs)
        )
        outputs = tuple(
            replace(info, name=names.stored(info.name, "output", index))
            for index, info in enumerate(self.signature.outputs)
        )
        return Signature(inputs, outputs)


def build(model: Model, target: Target, folder: Path, calibration: CalibrationData | None) -> Model:
    """Return ncnn's pair of files for a target, in `folder`; the model itself where it is one already. Raises
    BuildError."""
    if model.format == "ncnn":
        return model
    require_form(model, target, "float32")
    if model.spec is not None and not model.spec.output.pictures_first:
        raise BuildError(
            f"{model.source}: ncnn knows no axis for pictures, so it can't keep one that isn't the first",
            "Export the network with the pictures first, or choose another runtime.",
        )
    if target.precision == "int8" and calibration is None:
        raise calibration_missing(model, target)
    param, weights = (folder / f"{model.path.stem}.{target.precision}.ncnn.{kind}" for kind in ("param", "bin"))
    with TemporaryDirectory(prefix="plimsoll-ncnn-") as temporary:
        converted = convert(model, Path(temporary))
        scales = None
        if calibration is not None and target.precision == "int8":
            table = table_of(converted, calibration.ranges, calibration.tensors[:1])
            scales = {
                name: (np.array(table.weights[name], np.float32), scale) for name, scale in table.activations.items()
            }
        converted.network.write(param, weights, half=target.precision == "float16", scales=scales)
    beside = converted.signature.write(param.with_name(param.name + SUFFIX))
    return Model(param, "ncnn", model.spec, parent=model, files=(weights, beside))


def weights_of(model: Model) -> Path:
    """Return the `.bin` beside the `.param`; raises BuildError."""
    weights = next((file for file in model.files if file.suffix == ".bin"), None)
    if weights is None:
        raise BuildError(f"{model.source}: its weights (.bin) are missing", "Copy them beside the .param.")
    return weights


def loaded(
    ncnn: ModuleType, files: tuple[Path, Path], *, threads: int = 1, half: bool = False, keep: bool = False
) -> LoadedNetwork:
    """Load a pair of files; raises BuildError. `half`: compute in float16. `keep`: keep all blobs, for looking into
    them."""
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.lightmode = not keep
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    net.opt.use_bf16_packed = net.opt.use_bf16_storage = False
    if net.load_param(str(files[0])) != 0 or net.load_model(str(files[1])) != 0:
        said = native_output.recent()
        raise BuildError(
            f"{files[0].name}: ncnn can't load it{f': {said}' if said else ''}", "Convert the ONNX network again."
        )
    return LoadedNetwork(ncnn, net, input_shapes(files[0]))


def convert(model: Model, work: Path) -> Converted:
    """Convert a float32 ONNX network in the toolchain, and check that it answers alike. Raises BuildError."""
    signature = Signature.of(model)
    if foreign := [f"'{info.name}' {info.dtype}" for info in signature.inputs if info.dtype not in _TAKEN]:
        raise BuildError(
            f"{model.source}: ncnn takes {' and '.join(_TAKEN)} here; the network has {', '.join(foreign)}",
            "Choose another runtime.",
        )
    fixed, shapes, renamed = _fixed(model, work)
    given = {"model": fixed.path}
    answer = toolchains.run(
        TOOLCHAIN, "ncnn_from_onnx", {"shapes": shapes}, work, inputs=given, where=str(model.source)
    )
    ncnn = require("ncnn", INSTALL)
    if foreign := sorted(kind for kind in layer_kinds(work / "network.param") if ncnn.layer_to_index(kind) < 0):
        raise BuildError(
            f"{model.source}: ncnn has no layer for {', '.join(foreign)}, as the network has it",
            "Export the network without such operators, or choose another runtime.",
        )
    network = NcnnNetwork.read(work / "network.param", work / "network.bin")
    if len(shapes) != len(answer["batch_axes"]) or not set(answer["batch_axes"]) <= {0, _NO_BATCH}:
        raise BuildError(
            f"{model.source}: pnnx took another axis than the first for the batch", "Choose another runtime."
        )
    inner = [shape[1:] or [1] if axis == 0 else shape for shape, axis in zip(shapes, answer["batch_axes"], strict=True)]
    if deep := [shape for shape in inner if len(shape) > _MOST_AXES]:
        raise BuildError(
            f"{model.source}: ncnn knows {_MOST_AXES} axes at most; an input has {deep[0]}", "Choose another runtime."
        )
    network = network.with_inputs(inner)
    files = (work / "sized.param", work / "sized.bin")
    network.write(*files)
    converted = Converted(fixed, network, files, signature, renamed)
    _check(model, converted)
    return converted


def _fixed(model: Model, work: Path) -> tuple[Model, list[list[int]], dict[str, str]]:
    """Write the network with a batch of one, fixed sizes, float inputs and plain names, simplified; return it, its
    inputs' shapes, and the names that are others in it.

    Raises BuildError where a size stays free.
    """
    from onnx import external_data_helper

    with translate(BuildError, f"{model.source}: its sizes can't be fixed"):
        proto = load.infer_shapes(model, batch=1)
        external_data_helper.load_external_data_for_model(proto, str(model.path.parent))
    for value in (*load.inputs(proto.graph), *proto.graph.output):
        if len(value.type.tensor_type.shape.dim) > 0:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    shapes = []
    for value in load.inputs(proto.graph):
        shape = load.shape_of(value)
        sizes = [size for size in shape or () if isinstance(size, int)]
        if not shape or len(sizes) != len(shape):
            raise BuildError(
                f"{model.source}: ncnn's converter needs fixed sizes; the input '{value.name}' is"
                f" {shape or 'of any shape'}",
                "Fix them when the network is exported, or in the input steps of its Spec.",
            )
        _read_as_float(proto, value)
        shapes.append(sizes)
    del proto.graph.value_info[:]
    lowering.lower(proto, ["MeanVarianceNormalization"])  # Before ONNX Runtime's optimizer writes functions out.
    renamed = names.make_plain(proto)
    path = work / "fixed.onnx"
    onnx_graph.save(proto, path, str(model.source))
    simplified = onnx_graph.optimized(Model(path, "onnx"), work / "optimized.onnx")
    dialect.rewrite(simplified, str(model.source))
    onnx_graph.save(simplified, path)
    return Model(path, "onnx", model.spec, parent=model), shapes, renamed


def _read_as_float(proto: ModelProto, value: Any) -> None:
    """Have an input of bytes fed in float32, which ncnn computes in anyway; raises BuildError where it would mean
    something else."""
    if load.dtype_of(value) != "uint8":
        return
    graph = onnx_graph.Graph(proto)
    open_ = [value.name]
    while open_:
        for node in graph.all_readers(open_.pop()):
            if node.op_type in _MOVING:
                open_ += node.output
            elif node.op_type != "Cast":
                raise BuildError(
                    f"the input '{value.name}' holds bytes that {node.op_type} computes with", "Choose another runtime."
                )
    value.type.tensor_type.elem_type = 1


def _check(model: Model, converted: Converted) -> None:
    ncnn = require("ncnn", INSTALL)
    # An original whose batch is fixed to more than one picture can't compute one.
    alone = all(info.shape[:1] in ((None,), (1,)) for info in converted.signature.inputs)
    signature = converted.signature if alone else converted.read

    def answer(feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            network = loaded(ncnn, converted.files)
        except BuildError as error:
            layer = _FAILED_LAYER.search(error.message)
            where = f"the layer '{layer[1]}'" if layer else "the network"
            raise BuildError(
                f"{model.source}: ncnn can't load {where} as its converter, pnnx, wrote it", "Choose another runtime."
            ) from error
        with translate(BuildError, f"{model.source}: ncnn can't run what was converted"):
            return NcnnSession(network, signature, 1).run(feeds)

    check_stage(model if alone else converted.onnx, signature, answer, "pnnx")


def table_of(converted: Converted, ranges: Mapping[str, Range], picture: Array | None = None) -> Table:
    """Return ncnn's scales for a converted network: of each layer's weights, and of what it reads by the ranges of ONNX
    tensors.

    The last layers before the outputs are left out. Raises BuildError where no layer is left.
    """
    ranges = {converted.renamed.get(name, name): limits for name, limits in ranges.items()}
    heads = converted.network.heads()
    layers = [candidate for candidate in converted.network.layers if candidate.is_quantizable]
    layers = [candidate for candidate in layers if candidate.name not in heads] or layers
    tensors = dict(_tensors_read(converted, [candidate.inputs[0] for candidate in layers], picture))
    graph = load.read(converted.onnx.path).proto.graph
    makers = {name: node for node in graph.node for name in node.output}
    weights: dict[str, tuple[float, ...]] = {}
    activations: dict[str, float] = {}
    for layer in layers:
        tensor = tensors.get(layer.inputs[0])
        while (
            tensor is not None
            and tensor not in ranges
            and (maker := makers.get(tensor)) is not None
            and maker.op_type in _MOVING
        ):
            tensor = maker.input[0]
        if tensor is None or tensor not in ranges:
            continue
        largest = np.abs(layer.blocks[0].reshape(layer.rows, -1)).max(axis=1).astype(np.float64)
        weights[layer.name] = tuple(_STEPS / np.maximum(largest, 1e-30))
        activations[layer.name] = _STEPS / max(-ranges[tensor][0], ranges[tensor][1], 1e-30)
    if not activations:
        raise BuildError(
            f"{converted.onnx.path.name}: the ranges are of none of the tensors that its layers read",
            "Calibrate the network that is converted.",
        )
    return Table(weights, activations)


def ranges_of(converted: Converted, table: Table) -> dict[str, Range]:
    """Return the ranges of ONNX tensors that a table of ncnn's means; raises BuildError where it belongs to another
    network."""
    layers = {layer.name: layer for layer in converted.network.layers if layer.is_quantizable}
    if unknown := [name for name in table.activations if name not in layers]:
        raise BuildError(
            f"the table has the layer '{unknown[0]}', which the network, as pnnx converts it, does not",
            "Was it made with this network and pnnx?",
        )
    tensors = dict(_tensors_read(converted, [layers[name].inputs[0] for name in table.activations], None))
    graph = load.read(converted.onnx.path).proto.graph
    makers = {name: node for node in graph.node for name in node.output}
    own_names = {plain: name for name, plain in converted.renamed.items()}
    thresholds: dict[str, float] = {}
    for name, scale in table.activations.items():
        tensor = tensors.get(layers[name].inputs[0])
        while tensor is not None and (maker := makers.get(tensor)) is not None and maker.op_type in _MOVING:
            tensor = maker.input[0]
        if tensor is not None:
            thresholds[own_names.get(tensor, tensor)] = _STEPS / scale
    return symmetric(thresholds)


class NcnnTable(CalibrationTable):
    """ncnn's int8 table. It holds scales of layers instead of tensors, so the network is converted for it."""

    name = "ncnn"

    def recognises(self, data: bytes) -> bool:
        return b"_param_0 " in data and data.lstrip()[:1] != b"{"

    def read(self, data: bytes, where: str, model: Model) -> dict[str, Range]:
        table = Table.loads(decode(data, where), where)
        with TemporaryDirectory(prefix="plimsoll-table-") as work:
            return ranges_of(convert(model, Path(work)), table)

    def write(self, ranges: Ranges, model: Model, picture: Array | None = None) -> bytes:
        with TemporaryDirectory(prefix="plimsoll-table-") as work:
            return table_of(convert(model, Path(work)), ranges, picture).dumps().encode()


def _tensors_read(converted: Converted, blob_names: list[str], picture: Array | None) -> Iterator[tuple[str, str]]:
    """Yield for each blob of ncnn the ONNX tensor that it is, found by its values: pnnx keeps no names."""
    inputs = converted.read.inputs
    feeds = (
        random_feeds(converted.onnx, converted.read)
        if picture is None
        else {inputs[0].name: np.asarray(picture, np.float32)}
    )
    if feeds is None:
        raise ModelError(
            f"{converted.onnx.source}: an input has a free size",
            "Fix it when the network is exported, or in the input steps of its Spec.",
        )
    ncnn = require("ncnn", INSTALL)
    blob_names = list(dict.fromkeys(blob_names))
    with translate(BuildError, f"{converted.onnx.source}: ncnn can't run what was converted"):
        network = loaded(ncnn, converted.files, keep=True)
        blobs = dict(
            zip(blob_names, network.extract([feeds[info.name][0] for info in inputs], blob_names), strict=True)
        )
    proto = onnx_graph.load(converted.onnx)
    computed = [name for name, _ in onnx_graph.computed_values(proto)]
    with TemporaryDirectory(prefix="plimsoll-ncnn-") as temporary:
        exposed = onnx_graph.expose(converted.onnx, computed, Path(temporary) / "exposed.onnx")
        tensors = {**feeds, **reference_answers(exposed, feeds, computed)}
    for blob, value in blobs.items():
        near = [
            (float(np.abs(value.ravel() - other.ravel()).max()), name)
            for name, other in tensors.items()
            if other.size == value.size
        ]
        if near and min(near)[0] <= _SAME * max(float(np.abs(value).max()), 1e-6):
            yield blob, min(near)[1]

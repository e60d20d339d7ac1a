"""Smaller networks without calibration: `dynamic` (int8 weights, activations quantized at each call) and `float16`
(half the file; inputs and outputs stay float32)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx import load, structure
from plimsoll.onnx.graph import Graph
from plimsoll.quantize.placement import computes_with_constants
from plimsoll.quantize.prepare import prepare, write

if TYPE_CHECKING:
    from onnx import ModelProto

PRODUCTS = ("MatMul", "Gemm")

LARGEST = 65504.0
"""float16's largest number."""
SMALLEST_NORMAL = 2.0**-14
"""Below it float16 has ever fewer digits."""

KEEP_FLOAT32 = (
    "Softmax",
    "LogSoftmax",
    "ReduceSum",
    "ReduceSumSquare",
    "ReduceL2",
    "ReduceLogSumExp",
    "Exp",
    "Pow",
    "CumSum",
    "InstanceNormalization",
)
"""Operators that stay in float32 beside those that ONNX Runtime's converter leaves (its DEFAULT_OP_BLOCK_LIST:
NonMaxSuppression, Resize, TopK …), because their sums or powers overflow at 65504."""


def dynamic(model: Model, folder: Path, *, convolutions: bool = False) -> Model:
    """Return a child whose matrix products have int8 weights (a scale for each column) and measure their input's range
    at each call.

    `convolutions` too makes the file of a CNN four times smaller, and the network slower than in float32 (ONNX
    Runtime's ConvInteger: open_nsfw takes 2 to 4 times as long), so they stay in float by default. Written into
    `folder` by ONNX Runtime's quantizer.

    Raises ModelError for a file that is damaged or quantized already, BuildError where there is nothing to quantize.
    """
    kinds = (*PRODUCTS, "Conv") if convolutions else PRODUCTS
    quantization = require("onnxruntime.quantization", "pip install onnxruntime")
    path = folder / f"{model.path.stem}.dynamic.onnx"
    with TemporaryDirectory(prefix="plimsoll-dynamic-") as temporary:
        prepared = prepare(model, Path(temporary))
        proto = onnx_graph.load(prepared)
        graph = Graph(proto)
        if not any(graph.kind(node) in kinds and computes_with_constants(graph, node) for node in graph.nodes):
            raise BuildError(
                f"{model.source}: it has no matrix product with stored weights",
                "Dynamic int8 is for those: use static int8 for convolutions.",
            )
        written = Path(temporary) / "dynamic.onnx"
        with translate(BuildError, f"{model.source}: can't be quantized dynamically"):
            # ONNX Runtime's mark of a prepared network, without which its quantizer logs a warning.
            proto.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
            onnx_graph.save(proto, prepared.path)
            # ONNX Runtime's ConvInteger needs a third of the time with uint8 weights that it needs with int8 ones.
            kind = quantization.QuantType.QUInt8 if convolutions else quantization.QuantType.QInt8
            quantization.quantize_dynamic(
                str(prepared.path), str(written), op_types_to_quantize=list(kinds), per_channel=True, weight_type=kind
            )
        write(onnx_graph.load(Model(written, "onnx")), path)
    return Model(path, "onnx", model.spec, parent=model)


def float16(model: Model, folder: Path) -> Model:
    """Return a child that stores its weights in float16 and computes in it, but for KEEP_FLOAT32. Written into
    `folder`.

    Raises BuildError that names the weights beyond ±65504, which would become infinite. `lint.before_float16` tells
    which weights lose digits.
    """
    half = require("onnxruntime.transformers.float16", "pip install onnxruntime")
    with TemporaryDirectory(prefix="plimsoll-float16-") as temporary:
        proto = onnx_graph.load(prepare(model, Path(temporary)))
    beyond = [
        (name, float(np.abs(values).max()))
        for name, values in float_weights(proto)
        if values.size and np.abs(values).max() > LARGEST
    ]
    if beyond:
        shown = ", ".join(f"'{name}' (up to {largest:.4g})" for name, largest in beyond[:3]) + (
            " …" if len(beyond) > 3 else ""
        )
        raise BuildError(
            f"{model.source}: {len(beyond)} of its weights are beyond float16's ±{LARGEST:g}: {shown}",
            "Use bfloat16 or int8, or stay in float32.",
        )
    with translate(BuildError, f"{model.source}: can't be converted to float16"):
        blocked = [*half.DEFAULT_OP_BLOCK_LIST, *KEEP_FLOAT32]
        converted = half.convert_float_to_float16(proto, keep_io_types=True, op_block_list=blocked)
        structure.sort(converted.graph)
    path = folder / f"{model.path.stem}.float16.onnx"
    write(converted, path)
    return Model(path, "onnx", model.spec, parent=model)


def float_weights(proto: ModelProto) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the float32 tensors that are stored in a graph and its subgraphs, by name."""
    for graph in load.messages(proto, "GraphProto"):
        for tensor in graph.initializer:
            if tensor.data_type == 1:
                yield tensor.name, onnx_graph.array(tensor)

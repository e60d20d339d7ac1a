"""Smaller networks without calibration: `dynamic` (int8 weights, activations quantized at each call) and `float16`
(half the file; inputs and outputs stay float32)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx.form import form_of
from plimsoll.onnx.graph import Graph
from plimsoll.quantize import half
from plimsoll.quantize.placement import computes_with_constants
from plimsoll.quantize.prepare import prepare, write

if TYPE_CHECKING:
    pass

PRODUCTS = ("MatMul", "Gemm")


def dynamic(model: Model, folder: Path, *, convolutions: bool = False) -> Model:
    """Return a child whose matrix products have int8 weights (a scale for each column) and measure their input's range
    at each call.

    `convolutions` too makes the file of a CNN four times smaller, and the network slower than in float32 (ONNX
    Runtime's ConvInteger: open_nsfw takes 2 to 4 times as long), so they stay in float by default. Written into
    `folder` by ONNX Runtime's quantizer.

    Returns the model itself where it is so already. Raises ModelError for a damaged file or one quantized otherwise,
    BuildError where there is nothing to quantize.
    """
    if model.format == "onnx" and form_of(model.path) == "dynamic":
        return model
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
        return write(onnx_graph.load(Model(written, "onnx")), path, model)


def float16(model: Model, folder: Path) -> Model:
    """Return a child that stores its weights in float16 and computes in it, but for what `half` keeps in float32.
    Written into `folder`.

    `before_float16` tells which weights lose digits. Raises ModelError for a damaged file, BuildError where it can't be
    prepared, or where none of its weights can be stored in float16.
    """
    with TemporaryDirectory(prefix="plimsoll-float16-") as temporary:
        proto = onnx_graph.load(prepare(model, Path(temporary)))
    with translate(BuildError, f"{model.source}: can't be converted to float16"):
        is_halved = half.convert(proto)
    if not is_halved:
        raise BuildError(
            f"{model.source}: none of its weights can be stored in float16",
            "Use bfloat16 or int8, or stay in float32.",
        )
    return write(proto, folder / f"{model.path.stem}.float16.onnx", model)

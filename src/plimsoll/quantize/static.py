"""`static`: int8 with ranges that are known beforehand, as explicit Q/DQ in ONNX."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx.graph import Graph
from plimsoll.quantize import first_layer, qdq
from plimsoll.quantize.calibration import Calibration
from plimsoll.quantize.options import StaticOptions
from plimsoll.quantize.picture import Picture, absorb
from plimsoll.quantize.placement import Placement, node_key, place
from plimsoll.quantize.prepare import prepare, write


def static(model: Model, calibration: Calibration, folder: Path, options: StaticOptions | None = None) -> Model:
    """Return an int8 child: weights symmetric with a scale for each output channel, activations by the calibration's
    ranges.

    Inputs and outputs stay float32. Written into `folder`. Options default to what suits ONNX Runtime on this
    processor; `StaticOptions.for_target` gives those of a target.

    A folded network (`plimsoll.preprocessing.folded`) takes the calibration of the one that it was folded from where it
    `reads_bytes`.

    Raises ModelError where the calibration was made for another network or lacks a tensor, or the file is quantized
    already; BuildError where nothing in it can be quantized or an operator to keep isn't there.
    """
    chosen = settled(options, calibration)
    with TemporaryDirectory(prefix="plimsoll-prepare-") as temporary:
        graph = Graph(onnx_graph.load(prepare(model, Path(temporary))))
    placement = placed(model, graph, chosen)
    picture = _absorbed(graph, placement, chosen)
    calibration.check_fit(model, [name for name in placement.grids() if picture is None or name != picture.real])
    qdq.insert(graph, placement, calibration.ranges, chosen, picture)
    if chosen.space_to_depth:
        first_layer.deepen(graph)
    path = folder / f"{model.path.stem}.int8.onnx"
    write(graph.proto, path)
    return Model(path, "onnx", model.spec, parent=model)


def reads_bytes(model: Model, options: StaticOptions | None = None) -> bool:
    """Tell whether `static` lets the first convolution of this folded network read the picture's bytes (see `picture`).

    It then needs no range for what the input steps made of the picture. Where not, quantize the network as it came and
    fold the result. Raises as `static` does.
    """
    chosen = (options or StaticOptions()).settled()
    with TemporaryDirectory(prefix="plimsoll-prepare-") as temporary:
        graph = Graph(onnx_graph.load(prepare(model, Path(temporary))))
    return _absorbed(graph, placed(model, graph, chosen), chosen) is not None


def _absorbed(graph: Graph, placement: Placement, options: StaticOptions) -> Picture | None:
    # Bytes can only go where uint8 is what convolutions take.
    return absorb(graph, placement) if options.activations == "uint8" else None


def settled(options: StaticOptions | None, calibration: Calibration) -> StaticOptions:
    """Return the options with what the processor and the calibration decide filled in."""
    chosen = (options or StaticOptions()).settled()
    return chosen if chosen.symmetry is not None else chosen.with_symmetry(calibration.symmetry)


def placed(model: Model, graph: Graph, options: StaticOptions) -> Placement:
    """Return what is quantized in the model's prepared graph; raises BuildError for options that don't fit it."""
    names = {node_key(node) for node in graph.nodes}
    if unknown := [name for name in options.keep_float if name not in names]:
        raise BuildError(
            f"{model.path}: it has no operator named {', '.join(map(repr, unknown))} to keep in float",
            "`sensitivity` lists their names.",
        )
    placement = place(
        graph, operators=options.operators, keep_float=options.keep_float, float_heads=options.float_heads
    )
    if not placement.nodes:
        raise BuildError(
            f"{model.path}: nothing in it is to be quantized",
            "Its only convolution or product may be its head: try float_heads=False.",
        )
    return placement

"""`static`: int8 with ranges that are known beforehand, as explicit Q/DQ in ONNX."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from plimsoll import onnx_graph
from plimsoll.errors import BuildFailed
from plimsoll.model import Model
from plimsoll.quantize import first_layer, qdq
from plimsoll.quantize.calibration import Calibration
from plimsoll.quantize.graph import Graph
from plimsoll.quantize.options import StaticOptions
from plimsoll.quantize.placement import Placement, node_key, place
from plimsoll.quantize.prepare import prepare, write


def static(model: Model, calibration: Calibration, folder: Path, options: StaticOptions | None = None) -> Model:
    """Return an int8 child: weights symmetric with a scale for each output channel, activations by the calibration's ranges.

    Inputs and outputs stay float32. Written into `folder`. Options default to what suits ONNX Runtime on this processor;
    `StaticOptions.for_target` gives those of a target.

    Raises ModelError where the calibration was made for another network or lacks a tensor, or the file is quantized already;
    BuildFailed where nothing in it can be quantized or an operator to keep isn't there.
    """
    chosen = settled(options, calibration)
    with TemporaryDirectory(prefix="plimsoll-prepare-") as temporary:
        graph = Graph(onnx_graph.load(prepare(model, Path(temporary))))
    placement = placed(model, graph, calibration, chosen)
    qdq.insert(graph, placement, calibration.ranges, chosen)
    if chosen.space_to_depth:
        first_layer.deepen(graph)
    path = folder / f"{model.path.stem}.int8.onnx"
    write(graph.proto, path)
    return Model(path, "onnx", model.spec, parent=model)


def settled(options: StaticOptions | None, calibration: Calibration) -> StaticOptions:
    """Return the options with what the processor and the calibration decide filled in."""
    chosen = (options or StaticOptions()).settled()
    return chosen if chosen.symmetry is not None else chosen.with_symmetry(calibration.symmetry)


def placed(model: Model, graph: Graph, calibration: Calibration, options: StaticOptions) -> Placement:
    """Return what is quantized in the model's prepared graph, after checking that the options and the calibration fit it; raises as `static`."""
    names = {node_key(node) for node in graph.nodes}
    if unknown := [name for name in options.keep_float if name not in names]:
        raise BuildFailed(f"{model.path}: it has no operator named {', '.join(map(repr, unknown))} to keep in float", "`sensitivity` lists their names.")
    placement = place(graph, operators=options.operators, keep_float=options.keep_float, float_heads=options.float_heads)
    if not placement.nodes:
        raise BuildFailed(f"{model.path}: nothing in it is to be quantized", "Its only convolution or product may be its head: try float_heads=False.")
    calibration.check_fit(model, placement.grids())
    return placement

"""A TensorFlow.js model that was written as a graph of ONNX."""

from __future__ import annotations

from dataclasses import dataclass

from plimsoll.onnx.writer import GraphWriter


@dataclass(frozen=True)
class Written:
    """The graph, and the names of its inputs and outputs, which are TensorFlow.js's."""

    graph: GraphWriter
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

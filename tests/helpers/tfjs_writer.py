"""Write TensorFlow.js models: layers models from a list of layers, graph models from a list of nodes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[Any]]
CHANCE = np.random.default_rng(11)


def normal(*shape: int) -> NDArray[np.float32]:
    return CHANCE.normal(0, 0.5, shape).astype(np.float32)


def write(folder: Path, topology: Mapping[str, Any], weights: Weights, kind: str = "layers-model", **more: Any) -> Path:
    """Write model.json and two shards, which cut the weights anywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    data = b"".join(np.ascontiguousarray(weight).tobytes() for weight in weights.values())
    (folder / "group1-shard1of2.bin").write_bytes(data[: len(data) // 2 + 1])
    (folder / "group1-shard2of2.bin").write_bytes(data[len(data) // 2 + 1 :])
    entries = [
        {"name": name, "shape": list(weight.shape), "dtype": str(weight.dtype)} for name, weight in weights.items()
    ]
    manifest = [{"paths": ["group1-shard1of2.bin", "group1-shard2of2.bin"], "weights": entries}]
    (folder / "model.json").write_text(
        json.dumps({"format": kind, "modelTopology": topology, "weightsManifest": manifest, **more})
    )
    return folder / "model.json"


def layer(name: str, kind: str, *reads: str, **config: Any) -> dict[str, Any]:
    nodes = [[[read, 0, 0, {}] for read in reads]] if reads else []
    return {"name": name, "class_name": kind, "config": {"name": name, **config}, "inbound_nodes": nodes}


def input_layer(name: str, *shape: int | None) -> dict[str, Any]:
    return layer(name, "InputLayer", batch_input_shape=[None, *shape], dtype="float32")


def functional(
    layers: Sequence[Mapping[str, Any]], inputs: Sequence[str], outputs: Sequence[str], name: str = "model"
) -> dict[str, Any]:
    config = {
        "name": name,
        "layers": list(layers),
        "input_layers": [[tensor, 0, 0] for tensor in inputs],
        "output_layers": [[tensor, 0, 0] for tensor in outputs],
    }
    return {"class_name": "Model", "config": config}


def keras(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"keras_version": "2.2.4", "backend": "tensorflow", "model_config": document}


def text(value: str) -> dict[str, str]:
    return {"s": base64.b64encode(value.encode()).decode()}


def listed(*values: int) -> dict[str, Any]:
    return {"list": {"i": [str(value) for value in values]}}


def node(name: str, op: str, *reads: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "input": list(reads), "attr": attributes}


def placeholder(name: str, *sizes: int) -> dict[str, Any]:
    return node(
        name,
        "Placeholder",
        dtype={"type": "DT_FLOAT"},
        shape={"shape": {"dim": [{"size": str(size)} for size in sizes]}},
    )


def graph(nodes: Sequence[Mapping[str, Any]], weights: Weights) -> dict[str, Any]:
    constants = [
        node(name, "Const", dtype={"type": "DT_FLOAT" if weight.dtype == np.float32 else "DT_INT32"})
        for name, weight in weights.items()
    ]
    return {"node": [*constants, *nodes], "library": {}, "versions": {}}

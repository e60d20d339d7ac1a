"""Metadata and configuration, as the JSON that both HTTP and gRPC answer from."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

import plimsoll
from plimsoll.core.model import TensorInfo
from plimsoll.serve.messages import ModelMetadata
from plimsoll.serve.oip.datatypes import datatype_of
from plimsoll.serve.oip.models import Served

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
)
"""What the server has beyond the protocol; shared memory, sequences, tracing and logging are not among it."""


def server() -> dict[str, Any]:
    """Return the server's metadata."""
    return {"name": "plimsoll", "version": plimsoll.__version__, "extensions": list(EXTENSIONS)}


def metadata(served: Served) -> dict[str, Any]:
    """Return a model's metadata; -1 stands for a size that is free. Raises RequestError where it never was ready."""
    return {
        "name": served.name,
        "versions": [served.deployment.version],
        "platform": _platform(served.metadata),
        "inputs": [_tensor(fact) for fact in served.inputs],
        "outputs": [_tensor(fact) for fact in served.outputs],
    }


def configuration(served: Served, most: int) -> dict[str, Any]:
    """Return a model's configuration as Triton writes it (`ModelConfig`): as much of it as has a meaning here.

    For the bare network `max_batch_size` is how many rows one request may have (`most`), and `dims` leave out the first
    axis. For pictures it is 0, which means that `dims` are the whole shape: Triton's clients have no form for a batch
    of elements without axes.
    """
    metadata = served.metadata
    skipped = 1 if served.bare else 0
    told = {
        "task": metadata.task,
        "target": metadata.target,
        "preprocessing": metadata.preprocessing,
        "labels": to_json(metadata.labels).decode(),
    }
    return {
        "name": served.name,
        "platform": _platform(metadata),
        "backend": "plimsoll",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": most if served.bare else 0,
        "input": [_config(fact, skipped) for fact in served.inputs],
        "output": [_config(fact, skipped) for fact in served.outputs],
        "dynamic_batching": {"priority_levels": 3, "default_priority_level": 2},
        "model_transaction_policy": {"decoupled": False},
        "parameters": {key: {"string_value": value} for key, value in told.items()},
    }


def _platform(metadata: ModelMetadata) -> str:
    return "plimsoll_" + metadata.target.partition(":")[0]


def _tensor(fact: TensorInfo) -> dict[str, Any]:
    return {"name": fact.name, "datatype": datatype_of(fact.dtype), "shape": _sizes(fact.shape)}


def _config(fact: TensorInfo, skipped: int) -> dict[str, Any]:
    datatype = datatype_of(fact.dtype)
    return {
        "name": fact.name,
        "data_type": "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}",
        "dims": _sizes(fact.shape[skipped:]),
    }


def _sizes(shape: tuple[int | None, ...]) -> list[int]:
    return [-1 if size is None else size for size in shape]

"""The `config.pbtxt` of the three models that a network becomes in Triton.

`NAME` takes picture files and is an ensemble of the other two: `NAME.steps` turns them into a tensor, `NAME.tensor` is
the network. The fields: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import json_format, text_format

from plimsoll.core.model import TensorInfo
from plimsoll.errors import ModelError
from plimsoll.export.triton.model_config_pb2 import ModelConfig
from plimsoll.export.triton.network import IMAGE, PYTHON, TritonNetwork, TritonOptions
from plimsoll.preprocessing import Preprocessing
from plimsoll.spec import Spec
from plimsoll.spec.spec import Classify

HEADER = "# Written by `plimsoll pack --for triton`; a further export replaces it with --force.\n"
"""The first line of every configuration that is ours."""
LABELS = "labels.txt"

_TYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32",
    "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64", "bfloat16": "BF16", "object": "STRING",
}  # fmt: skip
_PREFERRED = {"cpu": (4, 8), "gpu": (8, 16, 32)}
"""Batches that are worth waiting for: beyond them a picture hardly gets cheaper."""
Message = Mapping[str, Any]
"""A message of Triton's schema, as `json_format` reads it."""

_ONE = (1,)
_BETWEEN = "plimsoll:tensor"
"""The tensor between the two steps of the ensemble; no network's output is called so."""


def configurations(
    spec: Spec, network: TritonNetwork, preprocessing: Preprocessing, options: TritonOptions
) -> dict[str, str]:
    """Return the text of each model's config.pbtxt by the model's name, the ensemble first."""
    messages = (
        _ensemble(spec, network),
        _steps(spec, network, preprocessing, options),
        _network(spec, network, options),
    )
    return {str(message["name"]): HEADER + _text(message) for message in messages}


def _text(message: Message) -> str:
    """Return a configuration as Triton reads it. A field that is None is left out."""
    config = json_format.ParseDict(message, ModelConfig())
    return str(text_format.MessageToString(config, use_short_repeated_primitives=True))


def names(spec: Spec) -> tuple[str, str, str]:
    """Return what the ensemble, the input steps and the network are called."""
    return spec.name, f"{spec.name}.steps", f"{spec.name}.tensor"


def classified(spec: Spec, network: TritonNetwork) -> str | None:
    """Return the output whose values stand for the labels, in their order; None where there is none, or a label has
    several lines."""
    if not isinstance(spec.output, Classify) or any(len(label.splitlines()) != 1 for label in spec.output.labels):
        return None
    outputs = [info for info in network.outputs if spec.output.tensor in (None, info.name)]
    return outputs[0].name if len(outputs) == 1 and outputs[0].shape[-1] == len(spec.output.labels) else None


def _ensemble(spec: Spec, network: TritonNetwork) -> Message:
    whole, steps, tensor = names(spec)
    named = [info.name for info in network.outputs]
    return {
        "name": whole,
        "platform": "ensemble",
        "max_batch_size": 0,
        "input": [_image()],
        "output": [_described(info, (-1, *(_sizes(info.shape[1:]) or _lone(network)))) for info in network.outputs],
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": steps,
                    "model_version": -1,
                    "input_map": {IMAGE: IMAGE},
                    "output_map": {network.picture_input: _BETWEEN},
                },
                {
                    "model_name": tensor,
                    "model_version": -1,
                    "input_map": {network.picture_input: _BETWEEN},
                    "output_map": {name: name for name in named},
                },
            ]
        },
        "version_policy": _latest(),
        "parameters": _parameters({"task": spec.output.task, "target": str(network.target)}),
    }


def _steps(spec: Spec, network: TritonNetwork, preprocessing: Preprocessing, options: TritonOptions) -> Message:
    form = spec.input.tensor_spec
    tensor = TensorInfo(network.picture_input, (None, *form.shape), form.dtype)
    # Another version may lie in the same folder only where pictures become the same tensors: the two steps of an
    # ensemble aren't changed at once.
    digest = hashlib.sha256(spec.input.model_dump_json().encode()).hexdigest()
    return {
        "name": names(spec)[1],
        "backend": PYTHON,
        "max_batch_size": 0,
        "input": [_image()],
        "output": [_described(tensor, _sizes(tensor.shape))],
        "instance_group": [{"count": options.decoders, "kind": "KIND_CPU"}],
        "version_policy": _latest(),
        "parameters": _parameters(
            {
                "preprocessing": preprocessing,
                "max_pictures": str(options.max_batch if network.free else 1),
                "input_sha256": digest,
            }
        ),
    }


def _network(spec: Spec, network: TritonNetwork, options: TritonOptions) -> Message:
    rest = slice(1, None) if network.batches else slice(None)
    labelled = classified(spec, network)
    return {
        "name": names(spec)[2],
        "backend": network.backend,
        "default_model_filename": None if network.backend == PYTHON else network.file,
        "max_batch_size": options.max_batch if network.batches else 0,
        "input": [_described(info, _sizes(info.shape[rest])) for info in network.inputs],
        "output": [
            _described(info, _sizes(info.shape[rest])) | {"label_filename": LABELS if info.name == labelled else None}
            for info in network.outputs
        ],
        "dynamic_batching": _batching(network, options),
        "instance_group": [_instances(network, options)],
        "optimization": _optimization(network),
        "model_warmup": _warmup(network, options),
        "version_policy": _latest(),
        "parameters": _parameters(_of_backend(network, options)),
    }


def _batching(network: TritonNetwork, options: TritonOptions) -> Message | None:
    if not network.batches:
        return None
    preferred = [size for size in _PREFERRED[_device(network)] if size <= options.max_batch]
    return {
        "preferred_batch_size": preferred or None,
        "max_queue_delay_microseconds": options.delay_us,
        "default_queue_policy": {
            "timeout_action": "REJECT",
            "allow_timeout_override": True,
            "max_queue_size": options.queue,
        },
    }


def _instances(network: TritonNetwork, options: TritonOptions) -> Message:
    # Inside Python, Plimsoll finds the GPU by itself.
    on_gpu = _device(network) == "gpu" and network.backend != PYTHON
    return {"count": _count(network, options), "kind": "KIND_GPU" if on_gpu else "KIND_CPU"}


def _count(network: TritonNetwork, options: TritonOptions) -> int:
    return options.instances or network.instances


def _device(network: TritonNetwork) -> str:
    return "gpu" if network.target.device == "gpu" else "cpu"


def _optimization(network: TritonNetwork) -> Message | None:
    if not network.accelerators:
        return None
    chosen = [{"name": name, "parameters": dict(values)} for name, values in network.accelerators.items()]
    return {"execution_accelerators": {"gpu_execution_accelerator": chosen}}


def _warmup(network: TritonNetwork, options: TritonOptions) -> Sequence[Message]:
    """Let the smallest and the largest call be computed before the first request waits for it; nothing where a size is
    free."""
    if any(size is None for tensor in network.inputs for size in tensor.shape[1:]):
        return []
    batches = sorted({1, options.max_batch}) if network.batches else [1]
    return [
        {
            "name": f"{batch} empty",
            "batch_size": batch,
            "inputs": {
                info.name: {
                    "data_type": _type(info),
                    "dims": [size or 1 for size in (info.shape[1:] if network.batches else info.shape)],
                    "zero_data": True,
                }
                for info in network.inputs
            },
        }
        for batch in batches
    ]


def _of_backend(network: TritonNetwork, options: TritonOptions) -> dict[str, str]:
    threads = options.threads if _device(network) == "cpu" else None
    if network.native is not None:
        return dict(network.native.parameters(_count(network, options), threads))
    settings = {} if threads is None else {"threads": str(threads)}
    return {"model": network.file, "target": str(network.target), **settings}


def _image() -> Message:
    return {"name": IMAGE, "data_type": "TYPE_STRING", "dims": [-1]}


def _described(tensor: TensorInfo, dims: Sequence[int]) -> dict[str, Any]:
    # Triton has no tensors without axes: what is one number for each picture is a list of one.
    shaped: dict[str, Any] = {"dims": list(dims)} if dims else {"dims": list(_ONE), "reshape": {"shape": []}}
    return {"name": tensor.name, "data_type": _type(tensor), **shaped}


def _lone(network: TritonNetwork) -> tuple[int, ...]:
    """Return the axes of an output that is one number for each picture, as `_described` has them."""
    return _ONE if network.batches else ()


def _type(tensor: TensorInfo) -> str:
    if tensor.dtype not in _TYPES:
        raise ModelError(f"'{tensor.name}' holds {tensor.dtype}, which Triton has no type for")
    return f"TYPE_{_TYPES[tensor.dtype]}"


def _sizes(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(-1 if size is None else size for size in shape)


def _latest() -> Message:
    return {"latest": {"num_versions": 1}}


def _parameters(values: Mapping[str, str]) -> Message:
    return {key: {"string_value": value} for key, value in values.items()}

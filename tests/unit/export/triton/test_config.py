"""Configurations are protobuf text of Triton's schema: what is written is read again as the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from helpers.axis_networks import sequence, spec
from helpers.small_models import SPEC, small_model
from plimsoll.core.model import Model, TensorInfo
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import ModelError
from plimsoll.export.triton import TritonOptions, config
from plimsoll.export.triton.model_config_pb2 import ModelConfig
from plimsoll.export.triton.network import TritonNetwork, describe
from plimsoll.spec.files import loads


def parsed(text: str) -> Any:
    assert text.startswith(config.HEADER)
    return text_format.Parse(text, ModelConfig())


@pytest.fixture
def network(tmp_path: Path) -> TritonNetwork:
    return describe(small_model(tmp_path), REFERENCE_TARGET, TritonOptions())


def configurations(network: TritonNetwork, spec: str = SPEC, **options: Any) -> dict[str, Any]:
    texts = config.configurations(loads(spec), network, "reference", TritonOptions(**options))
    return {name: parsed(text) for name, text in texts.items()}


def test_only_plimsoll_s_own_runner_moves_the_axis_of_the_pictures(tmp_path: Path) -> None:
    model = Model(sequence(tmp_path / "n.onnx", ["T", "N", 3]), "onnx", spec('task = "tensor"\nbatch_axis = 1'))
    with pytest.raises(ModelError, match="nor move the axis of the pictures to the front") as caught:
        describe(model, REFERENCE_TARGET, TritonOptions())
    assert caught.value.hint == "Let Plimsoll do it: --set network=python."
    network = describe(model, REFERENCE_TARGET, TritonOptions(network="python"))
    assert [info.shape for info in network.outputs] == [(None, 6, 3)]


def test_fields_of_every_kind_are_read_again(network: TritonNetwork) -> None:
    configs = configurations(network, max_batch=16, queue=9, threads=3)
    assert list(configs) == ["small", "small.steps", "small.tensor"]
    tensor = configs["small.tensor"]
    assert (tensor.name, tensor.backend, tensor.max_batch_size) == ("small.tensor", "onnxruntime", 16)
    assert list(tensor.input[0].dims) == [5, 6, 3]
    assert list(tensor.dynamic_batching.preferred_batch_size) == [4, 8]
    assert tensor.dynamic_batching.default_queue_policy.allow_timeout_override
    assert tensor.dynamic_batching.default_queue_policy.max_queue_size == 9
    assert tensor.instance_group[0].kind == tensor.instance_group[0].KIND_CPU
    assert tensor.parameters["intra_op_thread_count"].string_value == "3"
    assert tensor.model_warmup[0].inputs["picture"].zero_data
    step = configs["small"].ensemble_scheduling.step[0]
    assert (step.model_name, step.model_version, dict(step.input_map)) == ("small.steps", -1, {"image": "image"})


def test_a_field_that_is_not_given_is_not_there(network: TritonNetwork) -> None:
    configs = configurations(network)
    assert not configs["small"].HasField("dynamic_batching")
    assert not configs["small"].HasField("backend")
    assert not configs["small.tensor"].HasField("optimization")
    assert configs["small"].HasField("max_batch_size")
    assert configs["small"].max_batch_size == 0


@pytest.mark.parametrize("name", ['a "quoted" one', "back\\slash", "é", "🙂", "}", "# no comment"])
def test_texts_are_escaped(network: TritonNetwork, name: str) -> None:
    renamed = TritonNetwork(
        network.native,
        network.file,
        network.files,
        network.inputs,
        (TensorInfo(name, (None, 4), "float32"),),
        network.target,
        network.picture_input,
    )
    configs = configurations(renamed)
    assert configs["small.tensor"].output[0].name == configs["small"].output[0].name == name
    assert dict(configs["small"].ensemble_scheduling.step[1].output_map) == {name: name}


def test_a_type_that_triton_lacks_is_refused(network: TritonNetwork) -> None:
    odd = TritonNetwork(
        network.native,
        network.file,
        network.files,
        network.inputs,
        (TensorInfo("odd", (None, 4), "complex64"),),
        network.target,
        network.picture_input,
    )
    with pytest.raises(ModelError, match="complex64"):
        configurations(odd)

"""ONNX Runtime on GPUs, where there is none: it is refused in words, and no operator slips back to the CPU unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers.contract_networks import network, save
from plimsoll import backends
from plimsoll.backends.onnxruntime import nvidia
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BackendMissingError, BuildError
from plimsoll.system import gpu

FLOAT32 = Target("onnxruntime", "gpu", "float32")
no_provider = pytest.mark.skipif(nvidia._has(nvidia.CUDA), reason="onnxruntime-gpu is here")
provider_without_gpu = pytest.mark.skipif(
    not nvidia._has(nvidia.CUDA) or bool(gpu.gpus()), reason="needs onnxruntime-gpu, and no GPU"
)


class Claimed:
    """A real session on the CPU that says it had a CUDA provider: so its operators are what falls back."""

    def __init__(self, model: Model, provider: str = nvidia.CUDA) -> None:
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self._session = onnxruntime.InferenceSession(str(model.path), settings, providers=["CPUExecutionProvider"])
        self._provider = provider

    def get_providers(self) -> list[str]:
        return [self._provider, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> Any:
        return self._session.get_provider_graph_assignment_info()


@no_provider
def test_without_the_provider_the_command_is_reported() -> None:
    with pytest.raises(BackendMissingError, match="onnxruntime:gpu:float32 can't be used") as caught:
        backends.for_target(FLOAT32)
    assert "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'" in caught.value.hint


@provider_without_gpu
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_does_not_start_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """Here ONNX Runtime itself answers from the CPU, with a warning in its log at most."""
    monkeypatch.setattr(gpu, "missing", lambda *_: "")
    with pytest.raises(BuildError, match="did not start, and the CPU would have done the work"):
        Runner.open(network(tmp_path / "net.onnx"), FLOAT32, options={"provider": provider})


def test_operators_that_fall_back_are_named(tmp_path: Path) -> None:
    model = network(tmp_path / "net.onnx")
    with pytest.raises(BuildError, match=r"5 of its 5 operators would be computed on the CPU: Sub, Relu, ReduceMean …"):
        nvidia.require_gpu(Claimed(model), nvidia.CUDA, model, "")


def test_a_missing_provider_is_refused_with_what_was_said(tmp_path: Path) -> None:
    model = network(tmp_path / "net.onnx")
    with pytest.raises(BuildError, match=r"did not start, .*: Failed to load libcudnn\.so"):
        nvidia.require_gpu(Claimed(model, "Another"), nvidia.CUDA, model, "Failed to load libcudnn.so")


def test_computing_with_sizes_may_stay_on_the_cpu(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["a"], ["sizes"], name="shape"),
        helper.make_node("Gather", ["sizes", "first"], ["size"], name="gather"),
        helper.make_node("Reshape", ["a", "sizes"], ["b"], name="reshape"),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("a", "b")]
    size = helper.make_tensor_value_info("size", TensorProto.INT64, [])
    model = save(
        tmp_path / "net.onnx",
        nodes,
        infos[:1],
        [infos[1], size],
        [numpy_helper.from_array(np.array(0, np.int64), "first")],
    )
    with pytest.raises(BuildError, match=r"1 of its 3 operators would be computed on the CPU: Reshape 'reshape'"):
        nvidia.require_gpu(Claimed(model), nvidia.CUDA, model, "")


def test_int8_goes_to_tensorrt_and_never_to_cuda() -> None:
    assert nvidia.chosen("auto", "int8") == nvidia.TENSORRT
    assert nvidia.chosen("auto", "float16") == nvidia.CUDA
    assert nvidia.chosen("tensorrt", "float32") == nvidia.TENSORRT
    with pytest.raises(BuildError, match="float32, dequantized"):
        nvidia.chosen("cuda", "int8")

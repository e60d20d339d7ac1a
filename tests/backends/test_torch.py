"""PyTorch: the translation against ONNX's own tests, and what the contract suite can't see. Skipped where PyTorch
isn't."""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from helpers.contract_networks import expected, network, save
from plimsoll import backends
from plimsoll.backends.base import ThreadPlan
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BackendMissingError, BuildError
from plimsoll.system import cache

TORCH = Target("torch", "cpu", "float32")
PLAIN = {"compiler": "none"}
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")

KNOWN_GAPS = re.compile(
    r"uint(16|32|64)|top_k_uint64"  # PyTorch has hardly any kernels for them
    r"|_empty_set"  # nor largest values of nothing
    r"|flexattention_double|range_bfloat16"  # double precision mixed with single; a constant in bfloat16
)
DECIDES_BY_FLOATS = {"Resize", "Clip", "Pad", "Upsample"}
FROM_NUMBERS_ALONE = {"Range", "ConstantOfShape"}


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is here")
def test_without_torch_the_command_is_reported() -> None:
    with pytest.raises(BackendMissingError, match="torch:gpu:float16 can't be used") as caught:
        backends.for_target(Target("torch", "gpu", "float16"))
    assert "pip install 'plimsoll-line[torch]'" in caught.value.hint


@needs_torch
def test_every_operator_does_what_onnx_says() -> None:
    """ONNX's own test of every operator that is translated: what is fed as whole numbers, or decides sizes, is known
    beforehand."""
    from plimsoll.backends.torch.operators import OPERATORS

    passed: Counter[str] = Counter()
    failed, refused = [], []
    for name, model, given, answers in _cases(set(OPERATORS)):
        kinds = {node.op_type for node in model.graph.node}
        try:
            _check(model, kinds, given, answers)
        except BuildError:
            refused.append(name)
        except (AssertionError, RuntimeError, TypeError, KeyError, IndexError) as error:
            failed.append(f"{name}: {error}"[:300])
        else:
            passed.update(kinds)
    assert [failure for failure in failed if not KNOWN_GAPS.search(failure.partition(":")[0])] == []
    assert set(OPERATORS) - set(passed) == set()
    assert len(refused) < sum(passed.values()) / 10


def _cases(known: set[str]) -> Any:
    """Yield (name, model, inputs, outputs) of ONNX's tests that use these operators only, on numbers only."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    for case in cases:
        model = case.model if case.model is not None else onnx.load(Path(case.model_dir) / "model.onnx")
        if any(node.domain or node.op_type not in known for node in model.graph.node):
            continue
        for given, answers in case.data_sets or _stored(Path(case.model_dir), model):
            values = [*given, *answers]
            if all(
                isinstance(value, (np.ndarray, np.generic)) and np.asarray(value).dtype.kind not in "OUSc"
                for value in values
            ):
                yield case.name, model, given, answers


def _stored(folder: Path, model: Any) -> Any:
    for data in sorted(folder.glob("test_data_set_*")):
        sides = (("input", model.graph.input), ("output", model.graph.output))
        yield tuple([_read(data / f"{side}_{index}.pb") for index in range(len(values))] for side, values in sides)


def _read(file: Path) -> Any:
    proto = TensorProto()
    try:
        proto.ParseFromString(file.read_bytes())
        return numpy_helper.to_array(proto)
    except (ValueError, TypeError, RuntimeError):  # a sequence or an optional value
        return None


def _check(model: Any, kinds: set[str], given: list[Any], answers: list[Any]) -> None:
    import torch

    from plimsoll.backends.torch.graph import OnnxModule

    proto = onnx.ModelProto.FromString(model.SerializeToString())
    fed = []
    for index, (value, info) in enumerate(zip(given, proto.graph.input, strict=False)):
        array = np.asarray(value)
        if kinds & FROM_NUMBERS_ALONE or (index and (array.dtype.kind in "iu" or kinds & DECIDES_BY_FLOATS)):
            proto.graph.initializer.append(numpy_helper.from_array(array, info.name))
        else:
            fed.append(torch.from_numpy(np.array(array)))
    module = OnnxModule(proto)
    module.eval()
    for output, right in zip(module(*fed), answers, strict=True):
        assert tuple(output.shape) == right.shape
        np.testing.assert_allclose(output.float().numpy(), np.asarray(right, np.float32), rtol=1e-3, atol=1e-4)


@needs_torch
@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_half_precision_keeps_inputs_and_outputs_as_they_are(tmp_path: Path, precision: str, tolerance: float) -> None:
    import torch

    from plimsoll.backends.torch.graph import translated

    batch = np.random.default_rng(3).random((4, 5, 6, 3), np.float32)
    module = translated(network(tmp_path / "net.onnx"), getattr(torch, precision))
    (scores,) = module(torch.from_numpy(batch))
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores.numpy(), expected(batch), atol=tolerance)
    assert {buffer.dtype for buffer in module.buffers()} == {getattr(torch, precision)}


@needs_torch
def test_an_operator_without_translation_is_named(tmp_path: Path) -> None:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("a", "b")]
    nodes = [helper.make_node("CumSum", ["a", "axis"], ["sums"]), helper.make_node("Trilu", ["sums"], ["b"])]
    model = save(tmp_path / "net.onnx", nodes, infos[:1], infos[1:], [numpy_helper.from_array(np.array(0), "axis")])
    with pytest.raises(BuildError, match="no translation for CumSum, Trilu"):
        Runner.open(model, TORCH, options=PLAIN)


@needs_torch
def test_a_free_size_is_computed_with_and_a_batch_beyond_the_largest_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flatten by Shape, Gather, Concat and Reshape, as exporters write it: the batch stays free while the program is
    compiled, once."""
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path / "cache"))
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 2, 3, 4])
    flat = helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["N", 24])
    constants: dict[str, NDArray[Any]] = {
        "first": np.array([0]),
        "rest": np.array([-1]),
        "half": np.array(0.5, np.float32),
    }
    nodes = [
        helper.make_node("Shape", ["picture"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "first"], ["count"]),
        helper.make_node("Concat", ["count", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["picture", "shape"], ["long"]),
        helper.make_node("Mul", ["long", "half"], ["flat"]),
    ]
    model = save(
        tmp_path / "net.onnx",
        nodes,
        [picture],
        [flat],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    with Runner.open(model, TORCH, options={"max_batch": "3"}, plan=ThreadPlan(2, 1)) as runner:
        for count in (1, 3, 7):
            value = np.random.default_rng(count).random((count, 2, 3, 4), np.float32)
            np.testing.assert_allclose(runner.infer(value)["flat"], value.reshape(count, -1) / 2, rtol=1e-6)
    assert len(_built()) == 1
    Runner.open(model, TORCH, options={"max_batch": "3"}).close()
    assert len(_built()) == 1


def _built() -> set[Path]:
    return set((cache.runtime_folder("torch") / "built").glob("*/program.pt2"))


@needs_torch
def test_free_sizes_besides_the_batch_are_reported(tmp_path: Path) -> None:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, "H"]) for name in ("a", "b")]
    model = save(tmp_path / "net.onnx", [helper.make_node("Relu", ["a"], ["b"])], infos[:1], infos[1:], [])
    with pytest.raises(BuildError, match="free sizes besides the batch"):
        Runner.open(model, TORCH)


@needs_torch
def test_a_quantized_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"torch:cpu:float32 needs .*; this one has"):
        Runner.open(network(tmp_path / "net.onnx", form="qdq"), TORCH)
    with pytest.raises(BuildError, match="torch loads ONNX files"):
        Runner.open(Model(tmp_path / "net.onnx", "tflite"), TORCH)

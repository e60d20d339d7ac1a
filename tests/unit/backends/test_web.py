"""ONNX Runtime Web in Node: processes that come, fail and go."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers.contract_networks import network, save
from plimsoll import backends
from plimsoll.backends.base import ThreadPlan
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BackendMissingError, BuildError, RunError

WEB = Target("web", "wasm")
needs_node = pytest.mark.skipif(
    any(offer.missing for offer in backends.get("web").targets()), reason="Node.js or npm is not installed"
)


def streams() -> list[int]:
    """Return the Node processes that this one has started."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "session.mjs" in line]


@needs_node
def test_a_process_for_each_stream_and_none_is_left(tmp_path: Path) -> None:
    runner = Runner.open(network(tmp_path / "net.onnx"), WEB, plan=ThreadPlan(streams=2, threads=1))
    assert len(streams()) == 2
    runner.close()
    assert not streams()


@needs_node
def test_a_process_that_dies_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    picture = np.ones((1, 5, 6, 3), np.float32)
    with Runner.open(network(tmp_path / "net.onnx"), WEB) as runner:
        runner.infer(picture)
        os.kill(streams()[0], signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(RunError, match="ended with exit code -9"):
                runner.infer(picture)


@needs_node
def test_an_operator_that_it_lacks_is_named(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])
    node = helper.make_node("Sail", ["x"], ["y"], domain="some.where")
    graph = helper.make_graph(
        [node], "small", [info], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])]
    )
    onnx.save(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 19), helper.make_opsetid("some.where", 1)], ir_version=9
        ),
        tmp_path / "net.onnx",
    )
    with pytest.raises(BuildError, match=r"can't load net\.onnx: .*Sail"):
        Runner.open(Model(tmp_path / "net.onnx", "onnx"), WEB)
    assert not streams()


@needs_node
def test_integers_of_all_sizes_pass(tmp_path: Path) -> None:
    kinds = {"int64": TensorProto.INT64, "uint8": TensorProto.UINT8, "bool": TensorProto.BOOL}
    infos = [
        [helper.make_tensor_value_info(f"{side}_{name}", kind, ["N", 2]) for name, kind in kinds.items()]
        for side in ("in", "out")
    ]
    nodes = [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in kinds]
    model = save(tmp_path / "net.onnx", nodes, infos[0], infos[1], [])
    feeds = {
        "in_int64": np.array([[-(2**40), 7]]),
        "in_uint8": np.array([[255, 0]], np.uint8),
        "in_bool": np.array([[True, False]]),
    }
    with Runner.open(model, WEB) as runner:
        outputs = runner.run(feeds)
    for name, value in feeds.items():
        np.testing.assert_array_equal(outputs[name.replace("in_", "out_")], value)
        assert outputs[name.replace("in_", "out_")].dtype == value.dtype


def test_without_node_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert all("Node.js" in offer.missing for offer in backends.get("web").targets())
    with pytest.raises(BackendMissingError):
        backends.get("web").check(WEB)

"""What OpenVINO does of its own accord, and is kept from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from helpers.contract_networks import expected, network, save
from plimsoll.backends.base import ThreadPlan
from plimsoll.backends.openvino import backend as backend
from plimsoll.backends.openvino import session
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BackendMissingError, BuildError, RunError
from plimsoll.system import host

TARGET = Target("openvino")
Array = NDArray[np.float32]


def pictures(count: int) -> Array:
    random = np.random.default_rng(count)
    return 1 - random.random((count, 1, 1, 3), np.float32) * random.random((count, 5, 6, 3), np.float32)


_SPY = """
import sys
seen = []
def spy(event, args):
    if event.startswith(("socket.", "urllib.", "http.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn")):
        seen.append(event)
        raise PermissionError(event)
sys.addaudithook(spy)
"""


@pytest.mark.parametrize(
    "preloaded", ["", "import openvino_telemetry as before"], ids=["as it is", "telemetry imported before"]
)
def test_it_opens_no_connection_and_leaves_nothing_in_the_home_folder(tmp_path: Path, preloaded: str) -> None:
    """Importing OpenVINO alone reports to Google Analytics, unless it believes to be in CI or the user opted out."""
    model = network(tmp_path / "net.onnx")
    home = tmp_path / "home"
    home.mkdir()
    code = f"""{_SPY}
{preloaded}
import numpy as np
from pathlib import Path
from plimsoll.core.model import Model
from plimsoll.backends.runner import Runner
from plimsoll.core.target import Target
with Runner.open(Model(Path({str(model.path)!r}), "onnx"), Target("openvino")) as runner:
    runner.infer(np.ones((1, 5, 6, 3), np.float32))
import threading
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(60)
assert not seen, seen
assert ("openvino_telemetry" in sys.modules) == {bool(preloaded)}
"""
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    environment["PLIMSOLL_CACHE"] = str(tmp_path / "cache")
    environment |= {"HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []


def test_openvino_is_imported_without_its_converter_which_is_found_when_it_is_asked_for() -> None:
    code = """
import sys
from plimsoll.backends.openvino import backend
openvino = backend._import()
assert "openvino.tools.ovc" not in sys.modules
sys.modules["openvino_telemetry"] = None
assert callable(openvino.convert_model)
assert not hasattr(openvino, "nothing")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_not_installed_is_reported_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert all("pip install 'plimsoll-line[openvino]'" in offer.missing for offer in backend.BACKEND.targets())


@pytest.mark.parametrize(
    ("sets", "offered"),
    [
        ((), {"float32", "int8"}),
        (("avx2", "avx512_vnni"), {"float32", "int8"}),
        (("avx512_bf16",), {"float32", "int8", "bfloat16"}),
        (("amx_bf16", "avx512_fp16"), {"float32", "int8", "bfloat16", "float16"}),
        (("asimdhp", "bf16"), {"float32", "int8", "bfloat16", "float16"}),
    ],
    ids=["none", "avx2", "avx512_bf16", "amx", "arm"],
)
def test_a_precision_is_offered_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, sets: tuple[str, ...], offered: set[str]
) -> None:
    monkeypatch.setattr(host, "instruction_sets", lambda: sets)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    offers = backend.BACKEND.targets()
    assert {offer.target.precision for offer in offers if not offer.missing} == offered
    assert all("Use float32" in offer.missing for offer in offers if offer.target.precision not in offered)


def test_a_precision_that_is_not_offered_is_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "instruction_sets", lambda: ("avx2",))
    with pytest.raises(BackendMissingError, match="bfloat16"):
        backend.BACKEND.load(
            network(tmp_path / "net.onnx"), Target("openvino", "cpu", "bfloat16"), None, ThreadPlan(1, 1)
        )


@pytest.mark.parametrize(
    ("precision", "others"), [("bfloat16", "f16|f32"), ("float16", "bf16|f32")], ids=["bfloat16", "float16"]
)
def test_a_precision_is_computed_in_or_refused_but_never_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str, others: str
) -> None:
    """OpenVINO emulates bfloat16 on AVX-512, and instead of float16 takes bfloat16 or float32 without a word."""
    monkeypatch.setattr(host, "instruction_sets", lambda: ("avx512_bf16", "avx512_fp16"))
    try:
        runner = Runner.open(network(tmp_path / "net.onnx"), Target("openvino", "cpu", precision))
    except BuildError as error:
        assert re.search(rf"computes in ({others})\b", error.message)  # noqa: PT017 - either outcome is right, by processor
        return
    with runner:
        away = np.abs(runner.infer(pictures(20))["scores"] - expected(pictures(20))).max()
    assert 1e-6 < away < 5e-3


@pytest.mark.parametrize(
    "options",
    [
        {"hint": "throughput"},
        {"hint": "latency"},
        {"streams": "1"},
        {"streams": "3", "threads": "3"},
        {"threads": "1"},
        {"pinning": "yes"},
        {"fixed_sizes": "0"},
    ],
    ids=str,
)
def test_no_option_changes_the_answers(tmp_path: Path, options: dict[str, str]) -> None:
    batches = [pictures(count) for count in (1, 3, 2, 5)] * 4
    with (
        Runner.open(network(tmp_path / "net.onnx"), TARGET, objective="throughput", cores=2, options=options) as runner,
        ThreadPoolExecutor(4) as pool,
    ):
        answers = list(pool.map(runner.infer, batches))
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer["scores"], expected(batch), atol=1e-5)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The batch sizes for which OpenVINO compiled a network, as they come; None for any size."""
    seen: list[int | None] = []
    original = session.Compiler.compile

    def compile_(self: session.Compiler, shapes: session.Shapes | None = None) -> session.CompiledNetwork:
        seen.append(shapes[0][0] if shapes else None)
        return original(self, shapes)

    monkeypatch.setattr(session.Compiler, "compile", compile_)
    return seen


@pytest.mark.parametrize(
    ("fixed_sizes", "compiled"), [(0, [None]), (1, [1, None]), (2, [1, 4, None]), (3, [1, 4, 2, None])]
)
def test_the_first_sizes_are_compiled_each_and_the_others_once(
    compilations: list[int | None], tmp_path: Path, fixed_sizes: int, compiled: list[int | None]
) -> None:
    model, options = network(tmp_path / "net.onnx"), {"fixed_sizes": str(fixed_sizes)}
    Runner.open(model, TARGET, options=options).close()  # which is checked, with sizes of its own
    compilations.clear()
    with Runner.open(model, TARGET, options=options) as runner:
        for count in (4, 1, 2, 3, 4, 1, 5, 2):
            np.testing.assert_allclose(runner.infer(pictures(count))["scores"], expected(pictures(count)), atol=1e-5)
    assert compilations == compiled


def test_threads_that_need_the_same_size_at_once_compile_it_once(
    compilations: list[int | None], tmp_path: Path
) -> None:
    together = threading.Barrier(6)
    with Runner.open(network(tmp_path / "net.onnx"), TARGET) as runner, ThreadPoolExecutor(6) as pool:

        def infer(_: int) -> Array:
            together.wait()
            return runner.infer(pictures(4))["scores"]

        for scores in pool.map(infer, range(6)):
            np.testing.assert_allclose(scores, expected(pictures(4)), atol=1e-5)
    assert compilations == [1, 4]


def test_a_network_with_free_sides_is_compiled_for_the_sizes_that_come(tmp_path: Path) -> None:
    free = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, *sides])
        for name, sides in (("x", ["H", "W"]), ("y", [1, 1]))
    ]
    model = save(tmp_path / "free.onnx", [helper.make_node("GlobalAveragePool", ["x"], ["y"])], free[:1], free[1:], [])
    with Runner.open(model, TARGET) as runner:
        assert runner.inputs[0].shape == (None, 3, None, None)
        for shape in ((1, 3, 4, 5), (2, 3, 7, 6), (1, 3, 2, 2), (1, 3, 4, 5)):
            batch = np.random.default_rng(0).random(shape, np.float32)
            np.testing.assert_allclose(runner.infer(batch)["y"], batch.mean(axis=(2, 3), keepdims=True), rtol=1e-5)


def test_outputs_that_are_copies_keep_their_names(tmp_path: Path) -> None:
    """OpenVINO drops Identity nodes, and a compiled network calls such an output by another of its names."""
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "y", "z")]
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["y"]),
        helper.make_node("Identity", ["a"], ["z"]),
    ]
    with Runner.open(save(tmp_path / "m.onnx", nodes, infos[:1], infos[1:], []), TARGET) as runner:
        outputs = runner.infer(np.array([[-1, 2]], np.float32))
    assert {name: value.tolist() for name, value in outputs.items()} == {"y": [[0, 2]], "z": [[0, 2]]}


def test_a_size_that_comes_late_has_the_weights_that_were_loaded(tmp_path: Path) -> None:
    """OpenVINO maps external weights into memory; whoever writes that file anew would change a running network."""
    model = network(tmp_path / "net.onnx")
    proto = onnx.load(model.path)
    onnx.save_model(proto, model.path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with Runner.open(model, TARGET) as runner:
        weights = tmp_path / "weights.bin"
        with weights.open("r+b") as stream:
            stream.write(bytes(weights.stat().st_size))
        for count in (1, 2, 3):
            np.testing.assert_allclose(runner.infer(pictures(count))["scores"], expected(pictures(count)), atol=1e-5)


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    session = backend.BACKEND.load(network(tmp_path / "net.onnx"), TARGET, None, ThreadPlan(1, 1))
    session.close()
    session.close()
    for count in (1, 2):
        with pytest.raises(RunError, match="closed"):
            session.run({"picture": pictures(count)})


def test_the_real_network_answers_alike_in_both_runtimes(nsfw_model_path: Path) -> None:
    from plimsoll.core.model import Model

    batch = np.random.default_rng(0).uniform(-120, 150, (2, 224, 224, 3)).astype(np.float32)
    scores = []
    for target in (TARGET, Target("onnxruntime")):
        with Runner.open(Model(nsfw_model_path, "onnx"), target) as runner:
            scores.append(runner.infer(batch)["outputs"])
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


def test_what_it_computes_otherwise_is_refused_by_name(tmp_path: Path) -> None:
    """It has no antialiasing in Resize, and says nothing."""
    nodes = [
        helper.make_node("Relu", ["picture"], ["positive"]),
        helper.make_node("Resize", ["positive", "", "half"], ["y"], "smaller", mode="linear", antialias=1),
    ]
    ends = [
        helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, 16, 16]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8]),
    ]
    half = numpy_helper.from_array(np.array([1, 1, 0.5, 0.5], np.float32), "half")
    graph = helper.make_graph(nodes, "smaller", ends[:1], ends[1:], [half])
    path = tmp_path / "smaller.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    with pytest.raises(BuildError, match=r"smaller\.onnx: openvino:cpu:float32 answers otherwise .*'smaller' \(Resize"):
        Runner.open(Model(path, "onnx"), Target("openvino"))

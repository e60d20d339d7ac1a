"""MNN: what its quantizer makes of a network, with its own calibrators and with our ranges; no telemetry; crashes in
words."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from helpers.contract_networks import network
from helpers.residual_network import pictures, residual
from plimsoll import backends, quantize
from plimsoll.backends.base import CalibrationData, ThreadPlan
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BackendMissingError, BuildError
from plimsoll.preprocessing import Preprocessor
from plimsoll.zoo import card

pytest.importorskip("MNN")

Floats = NDArray[np.float32]
MNN = backends.get("mnn")
INT8 = Target("mnn", "cpu", "int8")
FLOAT = Target("onnxruntime")


def answers(model: Model, target: Target, tensors: Floats) -> Floats:
    with Runner.open(model, target, plan=ThreadPlan(1, 1)) as runner:
        return np.asarray(next(iter(runner.infer(tensors).values())), np.float32)


def int8(
    model: Model, folder: Path, method: str, tensors: Floats, ranges: dict[str, tuple[float, float]] | None = None
) -> Model:
    folder.mkdir()
    return MNN.build(model, INT8, folder, CalibrationData(method, tensors, ranges or {}))


@pytest.mark.parametrize(("method", "deviation"), [("kl", 0.05), ("kl-admm", 0.05), ("admm", 0.15), ("ema", 0.05)])
def test_its_own_calibrators_keep_the_answers(tmp_path: Path, method: str, deviation: float) -> None:
    """MNN's own file deviates by 0.12 with EMA: its kernels for sums with a Relu and for padded poolings don't know the
    offsets that it chose."""
    model = residual(tmp_path / "net.onnx")
    built = int8(model, tmp_path / "int8", method, pictures(20))
    judged = pictures(50, seed=6)
    np.testing.assert_allclose(answers(built, INT8, judged), answers(model, FLOAT, judged), atol=deviation)


def test_our_ranges_keep_them_too(tmp_path: Path) -> None:
    model = residual(tmp_path / "net.onnx")
    ranges = quantize.calibrate(model, [pictures(50)], "minmax").ranges
    built = int8(model, tmp_path / "int8", "minmax", pictures(50), ranges)
    judged = pictures(50, seed=6)
    np.testing.assert_allclose(answers(built, INT8, judged), answers(model, FLOAT, judged), atol=0.02)


def test_a_prelu_behind_a_product_is_read_in_float_by_the_heads(tmp_path: Path) -> None:
    """As in MTCNN's R-Net and O-Net: the reshape before the heads handed its float to the PReLU, which then read the
    integers before it as float numbers (-1 dB, all scores alike)."""
    random = np.random.default_rng(4)
    weights = {
        "conv": random.normal(size=(16, 3, 3, 3)) / 5,
        "dense": random.normal(size=(576, 128)) / 20,
        "slope": random.uniform(0.1, 0.4, size=(128,)),
        "boxes": random.normal(size=(128, 4)) / 10,
    }
    nodes = [
        helper.make_node("Conv", ["picture", "conv"], ["planes"], strides=[2, 2]),
        helper.make_node("Relu", ["planes"], ["above"]),
        helper.make_node("Flatten", ["above"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["features"]),
        helper.make_node("PRelu", ["features", "slope"], ["bent"]),
        helper.make_node("MatMul", ["bent", "boxes"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "prelu",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 3, 14, 14])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, tmp_path / "net.onnx")
    model = Model(tmp_path / "net.onnx", "onnx")
    tensors = random.normal(size=(60, 3, 14, 14)).astype(np.float32)
    ranges = quantize.calibrate(model, [tensors[:30]], "minmax").ranges
    built = int8(model, tmp_path / "int8", "minmax", tensors[:30], ranges)
    expected, given = answers(model, FLOAT, tensors[30:]), answers(built, INT8, tensors[30:])
    noise = 20 * np.log10(np.linalg.norm(expected) / np.linalg.norm(given - expected))
    assert noise > 25


def test_every_calibrator_that_it_offers_is_known() -> None:
    assert MNN.calibrators(INT8) == ("kl", "kl-admm", "admm", "admm-admm", "ema")
    assert MNN.calibrators(Target("mnn")) == ()


@pytest.mark.usefixtures("nsfw_model_path")
def test_open_nsfw_in_int8_keeps_its_scores(tmp_path: Path, nsfw_model_path: Path, example_photos: list[Path]) -> None:
    """The facts of MNN's own tool: 0.233 with KL, 0.224 with EMA."""
    model = Model(nsfw_model_path, "onnx", card("open_nsfw").spec)
    preprocessor = Preprocessor(model.require_spec().input)
    tensors = np.stack([preprocessor(photo) for photo in example_photos[:24]])
    ranges = quantize.calibrate(model, [tensors[::2]], "percentile").ranges
    built = int8(model, tmp_path / "int8", "percentile", tensors[::2], ranges)
    assert built.size < 6.2e6
    np.testing.assert_allclose(answers(built, INT8, tensors[1::2]), answers(model, FLOAT, tensors[1::2]), atol=0.02)


def test_int8_weights_take_a_quarter_and_keep_the_answers(
    tmp_path: Path, nsfw_model_path: Path, example_photos: list[Path]
) -> None:
    model = Model(nsfw_model_path, "onnx", card("open_nsfw").spec)
    target = Target("mnn", "cpu", "int8_weights")
    built = MNN.build(model, target, tmp_path)
    preprocessor = Preprocessor(model.require_spec().input)
    tensors = np.stack([preprocessor(photo) for photo in example_photos[:8]])
    assert built.size < 6.1e6
    np.testing.assert_allclose(answers(built, target, tensors), answers(model, FLOAT, tensors), atol=0.005)


def test_a_crash_of_its_quantizer_is_a_sentence_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its KL calibrator can't stand a network without a quantized convolution before the last product."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    tensors = np.random.default_rng(1).random((3, 5, 6, 3), np.float32)
    message = r"net\.onnx: MNN's quantizer failed: it was killed by a segmentation fault"
    with pytest.raises(BuildError, match=message) as caught:
        int8(network(tmp_path / "net.onnx"), tmp_path / "int8", "kl", tensors)
    assert caught.value.hint
    assert list(temporary.iterdir()) == []


def test_int8_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="needs calibration pictures"):
        MNN.build(network(tmp_path / "net.onnx"), INT8, tmp_path)


def test_an_unknown_calibrator_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="'entropy'") as caught:
        int8(residual(tmp_path / "net.onnx"), tmp_path / "int8", "entropy", pictures(2))
    assert "kl-admm" in caught.value.hint


def test_a_name_with_slashes_is_calibrated(tmp_path: Path) -> None:
    model = residual(tmp_path / "net.onnx", name="image/pixels:0")
    built = int8(model, tmp_path / "int8", "kl", pictures(10))
    judged = pictures(10, seed=6)
    np.testing.assert_allclose(answers(built, INT8, judged), answers(model, FLOAT, judged), atol=0.05)


@pytest.mark.parametrize(
    "content", [b"", b"x" * 100, b"\x10\x00\x00\x00" + b"\xff" * 500], ids=["empty", "text", "garbage"]
)
def test_a_damaged_file_is_build_failed(tmp_path: Path, content: bytes) -> None:
    built = MNN.build(network(tmp_path / "net.onnx"), Target("mnn"), tmp_path)
    built.path.write_bytes(content)
    with pytest.raises(BuildError, match=r"net\.onnx"):
        MNN.load(built, Target("mnn"), None, ThreadPlan(1, 1))


def test_a_file_without_its_signature_says_so(tmp_path: Path) -> None:
    built = MNN.build(network(tmp_path / "net.onnx"), Target("mnn"), tmp_path)
    with pytest.raises(BuildError, match=r"signature\.json"):
        MNN.load(Model(built.path, "mnn"), Target("mnn"), None, ThreadPlan(1, 1))


def test_a_damaged_signature_says_so(tmp_path: Path) -> None:
    built = MNN.build(network(tmp_path / "net.onnx"), Target("mnn"), tmp_path)
    built.files[0].write_text(json.dumps({"inputs": []}))
    with pytest.raises(BuildError, match=r"signature\.json"):
        MNN.load(built, Target("mnn"), None, ThreadPlan(1, 1))


def test_it_prints_nothing_where_answers_go(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Runner.open(network(tmp_path / "net.onnx"), Target("mnn")) as runner:
        runner.infer(np.ones((1, 5, 6, 3), np.float32))
    assert capfd.readouterr().out == ""


def test_a_build_starts_no_pip_and_opens_no_connection(tmp_path: Path) -> None:
    """MNN's own commands install a telemetry package when they start."""
    network(tmp_path / "net.onnx")
    program = f"""
import sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        sys.exit(f"{{event}} {{arguments}}")
sys.addaudithook(hook)
from plimsoll.backends.mnn.conversion import run
source, made = {str(tmp_path / "net.onnx")!r}, {str(tmp_path / "net.mnn")!r}
run({{"tool": "mnnconvert", "result": made, "arguments": ["-f", "ONNX", "--modelFile", source, "--MNNModel", made,
"--bizCode", "x"]}})
assert not any("log" == name.rpartition(".")[2] and "MNN" in name for name in sys.modules), "its telemetry was imported"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "net.mnn").is_file()


def test_a_missing_wheel_carries_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(BackendMissingError) as caught:
        MNN.check(Target("mnn"))
    assert "plimsoll-line[mnn]" in caught.value.hint

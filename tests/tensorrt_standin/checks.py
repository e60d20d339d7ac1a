"""What is tested in a process that has the stand-in TensorRT and driver; `tests/backends/test_tensorrt.py` starts it,
once for each generation."""

from __future__ import annotations

import ctypes
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from helpers.contract_networks import expected, network, save
from plimsoll import backends
from plimsoll.backends.base import CalibrationData, ThreadPlan
from plimsoll.backends.runner import Runner
from plimsoll.backends.tensorrt import BACKEND, TensorRtOptions, engine, runtime
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, RunError, TargetError
from plimsoll.quantize import Calibration, StaticOptions, calibrate, static
from plimsoll.system import cache, gpu

Array = NDArray[np.float32]
GENERATION = int(os.environ["STANDIN_TENSORRT"])
FLOAT32 = Target("tensorrt", "gpu", "float32")
only_10 = pytest.mark.skipif(GENERATION != 10, reason="calibrators and flags are TensorRT 10's")
only_11 = pytest.mark.skipif(GENERATION != 11, reason="TensorRT 11 takes the network's own types")


def held() -> int:
    """How much memory of the GPU, streams and contexts are not given back."""
    return int(ctypes.CDLL("libcuda.so.1").standin_held())


def pictures(count: int) -> Array:
    random = np.random.default_rng(count)
    return 1 - random.random((count, 1, 1, 3), np.float32) * random.random((count, 5, 6, 3), np.float32)


def plan_of(built: Model) -> dict[str, Any]:
    """What the stand-in noted down while it built."""
    content = built.path.read_bytes()
    plan: dict[str, Any] = json.loads(content[content.index(b"{") :])
    return plan


def build(
    model: Model, target: Target, folder: Path, calibrated: CalibrationData | None = None, **options: object
) -> Model:
    folder.mkdir(exist_ok=True)
    return BACKEND.configured(TensorRtOptions.model_validate(options)).build(model, target, folder, calibrated)


def test_all_precisions_are_offered() -> None:
    assert [str(offer.target) for offer in BACKEND.targets() if not offer.missing] == [
        f"tensorrt:gpu:{precision}" for precision in ("float32", "float16", "bfloat16", "int8", "fp8")
    ]
    assert runtime.generation() == GENERATION


def test_nothing_stays_on_the_gpu(tmp_path: Path) -> None:
    before = held()
    for _ in range(2):
        with (
            Runner.open(network(tmp_path / "net.onnx"), FLOAT32, plan=ThreadPlan(4, 1)) as runner,
            ThreadPoolExecutor(4) as pool,
        ):
            list(pool.map(runner.infer, [pictures(count) for count in (1, 7, 3, 9)]))
            assert held() > before
    assert held() == before


def test_a_batch_beyond_the_profile_goes_in_pieces_and_one_below_is_filled(tmp_path: Path) -> None:
    options = {"min_batch": "3", "best_batch": "4", "max_batch": "5"}
    with Runner.open(network(tmp_path / "net.onnx"), FLOAT32, options=options) as runner:
        for count in (1, 2, 3, 5, 6, 13):
            np.testing.assert_allclose(runner.infer(pictures(count))["scores"], expected(pictures(count)), atol=1e-5)


def test_the_profile_must_be_ordered() -> None:
    with pytest.raises(TargetError, match="grow in this order"):
        BACKEND.read_options({"min_batch": "9"})


def test_an_output_whose_size_depends_on_the_picture(tmp_path: Path) -> None:
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 4])
    places = helper.make_tensor_value_info("places", TensorProto.INT64, [2, "found"])
    model = save(tmp_path / "net.onnx", [helper.make_node("NonZero", ["picture"], ["places"])], [picture], [places], [])
    with Runner.open(model, FLOAT32, options={"max_batch": "8"}) as runner:
        for value in (np.eye(4, dtype=np.float32), np.ones((6, 4), np.float32), np.zeros((1, 4), np.float32)):
            np.testing.assert_array_equal(runner.run({"picture": value})["places"], np.stack(np.nonzero(value)))
        with pytest.raises(RunError, match="can't be cut"):
            runner.run({"picture": np.ones((9, 4), np.float32)})


def test_the_second_build_is_taken_from_the_cache_and_other_options_build_anew(tmp_path: Path) -> None:
    model = network(tmp_path / "net.onnx")
    first = build(model, FLOAT32, tmp_path / "a", effort=1, workspace_mb=64)
    before = len(list((cache.runtime_folder("tensorrt") / "built").iterdir()))
    again = build(model, FLOAT32, tmp_path / "b", effort=1, workspace_mb=64)
    assert again.path.read_bytes() == first.path.read_bytes()
    assert len(list((cache.runtime_folder("tensorrt") / "built").iterdir())) == before
    assert (plan_of(first)["effort"], plan_of(first)["workspace"]) == (1, 64 << 20)
    assert "TF32" not in plan_of(first)["flags"]
    other = build(model, FLOAT32, tmp_path / "c", effort=2, tf32=True, hardware="ampere_plus")
    assert plan_of(other)["effort"] == 2
    assert "TF32" in plan_of(other)["flags"]
    assert plan_of(other)["hardware"] == "AMPERE_PLUS"
    assert other.parent == model
    assert [file.name for file in other.files] == ["net.float32.engine.json"]


def test_the_timing_cache_is_kept_and_a_foreign_one_ignored(tmp_path: Path) -> None:
    file = engine.timing_file(gpu.at(), runtime.version())
    build(network(tmp_path / "net.onnx"), FLOAT32, tmp_path / "a", build_minutes=11)
    length = len(file.read_bytes())
    assert (
        plan_of(build(network(tmp_path / "net.onnx"), FLOAT32, tmp_path / "b", build_minutes=12))["timings"] == length
    )
    file.write_bytes(b"foreign")
    assert plan_of(build(network(tmp_path / "net.onnx"), FLOAT32, tmp_path / "c", build_minutes=13))["timings"] == 0
    assert file.read_bytes() == b"+"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tensorrt": "9.9.9.9"}, r"built by TensorRT 9\.9\.9\.9; here is TensorRT"),
        (
            {"gpu": "NVIDIA Elsewhere"},
            r"built on NVIDIA Elsewhere .*; here is Stand-in GPU \(compute capability 9\.0\)",
        ),
        ({"capability": [8, 9], "hardware": "same_capability"}, r"8\.9\), for all of this capability; here is"),
        ({"engine": "0" * 64}, "damaged, or was replaced"),
        ({"plugins": {"mine.so": "0" * 64}}, r"needs the plugin libraries .* mine\.so"),
        ({"precision": "int8"}, "computes in int8"),
        ({"surprise": 1}, "can't read what the engine was built for"),
    ],
    ids=["version", "gpu", "capability", "content", "plugins", "precision", "unreadable"],
)
def test_an_engine_is_refused_elsewhere(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    built = build(network(tmp_path / "net.onnx"), FLOAT32, tmp_path)
    facts = built.files[0]
    facts.write_text(json.dumps(json.loads(facts.read_text()) | changed))
    with pytest.raises(BuildError, match=message):
        Runner.open(built, FLOAT32)


def test_an_engine_for_all_from_ampere_on_runs_on_a_newer_gpu(tmp_path: Path) -> None:
    built = build(network(tmp_path / "net.onnx"), FLOAT32, tmp_path, hardware="ampere_plus")
    facts = built.files[0]
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"gpu": "An A100", "capability": [8, 0]}))
    Runner.open(built, FLOAT32).close()


def test_a_plan_of_somebody_else_runs_and_one_that_tensorrt_refuses_is_reported(tmp_path: Path) -> None:
    built = build(network(tmp_path / "net.onnx"), FLOAT32, tmp_path)
    plan = built.path.rename(tmp_path / "theirs.plan")
    with Runner.open(Model(plan, "tensorrt"), FLOAT32) as runner:
        assert runner.infer(pictures(2))["scores"].shape == (2, 4)
    plan.write_bytes(b"not a plan")
    with pytest.raises(BuildError, match=r"can't load theirs\.plan: .*magicTag"):
        Runner.open(Model(plan, "tensorrt"), FLOAT32)


def test_what_the_parser_lacks_is_named(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("go", 9), ("x", 1))],
        [helper.make_tensor_value_info(name, kind, []) for name, kind in (("go_on", 9), ("y", 1))],
    )
    nodes = [helper.make_node("Loop", ["times", "", "a"], ["b"], name="round", body=body)]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in ("a", "b")]
    model = save(
        tmp_path / "net.onnx", nodes, infos[:1], infos[1:], [numpy_helper.from_array(np.array(2, np.int64), "times")]
    )
    with pytest.raises(BuildError, match="parser refuses the network: Loop 'round': No importer"):
        Runner.open(model, FLOAT32)


def test_a_builder_that_crashes_is_reported_in_words(tmp_path: Path) -> None:
    model = network(tmp_path / "net.onnx")
    proto = onnx.load(model.path)
    proto.graph.name = "crash"
    onnx.save(proto, model.path)
    with pytest.raises(BuildError, match="segmentation fault") as caught:
        Runner.open(model, FLOAT32)
    assert "log" in caught.value.hint
    assert not list((cache.runtime_folder("tensorrt") / "built").glob("*.part"))


def test_a_gpu_without_room_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runner.open(network(tmp_path / "net.onnx"), FLOAT32) as runner:
        monkeypatch.setenv("STANDIN_MEMORY", "10")
        os.putenv("STANDIN_MEMORY", "10")
        with pytest.raises(RunError, match="OUT_OF_MEMORY"):
            runner.infer(pictures(2))
        os.unsetenv("STANDIN_MEMORY")
        np.testing.assert_allclose(runner.infer(pictures(2))["scores"], expected(pictures(2)), atol=1e-5)


def test_a_free_size_that_the_spec_does_not_fix_is_reported(tmp_path: Path) -> None:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, "H", 8]) for name in ("a", "b")]
    model = save(tmp_path / "net.onnx", [helper.make_node("Relu", ["a"], ["b"])], infos[:1], infos[1:], [])
    with pytest.raises(BuildError, match="free along axis 2"):
        Runner.open(model, FLOAT32)


def test_plugins_are_loaded_and_belong_to_the_engine(tmp_path: Path) -> None:
    library = tmp_path / "mine.so"
    library.write_bytes(b"good")
    built = build(network(tmp_path / "net.onnx"), FLOAT32, tmp_path, plugins=str(library))
    Runner.open(built, FLOAT32, options={"plugins": str(library)}).close()
    with pytest.raises(BuildError, match=r"mine\.so"):
        Runner.open(built, FLOAT32)
    with pytest.raises(BuildError, match=r"absent\.so"):
        build(network(tmp_path / "net.onnx"), FLOAT32, tmp_path, plugins=str(tmp_path / "absent.so"))


@pytest.fixture
def table(tmp_path: Path) -> Calibration:
    """Plimsoll's own ranges of the convolutional network."""
    return calibrate(convolutional(tmp_path / "conv.onnx"), [stripes(8)], method="minmax")


def stripes(count: int) -> Array:
    return np.random.default_rng(count).normal(size=(count, 3, 8, 8)).astype(np.float32)


def convolutional(path: Path) -> Model:
    """Two convolutions and a product: picture [N, 3, 8, 8] to scores [N, 5]."""
    random = np.random.default_rng(3)
    sizes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 5)}
    constants = [
        numpy_helper.from_array(random.normal(scale=0.2, size=size).astype(np.float32), name)
        for name, size in sizes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["picture", "w1"], ["c1"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="second", pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["means"], name="pool"),
        helper.make_node("Flatten", ["means"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "w3"], ["scores"], name="head"),
    ]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 3, 8, 8])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5])
    return save(path, nodes, [picture], [scores], constants)


def answers(model: Model, target: Target, batch: Array) -> Array:
    with Runner.open(model, target) as runner:
        return np.asarray(runner.infer(batch)["scores"])


def test_int8_with_the_options_for_the_target_is_taken_and_close(tmp_path: Path, table: Calibration) -> None:
    target = Target("tensorrt", "gpu", "int8")
    model = convolutional(tmp_path / "conv.onnx")
    quantized = static(model, table, tmp_path, StaticOptions.for_target(target))
    built = build(quantized, target, tmp_path / "out")
    assert ("INT8" in plan_of(built)["flags"]) is (GENERATION == 10)
    exact = answers(model, Target("reference"), stripes(6))
    np.testing.assert_allclose(answers(built, target, stripes(6)), exact, atol=0.03 * float(np.abs(exact).max()))


def test_int8_that_is_not_around_zero_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="int8 around zero; 4 of its tensors are quantized otherwise"):
        build(network(tmp_path / "net.onnx", form="qdq"), Target("tensorrt", "gpu", "int8"), tmp_path)


def test_fp8_is_made_from_the_ranges(tmp_path: Path, table: Calibration) -> None:
    target = Target("tensorrt", "gpu", "fp8")
    model = convolutional(tmp_path / "conv.onnx")
    assert BACKEND.takes_calibration(target)
    built = build(model, target, tmp_path / "out", CalibrationData("minmax", stripes(8), table.ranges))
    assert ("FP8" in plan_of(built)["flags"]) is (GENERATION == 10)
    exact = answers(model, Target("reference"), stripes(6))
    np.testing.assert_allclose(answers(built, target, stripes(6)), exact, atol=0.1 * float(np.abs(exact).max()))
    with pytest.raises(BuildError, match="needs the ranges"):
        build(model, target, tmp_path)


def test_what_each_precision_needs() -> None:
    needs = {
        precision: backends.get("tensorrt").onnx_form(Target("tensorrt", "gpu", precision))
        for precision in ("float32", "float16", "bfloat16", "int8")
    }
    assert needs == {
        "float32": "float32",
        "float16": "float16" if GENERATION == 11 else "float32",
        "bfloat16": "float32",
        "int8": "qdq",
    }


@only_10
@pytest.mark.parametrize(("precision", "flags"), [("float16", ["FP16"]), ("bfloat16", ["BF16"])])
def test_flags_say_what_tensorrt_10_may_compute_in(tmp_path: Path, precision: str, flags: list[str]) -> None:
    assert (
        plan_of(build(network(tmp_path / "net.onnx"), Target("tensorrt", "gpu", precision), tmp_path))["flags"] == flags
    )


@only_11
def test_bfloat16_is_made_of_the_float32_network(tmp_path: Path) -> None:
    target = Target("tensorrt", "gpu", "bfloat16")
    built = build(network(tmp_path / "net.onnx"), target, tmp_path)
    np.testing.assert_allclose(answers(built, target, pictures(3)), expected(pictures(3)), atol=5e-3)
    assert plan_of(built)["flags"] == []


@only_10
@pytest.mark.parametrize("method", ["entropy", "minmax"])
def test_tensorrt_10_calibrates_with_the_users_own_pictures(tmp_path: Path, method: str) -> None:
    tensors = np.stack([pictures(1)[0] * index / 19 for index in range(20)])
    built = build(
        network(tmp_path / "net.onnx"),
        Target("tensorrt", "gpu", "int8"),
        tmp_path,
        CalibrationData(method, tensors),
        best_batch=6,
    )
    plan = plan_of(built)
    assert plan["flags"] == ["FP16", "INT8"]
    assert plan["calibration"].startswith("18 pictures, TRT-101601-")  # three batches of 6, the rest of 2 left out
    cache = next(file for file in built.files if file.suffix == ".calibration").read_text()
    assert ("EntropyCalibration2" if method == "entropy" else "MinMaxCalibration") in cache
    seen = np.frombuffer(bytes.fromhex(cache.split(": ")[1]), ">f4")[0] * 127
    np.testing.assert_allclose(seen, np.abs(tensors[:18]).max(), rtol=1e-6)
    with pytest.raises(BuildError, match="no calibrator 'median'"):
        build(
            network(tmp_path / "net.onnx"),
            Target("tensorrt", "gpu", "int8"),
            tmp_path,
            CalibrationData("median", tensors),
        )


@only_10
def test_ranges_reach_tensorrt_10_as_a_calibration_cache(tmp_path: Path) -> None:
    ranges = {"picture": (-1.0, 2.54), "means": (0.0, 0.5)}
    calibrated = CalibrationData("percentile", pictures(2), ranges)
    text = plan_of(build(network(tmp_path / "net.onnx"), Target("tensorrt", "gpu", "int8"), tmp_path, calibrated))[
        "calibration"
    ]
    header, *lines = text.strip().splitlines()
    assert header == "TRT-101601-EntropyCalibration2"
    scales = {
        line.rpartition(":")[0]: np.frombuffer(bytes.fromhex(line.rpartition(":")[2].strip()), ">f4")[0]
        for line in lines
    }
    np.testing.assert_allclose([scales["picture"], scales["means"]], [2.54 / 127, 0.5 / 127], rtol=1e-6)


@only_11
def test_tensorrt_11_has_no_calibrators_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="has no calibrators"):
        build(
            network(tmp_path / "net.onnx"),
            Target("tensorrt", "gpu", "int8"),
            tmp_path,
            CalibrationData("entropy", pictures(2)),
        )

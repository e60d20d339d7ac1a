"""A model repository for Triton: read by Triton's own schema, and computed by ONNX Runtime as its configuration
says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from helpers.contract_networks import two_inputs
from helpers.small_models import HERE, SPEC, brightness, small_model
from helpers.triton_server import ask
from plimsoll import importers
from plimsoll.bundle.packing import pack
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, BundleError, InputError, ModelError, SpecError
from plimsoll.export.triton import TritonOptions, export
from plimsoll.inference.predictor import open_model
from plimsoll.preprocessing import Preprocessor
from plimsoll.preprocessing import folded as fold
from plimsoll.spec.files import loads

NAMED = SPEC.replace('labels = ["a", "b"', 'tensor = "scores"\nlabels = ["a \\"b\\"", "é"')
"""The output by its name, and labels that are easily written wrong."""
_DTYPES = {"TYPE_FP32": np.float32, "TYPE_UINT8": np.uint8, "TYPE_FP16": np.float16, "TYPE_STRING": np.object_}


def configs(repository: Path) -> dict[str, dict[str, Any]]:
    """Return every configuration as Triton's own protobuf schema reads it."""
    result: dict[str, dict[str, Any]] = json.loads(ask("triton_configs.py", repository))
    return result


def text(repository: Path, name: str) -> str:
    return (repository / name / "config.pbtxt").read_text()


def test_the_three_models_lie_where_triton_looks(tmp_path: Path) -> None:
    assert export(small_model(tmp_path / "in", NAMED), HERE, tmp_path / "out") == tmp_path / "out"
    result = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert result == {
        "small/config.pbtxt", "small/README.md", "small/1/spec.toml", "small.steps/config.pbtxt",
        "small.steps/1/model.py", "small.steps/1/spec.toml",
        "small.tensor/config.pbtxt", "small.tensor/labels.txt", "small.tensor/1/model.onnx", "small.tensor/1/spec.toml",
    }  # fmt: skip
    assert (tmp_path / "out/small.tensor/labels.txt").read_text().splitlines() == ['a "b"', "é", "c", "d"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.toolchain
def test_tritons_schema_reads_the_configurations(tmp_path: Path) -> None:
    options = TritonOptions(max_batch=16, delay_us=500, queue=7, instances=2, threads=3, decoders=5)
    export(small_model(tmp_path / "in", NAMED), HERE, tmp_path / "out", options=options)
    configurations = configs(tmp_path / "out")
    assert configurations.keys() == {"small", "small.steps", "small.tensor"}
    tensor = configurations["small.tensor"]
    assert (tensor["backend"], tensor["default_model_filename"], tensor["max_batch_size"]) == (
        "onnxruntime",
        "model.onnx",
        16,
    )
    assert tensor["input"] == [{"name": "picture", "data_type": "TYPE_FP32", "dims": ["5", "6", "3"]}]
    assert tensor["output"] == [
        {"name": "scores", "data_type": "TYPE_FP32", "dims": ["4"], "label_filename": "labels.txt"}
    ]
    assert tensor["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert tensor["dynamic_batching"]["max_queue_delay_microseconds"] == "500"
    assert tensor["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 7
    assert tensor["instance_group"] == [{"count": 2, "kind": "KIND_CPU"}]
    assert tensor["parameters"] == {"intra_op_thread_count": {"string_value": "3"}}
    assert [entry["batch_size"] for entry in tensor["model_warmup"]] == [1, 16]
    assert configurations["small.steps"]["instance_group"][0]["count"] == 5
    assert configurations["small"]["platform"] == "ensemble"
    assert configurations["small"]["input"] == [{"name": "image", "data_type": "TYPE_STRING", "dims": ["-1"]}]
    assert configurations["small"]["output"] == [{"name": "scores", "data_type": "TYPE_FP32", "dims": ["-1", "4"]}]


@pytest.mark.toolchain
@pytest.mark.parametrize(
    ("form", "precision"), [("float32", "float32"), ("qdq", "int8"), ("float16", "float16"), ("dynamic", "dynamic")]
)
def test_the_network_computes_what_its_configuration_says(form: Any, precision: str, tmp_path: Path) -> None:
    """As Triton's backend does: the file it names, with the names, types and sizes that it names, the batch in
    front."""
    export(small_model(tmp_path / "in", form=form), Target("onnxruntime", "cpu", precision), tmp_path / "out")
    tensor = configs(tmp_path / "out")["small.tensor"]
    session = onnxruntime.InferenceSession(
        tmp_path / "out/small.tensor/1" / tensor["default_model_filename"], providers=["CPUExecutionProvider"]
    )
    given = {
        entry.name: [size if isinstance(size, int) else -1 for size in entry.shape]
        for entry in (*session.get_inputs(), *session.get_outputs())
    }
    for entry in (*tensor["input"], *tensor["output"]):
        assert given[entry["name"]] == [-1, *map(int, entry["dims"])], "the backend compares every size"
    for batch in (1, tensor["max_batch_size"]):
        feeds = {
            entry["name"]: np.zeros((batch, *map(int, entry["dims"])), _DTYPES[entry["data_type"]])
            for entry in tensor["input"]
        }
        for entry, value in zip(
            tensor["output"], session.run([entry["name"] for entry in tensor["output"]], feeds), strict=True
        ):
            assert value.shape == (batch, *map(int, entry["dims"]))
            assert value.dtype == _DTYPES[entry["data_type"]]


@pytest.mark.toolchain
def test_the_tensors_between_the_steps_fit(tmp_path: Path) -> None:
    export(small_model(tmp_path / "in"), HERE, tmp_path / "out")
    configurations = configs(tmp_path / "out")
    first, second = configurations["small"]["ensemble_scheduling"]["step"]
    steps, tensor = configurations[first["model_name"]], configurations[second["model_name"]]
    assert first["input_map"] == {"image": "image"}
    (mapped,) = first["output_map"].items()
    (taken,) = second["input_map"].items()
    assert mapped[1] == taken[1]
    assert (mapped[0], taken[0]) == (steps["output"][0]["name"], tensor["input"][0]["name"])
    assert steps["output"][0]["dims"] == ["-1", *tensor["input"][0]["dims"]]
    assert steps["output"][0]["data_type"] == tensor["input"][0]["data_type"]


@pytest.mark.toolchain
def test_a_folded_network_takes_bytes(nsfw_model_path: Path, tmp_path: Path) -> None:
    del nsfw_model_path
    folded = fold.fold(open_model("open_nsfw").model, tmp_path)
    export(folded, HERE, tmp_path / "out")
    configurations = configs(tmp_path / "out")
    assert configurations["open_nsfw.tensor"]["input"][0]["data_type"] == "TYPE_UINT8"
    assert configurations["open_nsfw.steps"]["output"][0]["data_type"] == "TYPE_UINT8"


def test_weights_beside_the_network_come_along(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    model = small_model(folder)
    proto = onnx.load(model.path)
    onnx.save(proto, folder / "big.onnx", save_as_external_data=True, location="big.weights", size_threshold=70)
    big = Model(folder / "big.onnx", "onnx", model.spec, files=(folder / "big.weights",))
    export(importers.reread(big), HERE, tmp_path / "out")
    placed = tmp_path / "out/small.tensor/1"
    assert (placed / "big.weights").stat().st_size > 0
    onnxruntime.InferenceSession(placed / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.toolchain
def test_another_version_is_added_where_only_weights_differ(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(small_model(tmp_path / "in"), HERE, out)
    retrained = small_model(tmp_path / "retrained")
    proto = onnx.load(retrained.path)
    next(tensor for tensor in proto.graph.initializer if tensor.name == "weights").CopyFrom(
        numpy_helper.from_array(np.ones((4, 3), np.float32), "weights")
    )
    onnx.save(proto, retrained.path)
    with pytest.raises(BundleError, match="version 1 of small already") as caught:
        export(retrained, HERE, out)
    assert "version=2" in caught.value.hint
    export(retrained, HERE, out, options=TritonOptions(version=2))
    assert (
        (out / "small.tensor/2/model.onnx").read_bytes()
        == retrained.path.read_bytes()
        != (out / "small.tensor/1/model.onnx").read_bytes()
    )
    assert configs(out).keys() == {"small", "small.steps", "small.tensor"}


def test_a_version_whose_pictures_become_other_tensors_is_refused(tmp_path: Path) -> None:
    """The two steps of an ensemble are not changed at once: other input steps before the old network would be wrong
    answers, in silence."""
    export(small_model(tmp_path / "in"), HERE, tmp_path / "out")
    model = small_model(tmp_path / "in")
    other = Model(model.path, "onnx", loads(SPEC.replace("255.0", "127.5")))
    with pytest.raises(BundleError, match="would be configured otherwise"):
        export(other, HERE, tmp_path / "out", options=TritonOptions(version=2))
    assert not (tmp_path / "out/small.steps/2").exists()
    export(other, HERE, tmp_path / "out", options=TritonOptions(version=2), force=True)
    assert not (tmp_path / "out/small.steps/1").exists()


def test_other_models_are_left_alone_and_nobody_elses_are_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "theirs/1").mkdir(parents=True)
    export(small_model(tmp_path / "in"), HERE, out)
    assert (out / "theirs/1").is_dir()
    (out / "small/config.pbtxt").write_text('name: "small"\n')
    with pytest.raises(BundleError, match="not written by Plimsoll"):
        export(small_model(tmp_path / "in"), HERE, out, force=True)
    for name in ("file", "x.zip"):
        (tmp_path / "file").touch()
        with pytest.raises(BundleError, match="is a folder"):
            export(small_model(tmp_path / "in"), HERE, tmp_path / name)


@pytest.mark.toolchain
def test_on_a_gpu_onnx_runtime_is_told_what_plimsoll_tells_it(tmp_path: Path) -> None:
    for precision, form, expected in (
        ("float32", "float32", [{"name": "cuda", "parameters": {"use_tf32": "0"}}]),
        (
            "int8",
            "qdq",
            [
                {"name": "tensorrt", "parameters": {"precision_mode": "INT8"}},
                {"name": "cuda", "parameters": {"use_tf32": "0"}},
            ],
        ),
    ):
        export(
            small_model(tmp_path / precision, form=form),
            Target("onnxruntime", "gpu", precision),
            tmp_path / f"{precision}.out",
        )
        tensor = configs(tmp_path / f"{precision}.out")["small.tensor"]
        assert tensor["optimization"]["execution_accelerators"]["gpu_execution_accelerator"] == expected
        assert tensor["instance_group"] == [{"count": 1, "kind": "KIND_GPU"}]
        assert tensor["dynamic_batching"]["preferred_batch_size"] == [8, 16, 32]


@pytest.mark.toolchain
@pytest.mark.parametrize("own_format", [False, True])
def test_openvino_is_not_batched_by_triton(own_format: bool, tmp_path: Path) -> None:
    """Triton's OpenVINO backend computes max_batch_size pictures in every call, however few were asked for."""
    openvino = pytest.importorskip("openvino")
    model = small_model(tmp_path / "in")
    if own_format:
        openvino.save_model(openvino.convert_model(model.path), tmp_path / "in/ir.xml", compress_to_fp16=False)
        model = Model(tmp_path / "in/ir.xml", "openvino", model.spec, files=(tmp_path / "in/ir.bin",))
    export(model, Target("openvino"), tmp_path / "out")
    tensor = configs(tmp_path / "out")["small.tensor"]
    assert tensor["backend"] == "openvino"
    assert "dynamic_batching" not in tensor
    assert tensor.get("max_batch_size", 0) == 0
    assert tensor["input"][0]["dims"] == ["-1", "5", "6", "3"]
    assert tensor["instance_group"][0]["count"] == int(tensor["parameters"]["NUM_STREAMS"]["string_value"]) == 4
    assert "--set network=python" in (tmp_path / "out/small/README.md").read_text()
    placed = tmp_path / "out/small.tensor/1"
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(placed / tensor["default_model_filename"]), "CPU"
    )
    assert compiled([np.zeros((2, 5, 6, 3), np.float32)])[0].shape == (2, 4)


def test_what_triton_has_no_backend_for_runs_in_python(tmp_path: Path) -> None:
    pytest.importorskip("MNN")
    export(small_model(tmp_path / "in"), Target("mnn"), tmp_path / "out")
    assert 'backend: "python"' in text(tmp_path / "out", "small.tensor")
    assert "max_batch_size: 32" in text(tmp_path / "out", "small.tensor")
    assert (tmp_path / "out/small.tensor/1/model/small.onnx").is_file()
    assert "plimsoll-line[mnn]==" in (tmp_path / "out/small/README.md").read_text()


@pytest.mark.parametrize(
    ("target", "changes", "error", "message"),
    [
        ("onnxruntime:cpu:float32", {"batch": 4}, ModelError, "4 pictures at a time"),
        ("onnxruntime:cpu:int8", {}, BuildError, "int8"),
        ("web:wasm:float32", {}, ModelError, "browsers"),
        ("tensorrt:gpu:float16", {}, ModelError, "loads engines, this is onnx"),
    ],
)
def test_what_can_not_be_served_is_refused_in_words(
    target: str, changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        export(small_model(tmp_path / "in", **changes), Target.parse(target), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_batch_of_one_is_served_without_batching(tmp_path: Path) -> None:
    export(small_model(tmp_path / "in", batch=1), HERE, tmp_path / "out")
    assert "max_batch_size: 0" in text(tmp_path / "out", "small.tensor")
    assert "dims: [1, 5, 6, 3]" in text(tmp_path / "out", "small.tensor")
    assert 'string_value: "1"' in text(tmp_path / "out", "small.steps")
    assert "dynamic_batching" not in text(tmp_path / "out", "small.tensor")


def test_a_spec_that_makes_other_tensors_than_the_network_takes_is_refused(tmp_path: Path) -> None:
    model = small_model(tmp_path / "in")
    for before, after in (
        ("width = 6", "width = 7"),
        ('step = "scale"\ndivisor = 255.0', 'step = "channels"\norder = "BGR"'),
    ):
        with pytest.raises(SpecError, match="input steps make"):
            export(Model(model.path, "onnx", loads(SPEC.replace(before, after))), HERE, tmp_path / "out")
    with pytest.raises(SpecError, match="2 inputs"):
        export(Model(two_inputs(tmp_path / "two.onnx").path, "onnx", loads(SPEC)), HERE, tmp_path / "out")


def test_a_number_for_each_picture_has_an_axis_in_triton(tmp_path: Path) -> None:
    export(brightness(tmp_path / "net.onnx"), HERE, tmp_path / "out")
    assert "dims: [1]\n  reshape {\n  }" in text(tmp_path / "out", "small.tensor")
    assert "dims: [-1, 1]" in text(tmp_path / "out", "small")
    assert not (tmp_path / "out/small.tensor/labels.txt").exists()


def test_options_are_checked_in_words() -> None:
    assert TritonOptions.read({"max_batch": "8", "network": "python"}) == TritonOptions(max_batch=8, network="python")
    with pytest.raises(InputError, match='max_batch: found "0"') as caught:
        TritonOptions.read({"max_batch": "0"})
    assert "delay_us" in caught.value.hint


def test_a_bundles_steps_are_kept(example_photos: list[Path], tmp_path: Path) -> None:
    """What lies beside model.py makes the same tensors as the bundle did."""
    del example_photos
    pack(small_model(tmp_path / "in"), HERE, tmp_path / "bundle")
    with open_model(str(tmp_path / "bundle")) as opened:
        export(opened.model, opened.target, tmp_path / "out", preprocessing=opened.preprocessing)
        bundle = opened.bundle
        assert bundle is not None
        shutil.copy(bundle.file(bundle.manifest.golden[0].picture), tmp_path / "picture")
        spec = loads((tmp_path / "out/small.steps/1/spec.toml").read_text())
        tensor = Preprocessor(spec.input)(tmp_path / "picture")
        assert np.array_equal(tensor, bundle.tensor(bundle.manifest.golden[0].tensor))

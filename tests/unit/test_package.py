"""Pack and verify with a small real network: what was packed verifies, and every kind of difference is found."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from backends.networks import network, save
from plimsoll import golden_check
from plimsoll.bundle import Bundle, tensor_file
from plimsoll.errors import BackendMissing, BundleError, CheckFailed, ImageError, InputError, ModelError, SpecError
from plimsoll.golden_check import Figure, level, tolerance_for, worst
from plimsoll.image.plan import InputPlan
from plimsoll.model import Model
from plimsoll.package import MAX_PICTURES, pack, verify
from plimsoll.report import Report
from plimsoll.runner import Runner
from plimsoll.spec import Spec
from plimsoll.spec.files import loads
from plimsoll.target import Target
from small_bundles import edit, put

HERE = Target("onnxruntime")
SPEC = """
name = "small"
[[input.steps]]
step = "decode"
[[input.steps]]
step = "resize"
width = 6
height = 5
[[input.steps]]
step = "scale"
divisor = 255
[output]
task = "classify"
labels = ["a", "b", "c", "d"]
"""
CHECKS = ("input steps, worst value", "input steps, mean", "network", "end to end")


@pytest.fixture
def spec() -> Spec:
    return loads(SPEC)


@pytest.fixture
def model(tmp_path: Path, spec: Spec) -> Model:
    return replace(network(tmp_path / "small.onnx"), spec=spec)


@pytest.fixture
def bundle(model: Model, tmp_path: Path) -> Path:
    return pack(model, HERE, tmp_path / "bundle")


def verified(path: Path) -> Report:
    with Bundle.open(path) as opened:
        return verify(opened)


def failed(report: Report) -> list[str]:
    return [check.name for check in report.checks if not check.passed]


def replaced_tensor(folder: Path, name: str, change: Callable[[Any], Any]) -> Path:
    path = folder / name
    return put(folder, name, tensor_file.dumps(change(tensor_file.read(path).copy())))


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
@pytest.mark.parametrize("implementation", ["reference", "fast"])
def test_what_is_packed_verifies(model: Model, tmp_path: Path, name: str, implementation: Any) -> None:
    out = pack(model, HERE, tmp_path / name, implementation=implementation, origin={"licence": "CC0-1.0", "authors": ["nobody"]})
    with Bundle.open(out) as opened:
        report = verify(opened)
        assert opened.spec == model.spec
        assert opened.implementation == implementation
        assert opened.manifest.origin == {"licence": "CC0-1.0", "authors": ["nobody"]}
        assert [vector.picture for vector in opened.manifest.golden] == [
            f"golden/{one}" for one in ("alpha.png", "landscape.jpg", "photo.webp", "portrait.jpg")
        ]
    assert tuple(check.name for check in report.checks) == CHECKS
    assert [check.measured for check in report.checks] == [0.0] * 4
    assert report.passed
    assert report.kind == "verify"
    facts = ("architecture", "instruction sets", "versions", "processor", "cores", "system", "python")
    assert report.measurements == {"pictures": 4, "outputs": 1, "as it was packed": "yes", **{f"same {fact}": "yes" for fact in facts}}
    assert Report.model_validate_json(report.to_json()) == report


def test_the_stored_tensors_are_those_of_the_pictures(bundle: Path, model: Model) -> None:
    plan = InputPlan(model.contract().input)
    with Bundle.open(bundle) as opened, Runner.open(model, HERE) as runner:
        for vector in opened.manifest.golden:
            tensor = plan(opened.file(vector.picture))
            assert np.array_equal(opened.tensor(vector.tensor), tensor)
            assert np.array_equal(opened.tensor(vector.outputs["scores"]), runner.infer(tensor[np.newaxis])["scores"])


def test_another_network_is_found(bundle: Path) -> None:
    weights = onnx.load(bundle / "model/small.onnx")
    values = onnx.numpy_helper.to_array(weights.graph.initializer[2]) * np.float32(1.05)
    weights.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(values, "weights"))
    report = verified(put(bundle, "model/small.onnx", weights.SerializeToString()))
    assert failed(report) == ["network", "end to end"]
    assert "output 'scores'" in report.checks[2].detail
    assert 1e-3 < report.checks[2].measured < 1


def test_other_input_steps_are_found(bundle: Path) -> None:
    text = SPEC.replace("height = 5", 'height = 5\nfilter = "nearest"')
    report = verified(put(bundle, "spec.toml", text.encode()))
    assert failed(report) == ["input steps, worst value", "input steps, mean", "end to end"]
    assert report.checks[0].unit == "levels"
    assert 10 < report.checks[0].measured < 256


def test_input_differences_are_counted_in_picture_levels(bundle: Path) -> None:
    def nudge(tensor: Any) -> Any:
        tensor[0, 0, 0] += np.float32(1.5 / 255)
        return tensor

    report = verified(replaced_tensor(bundle, "golden/portrait.input.npy", nudge))
    assert report.checks[0].measured == pytest.approx(1.5, abs=1e-4)
    assert report.checks[0].detail == "portrait.jpg"
    assert report.checks[0].passed
    assert report.checks[1].measured == pytest.approx(1.5 / 90, abs=1e-4)


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_nan_on_one_side_or_both_never_passes(model: Model, tmp_path: Path, awkward: Path, odd: float, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = pack(model, HERE, tmp_path / "bundle", images=[awkward / "alpha.png"])

    def spoil(tensor: Any) -> Any:
        tensor.flat[0] = odd
        return tensor

    replaced_tensor(bundle, "golden/alpha.0.npy", spoil)
    assert failed(verified(bundle)) == ["network", "end to end"]
    infer = Runner.infer
    monkeypatch.setattr(Runner, "infer", lambda self, batch: {name: spoil(value.copy()) for name, value in infer(self, batch).items()})
    assert failed(verified(bundle)) == ["network", "end to end"]


def test_nan_from_the_network_here_fails(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infer = Runner.infer
    monkeypatch.setattr(Runner, "infer", lambda self, batch: {name: value * np.float32(math.nan) for name, value in infer(self, batch).items()})
    report = verified(bundle)
    assert failed(report) == ["network", "end to end"]
    assert not report.checks[2].measured <= report.checks[2].limit


@pytest.mark.parametrize(
    ("name", "change", "failing"),
    [
        ("golden/alpha.0.npy", lambda tensor: tensor[:, :3], ["network", "end to end"]),
        ("golden/alpha.0.npy", lambda tensor: tensor.astype("float64"), ["network", "end to end"]),
        ("golden/alpha.input.npy", lambda tensor: tensor[:4], list(CHECKS[:3])),
        ("golden/alpha.input.npy", lambda tensor: tensor.astype("float64"), list(CHECKS[:3])),
    ],
)
def test_another_shape_or_dtype_fails(bundle: Path, name: str, change: Callable[[Any], Any], failing: list[str]) -> None:
    report = verified(replaced_tensor(bundle, name, change))
    assert set(failing) <= set(failed(report))
    worst_ = next(check for check in report.checks if check.name == failing[-1])
    assert math.isnan(worst_.measured)
    assert "alpha" in worst_.detail


def test_another_output_name_fails(bundle: Path) -> None:
    edit(bundle, lambda data: [vector.update(outputs={"other": vector["outputs"]["scores"]}) for vector in data["golden"]])
    report = verified(bundle)
    assert failed(report) == ["network", "end to end"]
    assert "['scores'], stored are ['other']" in report.checks[2].detail


def test_a_picture_that_is_refused_here_fails(bundle: Path) -> None:
    report = verified(put(bundle, "golden/photo.webp", b"no picture"))
    assert failed(report) == ["input steps, worst value", "input steps, mean", "end to end"]
    assert "photo.webp: not a picture" in report.checks[0].detail


def test_a_missing_runtime_is_an_error_not_a_report(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise BackendMissing("gone", "pip install it")

    monkeypatch.setattr(Runner, "open", missing)
    with pytest.raises(BackendMissing):
        verified(bundle)


def test_another_machine_is_named(bundle: Path) -> None:
    def elsewhere(data: dict[str, Any]) -> None:
        data["environment"].update(architecture="vax", instruction_sets=["pdp11", *data["environment"]["instruction_sets"][1:]])
        data["environment"]["versions"]["onnxruntime"] = "0.1"

    measurements = verified(edit(bundle, elsewhere)).measurements
    assert "packed on vax, here" in str(measurements["same architecture"])
    assert "only where packed pdp11" in str(measurements["same instruction sets"])
    assert str(measurements["same versions"]).startswith("no: onnxruntime 0.1, here ")
    assert measurements["same processor"] == "yes"
    assert measurements["as it was packed"] == "no, other architecture, instruction sets, versions"


def test_an_environment_of_nonsense_is_survived(bundle: Path) -> None:
    report = verified(edit(bundle, lambda data: data.update(environment={"versions": [1, {"a": None}], "architecture": {"x": 1}})))
    assert report.passed
    assert str(report.measurements["same versions"]).startswith("no:")


def test_own_pictures_replace_the_packages(model: Model, tmp_path: Path, example_photos: list[Path]) -> None:
    odd = tmp_path / "Ünïted: photo. .png"
    Image.new("RGB", (20, 20), "red").save(odd)
    twin = tmp_path / "twin" / example_photos[0].with_suffix(".PNG").name
    twin.parent.mkdir()
    Image.new("RGB", (20, 20), "blue").save(twin)
    out = pack(model, HERE, tmp_path / "bundle.zip", images=[odd, example_photos[0], twin])
    with Bundle.open(out) as opened:
        stem = example_photos[0].stem
        assert [vector.picture for vector in opened.manifest.golden] == ["golden/n_ted_photo.png", f"golden/{stem}.jpg", f"golden/{stem}-2.png"]
        assert opened.file(f"golden/{stem}.jpg").read_bytes() == example_photos[0].read_bytes()
        assert verify(opened).passed


def test_too_many_pictures(model: Model, tmp_path: Path, example_photos: list[Path]) -> None:
    with pytest.raises(ImageError, match="17 golden pictures; a bundle holds at most 16"):
        pack(model, HERE, tmp_path / "bundle", images=example_photos[: MAX_PICTURES + 1])
    pack(model, HERE, tmp_path / "bundle", images=example_photos[:MAX_PICTURES])


@pytest.mark.parametrize("name", ["truncated.jpg", "empty.jpg", "not_an_image.jpg", "absent.jpg"])
def test_a_picture_that_fails_is_an_error_and_nothing_is_written(model: Model, tmp_path: Path, awkward: Path, name: str) -> None:
    with pytest.raises(ImageError, match=name):
        pack(model, HERE, tmp_path / "bundle", images=[awkward / name])
    assert not (tmp_path / "bundle").exists()


def test_default_pictures_are_those_the_spec_accepts(model: Model, tmp_path: Path) -> None:
    def accepting(*formats: str) -> Model:
        text = SPEC.replace('"decode"', f'"decode"\nformats = {json.dumps(formats)}')
        return replace(model, spec=loads(text))

    with Bundle.open(pack(accepting("png", "gif"), HERE, tmp_path / "png")) as opened:
        assert [vector.picture for vector in opened.manifest.golden] == ["golden/alpha.png"]
    with pytest.raises(ImageError, match=r"none of the golden pictures .*\(tiff\)"):
        pack(accepting("tiff"), HERE, tmp_path / "tiff")


def test_a_model_without_a_spec_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no Spec"):
        pack(replace(model, spec=None), HERE, tmp_path / "bundle")


def test_a_spec_of_another_network_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        pack(replace(model, spec=loads(SPEC.replace("width = 6", "width = 7"))), HERE, tmp_path / "bundle")


def test_an_existing_destination_is_refused_before_anything_runs(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(model, HERE, tmp_path / "bundle")
    monkeypatch.setattr(Runner, "open", lambda *_: pytest.fail("it ran"))
    with pytest.raises(BundleError, match="exists"):
        pack(model, HERE, tmp_path / "bundle")
    monkeypatch.undo()
    pack(model, HERE, tmp_path / "bundle", force=True)


def test_an_origin_that_json_can_not_hold(model: Model, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="origin"):
        pack(model, HERE, tmp_path / "bundle", origin={"authors": object()})


def test_a_network_that_answers_nan_can_not_be_packed(tmp_path: Path) -> None:
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5, 6, 3]), helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5, 6, 3])]
    nodes = [helper.make_node("Sub", ["x", "x"], ["zero"]), helper.make_node("Div", ["zero", "zero"], ["y"])]
    bad = save(tmp_path / "nan.onnx", nodes, infos[:1], infos[1:], [])
    text = SPEC.replace('"classify"\nlabels = ["a", "b", "c", "d"]', '"tensor"')
    with pytest.raises(CheckFailed, match=r"alpha\.png: the output 'y' has values that are NaN"):
        pack(replace(bad, spec=loads(text)), HERE, tmp_path / "bundle")


def test_several_outputs_and_a_fixed_batch(tmp_path: Path) -> None:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 5, 6, 3]) for name in ("x", "double", "../half/\x1b")]
    nodes = [helper.make_node("Add", ["x", "x"], ["double"]), helper.make_node("Neg", ["x"], ["../half/\x1b"])]
    two = save(tmp_path / "two.onnx", nodes, infos[:1], infos[1:], [])
    text = SPEC.replace('"classify"\nlabels = ["a", "b", "c", "d"]', '"tensor"')
    out = pack(replace(two, spec=loads(text)), HERE, tmp_path / "bundle.zip")
    with Bundle.open(out) as opened:
        assert opened.manifest.golden[0].outputs == {"double": "golden/alpha.0.npy", "../half/\x1b": "golden/alpha.1.npy"}
        assert opened.tensor("golden/alpha.1.npy").shape == (1, 5, 6, 3)
        report = verify(opened)
    assert report.passed
    assert report.measurements["outputs"] == 2


def test_external_weights_stay_beside_the_model(tmp_path: Path, spec: Spec) -> None:
    folder = tmp_path / "network"
    (folder / "weights").mkdir(parents=True)
    whole = onnx.load(network(tmp_path / "whole.onnx").path)
    onnx.save(whole, folder / "small.onnx", save_as_external_data=True, location="weights/all.bin", size_threshold=64)
    out = pack(Model(folder / "small.onnx", "onnx", spec), HERE, tmp_path / "bundle.zip")  # a Model that names no further files
    shutil.rmtree(folder)
    with Bundle.open(out) as opened:
        assert opened.manifest.model.files == ("model/weights/all.bin",)
        assert opened.model.files == (opened.folder / "model" / "weights" / "all.bin",)
        assert verify(opened).passed


def test_weights_outside_the_bundle_are_refused(bundle: Path, tmp_path: Path) -> None:
    proto = onnx.load(bundle / "model/small.onnx")
    values = onnx.numpy_helper.to_array(proto.graph.initializer[2])
    (tmp_path / "outside.bin").write_bytes(values.tobytes())
    onnx.external_data_helper.set_external_data(proto.graph.initializer[2], "../../outside.bin")
    proto.graph.initializer[2].ClearField("raw_data")
    put(bundle, "model/small.onnx", proto.SerializeToString())
    with pytest.raises(InputError, match=r"outside\.bin"):
        verified(bundle)


def test_files_of_a_model_must_lie_below_it(model: Model, tmp_path: Path) -> None:
    (tmp_path / "other.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="not in its folder"):
        pack(replace(model, format="unheard_of", path=tmp_path / "deep" / "small.onnx", files=(tmp_path / "other.bin",)), HERE, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("", 1.0),
        ('[[input.steps]]\nstep = "scale"\ndivisor = 255', 1 / 255),
        ('[[input.steps]]\nstep = "scale"\nfactor = -2.0', 2.0),
        ('[[input.steps]]\nstep = "scale"\ndivisor = 255\n[[input.steps]]\nstep = "std"\nvalues = [0.25, 0.2, 0.5]', 1 / 255 / 0.2),
        ('[[input.steps]]\nstep = "mean"\nvalues = [104.0, 117.0, 123.0]', 1.0),
    ],
)
def test_level(steps: str, expected: float) -> None:
    text = f'name = "x"\n[[input.steps]]\nstep = "decode"\n{steps}\n[output]\ntask = "tensor"'
    assert level(loads(text).input) == pytest.approx(expected)


def test_tolerances_follow_precision_and_jpeg_steps(spec: Spec) -> None:
    assert tolerance_for(spec.input, HERE).model_dump() == {"input_max": 2.0, "input_mean": 0.25, "network": 1e-4, "end_to_end": 1e-3}
    coarse = tolerance_for(spec.input, Target("onnxruntime", "cpu", "int8"))
    assert (coarse.network, coarse.end_to_end) == (2e-2, 2e-2)
    through = loads(SPEC.replace("height = 5", 'height = 5\n[[input.steps]]\nstep = "jpeg"'))
    assert tolerance_for(through.input, HERE).input_max == 32.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], math.nan), ([1, 3, 2], 3), ([3, math.nan], math.nan), ([math.nan, 3], math.nan), ([3, math.inf, 1], math.inf), ([0.0], 0.0)],
)
def test_worst(values: list[float], expected: float) -> None:
    found = worst(Figure(value, str(value)) for value in values).value
    assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_the_file_says_where_its_figures_are_from() -> None:
    assert golden_check._INPUT_THROUGH_JPEG[1] < 1.18, "the mean difference that a wrong filter made"

"""Verify with a small real network: what was packed verifies, and every kind of difference is found."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers.answer_networks import draw, network, saved, spec_of
from helpers.minimal_bundle import edit, put
from helpers.network_changes import times
from helpers.small_models import HERE, SPEC
from plimsoll.backends.runner import Runner
from plimsoll.bundle import Bundle, tensor_file
from plimsoll.bundle.golden import verify
from plimsoll.bundle.packing import pack
from plimsoll.core.model import Model
from plimsoll.errors import BackendMissingError, InputError
from plimsoll.report.report import Report

CHECKS = ("preprocessing, worst value", "preprocessing, mean", "network", "end to end")


def verified(path: Path) -> Report:
    with Bundle.open(path) as opened:
        return verify(opened)


def failed(report: Report) -> list[str]:
    return [check.name for check in report.checks if not check.passed]


def replaced_tensor(folder: Path, name: str, change: Callable[[Any], Any]) -> Path:
    path = folder / name
    return put(folder, name, tensor_file.dumps(change(tensor_file.read(path).copy())))


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
@pytest.mark.parametrize("preprocessing", ["reference", "fast"])
def test_what_is_packed_verifies(model: Model, tmp_path: Path, name: str, preprocessing: Any) -> None:
    out = pack(
        model, HERE, tmp_path / name, preprocessing=preprocessing, origin={"licence": "CC0-1.0", "authors": ["nobody"]}
    )
    with Bundle.open(out) as opened:
        report = verify(opened)
        assert opened.spec == model.spec
        assert opened.preprocessing == preprocessing
        assert opened.manifest.origin == {"licence": "CC0-1.0", "authors": ["nobody"]}
        assert [vector.picture for vector in opened.manifest.golden] == [
            f"golden/{file_name}"
            for file_name in ("alpha.png", "landscape.jpg", "large.jpg", "photo.webp", "portrait.jpg", "tall.jpg")
        ]
    assert tuple(check.name for check in report.checks) == CHECKS
    assert [check.measured for check in report.checks] == [0.0] * 4
    assert report.passed
    assert report.kind == "verify"
    facts = ("architecture", "instruction sets", "versions", "processor", "cores", "system", "python")
    assert report.measurements == {
        "pictures": 6,
        "outputs": 1,
        "input steps": "the same pixels as where it was packed",
        "as it was packed": "yes",
        **{f"same {fact}": "yes" for fact in facts},
    }
    assert Report.model_validate_json(report.to_json()) == report


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
    assert failed(report) == ["preprocessing, worst value", "preprocessing, mean", "end to end"]
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
def test_nan_on_one_side_or_both_never_passes(
    model: Model, tmp_path: Path, awkward: Path, odd: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = pack(model, HERE, tmp_path / "bundle", images=[awkward / "alpha.png"])

    def spoil(tensor: Any) -> Any:
        tensor.flat[0] = odd
        return tensor

    replaced_tensor(bundle, "golden/alpha.0.npy", spoil)
    assert failed(verified(bundle)) == ["network", "end to end"]
    infer = Runner.infer
    monkeypatch.setattr(
        Runner, "infer", lambda self, batch: {name: spoil(value.copy()) for name, value in infer(self, batch).items()}
    )
    assert failed(verified(bundle)) == ["network", "end to end"]


def test_nan_from_the_network_here_fails(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infer = Runner.infer
    monkeypatch.setattr(
        Runner,
        "infer",
        lambda self, batch: {name: value * np.float32(math.nan) for name, value in infer(self, batch).items()},
    )
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
def test_another_shape_or_dtype_fails(
    bundle: Path, name: str, change: Callable[[Any], Any], failing: list[str]
) -> None:
    report = verified(replaced_tensor(bundle, name, change))
    assert set(failing) <= set(failed(report))
    worst_ = next(check for check in report.checks if check.name == failing[-1])
    assert math.isnan(worst_.measured)
    assert "alpha" in worst_.detail


def test_another_output_name_fails(bundle: Path) -> None:
    edit(
        bundle,
        lambda data: [vector.update(outputs={"other": vector["outputs"]["scores"]}) for vector in data["golden"]],
    )
    report = verified(bundle)
    assert failed(report) == ["network", "end to end"]
    assert "['scores'], the stored ones ['other']" in report.checks[2].detail


def test_a_picture_that_is_refused_here_fails(bundle: Path) -> None:
    report = verified(put(bundle, "golden/photo.webp", b"no picture"))
    assert failed(report) == ["preprocessing, worst value", "preprocessing, mean", "end to end"]
    assert "photo.webp: not a picture" in report.checks[0].detail


def test_a_missing_runtime_is_an_error_not_a_report(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise BackendMissingError("gone", "pip install it")

    monkeypatch.setattr(Runner, "open", missing)
    with pytest.raises(BackendMissingError):
        verified(bundle)


def test_another_machine_is_named(bundle: Path) -> None:
    def elsewhere(data: dict[str, Any]) -> None:
        data["environment"].update(
            architecture="vax", instruction_sets=["pdp11", *data["environment"]["instruction_sets"][1:]]
        )
        data["environment"]["versions"]["onnxruntime"] = "0.1"

    measurements = verified(edit(bundle, elsewhere)).measurements
    assert "packed on vax, here" in str(measurements["same architecture"])
    assert "only where packed pdp11" in str(measurements["same instruction sets"])
    assert str(measurements["same versions"]).startswith("no: onnxruntime 0.1, here ")
    assert measurements["same processor"] == "yes"
    assert measurements["as it was packed"] == "no, other architecture, instruction sets, versions"


def test_an_environment_of_nonsense_is_survived(bundle: Path) -> None:
    report = verified(
        edit(bundle, lambda data: data.update(environment={"versions": [1, {"a": None}], "architecture": {"x": 1}}))
    )
    assert report.passed
    assert str(report.measurements["same versions"]).startswith("no:")


def test_weights_outside_the_bundle_are_refused(bundle: Path, tmp_path: Path) -> None:
    proto = onnx.load(bundle / "model/small.onnx")
    values = onnx.numpy_helper.to_array(proto.graph.initializer[2])
    (tmp_path / "outside.bin").write_bytes(values.tobytes())
    onnx.external_data_helper.set_external_data(proto.graph.initializer[2], "../../outside.bin")
    proto.graph.initializer[2].ClearField("raw_data")
    put(bundle, "model/small.onnx", proto.SerializeToString())
    with pytest.raises(InputError, match=r"outside\.bin"):
        verified(bundle)


@pytest.mark.parametrize("task", ["detect", "landmarks", "segment"])
def test_decoded_answers_verify(task: str, tmp_path: Path) -> None:
    model = saved(network(task), tmp_path / "network.onnx", spec_of(task))
    report = verified(pack(model, HERE, tmp_path / "bundle", images=draw(tmp_path / "drawn", 3)))
    assert [check.name for check in report.checks] == [*CHECKS, "answers"]
    assert report.passed


def test_coordinates_do_not_drown_scores(tmp_path: Path) -> None:
    model = saved(network("detect"), tmp_path / "network.onnx", spec_of("detect"))
    bundle = pack(model, HERE, tmp_path / "bundle", images=draw(tmp_path / "drawn", 3))
    blind = network("detect")
    times("head", np.array([1, 1, 1, 1, 0, 0], np.float32).reshape(1, 6, 1))(blind)
    put(bundle, "model/network.onnx", blind.SerializeToString())
    edit(bundle, lambda data: data["tolerance"].update(network=0.05, end_to_end=0.05))
    assert failed(verified(bundle)) == ["network", "end to end", "answers"]
    assert "score of" in verified(bundle).checks[2].detail
    # A bundle of an earlier version is still read, as it was meant then.
    edit(bundle, lambda data: [data["tolerance"].pop(name) for name in ("columns", "answers")])
    assert failed(verified(bundle)) == []

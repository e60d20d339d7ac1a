"""Pack with a small real network: what a bundle holds, and what is refused before anything is written."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from helpers.contract_networks import save
from helpers.small_models import HERE, SPEC, TENSOR_SPEC
from plimsoll.backends.runner import Runner
from plimsoll.bundle import Bundle
from plimsoll.bundle.golden import MAX_PICTURES, verify
from plimsoll.bundle.packing import pack
from plimsoll.core.model import Model
from plimsoll.errors import BundleError, CheckError, ImageError, ModelError, SpecError
from plimsoll.inference.predictor import load
from plimsoll.preprocessing.preprocessor import Preprocessor
from plimsoll.spec.files import loads


def test_the_stored_tensors_are_those_of_the_pictures(bundle: Path, model: Model) -> None:
    preprocessor = Preprocessor(model.require_spec().input)
    with Bundle.open(bundle) as opened, Runner.open(model, HERE) as runner:
        for vector in opened.manifest.golden:
            tensor = preprocessor(opened.file(vector.picture))
            assert np.array_equal(opened.tensor(vector.tensor), tensor)
            assert np.array_equal(opened.tensor(vector.outputs["scores"]), runner.infer(tensor[np.newaxis])["scores"])


def test_own_pictures_replace_the_packages(model: Model, tmp_path: Path, example_photos: list[Path]) -> None:
    odd = tmp_path / "Ünïted: photo. .png"
    Image.new("RGB", (20, 20), "red").save(odd)
    twin = tmp_path / "twin" / example_photos[0].with_suffix(".PNG").name
    twin.parent.mkdir()
    Image.new("RGB", (20, 20), "blue").save(twin)
    out = pack(model, HERE, tmp_path / "bundle.zip", images=[odd, example_photos[0], twin])
    with Bundle.open(out) as opened:
        stem = example_photos[0].stem
        assert [vector.picture for vector in opened.manifest.golden] == [
            "golden/n_ted_photo.png",
            f"golden/{stem}.jpg",
            f"golden/{stem}-2.png",
        ]
        assert opened.file(f"golden/{stem}.jpg").read_bytes() == example_photos[0].read_bytes()
        assert verify(opened).passed


def test_too_many_pictures(model: Model, tmp_path: Path, example_photos: list[Path]) -> None:
    with pytest.raises(ImageError, match="17 golden pictures; a bundle holds at most 16"):
        pack(model, HERE, tmp_path / "bundle", images=example_photos[: MAX_PICTURES + 1])
    pack(model, HERE, tmp_path / "bundle", images=example_photos[:MAX_PICTURES])


@pytest.mark.parametrize("name", ["truncated.jpg", "empty.jpg", "not_an_image.jpg", "absent.jpg"])
def test_a_picture_that_fails_is_an_error_and_nothing_is_written(
    model: Model, tmp_path: Path, awkward: Path, name: str
) -> None:
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


def test_an_existing_destination_is_refused_before_anything_runs(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    infos = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5, 6, 3]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5, 6, 3]),
    ]
    nodes = [helper.make_node("Sub", ["x", "x"], ["zero"]), helper.make_node("Div", ["zero", "zero"], ["y"])]
    bad = save(tmp_path / "nan.onnx", nodes, infos[:1], infos[1:], [])
    with pytest.raises(CheckError, match=r"alpha\.png: the output 'y' has values that are NaN"):
        pack(replace(bad, spec=loads(TENSOR_SPEC)), HERE, tmp_path / "bundle")


def test_several_outputs_and_a_fixed_batch(tmp_path: Path) -> None:
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 5, 6, 3]) for name in ("x", "double", "../half/*")
    ]
    nodes = [helper.make_node("Add", ["x", "x"], ["double"]), helper.make_node("Neg", ["x"], ["../half/*"])]
    two = save(tmp_path / "two.onnx", nodes, infos[:1], infos[1:], [])
    out = pack(replace(two, spec=loads(TENSOR_SPEC)), HERE, tmp_path / "bundle.zip")
    with Bundle.open(out) as opened:
        assert opened.manifest.golden[0].outputs == {
            "double": "golden/alpha.0.npy",
            "../half/*": "golden/alpha.1.npy",
        }
        assert opened.tensor("golden/alpha.1.npy").shape == (1, 5, 6, 3)
        report = verify(opened)
    assert report.passed
    assert report.measurements["outputs"] == 2


def test_external_weights_stay_beside_the_model(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "network"
    (folder / "weights").mkdir(parents=True)
    whole = onnx.load(model.path)
    onnx.save(whole, folder / "small.onnx", save_as_external_data=True, location="weights/all.bin", size_threshold=64)
    out = pack(
        Model(folder / "small.onnx", "onnx", model.spec), HERE, tmp_path / "bundle.zip"
    )  # a Model that names no further files
    shutil.rmtree(folder)
    with Bundle.open(out) as opened:
        assert opened.manifest.model.files == ("model/weights/all.bin",)
        assert opened.model.files == (opened.folder / "model" / "weights" / "all.bin",)
        assert verify(opened).passed


def test_files_of_a_model_must_lie_below_it(model: Model, tmp_path: Path) -> None:
    (tmp_path / "other.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="not in its folder"):
        pack(
            replace(model, format="unheard_of", path=tmp_path / "deep" / "small.onnx", files=(tmp_path / "other.bin",)),
            HERE,
            tmp_path / "bundle",
        )


def test_one_of_our_own_pictures_shrinks_both_ways_where_networks_take_299_pixels_or_fewer() -> None:
    """Else a machine that shrinks in another way would pass."""
    folder = files("plimsoll.preprocessing").joinpath("samples")
    sizes = [
        Image.open(io.BytesIO(entry.read_bytes())).size for entry in folder.iterdir() if not entry.name.endswith(".md")
    ]
    assert any(min(size) > 299 for size in sizes)


def test_a_bundle_says_on_which_sizes_scaled_preprocessing_was_proven(
    model: Model, tmp_path: Path, example_photos: list[Path]
) -> None:
    out = pack(model, HERE, tmp_path / "bundle", preprocessing="scaled", scaled_sides=(300, 3000))
    with Bundle.open(out) as opened:
        assert (opened.preprocessing, opened.scaled_sides) == ("scaled", (300, 3000))
        assert verify(opened).passed
    with load(out) as predictor:
        assert (predictor.preprocessor.preprocessing, predictor.preprocessor.scaled_sides) == ("scaled", (300, 3000))
        answer = predictor.predict(example_photos[0]).row()
    plain = pack(model, HERE, tmp_path / "plain")
    with Bundle.open(plain) as opened:
        assert opened.scaled_sides is None
    with load(plain) as predictor:
        assert predictor.predict(example_photos[0]).row()["label"] == answer["label"]

"""A web package's folder: what is in it, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from helpers.contract_networks import expected
from helpers.small_models import SPEC, small_model
from plimsoll import backends
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, BundleError, ImageError, ModelError
from plimsoll.export import web
from plimsoll.onnx.form import OnnxForm
from plimsoll.spec import files

pytestmark = pytest.mark.skipif(
    any(offer.missing for offer in backends.get("web").targets()), reason="Node.js or npm is not installed"
)

FLOAT, INT8 = Target("web", "wasm", "float32"), Target("web", "wasm", "int8")
DESCRIBED = SPEC.replace('name = "small"', 'name = "small"\ndescription = "Four <b>classes</b> & no more."')


def model(folder: Path, form: OnnxForm = "float32") -> Model:
    return small_model(folder, DESCRIBED, form=form)


def test_everything_a_page_needs_is_in_the_folder_and_nothing_else_is_asked_for(tmp_path: Path) -> None:
    out = web.package(
        model(tmp_path / "m"), FLOAT, tmp_path / "page", origin={"licence": "BSD-2-Clause", "authors": ["A", "B"]}
    )
    facts = json.loads((out / "model.json").read_text())
    named = [facts["model"]["file"], facts["runtime"]["script"], facts["runtime"]["binary"]["file"]]
    assert all((out / name).is_file() for name in named)
    assert (out / "model.onnx").read_bytes() == (tmp_path / "m" / "small.onnx").read_bytes()
    for file in [*out.glob("*.js"), *out.glob("steps/*.js")]:
        for imported in re.findall(r'from "(\.[^"]+)"', file.read_text()):
            assert (file.parent / imported).is_file(), f"{file.name} imports {imported}"
    pages = [
        file for file in out.rglob("*") if file.suffix in {".html", ".js", ".css"} and file.parent.name != "runtime"
    ]
    assert not [
        file.name
        for file in pages
        if re.search(r"https?://(?!www\.w3\.org|ns\.adobe\.com|localhost)", file.read_text())
    ]
    assert files.validate(json.loads((out / "spec.json").read_text())) == files.loads(DESCRIBED)
    assert "BSD-2-Clause" in (out / "LICENCES.txt").read_text()
    assert "MIT License" in (out / "LICENCES.txt").read_text()
    assert "{{" not in (out / "README.md").read_text()


@pytest.mark.parametrize(("target", "form"), [(FLOAT, "float32"), (INT8, "qdq")])
def test_golden_outputs_are_pythons(tmp_path: Path, target: Target, form: OnnxForm) -> None:
    small = model(tmp_path / "m", form)
    out = web.package(small, target, tmp_path / "page")
    golden = json.loads((out / "golden.json").read_text())
    assert len(golden["pictures"]) == 2
    assert golden["tolerance"]["input_max"] == 0
    for picture in golden["pictures"]:
        tensor = np.fromfile(out / picture["tensor"]["file"], picture["tensor"]["dtype"]).reshape(
            picture["tensor"]["shape"]
        )
        stored = np.fromfile(out / picture["outputs"]["scores"]["file"], np.float32).reshape(
            picture["outputs"]["scores"]["shape"]
        )
        with Runner.open(small, Target("onnxruntime", "cpu", target.precision)) as runner:
            np.testing.assert_array_equal(runner.infer(tensor[np.newaxis])["scores"], stored)


def test_external_weights_come_along(tmp_path: Path) -> None:
    import onnx

    small = model(tmp_path / "m")
    loaded = onnx.load(small.path)
    onnx.save(loaded, small.path, save_as_external_data=True, location="weights.data", size_threshold=70)
    given = Model(small.path, "onnx", small.spec, files=(tmp_path / "m" / "weights.data",))
    out = web.package(given, FLOAT, tmp_path / "page")
    (entry,) = json.loads((out / "model.json").read_text())["model"]["external"]
    assert entry["path"] == "weights.data"
    assert (out / entry["file"]).read_bytes() == (tmp_path / "m" / "weights.data").read_bytes()
    picture = np.full((1, 5, 6, 3), 0.75, np.float32)
    with Runner.open(given, FLOAT) as runner:
        np.testing.assert_allclose(runner.infer(picture)["scores"], expected(picture), atol=1e-5)


def test_own_golden_pictures(tmp_path: Path, example_photos: list[Path], awkward: Path) -> None:
    out = web.package(
        model(tmp_path / "m"), FLOAT, tmp_path / "page", images=[example_photos[0], awkward / "photo.webp"]
    )
    golden = json.loads((out / "golden.json").read_text())
    assert [small["picture"] for small in golden["pictures"]] == ["golden/1-astronaut.jpg", "golden/2-photo.webp"]
    assert golden["tolerance"]["input_max"] > 0, "a browser decodes WebP itself"
    with pytest.raises(ImageError, match="tiff"):
        web.package(model(tmp_path / "m"), FLOAT, tmp_path / "other", images=[awkward / "photo.tiff"])
    with pytest.raises(ImageError, match="17 golden pictures"):
        web.package(model(tmp_path / "m"), FLOAT, tmp_path / "other", images=example_photos[:17])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "page"], "nothing half-made is left"


def test_only_a_web_package_is_replaced_and_only_when_asked(tmp_path: Path) -> None:
    small = model(tmp_path / "m")
    out = web.package(small, FLOAT, tmp_path / "page")
    (out / "stale.txt").write_text("old")
    with pytest.raises(BundleError, match="exists already"):
        web.package(small, FLOAT, out)
    web.package(small, FLOAT, out, force=True)
    assert not (out / "stale.txt").exists()
    with pytest.raises(BundleError, match="not a web package"):
        web.package(small, FLOAT, tmp_path / "m", force=True)
    assert (tmp_path / "m" / "small.onnx").exists()
    with pytest.raises(BundleError, match="a folder"):
        web.package(small, FLOAT, tmp_path / "page.zip")


def test_what_can_not_become_a_package_is_reported(tmp_path: Path) -> None:
    small = model(tmp_path / "m")
    with pytest.raises(ModelError, match="no Spec"):
        web.package(Model(small.path, "onnx"), FLOAT, tmp_path / "page")
    with pytest.raises(ModelError, match="tflite"):
        web.package(Model(small.path, "tflite", small.spec), FLOAT, tmp_path / "page")
    with pytest.raises(ModelError, match="onnxruntime:cpu:float32"):
        web.package(small, Target("onnxruntime"), tmp_path / "page")
    with pytest.raises(BuildError, match="web:wasm:int8 needs"):
        web.package(small, INT8, tmp_path / "page")
    assert not (tmp_path / "page").exists()

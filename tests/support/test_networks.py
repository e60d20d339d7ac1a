"""A small core of docs/support.md's real networks, and what its table goes by.

All networks on all targets take an hour: `make support`.
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from plimsoll.errors import ModelError
from plimsoll.spec import files as spec_files
from support import catalogue, cell, measure, pictures

CORE = "open_nsfw"
"""`make test` has fetched it."""
DETECTOR = """
name = "finder"

[[input.steps]]
step = "decode"

[[input.steps]]
step = "resize"
width = 32
height = 32

[output]
task = "detect"
head = "yolov8"
labels = ["cat", "dog"]
"""


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[measure.Measurement]:
    photos, calibration = measure.photographs()
    folder = tmp_path_factory.mktemp("core")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", measure.python_path())
        try:
            yield measure.Measurement(CORE, catalogue.networks()[CORE], folder, photos[:3], calibration[:4])
        except ModelError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"it can't be fetched: {error.message}")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "mnn"])
def test_a_real_network_answers_as_in_onnx_runtime(core: measure.Measurement, runtime: str) -> None:
    cells = list(core.cells([f"{runtime}:cpu:float32", f"{runtime}:cpu:int8"]))
    assert [cell.outcome for cell in cells] == ["right", "right"], cells


def test_every_network_has_a_contract_and_a_licence() -> None:
    networks = catalogue.networks()
    assert len(networks) >= 20
    for name, network in networks.items():
        assert spec_files.loads(spec_files.dumps(network.contract_spec)).name == network.contract_spec.name, name
        assert network.agpl == network.licence.startswith("AGPL"), name


def test_networks_under_the_agpl_are_fetched_by_wish_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLIMSOLL_AGPL", raising=False)
    with pytest.raises(ModelError, match="AGPL"):
        catalogue.fetch("nudenet", catalogue.networks()["nudenet"], tmp_path)


def test_files_of_repositories_are_taken_by_hash_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = catalogue.networks()["fastestdet"]
    monkeypatch.delenv("PLIMSOLL_REPOSITORIES", raising=False)
    with pytest.raises(ModelError, match="FastestDet"):
        catalogue.fetch("fastestdet", network, tmp_path)
    other = tmp_path / "FastestDet" / "example" / "onnx-runtime" / "FastestDet.onnx"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another file")
    monkeypatch.setenv("PLIMSOLL_REPOSITORIES", str(tmp_path))
    with pytest.raises(ModelError, match="not the file"):
        catalogue.fetch("fastestdet", network, tmp_path)


@pytest.mark.parametrize("kind", ["captions", "lines", "faces", "portraits"])
def test_pictures_show_something_else_than_the_photograph_and_the_same_each_time(
    kind: pictures.Kind, tmp_path: Path
) -> None:
    photo = str(measure.ROOT / "examples" / "photos" / "heron.jpg")
    first, second = (pictures.shown(kind, [photo], tmp_path / name)[0] for name in "ab")
    assert Path(first).read_bytes() == Path(second).read_bytes()
    assert pictures.shown("photographs", [photo], tmp_path) == [photo]
    with Image.open(first) as drawn, Image.open(photo) as plain:
        assert drawn.size != plain.size or drawn.convert("RGB").tobytes() != plain.convert("RGB").tobytes()


def test_scores_do_not_drown_in_coordinates() -> None:
    spec = spec_files.loads(DETECTOR)
    chance = np.random.default_rng(3)
    head = np.concatenate([chance.uniform(0, 32, (4, 1, 4, 50)), chance.uniform(0, 1, (4, 1, 2, 50))], axis=2)
    silenced = head.copy()
    silenced[:, :, 4:] = 0
    figures = cell.decibels(spec, {"output0": head}, {"output0": silenced})
    assert min(figures.values()) < 1 < 60 < figures["output0, x"]


def test_a_label_that_no_photograph_shows_is_judged_beside_the_others() -> None:
    spec = spec_files.loads(DETECTOR)
    chance = np.random.default_rng(3)
    head = np.concatenate([chance.uniform(0, 32, (4, 1, 4, 50)), chance.uniform(0, 1, (4, 1, 2, 50))], axis=2)
    head[:, :, 5] *= 1e-7
    noisy = head.copy()
    noisy[:, :, 5] *= 1.5
    assert min(cell.decibels(spec, {"output0": head}, {"output0": noisy}).values()) > 60


@pytest.mark.parametrize("other", [np.full((2, 1, 3), np.nan), np.ones((2, 1, 4)), np.zeros((2, 1, 3))])
def test_nan_another_shape_and_silence_are_wrong(other: NDArray[np.float64]) -> None:
    spec = catalogue.networks()["captcha_crnn"].contract_spec
    figures = cell.decibels(spec, {"logits": np.ones((2, 1, 3))}, {"logits": other})
    assert measure.outcome("mnn:cpu:int8", {"decibels": figures}) == "wrong"


def test_the_page_shows_what_is_wrong_without_a_word() -> None:
    page = runpy.run_path(str(measure.ROOT / "tools" / "support_table.py"))
    cells = [
        measure.Cell("nudenet", "mnn:cpu:float32", "right", decibels={"x": 88.4, "score": 102.0}),
        measure.Cell("nudenet", "mnn:cpu:int8", "wrong", decibels={"x": 31.0, "score": 3.5}),
        measure.Cell("ppocr_det", "mnn:cpu:float32", "refused", "BuildError: /home/a/b/det.onnx: 12 dB"),
        measure.Cell("ppocr_det", "mnn:cpu:int8", "broken", "it was killed"),
    ]
    text = page["networks_part"](cells)
    assert "| `nudenet` | 88 | **4** |" in text
    assert "| `ppocr_det` | r1 | **r2** |" in text
    assert "- r1: det.onnx: 12 dB" in text
    assert "- r2: it was killed" in text

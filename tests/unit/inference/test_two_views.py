"""A further input that takes the same picture through input steps of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from helpers.two_views import SPEC, two_views
from plimsoll import backends, importers
from plimsoll.backends import conversion
from plimsoll.backends.runner import Runner
from plimsoll.bundle import Bundle
from plimsoll.bundle.golden import verify
from plimsoll.bundle.packing import pack
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import ModelError, SpecError
from plimsoll.export.web import package
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.preprocessing import Preprocessing, Preprocessor
from plimsoll.preprocessing.folded import fold
from plimsoll.report.trial import Candidate
from plimsoll.ship.job_runner import convert
from plimsoll.spec.files import loads


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return two_views(tmp_path_factory.mktemp("network") / "two_views.onnx")


@pytest.fixture(scope="module")
def read(source: Model) -> Model:
    return importers.read(source.path, source.spec)


def expected(source: Model, pictures: list[Path], preprocessing: Preprocessing = "reference") -> NDArray[np.float32]:
    """Feed both inputs by hand, one picture at a time."""
    whole, middle = (Preprocessor(view, preprocessing) for view in source.require_spec().input.views)
    session = onnxruntime.InferenceSession(str(source.path), providers=["CPUExecutionProvider"])
    feeds = [{"whole": whole(path)[np.newaxis], "middle": middle(path)[np.newaxis]} for path in pictures]
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])


@pytest.mark.parametrize("preprocessing", ["reference", "fast"])
def test_each_input_gets_its_own_view_of_the_picture(
    source: Model, read: Model, example_photos: list[Path], preprocessing: Preprocessing
) -> None:
    if preprocessing == "fast":
        pytest.importorskip("cv2")
    with Predictor(ResolvedModel(read, REFERENCE_TARGET, preprocessing)) as predictor:
        answers = [prediction.answer for prediction in predictor.predict_many(example_photos[:5])]
    scores = [[answer.row()["scores"][label] for label in "abc"] for answer in answers if answer is not None]
    assert np.allclose(scores, expected(source, example_photos[:5], preprocessing), atol=1e-6)
    assert np.std(scores, axis=0).max() > 1e-3


@pytest.mark.parametrize(("opset", "batch"), [(9, "N"), (17, 1), (17, 2)])
def test_old_networks_and_fixed_batches(
    tmp_path: Path, example_photos: list[Path], opset: int, batch: int | str
) -> None:
    source = two_views(tmp_path / "network.onnx", opset=opset, batch=batch)
    pictures = example_photos[:3]
    preprocessor = Preprocessor(source.require_spec().input)
    tensors = np.stack([preprocessor(picture) for picture in pictures])
    assert tensors.shape == (3, 3 * 12 * 16 + 24 * 20)
    for model in (importers.read(source.path, source.spec), source):  # The latter is taken apart by the runner.
        with Runner.open(model, REFERENCE_TARGET) as runner:
            assert [info.shape[1:] for info in runner.inputs] == [tensors.shape[1:]]
            whole = two_views(tmp_path / "free.onnx")
            assert np.allclose(runner.infer(tensors)["scores"], expected(whole, pictures), atol=1e-6)


def test_every_runtime_and_int8_take_it(read: Model, example_photos: list[Path], tmp_path: Path) -> None:
    for name in ("openvino", "mnn"):
        target = Target(name, "cpu", "float32")
        if any(available.target == target and not available.missing for available in backends.get(name).targets()):
            (tmp_path / name).mkdir()
            conversion.build(read, target, tmp_path / name)
    pictures = [str(path) for path in example_photos[:8]]
    int8 = Candidate("reference", False, replace(REFERENCE_TARGET, precision="int8"), "minmax")
    built = convert(read, int8, pictures, tmp_path / "int8")
    with Bundle.open(pack(built, int8.target, tmp_path / "bundle.zip")) as bundle:
        assert verify(bundle).passed


def test_what_cannot_take_it_says_so(read: Model, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="several views of a picture"):
        fold(read, tmp_path)
    with pytest.raises(SpecError, match="several views of a picture"):
        package(read, Target("web", "wasm", "float32"), tmp_path / "web")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("width = 20\nheight = 24", "width = 24\nheight = 24", r"uint8 \[24, 24, 1\], the network's input 'middle'"),
        ('colour = "grey"', 'colour = "RGB"', r"uint8 \[24, 20, 3\], the network's input 'middle' takes uint8"),
        ('[[input.extra.steps]]\nstep = "crop"\nwidth = 20\nheight = 24', "", r"uint8 \[40, 40, 1\]"),
        ('source = "picture"', 'source = "input_size"', "steps: allowed only with source = 'picture'"),
        ('step = "decode"\ncolour', 'step = "decode"\nframes = "all"\ncolour', "only the first frame"),
        ("width = 16\nheight = 12", 'fit = "short_edge"\nsize = 16', "the same size"),
        (
            '[[input.extra.steps]]\nstep = "resize"\nwidth = 40\nheight = 40\n[[input.extra.steps]]\nstep = "crop"\n'
            "width = 20\nheight = 24\n",
            "",
            "the same size",
        ),
    ],
)
def test_steps_that_do_not_fit_are_named(source: Model, before: str, after: str, message: str) -> None:
    assert before in SPEC
    with pytest.raises(SpecError, match=message):
        importers.read(source.path, loads(SPEC.replace(before, after)))

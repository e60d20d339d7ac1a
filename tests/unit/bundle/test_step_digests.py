"""`verify` names the input step that gives other pixels, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from helpers.minimal_bundle import edit, put
from helpers.small_models import HERE
from plimsoll.bundle import Bundle
from plimsoll.bundle.golden import verify
from plimsoll.bundle.packing import pack
from plimsoll.bundle.step_digests import SAME_PIXELS, step_digests
from plimsoll.core.model import Model
from plimsoll.preprocessing import Preprocessor, reference
from plimsoll.preprocessing import decode as decoding
from plimsoll.preprocessing.decode import sample_pictures
from plimsoll.report.report import Report
from plimsoll.spec import Input
from plimsoll.spec.steps import Cast, Crop, Decode, Jpeg, Layout, Mean, Resize

INPUT = Input(
    steps=(
        Decode(),
        Resize(width=64, height=64),
        Jpeg(),
        Crop(width=56, height=56),
        Mean(values=(104.0, 117.0, 123.0)),
        Layout(order="NCHW"),
        Cast(to="float16"),
    )
)
TALL = dict(sample_pictures(Decode()))["tall.jpg"]


def vertically_first(image: Image.Image, width: int, height: int, filter_: Image.Resampling) -> Image.Image:
    """Resize as Pillow 13 resizes tall pictures in one call."""
    return image.resize((image.width, height), filter_).resize((width, height), filter_)


def verified(path: Path) -> Report:
    with Bundle.open(path) as bundle:
        return verify(bundle)


@pytest.mark.parametrize("preprocessing", ["reference", "fast", "scaled"])
def test_each_step_has_a_digest_that_stays(preprocessing: Any) -> None:
    preprocessor = Preprocessor(INPUT, preprocessing)
    digests = step_digests(preprocessor, TALL)
    assert [digest.step for digest in digests] == [name for name, _ in preprocessor.stages]
    assert digests[0].shape == "700x200x3"
    assert digests[1].shape == "64x64x3"
    assert step_digests(preprocessor, TALL) == digests


def test_the_noise_is_the_same_under_every_version_of_numpy() -> None:
    steps = (Decode(), Crop(width=200, height=150, x=0, y=0))
    digest = "7ed2e762a61d8208c0c18eca76b8d190eac1b69087756c127fa2454d3ead067a"
    assert step_digests(Preprocessor(Input(steps=steps)), TALL)[1].digest == f"150x200x3 {digest}"


def test_a_step_that_changes_is_the_only_one_to_differ() -> None:
    """Behind the resize the JPEG round trip would make of one level up to thirty."""
    before = step_digests(Preprocessor(INPUT), TALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "resize_image", vertically_first)
        after = step_digests(Preprocessor(INPUT), TALL)
    assert [old.step for old, new in zip(before, after, strict=True) if old != new] == ["resize"]


def test_the_step_that_a_library_changed_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verified(bundle).measurements["input steps"] == SAME_PIXELS
    edit(bundle, lambda manifest: manifest["environment"]["picture_libraries"].update(pillow="11.0.0", libwebp="0.1"))
    monkeypatch.setattr(reference, "resize_image", vertically_first)
    assert (
        verified(bundle).measurements["input steps"]
        == f"resize gives other pixels here (pillow 11.0.0, here {PIL.__version__})"
    )


def test_a_decoder_that_changed_is_named_alone(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = decoding._to_rgb_or_grey

    def one_level_more(image: Image.Image, step: Decode) -> Image.Image:
        return convert(image, step).point(lambda level: min(level + 1, 255))

    monkeypatch.setattr(decoding, "_to_rgb_or_grey", one_level_more)
    report = verified(bundle)
    assert report.measurements["input steps"] == "decode gives other pixels here (the same libraries)"
    assert report.checks[0].passed  # within the limit, and still said


def test_a_picture_of_another_size_names_only_the_decoder(model: Model, tmp_path: Path) -> None:
    bundle = pack(model, HERE, tmp_path / "bundle")

    def other_size(manifest: dict[str, Any]) -> None:
        for vector in manifest["golden"]:
            vector["steps"][0]["digest"] = "1x2x3 " + "0" * 64
            vector["steps"][1]["digest"] = "1x2x3 " + "0" * 64

    edit(bundle, other_size)
    assert str(verified(bundle).measurements["input steps"]).startswith("decode gives other pixels")


def test_a_picture_that_is_refused_here_names_the_decoder(bundle: Path) -> None:
    put(bundle, "golden/tall.jpg", b"no picture")
    assert str(verified(bundle).measurements["input steps"]).startswith("decode gives other pixels here")


def test_other_steps_than_packed_are_named(bundle: Path) -> None:
    edit(bundle, lambda manifest: [vector["steps"].pop() for vector in manifest["golden"]])
    steps = json.loads((bundle / "manifest.json").read_text())["golden"][0]["steps"]
    last = [name for name, _ in Preprocessor(Bundle.open(bundle).spec.input).stages][len(steps)]
    assert str(verified(bundle).measurements["input steps"]).startswith(f"{last} gives other pixels here")


def test_a_bundle_without_digests_is_verified_as_before(bundle: Path) -> None:
    edit(bundle, lambda manifest: [vector.pop("steps") for vector in manifest["golden"]])
    edit(bundle, lambda manifest: manifest["environment"].pop("picture_libraries"))
    report = verified(bundle)
    assert report.passed
    assert "input steps" not in report.measurements


def test_libraries_are_recorded(model: Model, tmp_path: Path) -> None:
    recorded: dict[str, Any] = {}
    for preprocessing in ("reference", "fast"):
        with Bundle.open(pack(model, HERE, tmp_path / preprocessing, preprocessing=preprocessing)) as bundle:
            recorded[preprocessing] = bundle.manifest.environment["picture_libraries"]
    assert {"pillow", "numpy", "simplejpeg", "libjpeg-turbo", "libwebp"} <= recorded["reference"].keys()
    assert recorded["fast"].keys() - recorded["reference"].keys() == {"opencv"}
    assert recorded["reference"]["pillow"] == PIL.__version__
    assert recorded["reference"]["numpy"] == np.__version__

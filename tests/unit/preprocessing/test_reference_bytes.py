"""The reference gives the same bytes whichever versions of Pillow, libjpeg-turbo, libwebp, NumPy and simplejpeg run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers import reference_bytes, reference_pictures
from plimsoll.preprocessing.formats import sniff
from plimsoll.spec.steps import Resize

STORED = json.loads((Path(__file__).parent / "data" / "reference_bytes.json").read_text(encoding="utf-8"))
FILES = {path.name: path for path in reference_pictures.FOLDER.iterdir()}
STEPS = reference_bytes.steps()


@pytest.mark.filterwarnings(
    "ignore:Palette images with Transparency"
)  # Pillow's advice; decided by the Spec's `alpha`.
@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_gives_the_stored_bytes(name: str) -> None:
    assert reference_bytes.of_file(FILES[name]) == STORED["files"][name]


@pytest.mark.parametrize("name", STEPS)
def test_a_step_gives_the_stored_bytes(name: str) -> None:
    assert reference_bytes.of_step(STEPS[name]) == STORED["steps"][name]


def test_steps_in_a_row_give_the_stored_bytes() -> None:
    assert reference_bytes.chain() == STORED["chain"]


def test_nothing_that_is_stored_goes_untested() -> None:
    assert (
        FILES.keys()
        == STORED["files"].keys()
        == {f"{suffix}_{name}.{suffix}" for suffix, kinds in reference_pictures.WRITERS.items() for name, _ in kinds()}
    )
    assert STEPS.keys() == STORED["steps"].keys()


def test_every_file_is_what_its_name_says_and_is_decoded() -> None:
    for name, path in FILES.items():
        assert sniff(path.read_bytes()) == {"jpg": "jpeg"}.get(path.suffix[1:], path.suffix[1:]), name
        assert STORED["files"][name]["as stored"] != "refused", name


def test_one_level_in_one_sample_is_noticed() -> None:
    pixels = reference_pictures.colours()
    before = reference_bytes.digest(pixels)
    pixels[60, 42, 2] ^= 1
    assert reference_bytes.digest(pixels) != before
    assert reference_bytes.digest(pixels.astype(np.float32)) != before


def test_resizes_of_every_convention_and_filter_are_held() -> None:
    resizes = [step for step in STEPS.values() if isinstance(step, Resize)]
    assert {(step.convention, step.filter) for step in resizes} == {
        (convention, filter_)
        for convention in ("pillow", "opencv", "tensorflow")
        for filter_ in ("nearest", "bilinear", "bicubic", "lanczos", "area")
    }

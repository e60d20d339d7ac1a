"""Policies: bands that take the place of a Spec's, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from plimsoll.errors import InputError, SpecError
from plimsoll.spec.policy import Policy
from plimsoll.spec.spec import Classify
from plimsoll.zoo import card

TEXT = """positive = "nsfw"
threshold = 0.7
[[bands]]
label = "safe"
below = 0.1
[[bands]]
label = "unsafe"
[origin]
table = "scores"
"""


def policy(folder: Path, text: str = TEXT) -> Policy:
    (folder / "policy.toml").write_text(text)
    return Policy.read(folder / "policy.toml")


def test_bands_and_threshold_take_the_place_of_the_specs(tmp_path: Path) -> None:
    spec = card("open_nsfw").spec
    changed = policy(tmp_path).apply(spec)
    assert isinstance(changed.output, Classify)
    assert [(band.label, band.below) for band in changed.output.bands] == [("safe", 0.1), ("unsafe", None)]
    assert changed.output.threshold == 0.7
    assert changed.input == spec.input
    (tmp_path / "policy.toml").write_text(policy(tmp_path).dumps())
    assert Policy.read(tmp_path / "policy.toml").apply(spec) == changed


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (TEXT.replace('"nsfw"', '"porn"'), SpecError, "'nsfw'.*'porn'"),
        (TEXT.replace("below = 0.1", ""), SpecError, "rise"),
        (TEXT.replace("below = 0.1", "above = 0.1"), InputError, "unknown key"),
        ("threshold = 0.5\n", InputError, "bands: missing"),
        ("[[bands]\n", InputError, "TOML"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, text: str, error: type[InputError], words: str) -> None:
    with pytest.raises(error, match=words):
        policy(tmp_path, text).apply(card("open_nsfw").spec)


def test_a_model_without_a_positive_label_takes_no_policy(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="positive"):
        policy(tmp_path).apply(card("efficientnet_lite0").spec)

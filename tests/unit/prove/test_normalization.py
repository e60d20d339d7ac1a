"""Planted mistakes in the preprocessing are refused, with the step that differs; a difference in form alone is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from helpers.brightness_network import BUDGET
from plimsoll.core.budget import Budget
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.preprocessing.folded import fold
from plimsoll.prove import prove
from plimsoll.prove.classifications import ClassificationComparison
from plimsoll.report.trial import Candidate
from plimsoll.ship.job_runner import convert
from plimsoll.spec import Input

Change = Callable[[dict[str, Any]], dict[str, Any] | None]


def changed(model: Model, change: Change, *more: dict[str, Any]) -> Model:
    """Return the model with another Spec: `change` maps each input step to another, or to None to leave it out."""
    contract = model.require_spec()
    steps = [
        altered
        for step in contract.input.steps
        if (altered := change(step.model_dump(exclude_unset=True) | {"step": step.step})) is not None
    ]
    other = Input.model_validate({"tensor": contract.input.tensor, "steps": [*steps, *more]})
    return Model(model.path, model.format, contract.model_copy(update={"input": other}))


def same(step: dict[str, Any]) -> dict[str, Any]:
    return step


def without(name: str) -> Change:
    return lambda step: None if step["step"] == name else step


def with_values(name: str, **values: Any) -> Change:
    return lambda step: {**step, **values} if step["step"] == name else step


MISTAKES: dict[str, tuple[Change, tuple[dict[str, Any], ...], str]] = {
    "RGB for BGR": (without("channels"), (), "'channels': it gives the network RGB where the reference gives BGR"),
    "another mean": (
        with_values("mean", values=[127.5]),
        (),
        "'mean': it subtracts 127.5, the reference 104, 117, 123",
    ),
    "a mean of fractions": (
        with_values("mean", values=[103.939, 116.779, 123.68]),
        (),
        "'mean': it subtracts 103.94, 116.78, 123.68",
    ),
    "no mean": (
        without("mean"),
        ({"step": "dtype", "to": "float32"},),
        "'mean': it subtracts 0, the reference 104, 117, 123",
    ),
    "another scale": (
        same,
        ({"step": "scale", "divisor": 127.5},),
        "'scale': it multiplies by 0.007843, the reference by 1",
    ),
}


@pytest.mark.parametrize("folded", [False, True], ids=["in the Spec", "baked into the graph"])
@pytest.mark.parametrize(("change", "more", "cause"), MISTAKES.values(), ids=MISTAKES)
def test_a_wrong_normalization_is_refused_and_named(
    nsfw: ResolvedModel,
    photos: list[Path],
    tmp_path: Path,
    change: Change,
    more: tuple[dict[str, Any], ...],
    cause: str,
    folded: bool,
) -> None:
    wrong = changed(nsfw.model, change, *more)
    proof = prove(
        nsfw,
        ResolvedModel(fold(wrong, tmp_path) if folded else wrong),
        photos[:6],
        budget=Budget.parse("flips=99%,mean_deviation=0.9"),
    )
    assert not proof.passed
    assert cause in proof.cause
    assert ("inside its graph" if folded else "in its preprocessing") in proof.cause
    assert cause in " ".join(proof.refusal())
    # The part that is at fault carries the deviation, the other none.
    assert proof.preprocessing_only is not None
    assert proof.network_only is not None
    guilty, innocent = (
        (proof.network_only, proof.preprocessing_only) if folded else (proof.preprocessing_only, proof.network_only)
    )
    assert guilty.mean > 1e-5 > innocent.mean


def test_a_quantized_input_is_no_other_normalization(nsfw: ResolvedModel, photos: list[Path], tmp_path: Path) -> None:
    """It is rounded to whole steps, of about a level each."""
    target = Target.parse("openvino:cpu:int8")
    candidate = Candidate("reference", False, target, "minmax")
    quantized = convert(nsfw.model, candidate, [str(photo) for photo in photos[:8]], tmp_path, None)
    other = ResolvedModel(quantized, target=target)
    proof = prove(nsfw, other, photos[:3], budget=Budget.parse("flips=99%,mean_deviation=0.9"))
    assert proof.mismatches == ()
    assert proof.passed
    assert isinstance(proof.comparison, ClassificationComparison)
    assert proof.comparison.deviation is not None
    assert proof.comparison.deviation.maximum > 1e-4, "enough to refuse a wrong normalization"


STAGES: dict[str, tuple[Change, str]] = {
    "another resize": (
        with_values("resize", filter="nearest"),
        "'resize': filter = nearest, the reference has bilinear",
    ),
    "no JPEG round trip": (without("jpeg"), "'jpeg': it has no 'jpeg' step here"),
    "crop elsewhere": (with_values("crop", x=0, y=0), "'crop': x = 0, the reference has none"),
    "EXIF": (with_values("decode", exif_orientation=True), "'decode': exif_orientation = true"),
}


@pytest.mark.parametrize(("change", "cause"), STAGES.values(), ids=STAGES)
def test_a_step_on_pixels_that_differs_is_named(
    nsfw: ResolvedModel, photos: list[Path], tmp_path: Path, change: Change, cause: str
) -> None:
    turned = tmp_path / "turned.jpg"
    image = Image.open(photos[0])
    exif = image.getexif()
    exif[0x0112] = 3
    image.save(turned, exif=exif)
    proof = prove(
        nsfw,
        ResolvedModel(changed(nsfw.model, change)),
        [turned, *photos[:2]],
        budget=Budget.parse("mean_deviation=0.000001"),
    )
    assert not proof.passed
    assert cause in proof.refusal()[1]
    assert proof.mismatches == ()
    differing = [stage.stage for stage in proof.stages if stage.mean_levels > 0]
    assert differing == [cause.split("'")[1]], "a difference is counted where it arises and nowhere else"


def test_a_step_that_only_the_other_has_is_named(nsfw: ResolvedModel, photos: list[Path]) -> None:
    proof = prove(
        ResolvedModel(changed(nsfw.model, without("jpeg"))),
        nsfw,
        photos[:2],
        budget=Budget.parse("mean_deviation=0.000001"),
    )
    assert "'jpeg': it has a 'jpeg' step here, the reference has none" in proof.refusal()[1]
    assert [stage.stage for stage in proof.stages if stage.mean_levels > 0] == ["jpeg"]


@pytest.mark.parametrize("preprocessing", ["reference", "fast"])
def test_channels_turned_before_the_last_step_on_pixels_are_no_difference(
    nsfw: ResolvedModel, photos: list[Path], preprocessing: Any
) -> None:
    early = changed(nsfw.model, without("channels"))
    steps_ = [step.model_dump(exclude_unset=True) | {"step": step.step} for step in early.require_spec().input.steps]
    at = next(index for index, step in enumerate(steps_) if step["step"] == "jpeg")
    order = Input.model_validate(
        {"tensor": "input:0", "steps": [*steps_[:at], {"step": "channels", "order": "BGR"}, *steps_[at:]]}
    )
    other = Model(nsfw.model.path, "onnx", nsfw.model.require_spec().model_copy(update={"input": order}))
    proof = prove(
        ResolvedModel(nsfw.model, preprocessing=preprocessing),
        ResolvedModel(other, preprocessing=preprocessing),
        photos[:2],
        budget=BUDGET,
    )
    assert proof.mismatches == ()
    assert proof.preprocessing_only is not None
    assert proof.preprocessing_only.mean == 0
    assert all(stage.mean_levels == 0 for stage in proof.stages)


def test_what_a_decoder_leaves_out_shows_in_the_resize(nsfw: ResolvedModel, photos: list[Path], tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    with Image.open(photos[0]) as image:
        image.convert("RGB").resize((2100, 1600)).save(large, quality=92)
    for first, second in (("reference", "scaled"), ("scaled", "fast")):
        proof = prove(
            ResolvedModel(nsfw.model, preprocessing=cast(Any, first)),
            ResolvedModel(nsfw.model, preprocessing=cast(Any, second)),
            [large, *photos[:2]],
            budget=BUDGET,
        )
        stages = {stage.stage: stage.mean_levels for stage in proof.stages}
        assert stages["decode"] == 0
        assert 0 < stages["resize"] < 1

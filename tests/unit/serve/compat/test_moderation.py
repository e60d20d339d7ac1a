"""What a model's labels mean to the interfaces of other products."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from plimsoll import zoo
from plimsoll.serve.compat.moderation import meanings, read_scores
from plimsoll.serve.compat.settings import CompatSettings, PictrsSettings
from plimsoll.serve.messages import ModelMetadata, RequestError


def metadata(*labels: str, positive: str | None = None, task: str = "classify") -> ModelMetadata:
    return ModelMetadata({}, task, labels, positive, None, (), (), (), "onnxruntime:cpu:float32", "reference", "x")


def test_open_nsfw_needs_no_settings() -> None:
    meaning = meanings(metadata("sfw", "nsfw", positive="nsfw"), {})
    assert meaning == {"sfw": "Neutral", "nsfw": "Porn"}
    outcome = read_scores({"nsfw": 0.7, "sfw": 0.3}, meaning, "nsfw")
    assert outcome.classes == {"Drawing": 0.0, "Hentai": 0.0, "Neutral": 0.3, "Porn": 0.7, "Sexy": 0.0}
    assert outcome.score == 0.7
    assert outcome.is_safe(0.71)
    assert not outcome.is_safe(0.7), "what reaches the threshold is not safe"


def test_nsfwjss_five_classes_are_themselves_and_the_largest_unsafe_one_counts() -> None:
    labels = ("drawing", "hentai", "neutral", "porn", "sexy")
    meaning = meanings(metadata(*labels), {})
    assert {label: name.lower() for label, name in meaning.items()} == {label: label for label in labels}
    outcome = read_scores({"drawing": 0.1, "hentai": 0.25, "neutral": 0.1, "porn": 0.15, "sexy": 0.4}, meaning, None)
    assert outcome.score == 0.4


def test_every_moderation_network_of_the_zoo_has_a_meaning() -> None:
    for name in zoo.names():
        output: Any = zoo.card(name).spec.output
        if output.task == "classify" and (output.positive == "nsfw" or "hentai" in output.labels):
            assert set(meanings(metadata(*output.labels, positive=output.positive), {})) == set(output.labels)


def test_settings_say_what_other_labels_mean_and_the_like_are_added_up() -> None:
    unknown = metadata("gore", "swimwear", "Safe For Work", "beach")
    with pytest.raises(RequestError, match="gore, swimwear, beach"):
        meanings(unknown, {})
    meaning = meanings(unknown, {"gore": "Porn", "swimwear": "Sexy", "beach": "Neutral"})
    outcome = read_scores({"gore": 0.1, "swimwear": 0.2, "Safe For Work": 0.3, "beach": 0.4}, meaning, None)
    assert outcome.classes["Neutral"] == pytest.approx(0.7)
    assert outcome.score == 0.2


def test_a_model_that_calls_everything_safe_is_not_used() -> None:
    with pytest.raises(RequestError, match="no label of the model means"):
        meanings(metadata("safe", "drawing"), {})
    with pytest.raises(RequestError, match="segment"):
        meanings(metadata("nsfw", "sfw", task="segment"), {})


def test_406_is_a_verdict_and_2xx_lets_everything_in() -> None:
    for status in (200, 204, 302, 406, 399, 600):
        with pytest.raises(ValidationError):
            PictrsSettings(error_status=status)
    assert PictrsSettings(error_status=422).error_status == 422


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": {"a": "Nice"}},
        {"threshold": 1.5},
        {"pictrs": {"path": "validate"}},
        {"photoprism": {"prefixes": ["/a b"]}},
        {"x": 1},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CompatSettings.model_validate(wrong)

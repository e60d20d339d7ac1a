"""Durations in options and settings."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field, ValidationError

from plimsoll.core.duration import Duration, describe, parse
from plimsoll.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("0ms", 0),
        ("30s", 30),
        ("0.5s", 0.5),
        ("2m", 120),
        ("1.5h", 5400),
        ("90d", 7_776_000),
        (" 1s ", 1),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "+1s", "1 s", "1e3s", "nan", "infs", "1min", "1M", "1h30m", "٣s", ".5s"]
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(InputError, match="duration") as caught:
        parse(text, plain_number=True)
    assert "500ms" in caught.value.hint


def test_a_number_without_a_unit_is_seconds_only_where_that_is_allowed() -> None:
    assert parse("30", plain_number=True) == 30
    with pytest.raises(InputError, match="'30' has no unit"):
        parse("30")
    assert parse("0") == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250ms"), (1, "1s"), (1.5, "1.5s"), (90, "90s"), (120, "2m"), (3600, "1h"), (172_800, "2d"), (0, "0s")],
)
def test_a_duration_is_shown_as_it_is_read(seconds: float, text: str) -> None:
    assert describe(seconds) == text
    assert parse(text) == seconds


class _Settings(BaseModel):
    timeout: Duration = Field(1.0, gt=0)


def test_settings_take_text_or_seconds_and_keep_their_limits() -> None:
    assert _Settings.model_validate({"timeout": "500ms"}).timeout == 0.5
    assert _Settings.model_validate({"timeout": "20"}).timeout == 20.0
    assert _Settings.model_validate({"timeout": 2}).timeout == 2.0
    for refused in ("soon", "0s", -1, "1 hour", [1]):
        with pytest.raises(ValidationError, match="timeout"):
            _Settings.model_validate({"timeout": refused})

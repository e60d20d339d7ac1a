"""What strangers chose is printed safely, and pydantic's errors are sentences."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from plimsoll.core.wording import explain, location, printable

HOSTILE = {
    "escape sequence": "\x1b[2J",
    "line break": "a\nb",
    "line separator": "a\u2028b",
    "right to left": "a\u202egnp.exe",
    "isolate": "a\u2066b",
    "zero width": "a\u200bb",
    "lone surrogate": "a\udc80b",
    "delete": "\x7f",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_terminal_would_obey_is_replaced(kind: str) -> None:
    assert printable(HOSTILE[kind]).isprintable()
    assert "?" in printable(HOSTILE[kind])


@pytest.mark.parametrize("text", ["plain", "Ærø 10\u00a0km", "👩\u200d🚀", "می\u200cخواهم", ""])
def test_text_of_all_scripts_stays(text: str) -> None:
    assert printable(text) == text


def test_what_is_kept_cut_and_put_in_its_place() -> None:
    assert printable("a\n\tb\r", keep="\n\t", replacement="\ufffd") == "a\n\tb\ufffd"
    assert printable("abcdef", 3) == "abc …"
    assert printable("abc", 3) == "abc"


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = Field(1, gt=0)
    mode: Literal["a", "b"] = "a"

    @field_validator("width")
    @classmethod
    def _even(cls, width: int) -> int:
        if width % 2 and width != 1:
            raise ValueError("a width is even")
        return width


class _Settings(BaseModel):
    steps: tuple[_Step, ...]


def _refusal(data: Any, *, values: bool = False) -> str:
    with pytest.raises(ValidationError) as refusal:
        _Settings.model_validate(data)
    return explain(refusal.value, "the settings", values=values)


def test_every_kind_of_mistake_is_a_sentence_with_its_key() -> None:
    assert _refusal({}) == "steps: missing"
    assert _refusal([]).startswith("the settings: expected a valid dictionary")
    assert _refusal({"steps": [{"size": 1}]}) == "steps[0].size: unknown key"
    assert _refusal({"steps": [{}, {"width": 3}]}) == "steps[1].width: a width is even"
    assert _refusal({"steps": [{"width": 0}]}, values=True) == "steps[0].width: found 0, expected greater than 0"
    assert _refusal({"steps": [{"mode": "c"}]}) == "steps[0].mode: allowed: 'a' or 'b'"


def test_values_are_shown_only_where_they_may_be() -> None:
    data = {"steps": [{"width": "secret"}]}
    assert "secret" not in _refusal(data)
    assert "secret" in _refusal(data, values=True)


def test_five_mistakes_are_reported_and_none_of_them_is_long_or_unprintable() -> None:
    text = _refusal({"steps": [{"\x1b[2J" + "x" * 9000: 1}] * 8})
    assert text.endswith("; and 3 more")
    assert len(text) < 2000
    assert text.isprintable()


def test_a_location_reads_like_code() -> None:
    assert location(("input", "steps", 2, "width")) == "input.steps[2].width"
    assert location((0, "a")) == "[0].a"
    assert location(()) == ""

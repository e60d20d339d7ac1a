"""Shared options are parsed and refused in one place, with one wording."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import typer

from plimsoll.cli import options
from plimsoll.core.target import Target
from plimsoll.errors import InputError, PlimsollError, TargetError


def _parsed(option: Any, *arguments: str) -> Any:
    """Return what a command with this one option receives."""
    received: list[Any] = []
    app = typer.Typer(pretty_exceptions_enable=False)

    def command(value: Any = None) -> None:
        received.append(value)

    command.__annotations__["value"] = Annotated[Any, option]
    app.command()(command)
    app(list(arguments), standalone_mode=False)
    return received[0]


TIME = options.duration("--time", "How long.", default="3m", at_least="50ms", at_most="1h")
GAIN = options.share("--min-gain", "The least gain.", default="3%")
COLOUR = options.choice("--colour", ("red", "green"), "Which.", short="-c")
LAZY = options.choice("--method", lambda: ["minmax"], "Which.", noun="calibration method")

REFUSED = {
    "no duration": (TIME, ("--time", "soon"), "--time: invalid duration 'soon'"),
    "no unit": (TIME, ("--time", "90"), "--time: duration '90' has no unit"),
    "too short": (TIME, ("--time", "49ms"), "--time: 49ms is too short: at least 50ms"),
    "too long": (TIME, ("--time", "2h"), "--time: 2h is too long: at most 1h"),
    "no share": (GAIN, ("--min-gain", "much"), "--min-gain: 'much' is not a share"),
    "a loss": (GAIN, ("--min-gain", "-1%"), "--min-gain: '-1%' is not a share"),
    "no number": (GAIN, ("--min-gain", "nan"), "--min-gain: 'nan' is not a share"),
    "unknown word": (COLOUR, ("-c", "blue"), "--colour: unknown colour 'blue'; choose from red, green"),
    "found late": (LAZY, ("--method", "magic"), "--method: unknown calibration method 'magic'; choose from minmax"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_names_the_option_and_what_is_allowed(case: str) -> None:
    option, arguments, message = REFUSED[case]
    with pytest.raises(InputError) as refusal:
        _parsed(option, *arguments)
    assert message in refusal.value.message


def test_what_is_allowed_arrives_as_a_value() -> None:
    assert _parsed(TIME, "--time", "1.5m") == 90.0
    assert _parsed(GAIN, "--min-gain", "3%") == _parsed(GAIN, "--min-gain", "0.03") == 0.03
    assert _parsed(COLOUR, "-c", "red") == "red"
    assert _parsed(options.target("--target", "Where."), "--target", "openvino") == Target("openvino")
    assert _parsed(options.preprocessing("--preprocessing", "How."), "--preprocessing", "fast") == "fast"


def test_an_error_keeps_its_class_and_hint() -> None:
    with pytest.raises(TargetError, match="--target: 'a:b:c:d' is not a target") as refusal:
        _parsed(options.target("--target", "Where."), "--target", "a:b:c:d")
    assert "onnxruntime:cpu:float32" in refusal.value.hint


def test_settings_are_pairs() -> None:
    assert options.settings(["threads=4", "path=a=b"]) == {"threads": "4", "path": "a=b"}
    for pair in ("threads", "=4", ""):
        with pytest.raises(PlimsollError, match=r"--set: .* is not NAME=VALUE"):
            options.settings([pair])

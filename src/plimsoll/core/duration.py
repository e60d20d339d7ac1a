"""Durations as people write them, in options and settings: `500ms`, `30s`, `2m`, `1h`, `90d`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from plimsoll.errors import InputError

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PATTERN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?")
_EXPECTED = "a number and one of ms, s, m, h, d, for example 500ms, 30s or 2m"


def parse(text: str, *, plain_number: bool = False) -> float:
    """Return the seconds of a duration; with `plain_number`, a number without a unit is in seconds. 0
    needs no unit.

    Raises InputError.

    >>> parse("500ms"), parse("1.5h"), parse("30", plain_number=True)
    (0.5, 5400.0, 30.0)
    """
    match = _PATTERN.fullmatch(text.strip())
    missing_unit = match is not None and match[2] is None and float(match[1]) > 0 and not plain_number
    if match is None or missing_unit:
        raise InputError(
            f"duration {text[:40]!r} has no unit" if missing_unit else f"invalid duration {text[:40]!r}",
            f"Expected {_EXPECTED}.",
        )
    return float(match[1]) * _UNITS[match[2] or "s"]


def describe(seconds: float) -> str:
    """Return a duration as `parse` reads it, in the largest unit that shows it as a whole number, else in seconds.

    >>> describe(0.25), describe(90), describe(120), describe(1.5)
    ('250ms', '90s', '2m', '1.5s')
    """
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _UNITS[unit]
        if count >= 1 and abs(count - round(count)) < 1e-9 and not (unit == "ms" and seconds >= 1):
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


class _FromText:
    """Makes pydantic read text with `parse` before it checks a field's limits, without importing pydantic here."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(_seconds, handler(source))


Duration = Annotated[float, _FromText()]
"""A setting in seconds, which may be written as text: `500ms`, `30s`, `2m`, `1h`."""


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse(value, plain_number=True)
    except InputError as error:  # pydantic collects ValueErrors
        raise ValueError(f"{error.message}; expected {_EXPECTED}") from error

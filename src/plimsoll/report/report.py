"""`Report`: what was measured, as data.

JSON has no NaN and no infinity, so a report writes them as the strings "NaN", "Infinity" and "-Infinity", and reads
these back as numbers in every measurement. A measurement in words therefore can't be one of these three.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
)

from plimsoll.core.budget import Check, parse_nonfinite
from plimsoll.core.version import __version__
from plimsoll.core.wording import explain
from plimsoll.errors import InputError
from plimsoll.system import files, host

DISTRIBUTION = "plimsoll-line"
HEADLINE = "headline"
"""The measurement that says in a line what was found."""
MAX_BYTES = 64_000_000
"""A larger file is not read as a report."""

Measurement = Annotated[float | int | str, BeforeValidator(parse_nonfinite)]


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def environment() -> dict[str, JsonValue]:
    """Return what a figure depends on besides the model: the machine, and the version of every package that Plimsoll or
    its plugins use."""
    facts: dict[str, Any] = host.describe()
    return {**facts, "versions": dict(_versions())}


def _versions() -> Iterator[tuple[str, str]]:
    yield "plimsoll", __version__
    try:
        packages = {
            match[0].lower() for line in metadata.requires(DISTRIBUTION) or () if (match := re.match(r"[\w.-]+", line))
        } - {DISTRIBUTION}
    except metadata.PackageNotFoundError:
        packages = set()
    points = [*metadata.entry_points(group="plimsoll.backends"), *metadata.entry_points(group="plimsoll.importers")]
    packages |= {point.dist.name for point in points if point.dist is not None}
    for name in sorted(packages):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # An extra that is not installed has no influence on the figures.


class Report(BaseModel):
    """What was measured, on what, where and when. Frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    schema_version: Literal[1, 2, 3] = 3
    """1 named some measurements and details in other words. The checks of 1 and 2 had one figure: the bound, where one
    was judged."""
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    """The verb that measured: `verify`, `prove`, `benchmark` …"""
    subject: str
    """What was measured, in words."""
    created: AwareDatetime = Field(default_factory=_now)
    """When, in UTC."""
    plimsoll: str = __version__
    """The version of Plimsoll that measured."""
    environment: dict[str, JsonValue] = Field(default_factory=environment)
    checks: tuple[Check, ...] = ()
    measurements: dict[str, Measurement] = {}
    details: dict[str, JsonValue] = {}
    """What the verb measured besides checks and figures, in its own schema: rows, scores, pictures."""

    @property
    def passed(self) -> bool:
        """Whether every check passed; False where nothing was checked."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def to_json(self) -> str:
        """Return the report as JSON text that every strict parser reads."""
        return self.model_dump_json(indent=2)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a report from its JSON file; raises InputError."""
        try:
            return cls.model_validate_json(files.read_bytes(path, MAX_BYTES))
        except OSError as error:
            raise InputError(f"{path}: can't read the report: {error.strerror}") from error
        except ValidationError as error:
            raise InputError(f"{path}: not a report that this version reads: {explain(error)}") from error


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a report, as it is written."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Report.model_json_schema(mode="serialization")}

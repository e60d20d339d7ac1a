"""Single, pinned files from packages of the npm registry: what browsers need and Python's package index doesn't have.

The package is downloaded with the machine's own `npm` (so its registry and proxy settings apply), checked against the
pinned integrity, and never installed: only the named files are stored in the cache folder, each checked by its SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from plimsoll.errors import BackendMissingError
from plimsoll.system import files
from plimsoll.system.cache import cache_folder

_log = logging.getLogger(__name__)
_TIMEOUT_S = 600


@dataclass(frozen=True)
class NpmFiles:
    """Files of one version of a package."""

    package: str
    version: str
    integrity: str
    """As npm writes it: sha512- and the digest in base64."""
    files: Mapping[str, str]
    """Path inside the package → SHA-256, in hexadecimal digits."""

    @property
    def requirement(self) -> str:
        """The requirement for npm."""
        return f"{self.package}@{self.version}"

    @property
    def folder(self) -> Path:
        """The cache folder of the files, laid out as in the package."""
        return cache_folder() / "npm" / f"{self.package.replace('/', '+')}-{self.version}"

    def paths(self) -> dict[str, Path]:
        """Return each file's path in the cache, by its path inside the package."""
        return {name: self.folder / name for name in self.files}


def is_cached(source: NpmFiles) -> bool:
    """Whether files of these names are all in the cache."""
    return all(path.is_file() for path in source.paths().values())


def missing(source: NpmFiles) -> str:
    """Return what is missing to fetch the files, or an empty string; uses no network."""
    if is_cached(source) or shutil.which("npm"):
        return ""
    return (
        f"{source.requirement} is fetched with npm, which is not installed. Install Node.js, which brings it (Debian:"
        " apt-get install nodejs npm)"
    )


def fetch(source: NpmFiles, tarball: Path | None = None) -> dict[str, Path]:
    """Return each file's path in the cache, by its path inside the package; fetches and checks them if necessary.

    `tarball` is a copy of the package file (`npm pack`), for machines without a network. Raises BackendMissingError,
    and leaves nothing behind then.
    """
    paths = source.paths()
    if all(_has_digest(path, source.files[name]) for name, path in paths.items()):
        return paths
    if tarball is not None:
        _extract(source, tarball)
        return paths
    if hint := missing(source):
        raise BackendMissingError(f"{source.requirement} is not on this machine", hint)
    _log.info("fetching %s from the npm registry …", source.requirement)
    with tempfile.TemporaryDirectory(prefix="plimsoll-npm-") as folder:
        _extract(source, _download(source, Path(folder)))
    return paths


def _has_digest(path: Path, sha256: str) -> bool:
    try:
        return files.sha256(path) == sha256
    except OSError:
        return False


def _download(source: NpmFiles, folder: Path) -> Path:
    """Download the package's tarball; `npm pack` of a package in the registry runs nothing of it."""
    command = [
        shutil.which("npm") or "npm",
        "pack",
        source.requirement,
        "--ignore-scripts",
        "--silent",
        "--pack-destination",
        str(folder),
    ]
    try:
        process = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=folder,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendMissingError(
            f"{source.requirement} can't be fetched: npm {error}", "Is there a network?"
        ) from error
    tarball = next(folder.glob("*.tgz"), None)
    if process.returncode or tarball is None:
        lines = (process.stderr or process.stdout).strip().splitlines()
        reason = next(
            (line for line in lines if "code" in line or "ERR" in line),
            lines[-1] if lines else f"npm ended with {process.returncode}",
        )
        raise BackendMissingError(
            f"{source.requirement} can't be fetched: {reason}", f"Is there a network? By hand: {' '.join(command[:3])}"
        )
    return tarball


def _extract(source: NpmFiles, tarball: Path) -> None:
    """Extract the named files from a package's tarball, all or none."""
    try:
        data = tarball.read_bytes()
    except OSError as error:
        raise BackendMissingError(
            f"{tarball}: can't be read: {error.strerror or error}",
            f"It should be what `npm pack {source.requirement}` writes.",
        ) from error
    digest = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if digest != source.integrity:
        raise BackendMissingError(
            f"{tarball.name}: not {source.requirement}: its integrity is {digest}, expected {source.integrity}",
            "Nothing was stored.",
        )
    source.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=source.folder, prefix=".fetching-") as folder:
        fresh = {name: Path(folder) / str(number) for number, name in enumerate(source.files)}
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for name, path in fresh.items():
                stream = archive.extractfile(f"package/{name}")
                assert stream is not None  # noqa: S101 - the integrity says that it is the package that was pinned
                path.write_bytes(stream.read())
                if not _has_digest(path, source.files[name]):
                    raise BackendMissingError(
                        f"{source.requirement}: {name} is not the file that was pinned",
                        "This is a bug in Plimsoll: please report it.",
                    )
        for name, path in source.paths().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh[name].replace(path)

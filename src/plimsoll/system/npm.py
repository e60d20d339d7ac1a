"""Single files out of packages of the npm registry, pinned: what a browser needs and Python's package index doesn't
carry.

The package is downloaded with the machine's own `npm` (so its registry and proxy settings hold), checked against the
pinned integrity, and never installed: only the files that are named are kept, in the cache folder, each checked by its
SHA-256.
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
        """What npm is asked for."""
        return f"{self.package}@{self.version}"

    @property
    def folder(self) -> Path:
        """Where the files are kept, as they lie in the package."""
        return cache_folder() / "npm" / f"{self.package.replace('/', '+')}-{self.version}"

    def paths(self) -> dict[str, Path]:
        """Return each file's place, by its path inside the package."""
        return {name: self.folder / name for name in self.files}


def is_kept(wanted: NpmFiles) -> bool:
    """Whether all files are in the cache, as far as their names tell."""
    return all(path.is_file() for path in wanted.paths().values())


def missing(wanted: NpmFiles) -> str:
    """Say what stands in the way of having the files, or nothing; asks no network."""
    if is_kept(wanted) or shutil.which("npm"):
        return ""
    return (
        f"{wanted.requirement} is fetched with npm, which is not installed. Install Node.js, which brings it (Debian:"
        " apt-get install nodejs npm)"
    )


def fetch(wanted: NpmFiles, tarball: Path | None = None) -> dict[str, Path]:
    """Return each file's place by its path inside the package, fetching and checking where need be.

    `tarball` is a package file (`npm pack`) at hand, for machines without a network. Raises BackendMissingError, and
    leaves nothing half-made.
    """
    paths = wanted.paths()
    if all(_is(path, wanted.files[name]) for name, path in paths.items()):
        return paths
    if tarball is not None:
        _take(wanted, tarball)
        return paths
    if hint := missing(wanted):
        raise BackendMissingError(f"{wanted.requirement} is not on this machine", hint)
    _log.info("fetching %s from the npm registry …", wanted.requirement)
    with tempfile.TemporaryDirectory(prefix="plimsoll-npm-") as folder:
        _take(wanted, _download(wanted, Path(folder)))
    return paths


def _is(path: Path, sha256: str) -> bool:
    try:
        return files.sha256(path) == sha256
    except OSError:
        return False


def _download(wanted: NpmFiles, folder: Path) -> Path:
    """Download the package's tarball; `npm pack` of a package in the registry runs nothing of it."""
    command = [
        shutil.which("npm") or "npm",
        "pack",
        wanted.requirement,
        "--ignore-scripts",
        "--silent",
        "--pack-destination",
        str(folder),
    ]
    try:
        done = subprocess.run(
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
            f"{wanted.requirement} can't be fetched: npm {error}", "Is there a network?"
        ) from error
    found = next(folder.glob("*.tgz"), None)
    if done.returncode or found is None:
        words = (done.stderr or done.stdout).strip().splitlines()
        reason = next(
            (line for line in words if "code" in line or "ERR" in line),
            words[-1] if words else f"npm ended with {done.returncode}",
        )
        raise BackendMissingError(
            f"{wanted.requirement} can't be fetched: {reason}", f"Is there a network? By hand: {' '.join(command[:3])}"
        )
    return found


def _take(wanted: NpmFiles, tarball: Path) -> None:
    """Keep the named files out of a package's tarball, all or nothing."""
    try:
        data = tarball.read_bytes()
    except OSError as error:
        raise BackendMissingError(
            f"{tarball}: can't be read: {error.strerror or error}",
            f"It should be what `npm pack {wanted.requirement}` writes.",
        ) from error
    digest = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if digest != wanted.integrity:
        raise BackendMissingError(
            f"{tarball.name}: not {wanted.requirement}: its integrity is {digest}, expected {wanted.integrity}",
            "Nothing of it was kept.",
        )
    wanted.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wanted.folder, prefix=".fetching-") as place:
        fresh = {name: Path(place) / str(number) for number, name in enumerate(wanted.files)}
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for name, path in fresh.items():
                stream = archive.extractfile(f"package/{name}")
                assert stream is not None  # noqa: S101 - the integrity says that it is the package that was pinned
                path.write_bytes(stream.read())
                if not _is(path, wanted.files[name]):
                    raise BackendMissingError(
                        f"{wanted.requirement}: {name} is not the file that was pinned",
                        "This is a bug in Plimsoll: please report it.",
                    )
        for name, path in wanted.paths().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh[name].replace(path)

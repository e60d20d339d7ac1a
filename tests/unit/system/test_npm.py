"""Files out of npm packages: pinned, checked, all or nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from plimsoll.errors import BackendMissingError
from plimsoll.system import npm
from plimsoll.system.npm import NpmFiles


@pytest.fixture
def tarball(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as `npm pack` writes it; the cache is an empty folder."""
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "some-package-1.2.3.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {
            "package/dist/a.js": b"export default 1;",
            "package/dist/b.wasm": b"\0asm",
            "package/extra.js": b"x",
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def pinned(tarball: Path) -> NpmFiles:
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    files = {
        "dist/a.js": hashlib.sha256(b"export default 1;").hexdigest(),
        "dist/b.wasm": hashlib.sha256(b"\0asm").hexdigest(),
    }
    return NpmFiles("@scope/some-package", "1.2.3", integrity, files)


def test_only_the_named_files_are_kept(tarball: Path) -> None:
    expected = pinned(tarball)
    assert not npm.is_cached(expected)
    paths = npm.fetch(expected, tarball)
    assert paths["dist/a.js"].read_bytes() == b"export default 1;"
    assert sorted(path.relative_to(expected.folder).as_posix() for path in expected.folder.rglob("*.*")) == [
        "dist/a.js",
        "dist/b.wasm",
    ]
    assert npm.is_cached(expected)
    assert npm.fetch(expected) == paths


def test_a_file_that_was_damaged_meanwhile_is_taken_anew(tarball: Path) -> None:
    expected = pinned(tarball)
    npm.fetch(expected, tarball)["dist/a.js"].write_bytes(b"export default 2;")
    assert npm.fetch(expected, tarball)["dist/a.js"].read_bytes() == b"export default 1;"


def test_another_package_is_refused(tarball: Path) -> None:
    expected = pinned(tarball)
    tarball.write_bytes(tarball.read_bytes() + b"\0")
    with pytest.raises(BackendMissingError, match="integrity"):
        npm.fetch(expected, tarball)
    assert not npm.is_cached(expected)


def test_a_pin_that_is_wrong_keeps_nothing(tarball: Path) -> None:
    good = pinned(tarball)
    expected = NpmFiles(good.package, good.version, good.integrity, {**good.files, "dist/b.wasm": "0" * 64})
    with pytest.raises(BackendMissingError, match=r"dist/b\.wasm"):
        npm.fetch(expected, tarball)
    assert not list(expected.folder.iterdir())


def test_without_npm_it_says_how_to_get_it(tarball: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "npm" in npm.missing(pinned(tarball))
    with pytest.raises(BackendMissingError) as caught:
        npm.fetch(pinned(tarball))
    assert "Node.js" in caught.value.hint


def test_what_npm_says_when_it_fails_is_reported(
    tarball: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "npm").write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    with pytest.raises(BackendMissingError, match="ENOTFOUND"):
        npm.fetch(pinned(tarball))

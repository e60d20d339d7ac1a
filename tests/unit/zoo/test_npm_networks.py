"""Networks of the zoo that npm packages carry: fetched, converted, kept, and noticed where they are damaged."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from plimsoll import zoo
from plimsoll.errors import BackendMissingError, ModelError
from plimsoll.zoo import catalog

NAME = "nsfwjs_mobilenet"


@pytest.fixture(scope="module")
def nsfwjs() -> Path:
    """The converted network in the user's cache, fetched once."""
    try:
        return catalog.fetch(NAME)
    except (BackendMissingError, ModelError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"nsfwjs can't be fetched: {error.message}")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_damaged_network_is_noticed_and_made_again(nsfwjs: Path, cache: Path) -> None:
    saved = zoo.cached_file(zoo.card(NAME).source)
    assert saved.is_relative_to(cache)
    shutil.copytree(nsfwjs.parent, saved.parent)
    originals = Path(str(nsfwjs).partition(f"{os.sep}models{os.sep}")[0]) / "npm"
    shutil.copytree(originals / "nsfwjs-4.3.0", cache / "npm" / "nsfwjs-4.3.0")
    assert catalog.path(NAME) == saved
    damaged = bytearray(saved.read_bytes())
    damaged[5000] ^= 1
    saved.write_bytes(damaged)
    with pytest.raises(ModelError, match="damaged: its SHA-256"):
        catalog.path(NAME)
    assert (
        catalog.fetch(NAME).read_bytes() == nsfwjs.read_bytes()
    )  # out of the files that npm gave, which are still there
    assert catalog.path(NAME) == saved


def test_another_package_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    package = tmp_path / "nsfwjs-4.3.0.tgz"
    with tarfile.open(package, "w:gz") as archive:
        entry = tarfile.TarInfo("package/dist/models/mobilenet_v2/model.min.js")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(BackendMissingError, match=r"not nsfwjs@4\.3\.0: its integrity is"):
        catalog.fetch(NAME, package)
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("cache")
def test_without_npm_that_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    with pytest.raises(BackendMissingError) as caught:
        catalog.fetch(NAME)
    assert "npm" in caught.value.hint
    with pytest.raises(ModelError, match="have not been fetched"):
        catalog.path(NAME)

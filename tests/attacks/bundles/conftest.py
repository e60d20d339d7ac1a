"""A bundle to damage, and what is asserted of each damaged one: it is refused in words, and nothing is left behind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.minimal_bundle import small
from plimsoll.bundle import Bundle
from plimsoll.bundle.archive import Limits
from plimsoll.errors import BundleError

RequestError = Callable[..., None]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_size if not path.is_dir() else 0)
        for path in folder.rglob("*")
    }


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder where temporary folders are made; it must be empty again at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


@pytest.fixture
def refused(tmp_path: Path, temporary: Path) -> RequestError:
    """Assert that opening raises BundleError with all these words and changes nothing on disk."""

    def check(path: Path, *words: str, limits: Limits | None = None) -> None:
        before = snapshot(tmp_path)
        with pytest.raises(BundleError) as caught:
            Bundle.open(path, limits)
        for word in (*words, str(path)):
            assert word in str(caught.value)
        assert snapshot(tmp_path) == before
        assert not list(temporary.iterdir())

    return check


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small(tmp_path / "bundle")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "bundle.zip"

"""What runtimes built is kept whole or not at all, and within bounds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plimsoll.system import cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path))


def test_another_part_is_another_place() -> None:
    parts = {"network": "a", "options": {"x": 1, "y": 2}}
    assert cache.build_folder("torch", parts) == cache.build_folder(
        "torch", {"options": {"y": 2, "x": 1}, "network": "a"}
    )
    assert cache.build_folder("torch", parts) != cache.build_folder("torch", {**parts, "options": {"x": 1, "y": 3}})
    assert cache.build_folder("torch", parts) != cache.build_folder("tensorrt", parts)


def test_what_was_built_is_kept_and_what_failed_is_not() -> None:
    def fail() -> None:
        with cache.locked(build), cache.building(build) as (part, work):
            (part / "program").write_bytes(b"half")
            (work / "log.txt").write_text("what went wrong")
            raise ValueError("halfway")

    build = cache.build_folder("torch", {})
    with pytest.raises(ValueError, match="halfway"):
        fail()
    assert not build.exists()
    assert [file.name for file in build.parent.rglob("*") if file.is_file() and file.suffix != ".lock"] == ["log.txt"]
    with cache.building(build) as (part, _):
        (part / "program").write_bytes(b"whole")
    assert (build / "program").read_bytes() == b"whole"
    assert [folder.name for folder in build.parent.iterdir() if folder.is_dir()] == [build.name]


def test_room_is_made_by_those_unused_for_longest(tmp_path: Path) -> None:
    folder = tmp_path / "built"
    for age, name in enumerate(["newest", "new", "old", "oldest"]):
        (folder / name / "below").mkdir(parents=True)
        (folder / name / "below" / "program").write_bytes(bytes(100))
        os.utime(folder / name, (10_000 - age, 10_000 - age))
    cache.mark_used(folder / "oldest")
    cache.evict(folder / "newest", limit=250)
    assert sorted(build.name for build in folder.iterdir()) == ["newest", "oldest"]
    cache.evict(folder / "newest", limit=1)
    assert sorted(build.name for build in folder.iterdir()) == ["newest"]

"""What runtimes built is kept whole or not at all, and within bounds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plimsoll.system import build_cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path))


def test_another_part_is_another_place() -> None:
    parts = {"network": "a", "options": {"x": 1, "y": 2}}
    assert build_cache.place("torch", parts) == build_cache.place(
        "torch", {"options": {"y": 2, "x": 1}, "network": "a"}
    )
    assert build_cache.place("torch", parts) != build_cache.place("torch", {**parts, "options": {"x": 1, "y": 3}})
    assert build_cache.place("torch", parts) != build_cache.place("tensorrt", parts)


def test_what_was_built_is_kept_and_what_failed_is_not() -> None:
    def fail() -> None:
        with build_cache.locked(kept), build_cache.building(kept) as (part, desk):
            (part / "program").write_bytes(b"half")
            (desk / "log.txt").write_text("what went wrong")
            raise ValueError("halfway")

    kept = build_cache.place("torch", {})
    with pytest.raises(ValueError, match="halfway"):
        fail()
    assert not kept.exists()
    assert [file.name for file in kept.parent.rglob("*") if file.is_file() and file.suffix != ".lock"] == ["log.txt"]
    with build_cache.building(kept) as (part, _):
        (part / "program").write_bytes(b"whole")
    assert (kept / "program").read_bytes() == b"whole"
    assert [one.name for one in kept.parent.iterdir() if one.is_dir()] == [kept.name]


def test_room_is_made_by_those_unused_for_longest(tmp_path: Path) -> None:
    folder = tmp_path / "built"
    for age, name in enumerate(["newest", "new", "old", "oldest"]):
        (folder / name / "below").mkdir(parents=True)
        (folder / name / "below" / "program").write_bytes(bytes(100))
        os.utime(folder / name, (10_000 - age, 10_000 - age))
    build_cache.used(folder / "oldest")
    build_cache.make_room(folder / "newest", most=250)
    assert sorted(one.name for one in folder.iterdir()) == ["newest", "oldest"]
    build_cache.make_room(folder / "newest", most=1)
    assert sorted(one.name for one in folder.iterdir()) == ["newest"]

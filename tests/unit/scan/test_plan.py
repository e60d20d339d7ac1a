"""Plans: every line of a list is in exactly one slice, and a slice reads as the lines it was cut from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.errors import InputError
from plimsoll.inference.walk import LeftOut
from plimsoll.scan import plan as plans
from plimsoll.scan.entries import EntrySettings, items_of
from plimsoll.scan.plan import Plan, Shard, make_plan
from plimsoll.scan.storage import LocalFolder, folder


def paths_of(table: LocalFolder, plan: Plan) -> list[tuple[int, str]]:
    """Return shard and path of each picture."""
    settings = EntrySettings(plan.base, plan.separator)
    return [(shard.number, item.path) for shard in plan.read(table) for item in items_of(shard, settings)]


@given(
    lines=st.lists(
        st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=9), max_size=40
    ),
    size=st.integers(1, 7),
    chunk=st.integers(1, 50),
    ends=st.booleans(),
)
def test_each_line_of_a_list_is_in_one_slice(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int, chunk: int, *, ends: bool
) -> None:
    folder = tmp_path_factory.mktemp("list")
    listed = folder / "paths.txt"
    listed.write_bytes("\n".join(["first.jpg", *lines, "last.jpg"]).encode() + b"\n" * ends)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "_CHUNK", chunk)
        plan = make_plan(LocalFolder(folder / "table"), [str(listed)], (), LeftOut(), shard_size=size)
    shards = list(plan.read(LocalFolder(folder / "table")))
    assert all(shard.count == size for shard in shards[:-1])
    assert plan.pictures == len(lines) + 2
    paths = [path for _, path in paths_of(LocalFolder(folder / "table"), plan)]
    assert paths == ["first.jpg", *(line for line in lines if line.encode().strip()), "last.jpg"]


def test_a_folder_is_frozen_with_odd_names_and_reasons(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    names = [b"a.jpg", b"line\nbreak.jpg", b"\xff.jpg", b"\x01odd.jpg"]
    for name in names:
        Path(os.fsdecode(os.fsencode(photos) + b"/" + name)).touch()
    table = LocalFolder(tmp_path / "table")
    missing = str(tmp_path / "nothing*.jpg")
    plan = make_plan(table, [str(photos), missing], (), LeftOut(), shard_size=2)
    (photos / "later.jpg").touch()
    stored = paths_of(table, plan)
    assert sorted(os.fsencode(path) for _, path in stored) == sorted(
        [*(os.fsencode(photos) + b"/" + name for name in names), missing.encode()]
    )
    assert [number for number, _ in stored] == [0, 0, 1, 1, 2]


def test_sources_without_pictures_and_changed_plans_are_refused(tmp_path: Path) -> None:
    table = LocalFolder(tmp_path / "table")
    with pytest.raises(InputError, match="no pictures"):
        make_plan(table, [str(tmp_path)], (), LeftOut())
    (tmp_path / "a.jpg").touch()
    plan = make_plan(table, [str(tmp_path)], (), LeftOut())
    table.write(Plan.FILE, b"")
    with pytest.raises(InputError, match="not the plan"):
        list(plan.read(table))
    (tmp_path / "wide.txt").write_bytes("a.jpg\n".encode("utf-16"))
    with pytest.raises(InputError, match="UTF-16"):
        make_plan(table, [str(tmp_path / "wide.txt")], (), LeftOut())


def test_a_torn_archive_gives_its_whole_members_and_a_reason(tmp_path: Path) -> None:
    import io
    import tarfile

    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as stream:
        for number in range(3):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = 2_000
            stream.addfile(member, io.BytesIO(bytes([number]) * 2_000))
    archive.write_bytes(archive.read_bytes()[: 512 + 2_048 + 512 + 1_000])
    items = list(items_of(Shard(0, "tar", str(archive)), EntrySettings()))
    assert items[0].read() == bytes(2_000)
    for item in items[1:]:
        with pytest.raises(InputError, match="archive"):
            item.read()
    assert [item.index for item in items] == list(range(len(items)))


def test_an_object_store_is_a_folder_and_a_source(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    del tmp_path
    store = folder("memory://plimsoll-test/table")
    try:
        store.write("rows/a.parquet", b"first")
        store.write("rows/a.parquet", b"second")
        assert store.names("rows") == {"a.parquet"}
        assert store.names("nowhere") == set()
        assert (store.read("rows/a.parquet"), store.read("rows/b.parquet")) == (b"second", None)
        photos = folder("memory://plimsoll-test/photos")
        for name in ("b.jpg", "in/a.jpg", "notes.txt"):
            photos.write(name, name.encode())
        plan = make_plan(store, ["memory://plimsoll-test/photos"], (), LeftOut())
        items = [item for shard in plan.read(store) for item in items_of(shard, EntrySettings(plan.base))]
        assert [item.read() for item in items] == [b"b.jpg", b"in/a.jpg"]
        store.remove("rows")
        assert store.names("rows") == set()
    finally:
        folder("memory://plimsoll-test").remove("")

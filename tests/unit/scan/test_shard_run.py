"""`Unfinished`: what an earlier run has left of a shard, however it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plimsoll.scan.plan import Shard
from plimsoll.scan.shard_run import Task, Unfinished


def row(item: int, answers: Any = (), sha256: str = "") -> dict[str, Any]:
    return {
        "item": item,
        "path": f"{item}.jpg",
        "sha256": sha256 or str(item),
        "width": 1,
        "height": 2,
        "pdq": None,
    } | {"answers": answers if answers is None else [{"label": "a", "error_kind": None, "error": None}]}


@pytest.mark.parametrize("torn", [b"", b'{"item": 2, "pa', b"\0\0\0\n", b'{"path": 1}\n', b"null\n", b"\xff\n"])
def test_whole_rows_are_taken_up_and_a_torn_one_is_overwritten(tmp_path: Path, torn: bytes) -> None:
    file = tmp_path / "partial" / "part-00000003.jsonl"
    first = Unfinished(Task(Shard(3, "list", "a.txt")), file)
    first.read()
    first.add(row(0))
    first.add(row(1))
    with file.open("ab") as stream:
        stream.write(torn)

    again = Unfinished(first.task, file)
    again.read()
    assert again.request(None)["skip"] == [0, 1]
    again.add(row(2))
    assert [json.loads(line)["item"] for line in file.read_bytes().splitlines()] == [0, 1, 2]


def test_equal_pictures_get_the_answer_of_the_one_that_was_computed(tmp_path: Path) -> None:
    unfinished = Unfinished(Task(Shard(0, "list", "a.txt")), tmp_path / "a.jsonl")
    unfinished.read()
    unfinished.add(row(0, None, "same"))
    unfinished.add(row(1, (), "same"))
    unfinished.add(row(2, None, "changed"))
    rows = {each["item"]: each for each in unfinished.rows(1)}
    assert rows[0]["answers"] == rows[1]["answers"]
    assert rows[2]["answers"][0]["error_kind"] == "ImageError"

"""What has one place is not written a second time: reading within a limit, hashing a file, pydantic's errors in
words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "plimsoll"

PLACES = {
    "a file is read within a limit": (r"\.read\((\w+\.)?_?MAX\w* \+ 1\)", {"system/files.py", "inference/pictures.py"}),
    "a file is hashed": (r"file_digest\(", {"system/files.py"}),
    "pydantic's errors become words": (r"\.errors\(include_url", {"core/wording.py", "spec/files.py"}),
    "text is made printable": (
        r"isprintable\(\) (or \w+ in \w+ )?else \"\?\"",
        {"core/wording.py", "system/subprocesses.py"},  # which lies below it
    ),
    "a duration is parsed": (r"\(ms\|s\|m\b", {"core/duration.py"}),
    "an option takes a target": (r"typer\.Option\(\s*\"--target\"", set()),
    "an option takes the preprocessing": (r"typer\.Option\(\s*\"--preprocessing", set()),
}


def _places(pattern: str) -> set[str]:
    files = (file for file in SOURCE.rglob("*.py") if "toolchain/jobs" not in file.as_posix())
    return {file.relative_to(SOURCE).as_posix() for file in files if re.search(pattern, file.read_text("utf-8"))}


@pytest.mark.parametrize("fact", PLACES)
def test_it_stands_in_one_place(fact: str) -> None:
    pattern, places = PLACES[fact]
    assert _places(pattern) <= places


def test_the_patterns_find_what_they_are_for() -> None:
    examples = {
        "a file is read within a limit": "data = stream.read(MAX_BYTES + 1)",
        "a file is hashed": 'hashlib.file_digest(stream, "sha256")',
        "pydantic's errors become words": "error.errors(include_url=False)",
        "text is made printable": '"".join(char if char.isprintable() else "?" for char in text)',
        "a duration is parsed": 're.fullmatch(r"([0-9]+)(ms|s|m|h)", text)',
        "an option takes a target": 'typer.Option("--target", help="…")',
        "an option takes the preprocessing": 'typer.Option(\n    "--preprocessing-a")',
    }
    assert examples.keys() == PLACES.keys()
    assert all(re.search(PLACES[fact][0], text) for fact, text in examples.items())

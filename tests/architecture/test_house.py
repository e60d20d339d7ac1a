"""The house stays as it is: few entries, few layers, faces without code, files that fit in the head, the field's words."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from architecture import House  # noqa: E402  # a script of tools/

ENTRIES, MODULES, LAYERS, ARROWS, LINES_OF_A_FILE = 24, 5, 8, 140, 400

FORBIDDEN_NAMES = {
    "one": "what it is: trial, candidate, session …",
    "found": "what was found",
    "made": "what was made",
    "wanted": "expected, requested …",
    "kept": "stored, cached …",
    "told": "reported …",
    "asked": "requested …",
    "place": "index, path, folder …",
}
"""Variables without content; what they should be instead."""

FORBIDDEN_WORDS = {
    "Wishes": "SearchConfig",
    "Attempt": "Trial",
    "Variant": "Candidate",
    "ladder": "results table",
    "load_line": "Pareto plot",
    "strain": "budget_used",
    "Workshop": "JobRunner",
    "groundwork": "preparation jobs",
    "Materials": "artifacts",
    "drift": "deviation; drift is the change of data over time",
    "InputPlan": "Preprocessor",
    "LaneSession": "session pool",
    "JUDGE": "REFERENCE_TARGET",
    "Desk": "Scheduler",
    "Doorkeeper": "Authorizer",
    "Asked": "RequestOptions",
    "Answered": "InferenceResult",
    "opener": "resolve",
    "isolate": "subprocess jobs",
    "judging": "test",
}
"""Words of the first version; the field's are in docs/glossary.md."""


@pytest.fixture(scope="module")
def house() -> House:
    return House(ROOT)


def test_few_entries_lie_at_the_top(house: House) -> None:
    folders, modules = house.entries()
    assert len(folders) + len(modules) <= ENTRIES, (folders, modules)
    assert len(modules) <= MODULES, modules


def test_few_layers_and_no_arrow_upward(house: House) -> None:
    assert len(house.layers()) <= LAYERS
    assert not house.upward()
    assert len(house.arrows()) <= ARROWS


def test_faces_hold_no_code(house: House) -> None:
    assert not house.faces_with_code()


def test_a_file_fits_in_the_head(house: House) -> None:
    assert not {str(path): lines for path, lines in house.lines().items() if lines > LINES_OF_A_FILE}


def names_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each name that a file gives to a variable, argument, attribute, function or class, and its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno


def test_names_say_what_they_hold(house: House) -> None:
    empty = [
        f"{path.relative_to(ROOT)}:{line} {name}: {FORBIDDEN_NAMES[name.strip('_')]}"
        for path in house.files
        for name, line in names_of(path)
        if name.strip("_") in FORBIDDEN_NAMES
    ]
    assert not empty, "\n".join(empty)


@pytest.mark.parametrize("word", FORBIDDEN_WORDS)
def test_the_old_words_are_gone(house: House, word: str) -> None:
    pages = [path for path in (ROOT / "docs").glob("*.md") if path.name != "glossary.md"]
    pattern = re.compile(rf"(?<![A-Za-z]){word}s?(?![A-Za-z])")
    places = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*house.files, *pages, ROOT / "README.md"]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not places, f"{word} → {FORBIDDEN_WORDS[word]}: {places[:20]}"

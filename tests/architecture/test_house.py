"""The house stays as it is; each rule is shown to catch a violation planted in a copy.

- The package has at most 25 entries at its top, of which 5 are modules, and 8 layers.
- No room imports one of a layer above it, and at most 140 arrows lead from a room to another.
- An `__init__.py` is a face: a docstring, imports and `__all__`.
- A file of the package has at most 400 lines; a line of Python anywhere has at most 120 columns.
- Names say what they hold: none is called `one`, `found`, `place` …
- A speed is "2.6 times as fast", never "2.6× faster": that is another claim, or none.
- The words of the first version are gone; those of the field are in docs/glossary.md.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from structure import MAX_LINES, House  # noqa: E402  # a script of tools/

ENTRIES, MODULES, LAYERS, ARROWS, COLUMNS = 25, 5, 8, 140, 120
PRAGMA = re.compile(r"\s+# (noqa|type: ignore)\b.*")
"""A comment to a tool, which has to stand on its line."""
FOLDERS = ("src", "tests", "benchmarks", "tools", "examples")
"""Where Python lies."""

EMPTY_NAMES = {
    "one": "what it is: trial, candidate, session …",
    "found": "what was found",
    "made": "what was made",
    "wanted": "expected, requested …",
    "kept": "stored, cached …",
    "told": "reported, message …",
    "asked": "requested …",
    "place": "index, path, folder …",
}
"""Names without content; what they should be instead."""

OLD_CLASSES = {
    "Wishes": "SearchConfig",
    "Attempt": "Trial",
    "Variant": "Candidate",
    "Workshop": "JobRunner",
    "Materials": "artifacts",
    "InputPlan": "Preprocessor",
    "View": "ImageGeometry",
    "Form": "ImageSpec, QuantizationScheme or OnnxForm",
    "Offer": "AvailableTarget",
    "Kind": "ModelFormat",
    "Grid": "QuantizationParams",
    "LaneSession": "a session pool",
    "Desk": "Scheduler",
    "Link": "WorkerHandle",
    "Work": "ModelExecutor",
    "Deployment": "ServedModel",
    "Wanted": "ModelConfig",
    "Facts": "ModelMetadata",
    "Asked": "RequestOptions",
    "Answered": "InferenceResult",
    "Computed": "RawOutputs",
    "Refused": "RequestError",
    "Doorkeeper": "Authorizer",
    "Ticket": "Admission",
}
"""Classes and types of the first version; what they are called."""

OLD_MODULES = {
    "account": "report_builder",
    "attempt": "trial",
    "contracts": "compat",
    "deployment": "served_model",
    "desk": "scheduler",
    "doorkeeper": "authorizer",
    "groundwork": "preparation",
    "isolate": "subprocesses",
    "journal": "telemetry",
    "kept": "store",
    "lanes": "session_pool",
    "link": "worker_handle",
    "listing": "images",
    "load_line": "pareto_plot",
    "looking": "moderation",
    "machine": "host",
    "materials": "artifacts",
    "opener": "predictor",
    "reception": "handler",
    "ring": "keys",
    "variant": "candidate",
    "wishes": "config",
    "work": "executor",
    "workshop": "job_runner",
}

OLD_WORDS = {
    "ladder": "results table",
    "load_line": "Pareto plot",
    "strain": "budget_used",
    "groundwork": "preparation jobs",
    "drift": "deviation; drift is the change of data over time",
    "JUDGE": "REFERENCE_TARGET",
    "judging": "test",
    "lane": "stream or session pool",
    "opener": "predictor",
    "isolate": "subprocess jobs",
    **{
        name: OLD_CLASSES[name]
        for name in (
            "Wishes",
            "Attempt",
            "Variant",
            "Workshop",
            "InputPlan",
            "LaneSession",
            "Desk",
            "Doorkeeper",
            "Asked",
        )
    },
    "Answered": "InferenceResult",
}
"""Words that neither the package nor the docs say, in names or prose; other old names are words of everyday English
too."""

RULES: dict[str, Callable[[House], list[str]]] = {}


def rule(check: Callable[[House], list[str]]) -> Callable[[House], list[str]]:
    RULES[check.__name__] = check
    return check


def python_files(house: House) -> Iterator[Path]:
    for folder in FOLDERS:
        files = (house.root / folder).rglob("*.py")
        yield from sorted(path for path in files if not path.name.endswith("_pb2.py"))


def definitions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each name that a file gives to a variable, argument, function or class, and its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno


@rule
def few_entries(house: House) -> list[str]:
    folders, modules = house.entries()
    return [] if len(folders) + len(modules) <= ENTRIES and len(modules) <= MODULES else [*folders, *modules]


@rule
def few_layers(house: House) -> list[str]:
    layers = [" ".join(layer) for layer in house.layers()]
    return layers if len(layers) > LAYERS else []


@rule
def no_arrow_upward(house: House) -> list[str]:
    return [f"{room} imports {imported}" for room, imported in house.upward()]


@rule
def few_arrows(house: House) -> list[str]:
    arrows = [f"{room} imports {imported}" for room, imported in house.arrows()]
    return arrows if len(arrows) > ARROWS else []


@rule
def faces_hold_no_code(house: House) -> list[str]:
    return [str(path.relative_to(house.root)) for path in house.faces_with_code()]


@rule
def files_are_short(house: House) -> list[str]:
    return [f"{path.relative_to(house.root)}: {lines}" for path, lines in house.lines().items() if lines > MAX_LINES]


@rule
def lines_are_short(house: House) -> list[str]:
    return [
        f"{path.relative_to(house.root)}:{number}"
        for path in python_files(house)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(PRAGMA.sub("", line)) > COLUMNS
    ]


@rule
def names_say_what_they_hold(house: House) -> list[str]:
    return [
        f"{path.relative_to(house.root)}:{line} {name}: {EMPTY_NAMES[name.strip('_')]}"
        for path in python_files(house)
        for name, line in definitions(path)
        if name.strip("_") in EMPTY_NAMES
    ]


SCRIPT_PROSE = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
"""Comments and plain strings of JavaScript."""
SCRIPT_NAMES = re.compile(
    rf"(?:const|let|function)\s+({'|'.join(EMPTY_NAMES)})\b|[(,]\s*({'|'.join(EMPTY_NAMES)})\s*(?=[,)])"
)
"""Names without content where JavaScript declares them: variables, functions, parameters."""


@rule
def names_in_scripts_say_what_they_hold(house: House) -> list[str]:
    return [
        f"{path.relative_to(house.root)}: {match[1] or match[2]}: {EMPTY_NAMES[match[1] or match[2]]}"
        for path in sorted(house.folder.rglob("*.js"))
        for match in SCRIPT_NAMES.finditer(SCRIPT_PROSE.sub("", path.read_text(encoding="utf-8")))
    ]


@rule
def old_classes_are_gone(house: House) -> list[str]:
    return [
        f"{path.relative_to(house.root)}:{line} {name}: {OLD_CLASSES[name.strip('_')]}"
        for path in house.files
        for name, line in definitions(path)
        if name.strip("_") in OLD_CLASSES
    ]


@rule
def old_modules_are_gone(house: House) -> list[str]:
    paths = [path for path in house.folder.rglob("*") if path.suffix == ".py" or path.is_dir()]
    return [f"{path.relative_to(house.root)}: {OLD_MODULES[path.stem]}" for path in paths if path.stem in OLD_MODULES]


@rule
def old_words_are_gone(house: House) -> list[str]:
    pattern = re.compile(rf"(?<![A-Za-z-])({'|'.join(OLD_WORDS)})s?(?![A-Za-z-])")
    pages = [path for path in (house.root / "docs").glob("*.md") if path.name != "glossary.md"]
    return [
        f"{path.relative_to(house.root)}:{number} {match[1]}: {OLD_WORDS[match[1]]}"
        for path in [*house.files, *pages, house.root / "README.md"]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (match := pattern.search(line)) is not None
    ]


SPEEDS = re.compile(r"(times|[0-9.]\s?[×x]|×)\s(faster|slower|quicker)\b|[0-9.]\s?[×x] as (fast|quick)")
"""Ratios of speeds in other words than "2.6 times as fast"."""


@rule
def speeds_have_a_single_wording(house: House) -> list[str]:
    root = house.root
    pages = [root / "README.md", root / "Makefile", *(root / "docs").rglob("*.md")]
    sources = [
        path for folder in ("src", "benchmarks", "tools", "deploy", "examples") for path in (root / folder).rglob("*")
    ]
    kinds = {".py", ".md", ".j2", ".js", ".html", ".toml", ".yml", ".yaml", ".sh"}
    sources = [path for path in sources if path.suffix in kinds]
    texts = [(path, path.read_text(encoding="utf-8")) for path in (*pages, *sources) if path.is_file()]
    if (changelog := root / "CHANGELOG.md").is_file():
        texts.append((changelog, changelog.read_text(encoding="utf-8").partition("\n## [0.1.0]")[0]))
    return [
        f"{path.relative_to(root)}: {match[0]}: say how many times as fast"
        for path, text in texts
        for match in SPEEDS.finditer(text)
    ]


@pytest.mark.parametrize("name", RULES)
def test_the_house_keeps_its_rules(name: str) -> None:
    violations = RULES[name](House(ROOT))
    assert not violations, "\n".join(violations)


PACKAGE = "src/plimsoll"
PLANTS = {
    "few_entries": [(f"{PACKAGE}/newcomer{number}.py", '"""A newcomer."""\n') for number in range(ENTRIES)],
    "few_layers": [
        ("pyproject.toml", f'[[tool.importlinter.contracts]]\ntype = "layers"\nlayers = {list("abcdefghi")}\n'),
    ],
    "no_arrow_upward": [(f"{PACKAGE}/core/planted.py", "import plimsoll.serve.settings\n")],
    "few_arrows": [(f"{PACKAGE}/room{number}/planted.py", "import plimsoll.spec\n") for number in range(ARROWS)],
    "faces_hold_no_code": [(f"{PACKAGE}/planted/__init__.py", "def helper():\n    return 1\n")],
    "files_are_short": [(f"{PACKAGE}/core/planted.py", "\n" * (MAX_LINES + 1))],
    "lines_are_short": [("tests/planted.py", f"# {'x' * COLUMNS}\n")],
    "names_say_what_they_hold": [("tools/planted.py", "numbers = [one for one in range(3)]\n")],
    "names_in_scripts_say_what_they_hold": [(f"{PACKAGE}/serve/planted.js", "numbers.map((one) => one + 1);\n")],
    "old_classes_are_gone": [(f"{PACKAGE}/core/planted.py", "class Desk:\n    pass\n")],
    "old_modules_are_gone": [(f"{PACKAGE}/core/opener.py", "")],
    "speeds_have_a_single_wording": [(f"{PACKAGE}/core/planted.py", "# This is 2.6× faster.\n")],
    "old_words_are_gone": [("docs/planted.md", "The drift of its scores stays small.\n")],
}
"""For each rule, files that break it."""


@pytest.mark.parametrize("name", RULES)
def test_a_planted_violation_is_caught(tmp_path: Path, name: str) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for file in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    before = RULES[name](House(tmp_path))
    for file, text in PLANTS[name]:
        planted = tmp_path / file
        planted.parent.mkdir(parents=True, exist_ok=True)
        planted.write_text(text, encoding="utf-8")
    assert len(RULES[name](House(tmp_path))) > len(before)

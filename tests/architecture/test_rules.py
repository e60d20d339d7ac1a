"""The architecture's rules bite: each is shown to catch a violation planted in a copy of the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command;"
                " lint_imports_command()"
            ),
            "--no-logo",
            "--no-cache",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package and its rules, to plant violations in."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_package_keeps_its_rules() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "caught_by"),
    [
        ("spec/steps.py", "import plimsoll.backends.runner", "Upper layers import lower ones"),
        ("errors.py", "import plimsoll.core.model", "Upper layers import lower ones"),
        ("preprocessing/decode.py", "import plimsoll.zoo", "Upper layers import lower ones"),
        ("metrics/decisions.py", "import plimsoll.inference", "Upper layers import lower ones"),
        ("backends/runner.py", "import plimsoll.cli", "Upper layers import lower ones"),
        ("backends/reference/backend.py", "import plimsoll.backends.onnxruntime", "No backend imports another"),
        ("tasks/tensor.py", "import plimsoll.tasks.classify", "No task imports another"),
        ("inference/stream.py", "import onnxruntime", "Runtimes and frameworks are imported by backends"),
        ("cli/predict.py", "import torch", "Runtimes and frameworks are imported by backends"),
        ("newcomer.py", "import plimsoll.errors", "Upper layers import lower ones"),
    ],
    ids=[
        "spec uses runner", "errors use core", "preprocessing uses zoo", "metrics use inference", "runner uses cli",
        "backend uses backend",
        "task uses task", "inference uses a runtime", "cli uses a framework", "module in no layer",
    ],
)  # fmt: skip
def test_a_planted_violation_is_caught(copy: Path, file: str, line: str, caught_by: str) -> None:
    planted = copy / "src" / "plimsoll" / file
    text = planted.read_text() if planted.exists() else '"""A newcomer."""\n'
    planted.write_text(f"{text}\n{line}\n")
    done = lint_imports(copy)
    assert done.returncode != 0, done.stdout
    broken = [row for row in done.stdout.splitlines() if "BROKEN" in row]
    assert any(row.startswith(caught_by) for row in broken) or caught_by in done.stdout, done.stdout


def test_every_module_is_under_the_runtime_rule() -> None:
    """A new module must not slip past the rule that keeps runtimes out because nobody added it to the list."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    ruled = {
        name.partition(".")[2]
        for contract in contracts
        if contract["id"] == "runtimes"
        for name in contract["source_modules"]
    }
    package = ROOT / "src" / "plimsoll"
    modules = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert modules - {"__init__", "__main__", "backends", "importers", "onnx", "preprocessing", "quantize"} == ruled


def test_the_errors_docstring_draws_the_whole_tree() -> None:
    from plimsoll import errors

    lines = [line.strip("│├└─ ").split() for line in (errors.__doc__ or "").splitlines()]
    drawn = {line[0].partition("(")[0]: line[-2:] for line in lines if len(line) >= 3}
    classes = [
        member
        for member in vars(errors).values()
        if isinstance(member, type) and issubclass(member, errors.PlimsollError)
    ]
    assert len(classes) >= 12
    for error_class in classes:
        if error_class is not errors.PlimsollError:
            assert drawn[error_class.__name__] == [str(error_class.exit_code), str(error_class.http_status)]

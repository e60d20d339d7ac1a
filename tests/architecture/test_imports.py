"""Importing is light: no runtime before its use, and quick."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNTIMES = {"onnx", "onnxruntime", "cv2", "openvino", "tensorflow", "keras", "torch", "tensorrt", "pyarrow", "ai_edge_litert", "MNN", "ncnn", "netron"}
BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after running `code`."""
    program = f"{code}\nimport sys, json; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def best_of(command: list[str], runs: int = 5) -> float:
    """Return the least processor time of several runs, in seconds: what a start takes on a machine that does nothing else."""
    times = []
    for _ in range(runs):
        before = os.times()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "COLUMNS": "100"})
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(times)


def test_importing_plimsoll_loads_no_runtime_and_no_numpy() -> None:
    loaded = loaded_by("import plimsoll")
    assert not loaded & RUNTIMES
    assert not loaded & {"numpy", "PIL", "pydantic", "rich"}


@pytest.mark.parametrize(
    "code",
    [
        "import plimsoll; plimsoll.load, plimsoll.Spec, plimsoll.Model, plimsoll.Target, plimsoll.Report, plimsoll.Bundle, plimsoll.Runner",
        "from plimsoll import backends; [backends.get(name).offers() for name in backends.names()]",
        "from plimsoll import sources; sources.all_sources()",
        "import plimsoll.cli",
        "from plimsoll import zoo; from plimsoll.image import InputPlan; InputPlan(zoo.card('open_nsfw').spec.input)",
    ],
    ids=["nouns", "backends", "sources", "command line", "reference steps"],
)
def test_nothing_loads_a_runtime_before_its_use(code: str) -> None:
    assert not loaded_by(code) & RUNTIMES


def lines_importing_onnx_runtime(path: Path) -> list[int]:
    """Return the lines that import ONNX Runtime in any way but the seam's `require`."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            modules = [str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)]
        lines += [getattr(node, "lineno", 0) for module in modules if module.partition(".")[0] == "onnxruntime"]
    return lines


def test_the_package_imports_onnx_runtime_through_the_seam_alone() -> None:
    """The seam turns its telemetry off before, which an import elsewhere would come before."""
    sources = list((ROOT / "src").rglob("*.py"))
    assert len(sources) > 100
    assert [f"{path}:{line}" for path in sources for line in lines_importing_onnx_runtime(path)] == []


def test_programs_that_import_onnx_runtime_turn_its_telemetry_off_before() -> None:
    programs = [path for folder in ("benchmarks", "examples", "docs") for path in (ROOT / folder).rglob("*.py")]
    importing = {path: lines[0] for path in programs if (lines := lines_importing_onnx_runtime(path))}
    assert len(importing) >= 3
    for path, line in importing.items():
        before = "\n".join(path.read_text(encoding="utf-8").splitlines()[: line - 1])
        assert "ORT_DISABLE_TELEMETRY" in before or "machine.TELEMETRY_OFF" in before, path


def test_every_public_name_is_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import plimsoll; [getattr(plimsoll, name) for name in plimsoll.__all__]"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_import_takes_under_three_tenths_of_a_second() -> None:
    bare = best_of([sys.executable, "-c", "pass"])
    assert best_of([sys.executable, "-c", "import plimsoll"]) - bare < 0.3


def test_help_takes_under_half_a_second() -> None:
    assert best_of([str(BIN / "plimsoll"), "--help"]) < 0.5

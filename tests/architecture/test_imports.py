"""Importing is light: no runtime before its use, and few modules. (How long it takes is measured in
`benchmarks/start.py`.)"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.small_models import small_model
from plimsoll.bundle.packing import pack
from plimsoll.core.target import Target

RUNTIMES = {
    "onnx",
    "onnxruntime",
    "cv2",
    "openvino",
    "tensorflow",
    "keras",
    "torch",
    "tensorrt",
    "pyarrow",
    "ai_edge_litert",
    "MNN",
    "ncnn",
    "netron",
}
ROOT = Path(__file__).resolve().parents[2]


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after running `code`."""
    program = f"{code}\nimport sys, json; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_plimsoll_loads_no_runtime_and_no_numpy() -> None:
    loaded = loaded_by("import plimsoll")
    assert not loaded & RUNTIMES
    assert not loaded & {"numpy", "PIL", "pydantic", "rich"}


@pytest.mark.parametrize(
    "code",
    [
        (
            "import plimsoll; plimsoll.load, plimsoll.Spec, plimsoll.Model, plimsoll.Target, plimsoll.Report,"
            " plimsoll.Bundle, plimsoll.Runner"
        ),
        "from plimsoll import backends; [backends.get(name).targets() for name in backends.names()]",
        "from plimsoll import importers; importers.readers()",
        "import plimsoll.cli",
        (
            "from plimsoll import zoo; from plimsoll.preprocessing import Preprocessor;"
            " Preprocessor(zoo.card('open_nsfw').spec.input)"
        ),
    ],
    ids=["nouns", "backends", "importers", "command line", "reference preprocessing"],
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
    programs = [path for folder in ("benchmarks", "examples", "tools") for path in (ROOT / folder).rglob("*.py")]
    importing = {path: lines[0] for path in programs if (lines := lines_importing_onnx_runtime(path))}
    assert len(importing) >= 3
    for path, line in importing.items():
        before = "\n".join(path.read_text(encoding="utf-8").splitlines()[: line - 1])
        assert "ORT_DISABLE_TELEMETRY" in before or "host.TELEMETRY_OFF" in before, path


def test_every_public_name_is_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import plimsoll; [getattr(plimsoll, name) for name in plimsoll.__all__]"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_importing_plimsoll_loads_few_modules() -> None:
    assert len(loaded_by("import plimsoll") - loaded_by("pass")) <= 20


def test_help_loads_nothing_that_computes() -> None:
    loaded = loaded_by(
        "import contextlib; from plimsoll.cli import app\nwith contextlib.suppress(SystemExit): app(['--help'])"
    )
    assert "typer" in loaded
    assert not loaded & (RUNTIMES | {"numpy", "PIL", "pydantic", "httpx", "uvicorn", "starlette", "jinja2"})


def test_reading_an_onnx_file_asks_no_backend(tmp_path: Path) -> None:
    """A start of `predict` would wait for the modules of every runtime."""
    path = small_model(tmp_path).path
    program = f"""
import sys
from pathlib import Path
from plimsoll import importers
importers.read(Path({str(path)!r}))
print([name for name in sys.modules if name.startswith("plimsoll.backends.") and name.count(".") > 2])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_runtimes_own_format_asks_no_other_backend(tmp_path: Path) -> None:
    """A bundle says which runtime its file is for; those of all the others need not be imported."""
    path = tmp_path / "net.xml"
    path.write_text('<?xml version="1.0"?>\n<net name="net" version="11"/>')
    program = f"""
import sys
from pathlib import Path
from plimsoll import importers
assert importers.format_of(Path({str(path)!r}), "openvino").name == "openvino"
print(sorted({{name.split(".")[2] for name in sys.modules if name.count(".") > 2 and ".backends." in name}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['openvino']"


def test_opening_a_bundle_asks_only_its_own_runtime(tmp_path: Path) -> None:
    bundle = pack(small_model(tmp_path / "small"), Target("onnxruntime"), tmp_path / "small.plimsoll")
    program = f"""
import sys
import plimsoll
plimsoll.load({str(bundle)!r}).close()
print(sorted({{name.split(".")[2] for name in sys.modules if name.count(".") > 2 and ".backends." in name}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['onnxruntime']")

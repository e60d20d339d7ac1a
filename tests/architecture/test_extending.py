"""The worked examples of docs/extending work, as a stranger would use them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.small_models import TENSOR_SPEC, brightness

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "extending"
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def files_of(page: str) -> dict[str, str]:
    return dict(FILE.findall((PAGES / page).read_text(encoding="utf-8")))


def plimsoll(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with what lies in `path` installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(path), os.environ.get("PYTHONPATH", "")))}
    done = subprocess.run(
        [sys.executable, "-m", "plimsoll", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def install(page: str, group: str, folder: Path) -> None:
    """Write the example's module, with an entry point, as an installed package has it."""
    [(name, code)] = files_of(page).items()
    module = name.removesuffix(".py")
    (folder / name).write_text(code, encoding="utf-8")
    entry = re.search(rf'\[project\.entry-points\."{group}"\]\n(\w+) = "({module}:\w+)"', (PAGES / page).read_text())
    assert entry is not None
    facts = folder / f"{module}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[{group}]\n{entry[1]} = {entry[2]}\n")


def test_the_runtime_is_listed_and_answers_as_the_reference_does(tmp_path: Path, example_photos: list[Path]) -> None:
    install("runtime.md", "plimsoll.backends", tmp_path)
    assert "evaluator:cpu:float32" in plimsoll(tmp_path, "targets").stdout
    network, photo = brightness(tmp_path / "brightness.onnx").path, str(example_photos[0])
    (tmp_path / "spec.toml").write_text(TENSOR_SPEC)
    spec = ("--spec", str(tmp_path / "spec.toml"), "--format", "jsonl")
    ours, reference = (
        json.loads(plimsoll(tmp_path, "predict", str(network), photo, *spec, "--target", target).stdout)["outputs"]
        for target in ("evaluator:cpu:float32", "onnxruntime:cpu:float32")
    )
    assert ours["brightness"] == pytest.approx(reference["brightness"], rel=1e-5)
    assert ours["brightness"] != 0


def test_the_importer_converts_and_its_probe_is_held_against_onnx_runtime(tmp_path: Path) -> None:
    install("importer.md", "plimsoll.importers", tmp_path)
    random = np.random.default_rng(7)
    arrays = {"weights": random.normal(size=(5, 6, 4)), "bias": random.normal(size=4)}
    np.savez(tmp_path / "digits.npz", **arrays)  # type: ignore[arg-type]  # its first parameter is a flag
    out = tmp_path / "digits.onnx"
    notes = plimsoll(tmp_path, "import", str(tmp_path / "digits.npz"), "--out", str(out)).stderr
    assert out.is_file()
    assert "NumPy" in notes
    assert "4 labels" in notes


def test_the_task_is_decoded_by_predict(tmp_path: Path, example_photos: list[Path]) -> None:
    package = tmp_path / "plimsoll"
    shutil.copytree(ROOT / "src" / "plimsoll", package, ignore=shutil.ignore_patterns("__pycache__"))
    files = files_of("task.md")
    outputs = (package / "spec" / "spec.py").read_text()
    head, union, tail = outputs.partition("Output = Annotated[")
    (package / "spec" / "spec.py").write_text(f"{head}{files['spec/spec.py']}\n\n{union}Regress | {tail}")
    (package / "tasks" / "regress.py").write_text(files["tasks/regress.py"])
    network = brightness(tmp_path / "brightness.onnx").path
    spec = TENSOR_SPEC.replace('task = "tensor"', 'task = "regress"\nunit = "lux"\nscale = 100.0')
    (tmp_path / "spec.toml").write_text(spec)
    arguments = ("predict", str(network), str(example_photos[0]), "--spec", str(tmp_path / "spec.toml"))
    row = json.loads(plimsoll(tmp_path, *arguments, "--format", "jsonl").stdout)
    assert row["unit"] == "lux"
    assert 0 < row["value"] <= 100

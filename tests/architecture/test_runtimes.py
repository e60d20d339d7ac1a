"""A runtime is one folder: whatever Plimsoll knows of it stands there.

A runtime is planted, as a package of its own with an entry point and as a folder among the others, and every command
that has to do with runtimes works with it, with no edit elsewhere. And no runtime's name stands anywhere else.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import plimsoll
from helpers.small_models import SPEC, small_model
from plimsoll import backends

SOURCE = Path(plimsoll.__file__).parent

ELSEWHERE = {
    "importers/tflite.py": "converts TFLite files, whose outline the runtime's own reader reads",
    "importers/tensorflow/toolchain": "its jobs advise to run a TFLite file as it is",
    "quantize/calibrators.py": "cites a talk by its title",
    "serve/http/openapi": "names a product whose clients speak the protocol",
}
"""Where a runtime's name may stand outside its folder, and why."""
COMMON = {"reference", "web"}
"""Runtimes whose names are common words: the reference preprocessing, the web."""
FRAMEWORKS = {"torch", "pytorch"}
"""A runtime that is also a framework whose files are imported."""
EVALUATOR = {"onnxruntime", "onnx runtime", "onnx runtime web"}
"""ONNX Runtime is a dependency too: it answers for the reference (`REFERENCE_TARGET`), folds constants, and
quantizes."""
EVALUATOR_IN_CODE = {
    "core/target.py": "REFERENCE_TARGET, and the examples in messages",
    "cli/options.py": "the help says what the default target is",
    "cli/prove.py": "the help says what the default target is",
    "onnx/graph.py": "opens networks to answer for one that is converted, and to compute constants",
    "onnx/normal_form.py": "its version decides whether a stored form is still good",
    "quantize/data_free.py": "calls the quantizer and the converter that come with it",
}

PLANTED = '''
"""A runtime that is ONNX Runtime in disguise, with a file format, a table and a tool of its own."""

import json
import tempfile
from pathlib import Path

from plimsoll.backends.base import AvailableTarget, Backend, CalibratorSettings, QuantizationDefaults, TritonBackend
from plimsoll.backends.calibration_tables import CalibrationTable
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model, Reader, TensorInfo
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, ModelError, RunError
from plimsoll.onnx.form import require_form

MAGIC = b"PLANTED\\n"


class PlantedFile(Reader):
    name = "planted"
    suffixes = (".planted",)

    def read(self, path, spec=None):
        if path.read_bytes()[:8] != MAGIC:
            raise ModelError(f"{path}: not a planted file")
        return Model(path, self.name, spec)


class PlantedTable(CalibrationTable):
    name = "planted-table"

    def recognises(self, data):
        return data.startswith(b"planted:")

    def read(self, data, where, model):
        return {name: tuple(ends) for name, ends in json.loads(data[8:]).items()}

    def write(self, ranges, model, picture=None):
        return b"planted:" + json.dumps({name: list(ends) for name, ends in ranges.items()}).encode()


class PlantedSession:
    concurrent = True

    def __init__(self, inner):
        self.inner = inner
        self.inputs, self.outputs = (
            tuple(TensorInfo(one.name, (None, *one.shape[1:]), "float32") for one in side)
            for side in (inner.get_inputs(), inner.get_outputs())
        )

    def run(self, feeds):
        names = [output.name for output in self.outputs]
        with translate(RunError, "the planted runtime failed"):
            return dict(zip(names, self.inner.run(names, dict(feeds)), strict=True))

    def close(self):
        self.inner = None


class Planted(Backend):
    name = "planted"
    title = "Planted Runtime"
    module = "json"
    install = "pip install planted"
    extra = "planted"
    symbol = "delta"
    exports_settings = True

    @property
    def formats(self):
        return (PlantedFile(),)

    @property
    def calibration_tables(self):
        return (PlantedTable(),)

    def targets(self):
        absent = self.not_installed()
        return tuple(AvailableTarget(Target("planted", "cpu", name), absent) for name in ("float32", "int8"))

    def takes_calibration(self, target):
        return target.precision == "int8"

    def stream_batch(self, target):
        return 3

    def calibrator_settings(self, spec, images):
        return CalibratorSettings(f"planted settings for {spec.name} in {images}", ["it shrinks otherwise"])

    def triton(self, model, target):
        return TritonBackend("planted", "model.planted", instances=7, notes="It was planted.")

    def build(self, model, target, folder, calibration=None):
        self.check(target)
        if model.format == "planted":
            return model
        require_form(model, target, "float32")
        if target.precision == "int8" and not calibration.ranges:
            raise BuildError("it needs ranges")
        built = folder / f"{model.path.stem}.{target.precision}.planted"
        built.write_bytes(MAGIC + model.path.read_bytes())
        return Model(built, "planted", model.spec, parent=model)

    def load(self, model, target, options, plan):
        self.check(target)
        if model.format != "planted":
            raise BuildError(f"{model.path}: expected a planted file")
        runtime = require("onnxruntime", self.install)
        return PlantedSession(runtime.InferenceSession(model.path.read_bytes()[8:], providers=["CPUExecutionProvider"]))


BACKEND = Planted()
'''


class Commands:
    """Plimsoll's command line, in processes that find the planted runtime."""

    def __init__(self, path: Path) -> None:
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(path), os.environ.get("PYTHONPATH", "")))}

    def __call__(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "plimsoll", *map(str, arguments)],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def as_package(folder: Path) -> None:
    """A package of somebody else's, with an entry point."""
    (folder / "planted_runtime.py").write_text(PLANTED)
    facts = folder / "planted_runtime-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: planted_runtime\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[plimsoll.backends]\nplanted = planted_runtime:BACKEND\n")


def as_folder(folder: Path) -> None:
    """A folder among those of `plimsoll.backends`, which every process then sees."""
    (folder / "more" / "planted").mkdir(parents=True)
    (folder / "more" / "planted" / "__init__.py").write_text(PLANTED)
    (folder / "sitecustomize.py").write_text(
        f"import plimsoll.backends\nplimsoll.backends.__path__.append({str(folder / 'more')!r})\n"
    )


@pytest.fixture(scope="module", params=[as_package, as_folder], ids=["package", "folder"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    folder = tmp_path_factory.mktemp("planted")
    request.param(folder)
    return Commands(folder)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small.onnx, its Spec, and pictures."""
    folder = tmp_path_factory.mktemp("given")
    small_model(folder)
    (folder / "spec.toml").write_text(SPEC)
    (folder / "photos").mkdir()
    random = np.random.default_rng(3)
    for number in range(40):
        pixels = random.integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    return folder


def model(given: Path) -> tuple[str | Path, ...]:
    return (given / "small.onnx", "--spec", given / "spec.toml")


def test_it_is_listed(run: Commands) -> None:
    rows = {row["target"]: row for row in json.loads(run("targets", "--json"))}
    assert rows["planted:cpu:float32"]["missing"] == rows["planted:cpu:int8"]["missing"] == ""


def test_what_is_converted_for_it_answers_is_packed_and_verified(run: Commands, given: Path, tmp_path: Path) -> None:
    photo = given / "photos" / "0.png"
    run("convert", *model(given), "--target", "planted:cpu:float32", "--out", tmp_path / "bundle")
    own, reference = (
        json.loads(run("predict", *where, photo, "--format", "jsonl"))["scores"]
        for where in ((tmp_path / "bundle",), (given / "small.onnx", "--spec", given / "spec.toml"))
    )
    assert own == reference
    run("verify", tmp_path / "bundle")
    [file] = (tmp_path / "bundle").rglob("*.planted")
    spec = ("--spec", given / "spec.toml")
    assert json.loads(run("predict", file, *spec, photo, "--format", "jsonl"))["scores"] == own
    run("pack", file, *spec, "--out", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "manifest.json").read_text())["target"] == "planted:cpu:float32"


@pytest.mark.parametrize("run", [as_package], ids=["package"], indirect=True)
def test_ship_tries_it_and_the_page_draws_its_symbol(run: Commands, given: Path, tmp_path: Path) -> None:
    run(
        "ship", *model(given), "--images", given / "photos", "--out", tmp_path / "out", "--work", tmp_path / "work",
        "--targets", "planted:cpu:float32,planted:cpu:int8", "--budget", "flips=50%,mean_deviation=0.5",
        "--time", "120s", "--measure", "0.1s", "--calibrators", "minmax",
    )  # fmt: skip
    details = json.loads((tmp_path / "out" / "report" / "report.json").read_text())["details"]
    tried = {
        (trial["candidate"]["target"], trial["status"], (trial.get("reason") or {}).get("kind"))
        for trial in details["trials"]
    }
    assert {"planted:cpu:float32", "planted:cpu:int8"} <= {target for target, status, _ in tried if status == "ok"}, (
        tried
    )
    assert details["symbols"]["planted"] == "delta"
    [page] = (tmp_path / "out" / "report").glob("*.html")
    assert "planted" in page.read_text()


def test_its_tables_and_its_tools_settings_are_written(run: Commands, given: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    run("calibrate", *model(given), "--images", given / "photos", "--for", "planted-table", "--out", table)
    assert table.read_bytes().startswith(b'planted:{"')
    run("calibrate", *model(given), "--from", table, "--out", tmp_path / "own.json")
    assert json.loads((tmp_path / "own.json").read_text())["method"] == "from planted-table"
    printed = run("spec", "export", given / "spec.toml", "--for", "planted", "--images", "there")
    assert printed == "planted settings for small in there"


def test_triton_runs_it_by_its_own_backend(run: Commands, given: Path, tmp_path: Path) -> None:
    run("convert", *model(given), "--target", "planted:cpu:float32", "--out", tmp_path / "bundle")
    run("pack", tmp_path / "bundle", "--for", "triton", "--out", tmp_path / "models")
    configuration = (tmp_path / "models" / "small.tensor" / "config.pbtxt").read_text()
    assert 'backend: "planted"' in configuration
    assert "count: 7" in configuration
    assert (tmp_path / "models" / "small.tensor" / "1" / "model.planted").is_file()
    assert "It was planted." in (tmp_path / "models" / "small" / "README.md").read_text()


def lines_elsewhere() -> Iterator[tuple[str, str]]:
    """Yield every line of the package outside the runtimes' folders and the zoo's cards, with its file."""
    for path in sorted(SOURCE.rglob("*")):
        name = path.relative_to(SOURCE).as_posix()
        outside = not name.startswith(("backends/", "zoo/cards/"))
        if outside and path.is_file() and path.suffix in (".py", ".toml", ".js", ".html", ".in", ".proto", ".css"):
            yield from ((name, line) for line in path.read_text(encoding="utf-8").splitlines())


def names_of_runtimes() -> set[str]:
    own = [backends.get(name) for name in backends.names()]
    return {word.lower() for backend in own for word in (backend.name, backend.title) if word}


def test_no_runtime_is_named_outside_its_folder() -> None:
    names = names_of_runtimes() - COMMON - FRAMEWORKS - EVALUATOR
    assert {"openvino", "litert", "mnn", "ncnn", "tensorrt"} <= names
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, sorted(names)))})\b", re.IGNORECASE)
    lines = {name: line.strip() for name, line in lines_elsewhere() if pattern.search(line)}
    assert {name: line for name, line in lines.items() if not name.startswith(tuple(ELSEWHERE))} == {}
    unused = [allowed for allowed in ELSEWHERE if not any(name.startswith(allowed) for name in lines)]
    assert not unused, "allowed for nothing"


def test_the_evaluator_of_the_reference_is_named_in_code_only_where_it_evaluates() -> None:
    """Its name in targets, in strings and imports; prose may explain what was measured with it."""
    pattern = re.compile(r"\bonnxruntime\b")
    lines = {
        name: line.strip()
        for name, line in lines_elsewhere()
        if pattern.search(line) and re.search(r'(?<!")"(?!"")', line)
    }
    assert {name: line for name, line in lines.items() if name not in EVALUATOR_IN_CODE} == {}
    assert EVALUATOR_IN_CODE.keys() <= lines.keys(), "allowed for nothing"


def test_the_reference_s_target_is_written_once() -> None:
    pattern = re.compile(r'Target\(\s*"onnxruntime"')
    lines = [(name, line) for name, line in lines_elsewhere() if pattern.search(line) and ">>>" not in line]
    assert [name for name, _ in lines] == ["core/target.py"]


def facts(name: str) -> dict[str, Any]:
    backend = backends.get(name)
    return {"name": backend.name, "title": backend.title, "symbol": backend.symbol, "deployable": backend.deployable}


@pytest.mark.parametrize("name", backends.names())
def test_a_runtime_says_what_it_is_called(name: str) -> None:
    assert facts(name)["title"]


def test_no_two_runtimes_share_a_symbol() -> None:
    symbols = [symbol for name in backends.names() if (symbol := backends.get(name).symbol)]
    assert len(symbols) == len(set(symbols)) >= 6

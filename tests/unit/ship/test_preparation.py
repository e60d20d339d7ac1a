"""What candidates are built from: tables, rankings, tensors; on a network that was really trained."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.digits_model import Digits
from plimsoll import backends, quantize
from plimsoll.core.budget import Budget
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.importers import read
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.report.reason import Failed
from plimsoll.ship import Candidate, Search, SearchConfig, ShipResult, Trial
from plimsoll.ship.split import Split, split
from plimsoll.ship.store import WorkFolder
from plimsoll.ship.strategy import calibrators_of
from plimsoll.spec import files as spec_files

FLOAT, INT8 = Target("onnxruntime"), Target("onnxruntime", "cpu", "int8")
WHOLE = Candidate("fast", False, INT8, "minmax")
PLANTED = '''
"""A runtime whose own tool calibrates: it writes down what it got, and stays in float32."""
import json
import numpy as np
from plimsoll.backends.base import Backend, AvailableTarget
from plimsoll.backends.onnxruntime import BACKEND as HONEST
from plimsoll.errors import BuildError
from plimsoll.core.model import Model
from plimsoll.core.target import Target

class Planted(Backend):
    def __init__(self, name, own): self.name, self.own = name, own
    def targets(self):
        toolchain = "" if self.own else "nobody_made_this"
        return (AvailableTarget(Target(self.name, "cpu", "int8"), toolchain=toolchain),)
    def takes_calibration(self, target): return True
    def calibrators(self, target): return self.own
    def build(self, model, target, folder, calibrated=None):
        if "was built" in model.path.name: return model
        if calibrated is None: raise BuildError("it needs calibration")
        path = folder / "was built.onnx"
        path.write_bytes(model.path.read_bytes())
        facts = {"method": calibrated.method, "shape": calibrated.tensors.shape, "dtype": str(calibrated.tensors.dtype),
                 "largest": float(calibrated.tensors.max()), "ranges": sorted(calibrated.ranges),
                 "mapped": isinstance(calibrated.tensors, np.memmap)}
        (folder / "got.json").write_text(json.dumps(facts))
        return Model(path, "onnx", model.spec, parent=model)
    def load(self, model, target, options, plan): return HONEST.load(model, Target("onnxruntime"), None, plan)

selfmade = Planted("selfmade", ("theirs", "also_theirs"))
borrowing = Planted("borrowing", ())
'''


pytestmark = pytest.mark.usefixtures("jobs_here")


@pytest.fixture
def parts(digits: Digits) -> Split:
    return split(sorted(map(str, digits.images.rglob("*.png")))[::10], 2000)


@pytest.fixture
def opened(digits: Digits) -> ResolvedModel:
    return ResolvedModel(read(digits.model, spec_files.read(digits.spec)))


def config(*targets: Target) -> SearchConfig:
    """No time to look for candidates: the tests name those that they are about."""
    return SearchConfig(
        targets,
        ("minmax",),
        Budget.parse("mean_deviation=0.05"),
        search_seconds=0.0,
        measure_seconds=0.1,
        candidate_seconds=300.0,
    )


def search_of(opened: ResolvedModel, parts: Split, work: Path, search_config: SearchConfig) -> Search:
    return Search(opened, parts, WorkFolder.of(work, opened.model, parts), search_config)


def run_search(
    opened: ResolvedModel, parts: Split, work: Path, search_config: SearchConfig
) -> tuple[ShipResult, list[Trial], Path]:
    trials: list[Trial] = []
    search = search_of(opened, parts, work, search_config)
    return search.run(trials.append), trials, search.work.path


def test_the_worst_layers_are_kept_in_float_and_the_answers_are_nearer(
    opened: ResolvedModel, parts: Split, tmp_path: Path
) -> None:
    search = search_of(opened, parts, tmp_path, config(INT8))
    whole, mixed = (search.network(replace(WHOLE, float_layers=count)) for count in (0, 1))
    (row,) = (search.work.path / "rows").glob("rank-minmax.json")
    ranked = search.work.load("rank-minmax")
    assert ranked is not None
    assert sorted(ranked.result["layers"]) == ["conv1", "conv2"]
    first, second = ranked.result["mean_abs"]
    assert first > second
    reference = answers(opened.model, parts)
    assert (
        0
        < np.abs(answers(mixed, parts, INT8) - reference).mean()
        < np.abs(answers(whole, parts, INT8) - reference).mean()
    )
    before = row.stat().st_mtime_ns
    search_of(opened, parts, tmp_path, config(INT8)).network(replace(WHOLE, float_layers=1, preprocessing="reference"))
    assert row.stat().st_mtime_ns == before, "the layers were ranked again"


def answers(model: Model, parts: Split, target: Target = FLOAT) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    with Predictor(ResolvedModel(model, target, "reference")) as predictor:
        return np.array(
            [
                list(prediction.answer.row()["scores"].values())
                for prediction in predictor.predict_many(parts.test)
                if prediction.answer is not None
            ]
        )


def test_a_mixture_is_a_row_like_others_and_one_without_int8_layers_says_why_not(
    opened: ResolvedModel, parts: Split, tmp_path: Path
) -> None:
    search = search_of(opened, parts, tmp_path, config(INT8))
    search.run()
    mixed, nothing_left = (search.try_candidate(replace(WHOLE, float_layers=count)) for count in (1, 2))
    assert mixed.passed, mixed.reason
    assert nothing_left.status == "failed"
    assert nothing_left.reason == Failed(message="only 2 of its layers can be quantized: nothing would be left in int8")
    assert (search.work.path / "rows" / f"try-{mixed.candidate.key}.json").exists()


def test_what_lint_finds_is_noted_also_when_a_run_is_continued(
    opened: ResolvedModel, parts: Split, tmp_path: Path
) -> None:
    few = split([*parts.calibration[:12], *parts.validation[:12]], 2000)
    notes = []
    for _ in range(2):
        search = search_of(opened, few, tmp_path, config(INT8))
        search.network(WHOLE)
        notes.append(search.notes)
    assert any("7 calibration pictures show too little" in note and "Give at least 32" in note for note in notes[0])
    assert notes[1] == notes[0]


def test_a_given_table_is_used_in_place_of_calibrating(opened: ResolvedModel, parts: Split, tmp_path: Path) -> None:
    first = search_of(opened, parts, tmp_path / "first", config(INT8))
    table = first.table(WHOLE)
    assert table is not None
    wider = quantize.Calibration.read(table)
    given = tmp_path / "given.json"
    quantize.Calibration(ranges={name: (4 * low, 4 * high) for name, (low, high) in wider.ranges.items()}).write(given)
    _, trials, folder = run_search(opened, parts, tmp_path / "second", replace(config(INT8), calibration=given))
    (name,) = {trial.candidate.calibrator for trial in trials if trial.candidate.calibrator}
    assert name is not None
    assert name.startswith("given_")
    assert not list((folder / "rows").glob("calibrate*"))
    assert (
        quantize.Calibration.read(next(folder.glob(f"built/*/calibration/{name}.json"))).ranges
        == quantize.Calibration.read(given).ranges
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('{"ranges": {"nothing": [0, 1]}}', "has no range for 3 of the 3 tensors"),
        ('{"ranges": {"a": [1, 0]}}', "its low end lies above its high end"),
        ('{"model": "%s", "ranges": {"picture": [0, 1]}}' % ("0" * 64), "was made with another network"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_before_anything_is_tried(
    opened: ResolvedModel, parts: Split, tmp_path: Path, table: str, message: str
) -> None:
    given = tmp_path / "given.json"
    given.write_text(table)
    trials: list[Trial] = []
    with pytest.raises(InputError, match=message):
        search_of(opened, parts, tmp_path, replace(config(INT8), calibration=given)).run(trials.append)
    assert not trials


def test_a_table_that_no_target_takes_is_refused(opened: ResolvedModel, parts: Split, tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text('{"ranges": {"picture": [0, 1]}}')
    with pytest.raises(InputError, match="none of the targets uses a calibration table"):
        search_of(opened, parts, tmp_path, replace(config(FLOAT), calibration=given)).run()


def test_pictures_that_were_moved_are_not_answered_again(opened: ResolvedModel, parts: Split, tmp_path: Path) -> None:
    first, _, folder = run_search(opened, parts, tmp_path / "work", config(FLOAT))
    before = {file: file.stat().st_mtime_ns for file in folder.glob("rows/*.json")}
    paths = [*parts.calibration, *parts.validation, *parts.test]
    moved = [shutil.copy(path, tmp_path / f"{index}.png") for index, path in enumerate(paths)]
    again, _, _ = run_search(opened, split(map(str, moved), 2000), tmp_path / "work", config(FLOAT))
    assert {file: file.stat().st_mtime_ns for file in folder.glob("rows/*.json")} == before
    assert all(Path(score.path).parent == tmp_path for score in again.scores)
    assert [score.reference for score in again.scores] == [score.reference for score in first.scores]


def test_a_speed_for_one_objective_says_nothing_of_another(opened: ResolvedModel, parts: Split, tmp_path: Path) -> None:
    _, _, folder = run_search(opened, parts, tmp_path, config(FLOAT))
    before = {file.name for file in folder.glob("rows/*.json")}
    run_search(opened, parts, tmp_path, replace(config(FLOAT), objective="latency"))
    after = {file.name for file in folder.glob("rows/*.json")}
    assert after - before == {"measure-reference-latency.json"}


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package = tmp_path / "packages"
    facts = package / "calibrating-1.0.dist-info"
    facts.mkdir(parents=True)
    (package / "calibrating.py").write_text(PLANTED)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: calibrating\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[plimsoll.backends]\nselfmade = calibrating:selfmade\nborrowing = calibrating:borrowing\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package), prepend=os.pathsep)
    monkeypatch.syspath_prepend(package)
    backends.names.cache_clear()
    yield
    backends.names.cache_clear()


@pytest.mark.usefixtures("planted")
def test_a_runtime_that_calibrates_itself_gets_the_tensors_and_is_asked_once(
    opened: ResolvedModel, parts: Split, tmp_path: Path
) -> None:
    selfmade, borrowing = Target("selfmade", "cpu", "int8"), Target("borrowing", "cpu", "int8")
    assert calibrators_of(selfmade, ("minmax",)) == ("minmax", "theirs", "also_theirs")
    candidates = [
        Candidate("fast", False, selfmade, "theirs"),
        Candidate("fast", True, selfmade, "theirs"),
        Candidate("fast", False, borrowing, "minmax"),
        Candidate("fast", False, selfmade, "minmax"),
    ]
    search = search_of(opened, parts, tmp_path, config(selfmade, borrowing))
    search.run()
    trial = search.try_candidate(candidates[0])
    assert trial.passed, trial.reason
    got = [search.network(candidate).path.parent / "got.json" for candidate in candidates]
    theirs, folded, ours, both = (json.loads(file.read_text()) for file in got)
    count = len(parts.calibration)
    assert theirs == {
        "method": "theirs",
        "shape": [count, 1, 8, 8],
        "dtype": "float32",
        "largest": 1.0,
        "ranges": [],
        "mapped": True,
    }
    assert (folded["shape"], folded["dtype"], folded["largest"]) == ([count, 8, 8, 1], "uint8", 255.0)
    assert (ours["method"], ours["ranges"]) == (both["method"], both["ranges"]) == ("minmax", ["b", "d", "picture"])
    times = [file.stat().st_mtime_ns for file in got]
    again = search_of(opened, parts, tmp_path, config(selfmade, borrowing))
    assert [(again.network(candidate).path.parent / "got.json").stat().st_mtime_ns for candidate in candidates] == times


@pytest.mark.usefixtures("planted")
def test_a_target_is_a_default_only_where_its_toolchain_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from plimsoll.ship import all_targets, default_targets, missing_toolchains
    from plimsoll.system import toolchains as toolchain

    installed: set[str] = set()
    monkeypatch.setattr(toolchain, "is_ready", installed.__contains__)
    borrowing = Target("borrowing", "cpu", "int8")
    assert borrowing not in default_targets()
    assert Target("selfmade", "cpu", "int8") in default_targets()
    assert borrowing in all_targets()
    assert missing_toolchains((borrowing,)) == ("nobody_made_this",)
    installed.add("nobody_made_this")
    assert borrowing in default_targets()
    assert missing_toolchains((borrowing,)) == ()

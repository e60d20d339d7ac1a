"""The main job on a small network: what wins, what fails and why, and what a killed run leaves behind."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.service_process import until
from helpers.small_models import small_model
from plimsoll.core.budget import Budget
from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.report import summary
from plimsoll.report.reason import Failed
from plimsoll.report.ship_result import LayerSnr
from plimsoll.ship import REFERENCE, Search, SearchConfig, ShipResult, Trial
from plimsoll.ship.jobs import LayerComparison
from plimsoll.ship.split import split
from plimsoll.ship.store import WorkFolder
from plimsoll.spec import files as spec_files
from plimsoll.system import subprocesses

PLANTED = '''
"""Backends that go wrong in every way."""
import ctypes, time
import numpy as np
from plimsoll.backends.base import Backend, AvailableTarget
from plimsoll.backends.onnxruntime import BACKEND as HONEST
from plimsoll.core.target import Target

class Wrapped:
    concurrent = True
    def __init__(self, session): self.session, self.inputs, self.outputs = session, session.inputs, session.outputs
    def close(self): self.session.close()
    def run(self, feeds):
        return {name: np.full_like(value, np.nan) for name, value in self.session.run(feeds).items()}

class Planted(Backend):
    def __init__(self, name): self.name = name
    def targets(self): return (AvailableTarget(Target(self.name)),)
    def build(self, model, target, folder, calibrated=None): return model
    def load(self, model, target, options, plan):
        if self.name == "crashing": ctypes.string_at(0)
        if self.name == "hanging": time.sleep(3600)
        if self.name == "hungry":
            self.hog = bytearray(b"x") * 1_500_000_000
            time.sleep(3600)
        return Wrapped(HONEST.load(model, Target("onnxruntime"), None, plan))

crashing, hanging, hungry, lying = map(Planted, ("crashing", "hanging", "hungry", "lying"))
'''
PATIENCE_S = 120.0
HONEST = (Target("onnxruntime"), Target("onnxruntime", "cpu", "int8"))


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(3)
    for index in range(40):
        Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{index}.png")
    return sorted(map(str, folder.iterdir()))


@pytest.fixture
def opened(tmp_path: Path) -> ResolvedModel:
    return ResolvedModel(small_model(tmp_path))


def shipped(
    opened: ResolvedModel, photos: list[str], root: Path, config: SearchConfig
) -> tuple[ShipResult, list[Trial]]:
    parts = split(photos, 2000)
    trials: list[Trial] = []
    search = Search(opened, parts, WorkFolder.of(root, opened.model, parts), config)
    return search.run(trials.append), trials


def config(*targets: Target, budget: str = "flips=30%,mean_deviation=0.05", seconds: float = 1000.0) -> SearchConfig:
    limit = Budget.parse(budget)
    return SearchConfig(
        targets,
        ("minmax",),
        limit,
        search_seconds=seconds,
        measure_seconds=0.1,
        candidate_seconds=PATIENCE_S,
        memory_bytes=1_600_000_000,
    )


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was worked on in processes of its own. What is known to hang is not waited for as long as the rest, which a
    busy machine may hold up."""
    payloads: list[dict[str, Any]] = []
    original = subprocesses.run_job

    def run(module: str, payload: dict[str, Any], folder: Path, limits: subprocesses.ProcessLimits) -> dict[str, Any]:
        payloads.append(payload)
        if "hanging" in json.dumps(payload["job"].get("candidate")):
            # A little more than a candidate's limit, for the pictures.
            assert PATIENCE_S <= limits.seconds < 1.5 * PATIENCE_S
            limits = replace(limits, seconds=2.0)
        return original(module, payload, folder, limits)

    monkeypatch.setattr(subprocesses, "run_job", run)
    return payloads


@pytest.mark.usefixtures("jobs")
def test_what_goes_wrong_is_a_row_with_its_reason(
    opened: ResolvedModel, photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages"
    (package / "planted-1.0.dist-info").mkdir(parents=True)
    (package / "planted.py").write_text(PLANTED)
    (package / "planted-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    names = ("crashing", "hanging", "hungry", "lying")
    (package / "planted-1.0.dist-info" / "entry_points.txt").write_text(
        "[plimsoll.backends]\n" + "".join(f"{name} = planted:{name}\n" for name in names)
    )
    monkeypatch.setenv("PYTHONPATH", str(package), prepend=os.pathsep)
    monkeypatch.syspath_prepend(package)
    from plimsoll import backends

    backends.names.cache_clear()
    result, trials = shipped(
        opened, photos, tmp_path / "work", config(Target("onnxruntime"), *(Target(name) for name in names))
    )
    reasons = {
        trial.candidate.target.runtime: trial.reason.message for trial in trials if isinstance(trial.reason, Failed)
    }
    assert "a segmentation fault" in reasons["crashing"]
    assert "longer than its limit of 2 s" in reasons["hanging"]
    assert "GB of memory; its limit is" in reasons["hungry"]
    lying = next(trial for trial in trials if trial.candidate.target.runtime == "lying")
    assert not lying.passed
    assert result.shipped.candidate.target.runtime == "onnxruntime"
    assert any(trial.status == "ok" and trial.passed for trial in trials)


@pytest.mark.usefixtures("jobs_here")
def test_a_budget_that_cannot_be_met_ships_the_reference_and_says_so(
    opened: ResolvedModel, photos: list[str], tmp_path: Path
) -> None:
    result, _ = shipped(opened, photos, tmp_path / "work", config(HONEST[0], budget="mean_deviation=1e-12"))
    assert result.outcome == "nothing_passed"
    assert result.shipped.candidate == REFERENCE
    nearest, reason = result.nearest()[0]
    assert nearest.candidate.target == HONEST[0]
    assert {check.limit for check in reason.checks} == {1e-12}
    missed = summary.nearest(result)[0]
    assert missed.startswith(nearest.name)
    assert "; the limit is 1·10⁻¹², missed by " in missed
    assert all(trial.reason is not None for trial in result.trials), "a candidate ended without a reason"


@pytest.mark.usefixtures("jobs_here")
def test_a_budget_that_can_not_be_proven_on_so_few_pictures_is_refused_before_anything_is_tried(
    opened: ResolvedModel, photos: list[str], tmp_path: Path, jobs: list[dict[str, Any]]
) -> None:
    with pytest.raises(InputError, match="40 pictures leave 20 to test, and even without a flip it takes 74") as error:
        shipped(opened, photos, tmp_path / "work", config(*HONEST, budget="flips=4%"))
    assert error.value.hint == "Give 147 pictures or more, or allow flips=14%."
    assert not jobs
    shipped(opened, photos, tmp_path / "work", config(HONEST[0], budget="flips=14%", seconds=0.0))


@pytest.mark.usefixtures("jobs_here")
def test_a_work_folder_of_an_older_layout_is_not_read_and_the_user_is_told(
    opened: ResolvedModel, photos: list[str], tmp_path: Path
) -> None:
    parts = split(photos, 2000)
    described = f"layout 2\n{opened.model.sha256}\n{spec_files.dumps(opened.model.require_spec())}\n{parts.digest}"
    older = tmp_path / "work" / f"small-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
    (older / "rows").mkdir(parents=True)
    (older / "rows" / "reference.json").write_text('{"environment": "x", "row": {"rows": []}}')
    result, trials = shipped(opened, photos, tmp_path / "work", config(HONEST[0], seconds=0.0))
    assert [trial.status for trial in trials] == ["skipped"]
    assert any(str(older) in note and "older version" in note for note in result.notes)
    assert sorted(path.name for path in older.rglob("*")) == ["reference.json", "rows"]
    again, _ = shipped(opened, photos, tmp_path / "other", config(HONEST[0], seconds=0.0))
    assert not any("older version" in note for note in again.notes)


@pytest.mark.usefixtures("jobs_here")
def test_figures_without_a_finite_value_are_stored_as_they_are(
    opened: ResolvedModel, photos: list[str], tmp_path: Path
) -> None:
    work = WorkFolder.of(tmp_path, opened.model, split(photos, 2000))
    layers = [LayerSnr(name="equal", snr_db=math.inf), LayerSnr(name="unknown"), LayerSnr(name="third", snr_db=1 / 3)]
    work.save("layers", LayerComparison(layers=tuple(layers)))
    stored = work.load("layers")
    assert stored is not None
    read = LayerComparison.model_validate(stored.result).layers
    assert read[0] == layers[0]
    assert math.isnan(read[1].snr_db)
    assert read[2] == layers[2]


@pytest.mark.usefixtures("jobs_here")
def test_a_row_that_is_not_what_this_version_stores_is_made_again(
    opened: ResolvedModel, photos: list[str], tmp_path: Path
) -> None:
    first, _ = shipped(opened, photos, tmp_path / "work", config(HONEST[0], seconds=0.0))
    (row,) = (tmp_path / "work").glob("*/rows/reference.json")
    environment = json.loads(row.read_text())["environment"]
    for written in ("", "[]", {"environment": environment, "row": {"rows": []}}, {"environment": environment}):
        row.write_text(written if isinstance(written, str) else json.dumps(written))
        second, _ = shipped(opened, photos, tmp_path / "work", config(HONEST[0], seconds=0.0))
        assert second.scores == first.scores
        assert json.loads(row.read_text())["result"]["answers"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_killed_run_is_continued_and_one_after_it_repeats_nothing_and_finds_the_same(
    opened: ResolvedModel, photos: list[str], tmp_path: Path, jobs: list[dict[str, Any]]
) -> None:
    code = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from plimsoll.core.model import Model
from plimsoll.errors import InputError
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.report import summary
from plimsoll.spec.files import loads
from helpers.small_models import SPEC
from unit.ship import test_search as tests
model = ResolvedModel(Model(Path(sys.argv[2]), "onnx", loads(SPEC)))
tests.shipped(model, json.loads(sys.argv[3]), Path(sys.argv[4]), tests.config(*tests.HONEST))
"""
    tests = str(Path(__file__).resolve().parents[2])
    work = tmp_path / "work"
    command = [sys.executable, "-c", code, tests, str(opened.model.path), json.dumps(photos), str(work)]

    def rows() -> dict[str, float]:
        return {file.name: file.stat().st_mtime_ns for file in work.glob("*/rows/*.json")}

    finished: list[dict[str, float]] = []
    for more, pause in ((1, 0.0), (1, 0.3), (2, 0.6)):  # in the midst of different pieces of work
        had = len(rows())
        process = subprocess.Popen(command, env=dict(os.environ), start_new_session=True, stderr=subprocess.DEVNULL)
        until(lambda: len(rows()) >= had + more or process.poll() is not None, "more work to be finished")  # noqa: B023 - called at once
        assert process.poll() is None, "everything was finished before the kills: they prove nothing"
        time.sleep(pause)
        process.kill()
        process.wait()
        finished.append(rows())
    result, trials = shipped(opened, photos, work, config(*HONEST))
    after = rows()
    for before in finished:
        assert before.items() <= after.items(), "a finished piece of work was done again"
    assert len(trials) >= 2
    assert result.shipped.status == "ok"
    assert jobs
    jobs.clear()
    last, again = shipped(opened, photos, work, config(*HONEST))
    assert not jobs
    assert [trial.model_dump_json() for trial in again] == [trial.model_dump_json() for trial in trials]
    apart = {"seconds", "notes"}  # What is noted while a candidate that fails is prepared is noted once.
    assert result.model_dump_json(exclude=apart) == last.model_dump_json(exclude=apart)

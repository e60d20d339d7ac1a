"""`ship` and `prove` of a cascade: its networks on what the reference gives them, and the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.answer_networks import draw, network, saved, spec_of
from plimsoll import load
from plimsoll.bundle import CascadeBundle
from plimsoll.core.budget import Budget
from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.inference.cascade import CascadePredictor
from plimsoll.inference.cascade_bundle import verify_cascade
from plimsoll.prove.cascade import prove_cascade
from plimsoll.report.page import render
from plimsoll.ship import SearchConfig, export
from plimsoll.ship.cascade import keyed, open_subject, search_for
from plimsoll.ship.split import split
from plimsoll.ship.store import WorkFolder
from plimsoll.spec import files as spec_files
from plimsoll.tasks.detect import Detection

pytestmark = pytest.mark.usefixtures("jobs_here")
CASCADE = """
name = "corners"
[[stages]]
model = "detect.onnx"
spec = "detect.toml"
[[stages]]
model = "landmarks.onnx"
spec = "landmarks.toml"
presence = 0.0
[stages.crop]
scale = 1.6
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for task in ("detect", "landmarks"):
        saved(network(task), tmp_path / f"{task}.onnx", spec_of(task))
        (tmp_path / f"{task}.toml").write_text(spec_files.dumps(spec_of(task)))
    (tmp_path / "cascade.toml").write_text(CASCADE)
    draw(tmp_path / "drawn", 24)
    return tmp_path


def test_networks_are_searched_and_the_whole_ships(folder: Path) -> None:
    pictures = sorted(map(str, (folder / "drawn").iterdir()))
    budget = Budget.parse(["box_recall=50%", "nme=50%"])
    targets = (Target.parse("onnxruntime:cpu:float32"),)
    config = SearchConfig(targets, budget=budget, search_seconds=1e5, measure_seconds=0.05, min_gain=-0.999)
    with open_subject(str(folder / "cascade.toml"), None, folder / "work") as subject:
        parts = keyed(subject, split(pictures, 100))
        work = WorkFolder.of(folder / "work", subject.model, parts)
        with pytest.raises(InputError, match="belong to a single network"):
            search_for(subject, parts, work, config, {"path": "label"})
        search = search_for(subject, parts, work, config, None)
        result = search.run()
        exported = export(search, result, folder / "out.zip")
    assert [own.name for own in result.networks] == [spec_of(task).name for task in ("detect", "landmarks")]
    assert {trial.status for own in result.networks for trial in own.trials} == {"ok"}
    shipped = result.shipped
    assert result.outcome == "better"
    assert len(shipped.candidate.stages) == 2
    assert shipped.measured.size_bytes == pytest.approx(result.baseline.measured.size_bytes, rel=0.5)
    assert {check.name for check in result.test.checks} == {
        "recall of the reference's boxes",
        "normalized mean error of points",
    }
    page = render(exported.report)
    assert "cascade&#39;s networks" in page or "cascade's networks" in page
    test = set(parts.test)
    cut = {file.name.partition("-")[0] for file in (work.path / "crops").rglob("*.png")}
    assert cut == {str(number) for number in range(len(pictures) - len(test))}, "test pictures are cut for nobody"
    with CascadeBundle.open(folder / "out.zip") as bundle:
        assert verify_cascade(bundle).passed
    with load(folder / "out.zip") as other, load(folder / "cascade.toml") as reference:
        assert isinstance(other, CascadePredictor)
        assert isinstance(reference, CascadePredictor)
        proof = prove_cascade(reference, other, pictures, budget)
        assert proof.passed, proof.checks
        assert [name for name, _ in proof.networks] == [own.name for own in result.networks]
        assert all(not isinstance(each, str) for _, each in proof.networks)
        assert isinstance(other.predict(pictures[0]), Detection)


def test_a_cascade_that_answers_otherwise_is_not_proven(folder: Path) -> None:
    pictures = sorted(map(str, (folder / "drawn").iterdir()))[:6]
    (folder / "other.toml").write_text(CASCADE.replace("scale = 1.6", "scale = 1.6\nshift = [0.4, 0.0]"))
    with load(folder / "cascade.toml") as reference, load(folder / "other.toml") as other:
        assert isinstance(other, CascadePredictor)
        assert isinstance(reference, CascadePredictor)
        proof = prove_cascade(reference, other, pictures, Budget.parse(["nme=1%"]))
    assert not proof.passed
    assert len(proof.network_lines()) == 2
    assert proof.report().details["networks"]

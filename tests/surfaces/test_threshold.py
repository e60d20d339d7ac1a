"""`plimsoll threshold`: from a table and decisions to bands, with what is known of them; and policies that commands
apply."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.html_parser import Page
from helpers.small_models import SPEC, small_model
from plimsoll.bundle import Bundle
from plimsoll.inference.predictor import load
from plimsoll.scan.models import ScanModel
from plimsoll.scan.plan import Plan
from plimsoll.scan.storage import folder
from plimsoll.scan.table import Table, new_manifest
from plimsoll.serve.executor import ModelExecutor
from surfaces.conftest import RunHere

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402  # where it is installed

STRATA = (0.05, 0.2, 0.5, 0.8)
SIZES = (3000, 400, 400, 400, 400)


def scanned(name: str, **values: Any) -> ScanModel:
    hashes = {"model_sha256": name, "spec_sha256": name, "bundle_sha256": f"{name}-bundle"}
    facts = {"task": "classify", "target": "onnxruntime:cpu:float32", "preprocessing": "reference"}
    return ScanModel(name=name, **{**facts, **hashes, "positive": "bad", **values})


def write_table(path: Path, scores: NDArray[np.float64], *models: ScanModel) -> None:
    """Write a table as `scan` does: two parts, a picture without a score, and a copy of the first picture."""
    table = Table(folder(str(path)))
    plan = Plan(shards=2, pictures=scores.size + 2, base="", separator="\n", sha256="")
    table.begin(new_manifest(models, ["photos"], plan, pdq=False, since=None, column=""))
    numbers = [*range(scores.size), 0, None]
    for part, chosen in enumerate((numbers[: scores.size // 2], numbers[scores.size // 2 :])):
        rows = [
            {
                "path": f"{number}.jpg" if number is not None else "broken.jpg",
                "sha256": f"{number:064x}" if number is not None else None,
                "bundle_sha256": model.bundle_sha256,
                "score": float(scores[number]) if number is not None else None,
                "time": datetime.now(UTC),
            }
            for number in chosen
            for model in models
        ]
        (path / "rows").mkdir(exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), path / "rows" / f"part-{part:08}.parquet")


@pytest.fixture(scope="module")
def population() -> tuple[NDArray[np.float64], NDArray[np.bool_], list[int]]:
    """Scores of 20,000 pictures, which are bad, and which of them were drawn by stratum."""
    generator = np.random.default_rng(5)
    bad = generator.random(20_000) < 0.03
    scores = 1 / (1 + np.exp(-(generator.normal(size=bad.size) * 1.2 - 4 + 4.5 * bad)))
    stratum = np.searchsorted(STRATA, scores, side="right")
    drawn = [generator.choice(np.flatnonzero(stratum == s), min(n, int((stratum == s).sum())), replace=False)
             for s, n in enumerate(SIZES)]  # fmt: skip
    return scores, bad, [int(number) for part in drawn for number in part]


@pytest.fixture(scope="module")
def table(
    tmp_path_factory: pytest.TempPathFactory, population: tuple[NDArray[np.float64], NDArray[np.bool_], list[int]]
) -> Path:
    path = tmp_path_factory.mktemp("scan") / "table"
    write_table(path, population[0], scanned("guard", bands=(("safe", 0.2), ("review", 0.8), ("unsafe", None))))
    return path


def write_decisions(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def decisions(tmp_path: Path, population: tuple[NDArray[np.float64], NDArray[np.bool_], list[int]]) -> Path:
    scores, bad, drawn = population
    ends = (0, *STRATA, 1)
    rows = [
        {
            "sha256": f"{number:064X}",
            "decision": "Bad" if bad[number] else "fine",
            "stratum": "{:g}-{:g}".format(
                *ends[(at := int(np.searchsorted(STRATA, scores[number], "right"))) : at + 2]
            ),
        }
        for number in drawn
    ]
    return write_decisions(tmp_path / "decisions.csv", rows)


def test_bands_are_chosen_within_the_limits_and_hold_what_is_said(
    tmp_path: Path,
    table: Path,
    decisions: Path,
    population: tuple[NDArray[np.float64], NDArray[np.bool_], list[int]],
    run_here: RunHere,
) -> None:
    scores, bad, drawn = population
    policy, report = tmp_path / "policy.toml", tmp_path / "report.json"
    arguments = ("threshold", str(table), "--labels", str(decisions), "--pass", "5%", "--precision", "90%")
    done = run_here(*arguments, "--out", policy, "--report", report)
    assert done.returncode == 0, done.stderr
    written = tomllib.loads(policy.read_text())
    low, high = (band["below"] for band in written["bands"][:2])
    assert [band["label"] for band in written["bands"]] == ["safe", "review", "unsafe"]
    assert (written["positive"], written["threshold"]) == ("bad", high)
    assert bad[scores < low].sum() / bad.sum() <= 0.05
    assert bad[scores >= high].mean() >= 0.9
    output = done.stdout.decode()
    assert f"At {low:g}-{high:g} people look at" in output
    assert "1 picture without a score" in output

    measured = json.loads(report.read_text())
    assert [check["passed"] for check in measured["checks"]] == [True, True]
    assert measured["measurements"]["pictures"] == scores.size + 1  # a copy counts too
    assert measured["measurements"]["reviewed"] == len(drawn)
    for band in measured["details"]["bands"]:
        inside = (scores >= (band["low"] or 0)) & (scores < (band["below"] or 2))
        assert abs(band["pictures"] - inside.sum()) <= 1
        assert band["of_bad"][1] <= bad[inside].sum() / bad.sum() <= band["of_bad"][2]
    recalls = [point["recall"][0] for point in measured["details"]["curve"]]
    assert np.diff(recalls).max() < 0.01  # Each threshold divides the sample anew, so the curve has small steps up.
    # The Spec's bands are judged where none are asked for.
    html = tmp_path / "report.html"
    stated = run_here("threshold", str(table), "--labels", str(decisions), "--json", "--report", html)
    assert "at 0.2-0.8 people look at" in json.loads(stated.stdout)["measurements"]["headline"]
    page = Page(html.read_text())
    assert page.wrong == []
    assert len([each for each in page.all("svg") if each.get("class") == "chart"]) == 3
    assert not page.all("script")
    hostile = table.with_name("<script>alert(1)</script>".replace("/", ":"))
    hostile.symlink_to(table)
    done = run_here("threshold", hostile, "--labels", str(decisions), "--report", html, "--force")
    assert done.returncode == 0, done.stderr
    assert not Page(html.read_text()).all("script")


def test_limits_that_the_sample_cannot_prove_are_refused_with_the_best(
    table: Path, decisions: Path, run_here: RunHere
) -> None:
    done = run_here("threshold", str(table), "--labels", str(decisions), "--pass", "0.001%")
    assert done.returncode == 1
    assert b"no threshold keeps the bad pictures that pass" in done.stderr


def test_several_reviewers_skips_and_pictures_of_elsewhere_are_counted(tmp_path: Path, run_here: RunHere) -> None:
    write_table(tmp_path / "table", np.linspace(0.01, 0.99, 50), scanned("a"), scanned("b", positive="worse"))
    rows = [
        {"path": f"{number}.jpg", "decision": word, "reviewer": reviewer}
        for number, reviewer, word in [
            *((number, "x", "fine") for number in range(0, 30, 3)),
            *((number, "x", "porn") for number in range(30, 50, 3)),
            *((30, reviewer, word) for reviewer, word in (("y", "fine"), ("z", "fine"))),  # two against one
            (33, "y", "fine"),  # a tie
            (36, "x", "fine"),  # thought better of it
            (1, "x", "skip"),
            (777, "x", "porn"),
        ]
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "decisions.parquet")
    arguments = ["threshold", str(tmp_path / "table"), "--labels", str(tmp_path / "decisions.parquet")]
    missing = run_here(*arguments, "--bands", "0.5")
    assert missing.returncode == 2
    assert b"a, b" in missing.stderr
    wrong = run_here(*arguments, "--model", "b", "--bands", "0.5", "--bad", "drawing", "--json")
    assert wrong.returncode == 0  # 'fine' was said, so nothing is bad
    done = run_here(*arguments, "--model", "b", "--bands", "0.5", "--bad", "Porn", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["details"]["unmatched"], report["details"]["ties"], report["details"]["skipped"]) == (1, 1, 1)
    assert (report["measurements"]["reviewed"], report["measurements"]["reviewed_bad"]) == (16, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,verdict\n1.jpg,bad\n", "columns are path, verdict"),
        ("path,decision\n1.jpg,porn\n", "porn (1)"),
        ("path,decision\n", "no decisions"),
        ("path,decision\n,bad\n", "row 1 names no picture"),
        ("path,decision\n1234567.jpg,bad\n", "1234567.jpg"),
        ("path,decision,stratum\n1.jpg,bad,odd\n", "stratum 'odd'"),
        ("path,decision,stratum\n1.jpg,bad,0.998-0.999\n", "drawn from the scores"),
        ("path,decision,weight\n1.jpg,bad,1\n2.jpg,fine,9\n", "weights from 1 to 9"),
        ("path,decision,weight\n1.jpg,bad,-1\n", "weight '-1'"),
        ("PAR1", "can't read the decisions"),
    ],
)
def test_decisions_that_can_not_be_used_are_refused(
    tmp_path: Path, table: Path, run_here: RunHere, text: str, words: str
) -> None:
    (tmp_path / "decisions.csv").write_text(text)
    done = run_here("threshold", str(table), "--labels", tmp_path / "decisions.csv")
    assert done.returncode == 2
    assert words in " ".join(done.stderr.decode().split())


def test_a_policy_is_applied_by_predict_scan_pack_and_serve(tmp_path: Path, run_here: RunHere) -> None:
    model = small_model(tmp_path / "model").path
    spec, policy = tmp_path / "spec.toml", tmp_path / "policy.toml"
    spec.write_text(SPEC + 'positive = "a"\n')
    photos = tmp_path / "photos"
    photos.mkdir()
    from PIL import Image

    for level in range(0, 250, 50):
        Image.new("RGB", (6, 5), (level, 255 - level, 128)).save(photos / f"{level}.png")
    given = (str(model), str(photos), "--spec", str(spec))
    plain = [json.loads(line) for line in run_here("predict", *given).stdout.splitlines()]
    edge = sorted(row["score"] for row in plain)[2]
    policy.write_text(f'threshold = {edge}\n[[bands]]\nlabel = "low"\nbelow = {edge}\n[[bands]]\nlabel = "high"\n')
    done = run_here("predict", *given, "--policy", policy)
    assert done.returncode == 0, done.stderr
    labels = {row["path"]: row["label"] for row in map(json.loads, done.stdout.splitlines())}
    assert labels == {
        row["path"]: "a" if row["score"] >= edge else next(label for label in row["scores"] if label != "a")
        for row in plain
    }

    assert run_here("scan", *given, "--policy", policy, "--out", tmp_path / "table").returncode == 0
    stored = parquet.read_table(tmp_path / "table" / "rows").to_pylist()
    assert {row["path"]: row["label"] for row in stored} == labels
    manifest = Table(folder(str(tmp_path / "table"))).manifest()
    assert manifest is not None
    assert manifest.models[0].bands == (("low", edge), ("high", None))

    bundle = tmp_path / "bundle"
    assert run_here("pack", str(model), "--spec", spec, "--policy", policy, "--out", bundle).returncode == 0
    with Bundle.open(bundle) as opened:
        assert [band.label for band in opened.model.require_spec().output.bands] == ["low", "high"]  # type: ignore[union-attr]
    with load(bundle) as predictor:
        answer: Any = predictor.predict(photos / "0.png")
        assert answer.band in ("low", "high")
    worker: dict[str, Any] = {
        "model": str(model),
        "spec": str(spec),
        "target": None,
        "preprocessing": None,
        "options": {},
    }
    executor = ModelExecutor.open({**worker, "threads": 1, "verify": False, "policy": str(policy)})
    assert [band["label"] for band in executor.metadata()["bands"]] == ["low", "high"]
    executor.close()

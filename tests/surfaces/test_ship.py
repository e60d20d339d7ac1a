"""`plimsoll ship`, run as a command on a network that was trained a moment ago, with labels; and `plimsoll verify` of
what it shipment."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers.digits_model import LABELS, Digits
from helpers.html_parser import Page
from helpers.minimal_bundle import edit
from plimsoll.core.budget import Check
from plimsoll.report import summary
from plimsoll.report.figures import check_in_words
from plimsoll.report.ship_result import ShipResult
from plimsoll.serve.http.models import proof_in_short
from surfaces.conftest import Run

TARGETS = "onnxruntime:cpu:float32,onnxruntime:cpu:int8"


@dataclass(frozen=True)
class Shipment:
    """What a run printed, what it left, and where."""

    output: str
    bundle: Path
    report: dict[str, Any]


def ship(plimsoll: Run, digits: Digits, folder: Path, *more: str) -> Shipment:
    out = folder / "digits.plimsoll"
    given = (
        digits.model,
        "--spec",
        digits.spec,
        "--images",
        digits.images,
        "--out",
        out,
        "--force",
        "--work",
        folder / "work",
    )
    completed = plimsoll("ship", *given, "--targets", TARGETS, "--measure", "0.2s", *more)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert not completed.stderr
    return Shipment(completed.stdout, out, json.loads((out / "report" / "report.json").read_text()))


def plain(text: str) -> str:
    """Return text without unbreakable spaces, and with single ones."""
    return " ".join(text.replace("\u00a0", " ").split())


def figures_are_the_same_everywhere(plimsoll: Run, digits: Digits, shipment: Shipment, whole: dict[str, Any]) -> None:
    """The report's JSON, its page, the terminal, a service's page and `prove` have the same figures, by one name."""
    details = ShipResult.model_validate(shipment.report["details"])
    page = plain(Page((shipment.bundle / "report" / "index.html").read_text()).text)
    terminal = plain(shipment.output)
    rows = {row.name: row for row in proof_in_short(shipment.bundle / "report" / "report.json", whole=True).rows}
    pictures = [argument for score in whole["details"]["scores"] for argument in ("--images", score["path"])]
    budget = ",".join(details.budget.texts)
    proven = plimsoll(
        *("prove", digits.model, shipment.bundle, "--spec-a", digits.spec, "--labels", digits.images, *pictures),
        *("--budget", budget, "--json"),
    )
    assert proven.returncode == 0, proven.stderr
    checks = {check["name"]: Check.model_validate(check) for check in json.loads(proven.stdout)["checks"]}
    assert len(details.test.checks) == 4
    for check in details.test.checks:
        words = check_in_words(check)
        for text in (words.measured, words.bound, words.limit):
            assert f"{check.name}" in page
            assert plain(text) in page
        line = " ".join(map(plain, (check.name, words.measured, words.bound, words.limit, words.result)))
        assert line in terminal
        row = rows[check.name]
        assert (row.measured, row.bound, row.limit) == (words.measured, words.bound, words.limit)
        assert check_in_words(checks[check.name]) == words, "prove says otherwise"
    assert summary.title(details) in page
    assert summary.title(details) in terminal
    assert shipment.report["measurements"]["headline"] == summary.title(details)
    for sentence in summary.sentences(details):
        assert plain(sentence) in page
        assert plain(sentence) in terminal
    for term, value in summary.plate(details):
        assert f"{term}: {plain(value)}" in terminal
        assert plain(value) in page


def nothing_private_is_in_the_bundle(digits: Digits, shipment: Shipment, folder: Path) -> None:
    pictures = {path.name for path in digits.images.rglob("*.png")}
    for file in filter(Path.is_file, shipment.bundle.rglob("*")):
        content = file.read_bytes()
        for private in (folder, digits.images, digits.model.parent, Path.home()):
            assert str(private).encode() not in content, f"{private} is in {file.name}"
        if file.suffix in (".json", ".html", ".toml"):
            text = content.decode()
            assert "base64," not in text, f"{file.name} has an embedded picture"
            assert not pictures.intersection(re.findall(r"[\w.-]+\.png", text)), f"{file.name} names pictures"
    whole = next((folder / "work").glob("*/report.html")).read_text()
    moved = json.loads(next((folder / "work").glob("*/report.json")).read_text())["details"]["worst"]
    # None moves where the reference ships, because nothing was faster on this machine.
    assert ("data:image/jpeg;base64," in whole) == bool(moved), "the report in the work folder has the pictures"
    assert all(str(digits.images) in picture["path"] for picture in moved)


def limits(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in report["details"]["test"]["checks"]}


def test_a_network_keeps_its_accuracy_within_the_budget(plimsoll: Run, digits: Digits, tmp_path: Path) -> None:
    assert digits.accuracy > 0.95, "the network was not trained well enough to say anything"
    shipment = ship(
        plimsoll,
        digits,
        tmp_path,
        "--labels",
        str(digits.images),
        "--budget",
        "top1=-1%,flips=4%,mean_deviation=0.05,max_deviation=0.9",
        "--calibrators",
        "percentile",
        "--time",
        "240s",
    )
    whole = json.loads(next((tmp_path / "work").glob("*/report.json")).read_text())
    figures_are_the_same_everywhere(plimsoll, digits, shipment, whole)
    nothing_private_is_in_the_bundle(digits, shipment, tmp_path)
    details = shipment.report["details"]
    assert details["split"]["test"] >= 299, "fewer can't prove one percent"
    assert details["outcome"] in ("better", "not_better")
    top1 = details["test"]["labelled"]["top1"]
    assert top1["reference"] == pytest.approx(digits.accuracy, abs=0.03)
    assert top1["candidate"] >= top1["reference"] - 0.01
    check = limits(shipment.report)["change of top1"]
    assert check["passed"]
    assert -1.0 <= check["bound"] < 0, "the bound is judged, not the sample"
    int8 = [
        trial
        for trial in details["trials"]
        if trial["candidate"]["target"].endswith("int8") and trial["status"] == "ok"
    ]
    assert int8, "no int8 candidate was measured"
    assert all(trial["candidate"]["calibrator"] == "percentile" for trial in int8)
    assert all(0 < trial["validation"]["deviation"]["mean"] < 0.05 for trial in int8)
    assert "Against the given labels, which 580 of 580 test pictures have: top1 0." in shipment.output
    assert shipment.report["subject"].startswith("digits (digits.onnx, SHA-256 ")
    answered = json.loads(plimsoll("predict", shipment.bundle, next((digits.images / "three").iterdir())).stdout)
    assert answered["label"] == "three"


def test_a_budget_that_can_not_be_met_ships_the_reference_and_says_so(
    plimsoll: Run, digits: Digits, tmp_path: Path
) -> None:
    shipment = ship(
        *(plimsoll, digits, tmp_path, "--budget", "mean_deviation=1e-12", "--calibrators", "minmax", "--time", "120s"),
        *("--targets", "openvino:cpu:float32"),
    )
    details = shipment.report["details"]
    assert details["outcome"] == "nothing_passed"
    assert details["winner"] == details["reference"] == "reference-plain-onnxruntime-cpu-float32"
    assert "the reference ships" in shipment.output
    golden = sorted(path.name for path in (shipment.bundle / "golden").iterdir() if path.suffix != ".npy")
    assert golden == ["alpha.png", "landscape.jpg", "large.jpg", "photo.webp", "portrait.jpg", "tall.jpg"], (
        "a user's picture lies in the bundle unasked"
    )
    assert "none of yours" in shipment.output
    here = plimsoll("verify", shipment.bundle)
    assert here.returncode == 0, here.stdout + here.stderr
    assert "proof: ship of digits (digits.onnx" in here.stdout
    assert "✓ this machine is like the one where it was proven" in here.stdout


def test_what_ships_is_verified_elsewhere(plimsoll: Run, digits: Digits, tmp_path: Path) -> None:
    shipment = ship(
        plimsoll,
        digits,
        tmp_path,
        "--labels",
        str(digits.images),
        "--budget",
        "top1=-1%",
        "--time",
        "0s",
        "--golden-from-images",
    )
    assert shipment.report["details"]["winner"] == shipment.report["details"]["reference"]
    golden = list((shipment.bundle / "golden").glob("*.png"))
    own = {path.read_bytes() for path in digits.images.rglob("*.png")}
    assert sorted(path.name for path in golden) == [f"picture-{number}.png" for number in range(1, 9)]
    assert all(path.read_bytes() in own for path in golden)
    assert "some of your test pictures" in shipment.output
    edit(shipment.bundle, lambda data: data["environment"].update(processor="Cray-1", instruction_sets=["vectors"]))
    there = plimsoll("verify", shipment.bundle)
    assert there.returncode == 0, there.stdout + there.stderr
    assert "this machine is not like the one where it was proven" in there.stdout
    assert "packed on Cray-1, here" in there.stdout
    assert "only where packed vectors" in there.stdout
    assert "Answers may differ in their last digits" in there.stdout


def test_labels_that_contradict_the_network_are_refused_before_anything_is_tried(
    plimsoll_here: Run, digits: Digits, tmp_path: Path
) -> None:
    names = [*LABELS[1:], LABELS[0]]
    others = dict(zip(LABELS, names, strict=True))
    pictures = sorted(digits.images.rglob("*.png"))
    rows = [f"{picture.relative_to(digits.images)},{others[picture.parent.name]}" for picture in pictures]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    given = ("ship", digits.model, "--spec", digits.spec, "--images", digits.images, "--out", tmp_path / "x")
    completed = plimsoll_here(
        *given, "--work", tmp_path / "w", "--labels", tmp_path / "labels.csv", "--targets", TARGETS
    )
    assert completed.returncode == 2
    message = completed.stderr
    assert "it is wrong more often than right" in message
    assert "(800 of 800 pictures have a label, of which 128 were tried)" in message
    assert "--accept-accuracy" in message
    assert not (tmp_path / "x").exists()
    assert not list((tmp_path / "w").glob("*/rows/try-*")), "a candidate was tried"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "top1=-1%"), "the budget limits top1, which needs labelled pictures"),
        (("--labels", "nowhere.csv"), "can't read the labels"),
        (("--budget", "flips=0.1%"), "and even without a flip it takes 2,995"),
        (("--objective", "beauty"), "choose from throughput, latency, size"),
        (("--min-gain", "much"), "is not a share"),
        (("--time", "soon"), "--time: invalid duration"),
        (("--measure", "0"), "at least 50ms"),
        (("--targets", "onnxruntime:cpu:int3"), "precision 'int3'"),
        (("--targets", " , "), "names no target"),
        (("--calibrators", "magic"), "unknown calibrator 'magic'"),
        (("--calibration", "table.json", "--calibrators", "minmax"), "exclude each other"),
        (("--calibration", "nowhere.json"), "can't read the calibration table"),
    ],
)
def test_bad_arguments_are_named(
    plimsoll_here: Run, digits: Digits, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    completed = plimsoll_here(
        "ship",
        digits.model,
        "--spec",
        digits.spec,
        "--images",
        digits.images,
        "--out",
        tmp_path / "x",
        "--work",
        tmp_path / "w",
        *arguments,
    )
    assert completed.returncode == 2
    assert message in completed.stderr
    assert not (tmp_path / "x").exists()

"""What a bundle's report may say: no pictures, no names of theirs, no folder of the machine."""

from __future__ import annotations

from pathlib import Path

from plimsoll.core.budget import Check
from plimsoll.core.target import Target
from plimsoll.report.reason import Failed, MissesBudget
from plimsoll.report.ship_result import LayerSnr, PictureScore, ShipResult, WorstPicture
from plimsoll.report.trial import Candidate, Trial
from plimsoll.ship.sharing import shareable, shareable_command

CANDIDATES = [Candidate("fast", False, Target("onnxruntime", "cpu", precision)) for precision in ("float32", "int8")]


def result(folder: str) -> ShipResult:
    check = Check(name="pictures that only the reference answers", measured=1, limit=0, detail=f"{folder}/nude.jpg")
    return ShipResult(
        winner=CANDIDATES[0].key,
        reference=CANDIDATES[0].key,
        outcome="nothing_passed",
        trials=(
            Trial(candidate=CANDIDATES[0], status="failed", reason=Failed(message="/tmp/x1/my net/a.onnx: broken")),
            Trial(candidate=CANDIDATES[1], status="ok", reason=MissesBudget(part="test", checks=(check,))),
        ),
        scores=(PictureScore(path=f"{folder}/me.jpg"), PictureScore(path=f"{folder}/nude.jpg", reference=0.5)),
        worst=(WorstPicture(path=f"{folder}/nude.jpg", thumbnail="data:image/jpeg;base64,AAAA"),),
        layers=(LayerSnr(name="/features/0/Conv"),),
        notes=(
            f"{folder}/old.jpg can't be read; see /srv/alice/work/row.json",
            "12 images/s at https://example.org/a/b",
        ),
    )


def test_a_shareable_result_has_numbers_in_the_place_of_pictures(tmp_path: Path) -> None:
    folders = ("/home/alice/holiday", "test", "../our photos", str(tmp_path / "at home"))
    for folder in folders:
        whole = result(folder)
        shared = shareable(whole, [f"{folder}/old.jpg"], [Path("/srv/alice/work"), Path("/tmp/x1/my net")])
        text = shared.model_dump_json()
        for private in (
            "nude",
            "me.jpg",
            "alice",
            "holiday",
            "our photos",
            "at home",
            "my net",
            "base64",
            f"{folder}/",
        ):
            assert private not in text, f"{private} is left of {folder}: {text}"
        assert [score.path for score in shared.scores] == ["picture 1", "picture 2"]
        assert shared.worst[0].path == "picture 2"
        assert shared.notes == ("a picture can't be read; see …/row.json", "12 images/s at https://example.org/a/b")
        assert shared.layers == whole.layers
        failed, missed = (trial.reason for trial in shared.trials)
        assert failed == Failed(message="…/a.onnx: broken")
        assert isinstance(missed, MissesBudget)
        assert (missed.part, missed.checks[0].detail) == ("test", "picture 2")


def test_a_shareable_command_names_no_folder(tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.touch()
    given = (
        f"plimsoll ship {model} --images {tmp_path} -i=/home/alice/a.jpg --labels {tmp_path} --work {tmp_path} --force"
    )
    options = [
        "--out=/srv/bundles/net.plimsoll",
        "--spec",
        "specs/net.toml",
        "--budget",
        "flips=4%",
        "--targets",
        "all",
    ]
    assert shareable_command([*given.split(), *options]) == [
        *["plimsoll", "ship", "net.onnx", "--images", "PICTURES", "-i=PICTURES", "--labels", "LABELS", "--force"],
        *["--out=net.plimsoll", "--spec", "net.toml", "--budget", "flips=4%", "--targets", "all"],
    ]

"""`plimsoll prove`, run as a command on real photos with the trained network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plimsoll import zoo
from plimsoll.spec import files
from surfaces.conftest import Run

pytestmark = pytest.mark.usefixtures("nsfw_model_path")

ENOUGH = ("--budget", "flips=6%", "--budget", "mean_deviation=0.01")
"""What the 58 example photos can prove."""


@pytest.fixture
def rgb(tmp_path: Path) -> Path:
    """A Spec that forgets to turn RGB into BGR."""
    path = tmp_path / "rgb.toml"
    path.write_text(
        files.dumps(zoo.card("open_nsfw").spec).replace('[[input.steps]]\nstep = "channels"\norder = "BGR"\n', "")
    )
    assert "order" not in path.read_text()
    return path


def test_the_verdict_comes_first_and_states_the_sample(plimsoll: Run, example_photos: list[Path]) -> None:
    done = plimsoll(
        "prove", "open_nsfw", "open_nsfw", "--images", example_photos[0].parent, "--preprocessing-b", "fast", *ENOUGH
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert (
        first
        == f"✓ proven  0 of {len(example_photos)} decisions flipped at any threshold; with 95 % confidence at most"
        " 5.04 % do"
    )
    text = "\n".join(rest)
    assert "fast preprocessing" in text
    assert "mean deviation" in text
    assert "most at 'resize'" in text
    assert not done.stderr


def test_a_planted_mistake_is_refused_with_the_stage_that_differs(
    plimsoll: Run, example_photos: list[Path], nsfw_model_path: Path, rgb: Path
) -> None:
    done = plimsoll(
        "prove",
        "open_nsfw",
        nsfw_model_path,
        "--spec-b",
        rgb,
        *(f"--images={photo}" for photo in example_photos[:6]),
        "--budget",
        "flips=50%",
    )
    assert done.returncode == 1
    assert done.stdout.startswith("✗ not proven")
    assert "'channels': it gives the network RGB where the reference gives BGR (in its preprocessing)" in done.stderr


def test_too_few_pictures_for_the_default_budget(plimsoll_here: Run, example_photos: list[Path]) -> None:
    done = plimsoll_here("prove", "open_nsfw", "open_nsfw", "--images", example_photos[0])
    assert done.returncode == 1
    assert "1 pictures are too few to prove 4 %: with 0 flipped it takes 74" in done.stderr


def test_json_holds_scores_layers_and_labels(
    plimsoll: Run, example_photos: list[Path], nsfw_model_path: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "path,label\n"
        + "".join(f"{photo},{'nsfw' if count == 0 else 'sfw'}\n" for count, photo in enumerate(example_photos[:4]))
    )
    images = [f"--images={photo}" for photo in example_photos[:4]]
    done = plimsoll(
        "prove",
        "open_nsfw",
        nsfw_model_path,
        *images,
        "--labels",
        labels,
        "--layers",
        "--threshold",
        "0.7",
        "--json",
        "--budget",
        "flips=60%",
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert report["kind"] == "prove"
    assert [flips["threshold"] for flips in report["details"]["comparison"]["flips"]] == [0.7]
    assert report["details"]["comparison"]["labelled"]["accuracy"]["reference"] == 0.75
    assert len(report["details"]["layers"]) > 100


def test_what_cant_be_read_is_counted_and_named(plimsoll_here: Run, example_photos: list[Path], awkward: Path) -> None:
    done = plimsoll_here(
        "prove",
        "open_nsfw",
        "open_nsfw",
        "--images",
        example_photos[0],
        "--images",
        awkward / "truncated.jpg",
        "--budget",
        "flips=99%",
    )
    assert done.returncode == 0, done.stderr
    assert "1 pictures were not answered by both" in done.stdout
    assert "truncated.jpg: neither" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "flip=1%"), "did you mean 'flips'"),
        (("--budget", "top1=-1%"), "needs labelled pictures"),
        (("--preprocessing-b", "quick"), "unknown preprocessing 'quick'; choose from reference, fast"),
        (("--target-b", "onnxruntime:cpu:float99"), "is not a target"),
        (("--labels", "nowhere.csv"), "can't read the labels"),
    ],
)
def test_bad_arguments_are_named(
    plimsoll_here: Run, example_photos: list[Path], arguments: tuple[str, ...], message: str
) -> None:
    done = plimsoll_here("prove", "open_nsfw", "open_nsfw", "--images", example_photos[0], *arguments)
    assert done.returncode == 2
    assert message in done.stderr

"""`plimsoll pack`, `verify` and `inspect`, run as commands on the trained network."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from surfaces.conftest import Run


@pytest.mark.parametrize("name", ["net.plimsoll", "net.plimsoll.zip"])
def test_a_bundle_answers_like_what_it_was_made_of(
    plimsoll: Run, example_photos: list[Path], tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    packed = plimsoll("pack", "open_nsfw", "--out", out)
    assert packed.returncode == 0, packed.stderr
    verified = plimsoll("verify", out)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    direct = json.loads(plimsoll("predict", "open_nsfw", example_photos[0]).stdout)
    bundled = json.loads(plimsoll("predict", out, example_photos[0]).stdout)
    assert bundled["score"] == pytest.approx(direct["score"], abs=1e-6)
    assert bundled["label"] == direct["label"]


def test_a_bundle_with_fast_preprocessing_runs_with_it(
    plimsoll_here: Run, example_photos: list[Path], tmp_path: Path
) -> None:
    assert plimsoll_here("pack", "open_nsfw", "--out", tmp_path / "x", "--preprocessing", "fast").returncode == 0
    photo = example_photos[5]
    of_bundle, fast, reference = (
        json.loads(plimsoll_here("predict", *arguments, photo).stdout)["score"]
        for arguments in ([tmp_path / "x"], ["open_nsfw", "--preprocessing", "fast"], ["open_nsfw"])
    )
    assert of_bundle == pytest.approx(fast, abs=1e-6)
    assert of_bundle != pytest.approx(reference, abs=1e-7)


def test_verify_tells_the_drift_as_data(plimsoll_here: Run, tmp_path: Path) -> None:
    plimsoll_here("pack", "open_nsfw", "--out", tmp_path / "x")
    report = json.loads(plimsoll_here("verify", tmp_path / "x", "--json").stdout)
    assert report["kind"] == "verify"
    assert all(check["passed"] for check in report["checks"])
    assert {check["name"] for check in report["checks"]} >= {"network", "end to end"}


def test_a_changed_file_is_refused_and_named(plimsoll_here: Run, example_photos: list[Path], tmp_path: Path) -> None:
    plimsoll_here("pack", "open_nsfw", "--out", tmp_path / "x")
    model = next((tmp_path / "x").rglob("*.onnx"))
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    for command in (["verify", tmp_path / "x"], ["predict", tmp_path / "x", example_photos[0]]):
        done = plimsoll_here(*command)
        assert done.returncode == 2
        assert model.name in done.stderr
        assert "Traceback" not in done.stderr


def test_a_network_that_answers_differently_fails_its_golden_pictures(plimsoll_here: Run, tmp_path: Path) -> None:
    """Hashes that were made to fit don't help: the golden pictures find another Spec behind the same network."""
    import hashlib

    plimsoll_here("pack", "open_nsfw", "--out", tmp_path / "x")
    spec, manifest = tmp_path / "x" / "spec.toml", tmp_path / "x" / "manifest.json"
    spec.write_text(spec.read_text().replace('order = "BGR"', 'order = "RGB"'))
    facts = json.loads(manifest.read_text())
    facts["files"]["spec.toml"] = {"size": spec.stat().st_size, "sha256": hashlib.sha256(spec.read_bytes()).hexdigest()}
    manifest.write_text(json.dumps(facts))
    done = plimsoll_here("verify", tmp_path / "x")
    assert done.returncode == 1
    assert "preprocessing, mean" in done.stdout
    assert "✗" in done.stdout


def test_pack_does_not_overwrite_unasked(plimsoll_here: Run, tmp_path: Path) -> None:
    assert plimsoll_here("pack", "open_nsfw", "--out", tmp_path / "x").returncode == 0
    again = plimsoll_here("pack", "open_nsfw", "--out", tmp_path / "x")
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert plimsoll_here("pack", "open_nsfw", "--out", tmp_path / "x", "--force").returncode == 0


def test_golden_pictures_of_ones_own(plimsoll: Run, example_photos: list[Path], tmp_path: Path) -> None:
    done = plimsoll(
        "pack", "open_nsfw", "--out", tmp_path / "x.zip", "--images", example_photos[0], "--images", example_photos[1]
    )
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(tmp_path / "x.zip").namelist()
    assert sum(name.endswith(".jpg") for name in names) == 2


def test_a_model_without_a_spec_is_not_packed(plimsoll_here: Run, nsfw_model_path: Path, tmp_path: Path) -> None:
    shutil.copy(nsfw_model_path, tmp_path / "net.onnx")
    done = plimsoll_here("pack", tmp_path / "net.onnx", "--out", tmp_path / "x")
    assert done.returncode == 2
    assert "--spec" in done.stderr


def test_inspect(plimsoll_here: Run, nsfw_model_path: Path) -> None:
    data = json.loads(plimsoll_here("inspect", nsfw_model_path, "--json").stdout)
    assert data["parameters"] == 5_891_272
    assert 2.0e9 < data["flops"] < 2.3e9
    shown = plimsoll_here("inspect", "open_nsfw").stdout
    for fact in ("input:0", "outputs", "Conv", "23.6 MB"):
        assert fact in shown, shown

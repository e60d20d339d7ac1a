"""`plimsoll pack --for triton`, run as a command."""

from __future__ import annotations

from pathlib import Path

from surfaces.conftest import Run


def test_a_model_repository_is_written_and_a_version_added(plimsoll: Run, tmp_path: Path) -> None:
    out = tmp_path / "models"
    done = plimsoll(
        "pack", "open_nsfw", "--for", "triton", "--out", out, "--preprocessing", "fast", "--set", "max_batch=8"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(out)]
    assert (out / "open_nsfw.tensor/1/model.onnx").stat().st_size > 20_000_000
    assert "max_batch_size: 8" in (out / "open_nsfw.tensor/config.pbtxt").read_text()
    assert 'string_value: "fast"' in (out / "open_nsfw.steps/config.pbtxt").read_text()
    again = plimsoll(
        "pack", "open_nsfw", "--for", "triton", "--out", out, "--preprocessing", "fast", "--set", "max_batch=8"
    )
    assert again.returncode == 2
    assert "--set version=2" in again.stderr
    added = plimsoll(
        "pack",
        "open_nsfw",
        "--for",
        "triton",
        "--out",
        out,
        "--preprocessing",
        "fast",
        "--set",
        "max_batch=8",
        "--set",
        "version=2",
    )
    assert added.returncode == 0, added.stderr
    assert (out / "open_nsfw.tensor/2/model.onnx").is_file()


def test_options_that_do_not_belong_together_are_refused(
    plimsoll: Run, example_photos: list[Path], tmp_path: Path
) -> None:
    for arguments, said in (
        (["--for", "torchserve"], "choose from triton"),
        (["--for", "triton", "--images", example_photos[0]], "--images"),
        (["--set", "max_batch=8"], "--for"),
        (["--for", "triton", "--set", "batch=8"], "max_batch"),
        (["--for", "triton", "--set", "max_batch"], "NAME=VALUE"),
    ):
        done = plimsoll("pack", "open_nsfw", "--out", tmp_path / "x", *arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert not (tmp_path / "x").exists()

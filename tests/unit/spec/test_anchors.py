"""Anchors beside a Spec: read with it, carried along by it, and refused where they are anything else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from plimsoll.errors import SpecError
from plimsoll.spec.files import dumps, loads, read
from plimsoll.spec.spec import MAX_ANCHORS, Detect

SPEC = """
name = "it"
[[input.steps]]
step = "decode"
[output]
task = "detect"
head = "ssd"
labels = ["a"]
anchors_file = "{name}"
"""
VALUES = np.random.default_rng(1).uniform(0, 1, (1917, 4)).astype(np.float32)


def spec(folder: Path, name: str = "anchors.npy") -> Path:
    path = folder / "spec.toml"
    path.write_text(SPEC.format(name=name))
    return path


def anchors(path: Path) -> NDArray[np.float32]:
    output = read(path).output
    assert isinstance(output, Detect)
    assert output.anchors_file is None
    return np.array(output.anchors, np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_spec_holds_what_its_file_named(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "anchors.npy", VALUES.astype(dtype))
    path = spec(tmp_path)
    np.testing.assert_array_equal(anchors(path), VALUES)
    whole = read(path)
    (tmp_path / "anchors.npy").unlink()
    assert loads(dumps(whole)) == whole, "from here on it needs no file"


@pytest.mark.parametrize("text", ["0.5 0.25 1 1e-1\n\n# a note\n0,0,2,2 # another\n", "0.5, 0.25, 1, 0.1\n0 0 2 2"])
def test_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.txt").write_text(text)
    np.testing.assert_allclose(
        anchors(spec(tmp_path, "below/a.txt")), np.array([[0.5, 0.25, 1, 0.1], [0, 0, 2, 2]], np.float32)
    )


def test_as_many_as_there_may_be_fit_into_a_spec(tmp_path: Path) -> None:
    np.save(tmp_path / "anchors.npy", np.random.default_rng(2).uniform(0, 1, (MAX_ANCHORS, 4)))
    whole = dumps(read(spec(tmp_path)))
    again = tmp_path / "again.toml"
    again.write_text(whole)
    assert len(anchors(again)) == MAX_ANCHORS
    np.save(tmp_path / "anchors.npy", np.zeros((MAX_ANCHORS + 1, 4)))
    with pytest.raises(SpecError, match=r"40,001 anchors, expected 1 to 40,000"):
        read(spec(tmp_path))


@pytest.mark.parametrize("name", ["../outside.npy", "/etc/passwd", "link.npy", "below/../../outside.npy"])
def test_nothing_outside_of_the_folder_is_read(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "outside.npy", VALUES)
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "link.npy").symlink_to(tmp_path / "outside.npy")
    with pytest.raises(SpecError, match="leads out of the Spec's folder"):
        read(spec(folder, name))


def test_what_is_not_a_table_of_anchors_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "anchors.npy"
    path = spec(tmp_path)
    with pytest.raises(SpecError, match="no such file beside the Spec"):
        read(path)
    os.mkfifo(file)
    with pytest.raises(SpecError, match="no such file beside the Spec"):
        read(path)
    file.unlink()

    np.save(file, VALUES)
    good = file.read_bytes()
    np.save(file, VALUES[:, :3])
    wrong_shape = file.read_bytes()
    np.save(file, VALUES.astype(np.int32))
    wrong_type = file.read_bytes()
    np.save(file, np.array([{"a": 1}, 2], object), allow_pickle=True)
    pickled = file.read_bytes()
    np.save(file, np.where(VALUES > 0.999, np.nan, VALUES))
    with_nan = file.read_bytes()
    cases = [
        (good[:-1], "its header says 1,917 anchors"),
        (good + b"x", "its header says 1,917 anchors"),
        (wrong_shape, "not a plain array"),
        (wrong_type, "not a plain array"),
        (pickled, "not a plain array"),
        (with_nan, "NaN or infinite"),
        (good.replace(b"(1917, 4)", b"(9**9, 4)"), "not a plain array"),
        (b"\x93NUMPY", "not a plain array"),
        (b"0 0 1 1\n1 2 3\n", "line 2: found '1 2 3', expected four numbers"),
        (b"0 0 1 1 1\n", "line 1"),
        (b"0 0 1 inf\n", "NaN or infinite"),
        (b"", "0 anchors, expected 1 to"),
        (b"\xff\xfe\x00", "expected four numbers"),
        (b"#" * 8_000_001, "larger than 8 MB"),
    ]
    for data, words in cases:
        file.write_bytes(data)
        with pytest.raises(SpecError, match=words) as caught:
            read(path)
        assert caught.value.hint

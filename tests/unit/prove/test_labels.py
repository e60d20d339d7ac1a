"""Right labels from CSV files and folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from plimsoll.errors import InputError
from plimsoll.prove import read_labels


def test_labels_from_csv_and_folders(tmp_path: Path) -> None:
    for name in ("cat/one.png", "dog/two.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = {str((tmp_path / "cat/one.png").resolve()): "cat", str((tmp_path / "dog/two.png").resolve()): "dog"}
    assert read_labels(tmp_path, ["cat", "dog"]) == expected
    for heading in ("path,label\n", ""):
        (tmp_path / "labels.csv").write_text(f"{heading}cat/one.png,cat\n\ndog/two.png, dog\n")
        assert read_labels(tmp_path / "labels.csv", ["cat", "dog"]) == expected
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "labels.csv").rename(tmp_path / "elsewhere" / "labels.csv")
    assert read_labels(tmp_path / "elsewhere" / "labels.csv", ["cat", "dog"], tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,cot\n", "has the label 'cot', which the model doesn't know; did you mean 'cat'"),
        ("a.png\n", "expected path,label"),
        ("a.png,cat\na.png,dog\n", "has two labels"),
        ("", "no labels"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "labels.csv", ["cat", "dog"])

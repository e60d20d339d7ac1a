"""The split of the user's images: three parts that share no picture, alike every time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from plimsoll.errors import InputError
from plimsoll.ship.split import split


def parts_of(paths: list[Path], limit: int = 2000) -> tuple[set[str], set[str], set[str]]:
    parts = split([str(path) for path in paths], limit)
    return set(parts.calibration), set(parts.validation), set(parts.test)


def test_the_parts_share_nothing_and_miss_nothing(example_photos: list[Path]) -> None:
    calibration, validation, test = parts_of(example_photos)
    assert calibration | validation | test == {str(photo) for photo in example_photos}
    assert len(calibration) + len(validation) + len(test) == len(example_photos)
    assert len(test) >= len(example_photos) // 2


def test_it_is_alike_for_the_same_pictures_under_other_names(example_photos: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copy(photo, tmp_path / f"{99 - index}.jpg")) for index, photo in enumerate(example_photos)]
    first, second = split(map(str, example_photos), 2000), split(map(str, copies), 2000)
    assert first.digest == second.digest
    assert [Path(path).read_bytes() for path in first.test] == [Path(path).read_bytes() for path in second.test]


def test_a_picture_under_two_names_does_not_calibrate_and_test(example_photos: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copy(photo, tmp_path / photo.name)) for photo in example_photos]
    parts = split(map(str, [*example_photos, *copies]), 2000)
    names = [Path(path).name for path in [*parts.calibration, *parts.validation, *parts.test]]
    assert len(set(names)) == len(names) == len(example_photos)
    assert parts.duplicates == len(example_photos)


def test_files_that_cannot_be_read_are_named(example_photos: list[Path], tmp_path: Path) -> None:
    parts = split([*map(str, example_photos), str(tmp_path / "gone.jpg")], 2000)
    assert parts.unreadable == (str(tmp_path / "gone.jpg"),)


def test_a_limit_draws_at_random_but_always_alike(example_photos: list[Path]) -> None:
    drawn = [split(map(str, example_photos), 20) for _ in range(2)]
    assert drawn[0] == drawn[1]
    everything = {*drawn[0].calibration, *drawn[0].validation, *drawn[0].test}
    assert len(everything) == 20
    assert everything != {str(photo) for photo in example_photos[:20]}


def test_too_few_pictures_are_refused(example_photos: list[Path]) -> None:
    with pytest.raises(InputError, match="5 different pictures; at least 12"):
        split(map(str, example_photos[:5]), 2000)

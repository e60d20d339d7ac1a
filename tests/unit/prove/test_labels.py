"""Right labels from CSV files and folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from plimsoll.errors import InputError
from plimsoll.prove import read_labels
from plimsoll.prove.annotations import TrueBox
from plimsoll.spec.spec import Classify, Detect, Tensors

PETS = Classify(task="classify", labels=("cat", "dog"))
DETECTOR = Detect(task="detect", head="yolov8", labels=("cat", "dog"))


def test_labels_from_csv_and_folders(tmp_path: Path) -> None:
    for name in ("cat/one.png", "dog/two.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = {str((tmp_path / "cat/one.png").resolve()): "cat", str((tmp_path / "dog/two.png").resolve()): "dog"}
    assert read_labels(tmp_path, PETS) == expected
    for heading in ("path,label\n", ""):
        (tmp_path / "labels.csv").write_text(f"{heading}cat/one.png,cat\n\ndog/two.png, dog\n")
        assert read_labels(tmp_path / "labels.csv", PETS) == expected
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "labels.csv").rename(tmp_path / "elsewhere" / "labels.csv")
    assert read_labels(tmp_path / "elsewhere" / "labels.csv", PETS, [tmp_path]) == expected


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
        read_labels(tmp_path / "labels.csv", PETS)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of 200 x 100 pixels, the third turned by EXIF to 100 x 200."""
    folder = tmp_path / "pictures"
    (folder / "day").mkdir(parents=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (200, 100)).save(folder / "a.jpg")
    Image.new("RGB", (200, 100)).save(folder / "day" / "b.jpg")
    Image.new("RGB", (200, 100)).save(folder / "c.jpg", exif=turned)
    return folder


def coco(**changes: Any) -> dict[str, Any]:
    objects = [
        {"image_id": 1, "category_id": 7, "bbox": [10, 20, 30, 40], "segmentation": [[10, 20, 40, 20, 40, 60]]},
        {"image_id": 2, "category_id": 9, "bbox": [0, 0, 5, 5], "iscrowd": 1, "segmentation": {"counts": [1]}},
    ]
    images = [{"id": number, "file_name": name} for number, name in ((1, "a.jpg"), (2, "day/b.jpg"), (3, "gone.jpg"))]
    names = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]
    return {"images": images, "annotations": objects, "categories": names, "info": {}} | changes


def test_boxes_from_coco_yolo_and_voc(pictures: Path, tmp_path: Path) -> None:
    first, second, third = (str((pictures / name).resolve()) for name in ("a.jpg", "day/b.jpg", "c.jpg"))
    (tmp_path / "coco.json").write_text(json.dumps(coco()))
    assert read_labels(tmp_path / "coco.json", DETECTOR, [pictures]) == {
        first: (TrueBox("cat", (10, 20, 40, 60), outline=((10, 20, 40, 20, 40, 60),)),),
        second: (TrueBox("dog", (0, 0, 5, 5), crowd=True),),
    }
    yolo = tmp_path / "yolo"
    (yolo / "day").mkdir(parents=True)
    (yolo / "classes.txt").write_text("dog\ncat\n")
    (yolo / "a.txt").write_text("1 0.5 0.5 0.5 0.2\n")
    (yolo / "day" / "b.txt").write_text("")
    (yolo / "c.txt").write_text("0 0.25 0.5 0.5 0.5 0.5 0.75\n")
    (yolo / "unknown.txt").write_text("0 0.5 0.5 1 1\n")
    assert read_labels(yolo, DETECTOR, [pictures]) == {
        first: (TrueBox("cat", (50, 40, 150, 60)),),
        second: (),
        third: (TrueBox("dog", (25, 100, 50, 150), outline=((25, 100, 50, 100, 50, 150),)),),
    }, "fractions are of the picture as it is seen; a file without lines is a picture without objects"
    voc = tmp_path / "voc"
    voc.mkdir()
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>{}</ymax></bndbox>"
    item = f"<object><name>cat</name><difficult>1</difficult>{box}</object>"
    (voc / "a.xml").write_text(f"<annotation>{item.format(10)}</annotation>")
    assert read_labels(voc, DETECTOR, [pictures]) == {first: (TrueBox("cat", (0, 0, 20, 10), crowd=True),)}
    (voc / "a.xml").write_text(f"<annotation>{item.format('wide')}</annotation>")
    with pytest.raises(InputError, match="a box is"):
        read_labels(voc, DETECTOR, [pictures])
    (voc / "a.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>')
    with pytest.raises(InputError, match="DTD"):
        read_labels(voc, DETECTOR, [pictures])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 7, "name": "cta"}, {"id": 9, "name": "dog"}]}, "'cta'.*did you mean 'cat'"),
        ({"categories": []}, "names image 1 and category 7"),
        ({"annotations": [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 1]}]}, "annotations.0.bbox"),
        ({"annotations": [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 1, "NaN"]}]}, "annotations.0.bbox.3"),
        ({"images": [{"id": 1, "file_name": "other.jpg"}], "annotations": []}, "no labels of these pictures"),
    ],
)
def test_bad_coco_files_are_named(pictures: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "coco.json").write_text(json.dumps(coco(**changes)))
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "coco.json", DETECTOR, [pictures])


@pytest.mark.parametrize("line", ["0 0.5 0.5 0.5", "2 0.5 0.5 0.1 0.1", "x 0 0 1 1", "0 nan 0 1 1", "0.5 0 0 1 1"])
def test_bad_lines_of_yolo_are_named(pictures: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(InputError, match=r"a\.txt:2: "):
        read_labels(tmp_path / "yolo", DETECTOR, [pictures])


def test_tasks_without_labels_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is measured against labels for the task 'tensor'"):
        read_labels(tmp_path, Tensors(task="tensor"))

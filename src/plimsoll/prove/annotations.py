"""What pictures really show, as people label it for detectors: COCO's JSON file, a folder of YOLO's text files, or one
of Pascal VOC's XML files.

Sources: the data format of cocodataset.org; Ultralytics' `labels/*.txt` (label, then centre and size, or the points of
an outline, as fractions); the VOC2012 development kit (corners counted from 1, both inside the box).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pydantic import BaseModel, FiniteFloat, ValidationError

from plimsoll.errors import ImageError, InputError
from plimsoll.preprocessing.decode import check_format, opened, orientation, read
from plimsoll.spec.steps import Decode
from plimsoll.system import files

MAX_BYTES = 1_000_000_000
_MAX_FILE_BYTES = 4_000_000
_MAX_SIDE = 65_500
_TURNED = 5
"""From this EXIF orientation on, height and width are exchanged."""

Polygon = tuple[FiniteFloat, ...]


@dataclass(frozen=True)
class TrueBox:
    """An object that somebody labelled."""

    label: str
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in the picture's pixels."""
    crowd: bool = False
    """Whether it stands for more than can be counted, or is hard to see: a box on it is neither right nor wrong."""
    outline: tuple[Polygon, ...] = ()
    """The polygons of its mask, each x, y, x, y … in the picture's pixels; none where only the box is known."""
    points: tuple[tuple[float, float, int], ...] = ()
    """Its key points: x, y in the picture's pixels, and 0 for one that is not marked."""
    area: float = 0.0
    """In pixels, as the labels say it; 0 where they don't."""


Truths = dict[str, tuple[TrueBox, ...]]
"""Picture path (absolute) → its objects."""


class _Image(BaseModel):
    id: int
    file_name: str
    width: int = 0
    height: int = 0


class _Category(BaseModel):
    id: int
    name: str


class _Annotation(BaseModel):
    image_id: int
    category_id: int
    bbox: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    iscrowd: int = 0
    segmentation: Any = ()
    keypoints: list[FiniteFloat] = []
    area: FiniteFloat = 0.0

    def box(self, label: str) -> TrueBox:
        """Return it; of masks only polygons are read. Key points are counted from 0, at the pixels' centres."""
        x, y, width, height = self.bbox
        outline = _polygons(self.segmentation) if isinstance(self.segmentation, list) else ()
        places = zip(self.keypoints[::3], self.keypoints[1::3], self.keypoints[2::3], strict=False)
        points = tuple((a + 0.5, b + 0.5, int(seen)) for a, b, seen in places)
        return TrueBox(label, (x, y, x + width, y + height), bool(self.iscrowd), outline, points, self.area)


class _Coco(BaseModel):
    """COCO's file, as far as boxes are concerned."""

    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def _polygons(values: Sequence[Any]) -> tuple[Polygon, ...]:
    polygons = []
    for value in values:
        if not isinstance(value, list) or len(value) < 6 or len(value) % 2:
            continue
        if all(isinstance(number, (int, float)) and abs(number) <= _MAX_SIDE for number in value):
            polygons.append(tuple(map(float, value)))
    return tuple(polygons)


def read_boxes(source: Path, pictures: Mapping[str, Path], labels: Sequence[str]) -> Truths:
    """Return each labelled picture's objects; a picture that is listed without any is labelled, too.

    `pictures` is name → picture, under its path in its folder and its file name, each with and without the suffix;
    `labels` are the model's, whose numbers YOLO's files give where no `classes.txt` lies among them. Raises
    InputError.
    """
    if source.is_file():
        return _read_coco(source, pictures)
    classes = source / "classes.txt"
    if classes.is_file():
        labels = [line.strip() for line in files.read_text(classes, _MAX_FILE_BYTES).splitlines() if line.strip()]
    truths: Truths = {}
    for text in sorted(source.rglob("*")):
        inside = text.relative_to(source).with_suffix("").as_posix()
        picture = pictures.get(inside) or pictures.get(text.stem)
        if picture is not None and text.suffix in (".txt", ".xml") and text != classes:
            boxes = _voc_boxes(text) if text.suffix == ".xml" else _yolo_boxes(text, picture, labels)
            truths[str(picture.resolve())] = tuple(boxes)
    return truths


def _read_coco(file: Path, pictures: Mapping[str, Path]) -> Truths:
    try:
        data = _Coco.model_validate_json(files.read_text(file, MAX_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{file}: not COCO's labels: {where}: {first['msg']}",
            "A detector's labels are COCO's JSON file (images, annotations, categories), or a folder of YOLO's .txt or"
            " Pascal VOC's .xml files.",
        ) from error
    except OSError as error:
        raise InputError(f"{file}: can't read the labels: {error.strerror or error}") from error
    names = {category.id: category.name for category in data.categories}
    objects: dict[int, list[TrueBox]] = {image.id: [] for image in data.images}
    for annotation in data.annotations:
        if annotation.image_id not in objects or annotation.category_id not in names:
            raise InputError(
                f"{file}: an annotation names image {annotation.image_id} and category {annotation.category_id}, which"
                " the file does not list"
            )
        objects[annotation.image_id].append(annotation.box(names[annotation.category_id]))
    return {
        str(picture.resolve()): tuple(objects[image.id])
        for image in data.images
        if (picture := pictures.get(image.file_name) or pictures.get(Path(image.file_name).name)) is not None
    }


def _yolo_boxes(text: Path, picture: Path, labels: Sequence[str]) -> Iterator[TrueBox]:
    """Yield the objects of a text file, whose lines begin with the label's number; `labels` names them."""
    lines = [line.split() for line in files.read_text(text, _MAX_FILE_BYTES).splitlines() if line.strip()]
    size = _size(picture) if lines else (0, 0)
    for number, fields in enumerate(lines, 1):
        yield _yolo_box(f"{text}:{number}", fields, labels, size)


def _yolo_box(where: str, fields: Sequence[str], labels: Sequence[str], size: tuple[int, int]) -> TrueBox:
    try:
        label, *numbers = map(float, fields)
    except ValueError:
        label, numbers = math.nan, []
    if not all(map(math.isfinite, (label, *numbers))) or (len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2)):
        raise InputError(
            f"{where}: expected the label's number and four fractions (centre x, centre y, width, height), or the"
            " points of an outline"
        )
    if label != int(label) or not 0 <= label < len(labels):
        raise InputError(
            f"{where}: label {fields[0]}; the labels are numbered from 0 to {len(labels) - 1}",
            "Name them in the order of their numbers in a `classes.txt` beside the files.",
        )
    scaled = [number * size[at % 2] for at, number in enumerate(numbers)]
    if len(numbers) == 4:
        x, y, width, height = scaled
        return TrueBox(labels[int(label)], (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    across, down = scaled[::2], scaled[1::2]
    return TrueBox(labels[int(label)], (min(across), min(down), max(across), max(down)), outline=(tuple(scaled),))


def _size(picture: Path) -> tuple[int, int]:
    """Return a picture's width and height as it is seen, without decoding it."""
    step = Decode()
    try:
        data = read(picture)
        with opened(data, check_format(data, step), step) as image:
            width, height = image.size
        return (height, width) if orientation(data) >= _TURNED else (width, height)
    except ImageError as error:
        raise InputError(
            f"{picture}: its labels are fractions of its size, which is unknown: {error.message}"
        ) from error


def _voc_boxes(text: Path) -> Iterator[TrueBox]:
    content = files.read_text(text, _MAX_FILE_BYTES)
    if "<!DOCTYPE" in content or "<!ENTITY" in content:
        raise InputError(f"{text}: an XML file with a DTD is not read", "Remove the DOCTYPE.")
    try:
        objects = list(ElementTree.fromstring(content).iter("object"))
    except ElementTree.ParseError as error:
        raise InputError(f"{text}: not well-formed XML: {error}") from error
    for item in objects:
        written = [item.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
        try:
            x0, y0, x1, y1 = corners = [float(number or "") for number in written]
        except ValueError:
            corners = [math.nan]
        if not all(map(math.isfinite, corners)):
            raise InputError(f"{text}: a box is {written}; expected the numbers xmin, ymin, xmax and ymax")
        difficult = (item.findtext("difficult") or "0").strip() == "1"
        yield TrueBox((item.findtext("name") or "").strip(), (x0 - 1, y0 - 1, x1, y1), difficult)

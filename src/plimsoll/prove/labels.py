"""Pictures' right answers: a label each, from a CSV file or from folders named after the classes; boxes, masks and
points from the files that `annotations` and `marked` read."""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from plimsoll.errors import InputError
from plimsoll.prove.annotations import TrueBox, read_boxes
from plimsoll.prove.marked import TrueMask, TruePoints, read_masks, read_points
from plimsoll.spec.spec import Output
from plimsoll.system import files

MAX_BYTES = 256_000_000


Truth = str | tuple[TrueBox, ...] | TruePoints | TrueMask
"""A classified picture's label, what a detector should find in it, its points, or the label of each pixel."""
Truths = Mapping[str, Truth]
"""Picture path (absolute) → its right answer."""

_FORMATS = {
    "classify": "Classifiers have a CSV file with path,label on each line, or a folder with one folder per class.",
    "detect": "Detectors have COCO's JSON file, or a folder of YOLO's .txt or Pascal VOC's .xml files, named after the"
    " pictures.",
    "segment": "Masks are a folder of PNG files named after the pictures, whose pixels are the labels' numbers.",
    "landmarks": "Points are COCO's JSON file with keypoints, or a folder of 300-W's .pts files, named after the"
    " pictures.",
}


LABELS_HINT = f"With --labels: {' '.join(_FORMATS.values())}"


def read_labels(source: Path, output: Output, images: Sequence[Path] = ()) -> dict[str, Truth]:
    """Return picture path (absolute) → right answer.

    For classifiers a CSV file has `path,label` on each line, with or without that heading; a relative path is looked up
    in `images`, where that is one folder, then in the file's own folder. A folder holds one folder per class. For other
    tasks, labels go to the pictures of `images`, folders or files. Raises InputError for labels that the model
    doesn't have, for a file that can't be read, and for tasks without labels.
    """
    if output.task not in _FORMATS:
        raise InputError(
            f"--labels: nothing is measured against labels for the task '{output.task}'", "Leave --labels out."
        )
    truths: dict[str, Truth] = {}
    folder = images[0] if len(images) == 1 and images[0].is_dir() else None
    if output.task == "detect":
        truths |= read_boxes(source, _by_name(images), output.labels)
        _require_points(source, truths, output.points)
    elif output.task == "landmarks":
        truths |= read_points(source, _by_name(images), output.points)
    elif output.task == "segment":
        truths |= read_masks(source, _by_name(images), len(output.labels))
    else:
        truths |= _read_folder(source) if source.is_dir() else _read_csv(source, folder)
    if not truths:
        raise InputError(f"{source}: no labels of these pictures", _FORMATS[output.task])
    _require_known(source, truths, getattr(output, "labels", ()))
    return truths


def _require_known(source: Path, truths: Truths, known: Sequence[str]) -> None:
    allowed = frozenset(known)
    for path, truth in truths.items():
        boxes = truth if isinstance(truth, tuple) else ()
        for label in [truth] if isinstance(truth, str) else [box.label for box in boxes]:
            if label not in allowed:
                near = difflib.get_close_matches(label, known, n=1)
                suggestion = f"; did you mean '{near[0]}'?" if near else ""
                raise InputError(
                    f"{source}: {path} has the label '{label}', which the model doesn't know{suggestion}",
                    f"It knows: {', '.join(known[:20])}. Leave other labels out of the file.",
                )


def _require_points(source: Path, truths: Truths, count: int) -> None:
    """Refuse objects with another number of key points than the model gives, where it gives any."""
    for path, truth in truths.items():
        for box in truth if isinstance(truth, tuple) and count else ():
            if len(box.points) not in (0, count):
                raise InputError(
                    f"{source}: an object in {path} has {len(box.points)} key points; the model finds {count}",
                    "Give labels with the model's key points.",
                )


def _by_name(images: Sequence[Path]) -> dict[str, Path]:
    """Return each picture under its path in its folder and its file name, each with and without the suffix; names that
    two pictures have are left out."""
    named: dict[str, Path | None] = {}
    for root in images:
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if not path.is_file():
                continue
            inside = path.relative_to(root) if root.is_dir() else Path(path.name)
            for name in {inside.as_posix(), inside.with_suffix("").as_posix(), path.name, path.stem}:
                named[name] = path if name not in named else None
    return {name: path for name, path in named.items() if path is not None}


def label_of(labels: Truths, picture: str) -> Truth | None:
    """Return a picture's right answer, or None."""
    return labels.get(os.path.realpath(picture))  # Path.resolve raises for a loop of links


def _read_folder(folder: Path) -> dict[str, str]:
    return {
        str(path.resolve()): class_folder.name
        for class_folder in sorted(folder.iterdir())
        if class_folder.is_dir()
        for path in class_folder.rglob("*")
        if path.is_file()
    }


def _read_csv(file: Path, images: Path | None) -> dict[str, str]:
    try:
        text = files.read_text(file, MAX_BYTES).removeprefix("\ufeff")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(field.strip() for field in row)]
    except (OSError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise InputError(
            f"{file}: can't read the labels: {reason}", "Give a CSV file with path,label on each line."
        ) from error
    if rows and [field.strip().lower() for field in rows[0][:2]] == ["path", "label"]:
        rows = rows[1:]
    labels: dict[str, str] = {}
    for count, row in enumerate(rows, 1):
        if len(row) < 2:
            raise InputError(f"{file}: row {count} is {','.join(row)!r}, expected path,label")
        path = str(_picture_path(row[0].strip(), images, file.parent))
        label = row[1].strip()
        if labels.setdefault(path, label) != label:
            raise InputError(f"{file}: {row[0]} has two labels, '{labels[path]}' and '{label}'")
    return labels


def _picture_path(name: str, images: Path | None, folder: Path) -> Path:
    for parent in (images, folder):
        if parent is not None and (parent / name).exists():
            return (parent / name).resolve()
    return ((images or folder) / name).resolve()

"""Pictures' right labels: from a CSV file, or from folders named after the classes."""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from plimsoll.errors import InputError
from plimsoll.system import files

MAX_BYTES = 256_000_000


def read_labels(source: Path, known: Iterable[str], images: Path | None = None) -> dict[str, str]:
    """Return picture path (absolute) → label.

    A CSV file has `path,label` on each line, with or without that heading; a relative path is looked up in `images`,
    then in the file's own folder. A folder holds one folder per class. Raises InputError for labels that the model
    doesn't have (`known`) and for a file that can't be read.
    """
    labels = _read_folder(source) if source.is_dir() else _read_csv(source, images)
    if not labels:
        raise InputError(
            f"{source}: no labels",
            "Give a CSV file with path,label on each line, or a folder with one folder per class.",
        )
    allowed = list(known)
    for path, label in labels.items():
        if label not in allowed:
            near = difflib.get_close_matches(label, allowed, n=1)
            suggestion = f"; did you mean '{near[0]}'?" if near else ""
            raise InputError(
                f"{source}: {path} has the label '{label}', which the model doesn't know{suggestion}",
                f"It knows: {', '.join(allowed[:20])}.",
            )
    return labels


def label_of(labels: Mapping[str, str], picture: str) -> str | None:
    """Return a picture's label, or None."""
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

"""The right labels of pictures: from a CSV file, or from folders named after the classes."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from plimsoll.errors import InputError
from plimsoll.system import files

MAX_BYTES = 256_000_000


def read_labels(source: Path, known: Iterable[str], images: Path | None = None) -> dict[str, str]:
    """Return picture path (absolute) → label.

    A CSV file has `path,label` a line, with or without that heading; a relative path is looked for from `images`, then
    from the file's own folder. A folder holds one folder a class. Raises InputError for labels that the model doesn't
    have (`known`) and for a file that can't be read.
    """
    labels = _of_folder(source) if source.is_dir() else _of_csv(source, images)
    if not labels:
        raise InputError(
            f"{source}: no labels in it", "Give a CSV file with path,label a line, or a folder with one folder a class."
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
    return labels.get(str(Path(picture).resolve()))


def _of_folder(folder: Path) -> dict[str, str]:
    return {
        str(path.resolve()): one.name
        for one in sorted(folder.iterdir())
        if one.is_dir()
        for path in one.rglob("*")
        if path.is_file()
    }


def _of_csv(file: Path, images: Path | None) -> dict[str, str]:
    try:
        text = files.read_text(file, MAX_BYTES).removeprefix("\ufeff")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(field.strip() for field in row)]
    except (OSError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise InputError(
            f"{file}: can't read the labels: {reason}", "Give a CSV file with path,label a line."
        ) from error
    if rows and [field.strip().lower() for field in rows[0][:2]] == ["path", "label"]:
        rows = rows[1:]
    labels: dict[str, str] = {}
    for count, row in enumerate(rows, 1):
        if len(row) < 2:
            raise InputError(f"{file}: row {count} is {','.join(row)!r}, expected path,label")
        path = str(_found(row[0].strip(), images, file.parent))
        label = row[1].strip()
        if labels.setdefault(path, label) != label:
            raise InputError(f"{file}: {row[0]} has two labels, '{labels[path]}' and '{label}'")
    return labels


def _found(name: str, images: Path | None, folder: Path) -> Path:
    given = Path(name)
    for place in (images, folder):
        if place is not None and (place / given).exists():
            return (place / given).resolve()
    return ((images or folder) / given).resolve()

"""What a bundle's report may say: neither pictures nor their names, and no folder of the machine where it was made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plimsoll.report.ship_result import ShipResult

_HIDDEN = "…/"
_PLACEHOLDERS = {"--images": "PICTURES", "-i": "PICTURES", "--labels": "LABELS"}
"""Options whose values are the user's pictures, and what stands in their place."""
_DROPPED = ("--work",)
_PATHS = ("--out", "-o", "--spec", "--calibration")


def shareable(result: ShipResult, pictures: Iterable[str], folders: Iterable[Path]) -> ShipResult:
    """Return a result with numbers in the place of pictures, no thumbnails, and the names of other files in the place
    of their paths.

    `pictures` are all of this run, by their paths; `folders` others whose names must not be left.
    """
    tested = [score.path for score in result.scores] or [change.path for change in result.changes]
    numbers = {path: f"picture {number}" for number, path in enumerate(tested, 1)}
    known = {picture: numbers.get(picture, "a picture") for picture in (*numbers, *pictures)}
    parents = {folder for path in known for folder in _spellings(Path(path).parent)}
    parents |= {spelling for folder in folders for spelling in _spellings(folder)}
    known |= {f"{folder}/": _HIDDEN for folder in parents}
    # The bare name of a folder may be any word; its whole path can't be.
    known |= {folder: "…" for folder in parents if Path(folder).is_absolute()}
    worst = tuple(picture.model_copy(update={"thumbnail": ""}) for picture in result.worst)
    details = result.model_copy(update={"worst": worst, "commands": ()}).model_dump(mode="json")
    hidden: dict[str, Any] = _hidden(details, re.compile("|".join(map(re.escape, _longest_first(known)))), known)
    return ShipResult.model_validate(hidden).model_copy(update={"commands": result.commands})


def _spellings(folder: Path) -> set[str]:
    """Return a folder as it was given and as it is found from anywhere; neither the root nor the working directory."""
    return {str(path) for path in (folder, folder.resolve()) if path.name}


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=lambda text: -len(text))


def _hidden(value: Any, pattern: re.Pattern[str], known: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _FOLDERS.sub(_HIDDEN, pattern.sub(lambda match: known[match[0]], value))
    if isinstance(value, dict):
        return {key: _hidden(item, pattern, known) for key, item in value.items()}
    return [_hidden(item, pattern, known) for item in value] if isinstance(value, list) else value


def _folders_of_paths() -> re.Pattern[str]:
    """Return what matches the folders of a path that starts in a folder of this machine; the names that PyTorch gives
    to layers (`/features/0/Conv`) start with a slash, too."""
    try:
        top = sorted(path.name for path in Path("/").iterdir() if path.is_dir())
    except OSError:
        top = []
    start = "|".join([*(f"/{re.escape(name)}/" for name in top), r"[A-Za-z]:\\"])
    return re.compile(rf"(?<![\w.:/])(?:{start})(?:[^\s/\\:'\"]+[/\\])*")


_FOLDERS = _folders_of_paths()


def shareable_command(command: Sequence[str]) -> list[str]:
    """Return a command without the user's folders: placeholders for pictures and labels, file names for the rest."""
    words: list[str] = []
    option = ""
    for word in command:
        name, equals, value = word.partition("=")
        if word.startswith("-") and equals:
            if name not in _DROPPED:
                words.append(f"{name}={_public(name, value)}")
        elif word.startswith("-") and len(word) > 1:
            option = word
            words += [] if word in _DROPPED else [word]
            continue
        elif option not in _DROPPED:
            words.append(_public(option, word))
        option = ""
    return words


def _public(option: str, value: str) -> str:
    """Return the value of an option, or a further word, as it may be shown."""
    if option in _PLACEHOLDERS:
        return _PLACEHOLDERS[option]
    is_path = option in _PATHS or Path(value).is_absolute() or Path(value).exists()
    return Path(value).name if is_path else value

"""Options that several commands share. Each is named, explained, parsed and refused here, with one wording."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from plimsoll.core.target import Target
from plimsoll.core.wording import unknown
from plimsoll.errors import InputError, PlimsollError

if TYPE_CHECKING:
    from plimsoll.prove.labels import Truths


def _parser(option: str, parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Return what typer calls with a value: `parse`, with the option's name before the errors that it raises."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):  # the default
            return value
        try:
            return parse(value)
        except PlimsollError as error:
            raise type(error)(f"{option}: {error.message}", error.hint) from error

    return read


def choice(
    option: str, choices: Sequence[str] | Callable[[], Iterable[str]], text: str, *, noun: str = "", short: str = ""
) -> Any:
    """Return an option that takes one of a few words.

    `choices` is a function where finding them takes longer than --help may. `noun` names the word in errors; by default
    the option's name does.
    """

    def parse(value: str) -> str:
        known = list(choices() if callable(choices) else choices)
        if value not in known:
            raise InputError(unknown(noun or option.lstrip("-").replace("-", " "), value, known))
        return value

    metavar = "NAME" if callable(choices) else "|".join(choices)
    names = (option, short) if short else (option,)
    return typer.Option(*names, parser=_parser(option, parse), metavar=metavar, help=text)


def duration(option: str, text: str, *, default: str = "", at_least: str = "1ms", at_most: str = "100d") -> Any:
    """Return an option that takes a duration and gives its seconds."""

    def parse(value: str) -> float:
        from plimsoll.core import duration

        seconds = duration.parse(value)
        if seconds < duration.parse(at_least):
            raise InputError(f"{value} is too short: at least {at_least}")
        if seconds > duration.parse(at_most):
            raise InputError(f"{value} is too long: at most {at_most}")
        return seconds

    return _with_default(option, parse, "DURATION", text, default)


def share(option: str, text: str, *, default: str) -> Any:
    """Return an option that takes a share, such as 3% or 0.03, and gives it as a fraction."""

    def parse(value: str) -> float:
        try:
            fraction = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError:
            fraction = -1.0
        if not 0 <= fraction < 10:
            raise InputError(f"'{value}' is not a share: expected for example 3% or 0.03")
        return fraction

    return _with_default(option, parse, "SHARE", text, default)


def _with_default(option: str, parse: Callable[[str], float], metavar: str, text: str, default: str) -> Any:
    """Return an option whose help shows the default as a user would write it."""
    shown = f"{text} Default: {default}." if default else text
    return typer.Option(option, parser=_parser(option, parse), metavar=metavar, help=shown, show_default=False)


def target(option: str, text: str) -> Any:
    """Return an option that takes a target."""
    return typer.Option(option, parser=_parser(option, Target.parse), metavar="TARGET", help=text)


def preprocessing(option: str, text: str) -> Any:
    """Return an option that takes one of the implementations of preprocessing."""
    return choice(option, tuple(PREPROCESSING), text, noun="preprocessing")


def images(text: str) -> Any:
    """Return the option that takes pictures; `text` says what they are for."""
    return typer.Option("--images", "-i", metavar="PATH", help=f"{text}: a file, folder or pattern; may be repeated.")


def max_images(text: str, *, least: int = 1) -> Any:
    """Return the option that bounds how many of the pictures are used."""
    return typer.Option("--max-images", min=least, help=text)


_DEFAULT_TARGET = "runtime:device:precision. Default: the bundle's, else onnxruntime:cpu:float32."
_DEFAULT_PREPROCESSING = "How pictures become tensors. Default: the bundle's, else reference."

PreprocessingName = Literal["reference", "fast", "scaled"]
PREPROCESSING: dict[str, PreprocessingName] = {"reference": "reference", "fast": "fast", "scaled": "scaled"}

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A zoo name (`plimsoll zoo list`), a bundle, or a model file with --spec."),
]
Spec = Annotated[Path | None, typer.Option("--spec", metavar="FILE", help="The Spec of a bare model file.")]
Policy = Annotated[
    Path | None,
    typer.Option(
        "--policy", metavar="FILE", help="Bands and threshold of `plimsoll threshold`, in place of the Spec's (TOML)."
    ),
]
ChosenTarget = Annotated[Target | None, target("--target", _DEFAULT_TARGET)]
RequiredTarget = Annotated[Target, target("--target", "runtime:device:precision; `plimsoll targets` lists them.")]
Preprocessing = Annotated[PreprocessingName | None, preprocessing("--preprocessing", _DEFAULT_PREPROCESSING)]
RuntimeOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="An option of the runtime; may be repeated."),
]
CalibrationImages = Annotated[list[str] | None, images("Pictures to calibrate with")]
MaxCalibrationImages = Annotated[int, max_images("Calibrate with at most this many of the pictures, evenly spread.")]
CalibrationTable = Annotated[
    Path | None,
    typer.Option("--calibration", metavar="TABLE", help="Use the ranges of this calibration table (JSON)."),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="PATH",
        help="What the pictures really show: a CSV file of path,label or a folder with one folder a label; for"
        " detectors COCO's JSON file or a folder of YOLO's or Pascal VOC's files; for masks a folder of PNG files; for"
        " points COCO's JSON file or a folder of .pts files.",
    ),
]
Budget = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="METRIC=LIMIT",
        help=(
            "What the answers may lose, for example mean_deviation=0.01,flips=0.5%; may be repeated. Default:"
            " flips=4%,mean_deviation=0.01,max_deviation=0.25 for classifiers; other tasks have limits of their own."
        ),
    ),
]
OutBundle = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="BUNDLE", help="The bundle to write: a folder, or a file if it ends in .zip."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is already there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def check_new(path: Path, *, force: bool) -> None:
    """Raise InputError for a file that exists, unless it may be replaced."""
    if os.path.lexists(path) and path.is_file() and not force:
        raise InputError(f"{path} exists", "Choose another name, or overwrite it with --force.")


def settings(pairs: Iterable[str]) -> dict[str, str]:
    """Read the values of --set; raises InputError."""
    parsed = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--set: '{pair}' is not NAME=VALUE", "For example --set threads=4.")
        parsed[name] = value
    return parsed


def labels_of(path: Path | None, spec: Any, paths: Sequence[str]) -> Truths | None:
    """Return the right answer to each picture that has one, None without --labels; raises InputError.

    `spec` says which labels there are, `paths` which pictures.
    """
    from plimsoll.prove.labels import read_labels

    return None if path is None else read_labels(path, spec.output, [Path(name) for name in paths])

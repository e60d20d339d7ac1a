"""Compare fast preprocessing with the reference, step by step, on real photographs: how far apart, and how much
faster.

Both get the same input. For every step: the largest and the mean difference (in levels of 0…255, or in
the tensor's own unit), and the time of the reference divided by the time of fast preprocessing: the median over the
photographs of each one's ratio, both measured in turns in one thread.

    python benchmarks/fast_preprocessing.py                      print the table for examples/photos
    python benchmarks/fast_preprocessing.py FOLDER --limit 50
    python benchmarks/fast_preprocessing.py --write examples     put it into docs/fast-preprocessing.md, between the
                                                                 markers of that name
"""

from __future__ import annotations

import argparse
import io
import re
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from plimsoll.preprocessing import Preprocessor
from plimsoll.preprocessing.decode import Array, as_array
from plimsoll.spec import Input
from plimsoll.spec.files import validate

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "fast-preprocessing.md"
TIMED = 30
"""So many photographs are timed; differences are taken over all."""

Steps = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A row of the table. `starts` says what both implementations are given."""

    name: str
    steps: Steps
    starts: str = "pixels"
    """A file (`jpeg`, `png`, `webp`), or the decoded `pixels`, or these at 256 x 256 (`small`)."""


@dataclass(frozen=True)
class Row:
    """What was measured of a case over all photographs."""

    name: str
    largest: float
    mean: float
    ratio: float

    def __str__(self) -> str:
        largest, mean = ("0", "0") if self.largest == 0 else (f"{self.largest:.3g}", f"{self.mean:.2g}")
        return f"| {self.name} | {largest} | {mean} | {self.ratio:.2f} |"


def cases() -> list[Case]:
    """Return all rows, in the order of the table."""
    listed = [Case(f"decode {name}", [], name.lower()) for name in ("JPEG", "PNG", "WebP")]
    listed.append(
        Case(
            "decode JPEG, dct fast, plain upsampling",
            [{"step": "decode", "dct": "fast", "upsampling": "plain"}],
            "jpeg",
        )
    )
    for convention, name, more in _resizes():
        for size, word in ((256, "shrink"), (700, "grow")):
            step = {"step": "resize", "convention": convention, "filter": name, "width": size, "height": size, **more}
            noted = "".join(f", {value if key == 'coordinates' else 'anti-aliased'}" for key, value in more.items())
            listed.append(Case(f"resize, {convention} {name}{noted}, {word}", [step]))
    listed += [
        Case(f"jpeg {subsampling}", [{"step": "jpeg", "subsampling": subsampling}], "small")
        for subsampling in ("4:4:4", "4:2:2", "4:2:0")
    ]
    crop: dict[str, Any] = {"step": "crop", "width": 224, "height": 224}
    bgr, mean = {"step": "channels", "order": "BGR"}, {"step": "mean", "values": [104, 117, 123]}
    imagenet: Steps = [
        {"step": "scale", "divisor": 255},
        {"step": "mean", "values": [0.485, 0.456, 0.406]},
        {"step": "std", "values": [0.229, 0.224, 0.225]},
    ]
    listed += [
        Case("jpeg 4:2:0, in BGR", [{"step": "jpeg"}, bgr], "small"),
        Case("crop", [crop], "small"),
        Case("tail: BGR, mean", [bgr, mean], "small"),
        Case("tail: 1/255, mean, std, NCHW", [*imagenet, {"step": "layout", "order": "NCHW"}], "small"),
        Case("open_nsfw, end to end", _card("open_nsfw"), "jpeg"),
        Case("open_nsfw_tf, end to end", _card("open_nsfw_tf"), "jpeg"),
    ]
    return listed


def _resizes() -> list[tuple[str, str, dict[str, Any]]]:
    filters = ("nearest", "bilinear", "bicubic", "lanczos", "area")
    result: list[tuple[str, str, dict[str, Any]]] = [
        (convention, name, {}) for convention in ("pillow", "opencv", "tensorflow") for name in filters
    ]
    result += [("tensorflow", "bilinear", {"antialias": True})]
    result += [
        ("tensorflow", name, {"coordinates": kind})
        for name in ("nearest", "bilinear")
        for kind in ("align_corners", "asymmetric")
    ]
    return result


def _card(name: str) -> Steps:
    text = files("plimsoll").joinpath(f"zoo/cards/{name}.toml").read_text(encoding="utf-8")
    return [step.model_dump(exclude_unset=True) for step in validate(tomllib.loads(text)["spec"]).input.steps]


def measure(case: Case, photos: Sequence[bytes], rounds: int) -> Row:
    """Run a case over the photographs; with no rounds nothing is timed and the ratio is NaN."""
    steps = case.steps if case.steps and case.steps[0]["step"] == "decode" else [{"step": "decode"}, *case.steps]
    spec = Input.model_validate({"steps": steps})
    preprocessors = Preprocessor(spec), Preprocessor(spec, "fast")
    largest = 0.0
    means: list[float] = []
    ratios: list[float] = []
    for index, photo in enumerate(photos):
        given = _inputs(case.starts, photo, preprocessors[1])
        runs = [_runner(preprocessor, value) for preprocessor, value in zip(preprocessors, given, strict=True)]
        difference = np.abs(as_array(runs[0]()).astype(np.float64) - as_array(runs[1]()))
        largest = max(largest, float(difference.max()))
        means.append(float(difference.mean()))
        if index < TIMED and rounds:
            ratios.append(_ratio(runs[0], runs[1], rounds))
    return Row(case.name, largest, float(np.mean(means)), float(np.median(ratios)) if ratios else float("nan"))


def _inputs(starts: str, photo: bytes, fast: Preprocessor) -> tuple[Any, Any]:
    """Return one picture in the forms that the two implementations have between their steps."""
    if starts == "jpeg":
        return photo, photo
    with Image.open(io.BytesIO(photo)) as opened:
        image = opened.convert("RGB")
    if starts in {"png", "webp"}:
        stream = io.BytesIO()
        image.save(stream, starts.upper())
        return stream.getvalue(), stream.getvalue()
    if starts == "small":
        image = image.resize((256, 256), Image.Resampling.BILINEAR)
    array = as_array(image)
    return image, np.ascontiguousarray(array[:, :, ::-1]) if fast.tensor_spec.colour == "BGR" else array


def _runner(preprocessor: Preprocessor, value: Any) -> Callable[[], Array]:
    if isinstance(value, bytes):
        return lambda: preprocessor(value)
    functions = [stage for _, stage in preprocessor.stages[1:]]

    def run() -> Array:
        pixels = value
        for function in functions:
            pixels = function(pixels)
        return np.ascontiguousarray(as_array(pixels))  # as the preprocessor itself does at its end

    return run


def _ratio(reference: Callable[[], Array], fast: Callable[[], Array], rounds: int) -> float:
    """Return the reference's time over the fast one's: the best of some rounds each, measured in turns."""
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for index, run in enumerate((reference, fast)):
            start = time.perf_counter()
            run()
            best[index] = min(best[index], time.perf_counter() - start)
    return best[0] / best[1]


def load(folder: Path, limit: int) -> list[bytes]:
    """Return the folder's colour JPEG files, by name."""
    result = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in {".jpg", ".jpeg"}:
            with Image.open(path) as image:
                if image.format == "JPEG" and image.mode == "RGB":
                    result.append(path.read_bytes())
    return result[:limit]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    return "\n".join(
        [
            "| step | largest difference | mean difference | reference's time / fast's |",
            "| --- | ---: | ---: | ---: |",
            *map(str, rows),
        ]
    )


def write(page: Path, name: str, text: str) -> None:
    """Put `text` between the page's markers `<!-- NAME -->` and `<!-- /NAME -->`."""
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    old = page.read_text(encoding="utf-8")
    if not pattern.search(old):
        raise SystemExit(f"{page} has no markers for '{name}'")
    page.write_text(pattern.sub(lambda result: f"{result[1]}{text}\n{result[2]}", old), encoding="utf-8")


def main() -> None:
    """Parse the arguments, measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "photos", type=Path, nargs="?", default=ROOT / "examples" / "photos", help="folder of JPEG photographs"
    )
    parser.add_argument("--limit", type=int, default=1_000_000, help="at most so many photographs")
    parser.add_argument(
        "--rounds", type=int, default=5, help="timings of each step and photograph, of which the best counts"
    )
    parser.add_argument(
        "--write", metavar="NAME", help="put the table into docs/fast-preprocessing.md between the markers of this name"
    )
    arguments = parser.parse_args()
    photos = load(arguments.photos, arguments.limit)
    rows = []
    for case in cases():
        rows.append(measure(case, photos, arguments.rounds))
        print(rows[-1], flush=True)
    if arguments.write:
        write(PAGE, arguments.write, table(rows))


if __name__ == "__main__":
    main()

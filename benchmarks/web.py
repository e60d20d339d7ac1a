"""Compare web packages with Python: the input steps value by value, the network on the same tensors, and the scores end
to end in Chromium.

    python benchmarks/web.py                     print the tables for examples/photos
    python benchmarks/web.py --limit 10
    python benchmarks/web.py --write             put them into docs/web.md, between its markers

Needs Node.js and Chromium. open_nsfw in int8 is calibrated with the photographs themselves.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fast_preprocessing import Case, cases
from fast_preprocessing import write as write_between
from PIL import Image

from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.export import web
from plimsoll.export.web import chromium
from plimsoll.inference.predictor import open_model
from plimsoll.preprocessing import Preprocessor
from plimsoll.report.trial import Candidate
from plimsoll.ship.job_runner import convert
from plimsoll.ship.strategy import calibrator_for
from plimsoll.spec import Input
from plimsoll.tasks import decoder

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "web.md"
sys.path.insert(0, str(ROOT / "tests"))
from helpers.javascript import tensors  # noqa: E402 - the tests' way to run the JavaScript in Node

_PROGRAM = """
import { Model } from "/plimsoll.js";
export default async function run() {
  const model = await Model.load("/");
  const rows = [];
  for (const [picture, tensor] of PICTURES) {
    const file = await (await fetch(picture)).blob();
    const stored = new Float32Array(await (await fetch(tensor)).arrayBuffer());
    const computed = await model.preprocessor.tensor(file);
    let [largest, sum] = [0, 0];
    stored.forEach((value, index) => {
      const difference = Math.abs(value - computed.data[index]);
      largest = Math.max(largest, difference);
      sum += difference;
    });
    const outputs = await model.run({ data: stored, dtype: computed.dtype, shape: computed.shape });
    const { row, milliseconds } = await model.answer(file);
    const network = Object.values(outputs).map((output) => [...output.data]);
    rows.push({ largest, mean: sum / stored.length, network, score: row.score, milliseconds });
  }
  return rows;
}
"""


def step_rows(photos: Sequence[Path], folder: Path) -> Iterator[str]:
    """Yield a table's rows: for each step the largest and mean difference over all photographs, and on how many there
    is any."""
    yield "| step | largest difference | mean difference | photographs with any |"
    yield "| --- | ---: | ---: | ---: |"
    for case in cases():
        if case.starts == "webp":  # decoded by the browser: see the rows below the table
            continue
        spec = Input.model_validate(
            {
                "steps": (
                    case.steps
                    if case.steps and case.steps[0]["step"] == "decode"
                    else [{"step": "decode"}, *case.steps]
                )
            }
        )
        files = [_given(case, photo, folder) for photo in photos]
        differences = []
        for file, answer in zip(files, tensors([(spec, file) for file in files], folder), strict=True):
            assert not isinstance(answer, str), f"{case.name}, {file.name}: {answer}"
            differences.append(np.abs(Preprocessor(spec)(file).astype(np.float64) - answer))
        largest, mean = (
            max(difference.max() for difference in differences),
            np.mean([difference.mean() for difference in differences]),
        )
        differing = sum(bool(difference.any()) for difference in differences)
        yield f"| {case.name} | {largest:.3g} | {mean:.2g} | {differing} of {len(photos)} |"


def _given(case: Case, photo: Path, folder: Path) -> Path:
    """Return the file that a case starts from; pixels are stored without loss."""
    if case.starts == "jpeg":
        return photo
    file = folder / f"{photo.stem}{'-small' if case.starts == 'small' else ''}.png"
    if not file.exists():
        with Image.open(photo) as opened:
            image = opened.convert("RGB")
        (image.resize((256, 256), Image.Resampling.BILINEAR) if case.starts == "small" else image).save(file)
    return file


@dataclass(frozen=True)
class Scored:
    """One photograph, answered in Python and in Chromium."""

    name: str
    python: float
    largest: float
    """Of the input tensor's differences."""
    network: float
    """Largest difference of an output for the same tensor."""
    end_to_end: float
    milliseconds: float


def scored(model: Model, precision: str, photos: Sequence[Path], folder: Path) -> list[Scored]:
    """Answer photographs in Python and by a web package in Chromium."""
    spec = model.require_spec()
    package = web.package(model, Target("web", "wasm", precision), folder / f"package-{precision}")
    preprocessor, task = Preprocessor(spec.input), decoder(spec)
    files: dict[str, Path] = {}
    outputs, scores = [], []
    with Runner.open(model, Target("onnxruntime", "cpu", precision)) as runner:
        for index, photo in enumerate(photos):
            tensor = preprocessor(photo)
            tensor.tofile(str(folder / f"{index}.bin"))
            answer = runner.infer(tensor[np.newaxis])
            outputs.append(list(answer.values()))
            scores.append(task.decode(answer)[0].row()["score"])
            files |= {f"_pictures/{index}": photo, f"_tensors/{index}": folder / f"{index}.bin"}
    named = [[f"/_pictures/{index}", f"/_tensors/{index}"] for index in range(len(photos))]
    rows: list[dict[str, Any]] = chromium.run(
        _PROGRAM.replace("PICTURES", json.dumps(named)), package, files, seconds=900
    )
    return [
        Scored(
            photo.stem,
            score,
            row["largest"],
            max(
                float(np.abs(np.ravel(expected) - np.asarray(given, np.float64)).max())
                for expected, given in zip(output, row["network"], strict=True)
            ),
            abs(score - row["score"]),
            sum(row["milliseconds"].values()),
        )
        for photo, row, output, score in zip(photos, rows, outputs, scores, strict=True)
    ]


def score_rows(float32: Sequence[Scored], int8: Sequence[Scored]) -> Iterator[str]:
    """Yield the table of all photographs, the worst in its last row."""
    yield (
        "| photograph | float32: score in Python | network | end to end | int8: score in Python | network | end to"
        " end |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for first, other in zip(float32, int8, strict=True):
        cells = [f"{row.python:.4f} | {row.network:.1g} | {row.end_to_end:.1g}" for row in (first, other)]
        yield f"| {first.name} | {cells[0]} | {cells[1]} |"
    worst = [max(getattr(row, name) for row in rows) for rows in (float32, int8) for name in ("network", "end_to_end")]
    yield f"| **the largest** | | **{worst[0]:.1g}** | **{worst[1]:.1g}** | | **{worst[2]:.1g}** | **{worst[3]:.1g}** |"


def other_formats(model: Model, photos: Sequence[Path], folder: Path) -> Iterator[str]:
    """Yield a table of what the browser decodes itself: open_nsfw end to end on the photographs stored in these
    formats."""
    yield "| stored as | input tensor, largest difference | photographs with any | score, largest difference |"
    yield "| --- | ---: | ---: | ---: |"
    for name, suffix, options in (
        ("WebP, lossy", "webp", {"quality": 80}),
        ("WebP, lossless", "webp", {"lossless": True}),
        ("BMP", "bmp", {}),
    ):
        below = folder / name.replace(", ", "-")
        below.mkdir()
        files = []
        for photo in photos:
            files.append(below / f"{photo.stem}.{suffix}")
            with Image.open(photo) as opened:
                opened.convert("RGB").save(files[-1], **options)
        rows = scored(model, "float32", files, below)
        largest, deviation = max(row.largest for row in rows), max(row.end_to_end for row in rows)
        yield f"| {name} | {largest:.3g} | {sum(row.largest > 0 for row in rows)} of {len(rows)} | {deviation:.1g} |"


def main() -> None:
    """Parse the arguments, measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "photos", type=Path, nargs="?", default=ROOT / "examples" / "photos", help="folder of JPEG photographs"
    )
    parser.add_argument("--limit", type=int, default=1_000_000, help="at most so many photographs")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/web.md")
    arguments = parser.parse_args()
    photos = sorted(arguments.photos.glob("*.jpg"))[: arguments.limit]
    with tempfile.TemporaryDirectory() as name, open_model("open_nsfw") as opened:
        folder = Path(name)
        int8 = Target("onnxruntime", "cpu", "int8")
        candidate = Candidate("reference", False, int8, calibrator_for(int8, "percentile"))
        quantized = replace(
            convert(opened.model, candidate, [str(photo) for photo in photos], folder / "int8"), spec=opened.model.spec
        )
        answer = [scored(opened.model, "float32", photos, folder), scored(quantized, "int8", photos, folder)]
        tables = {
            "scores": score_rows(*answer),
            "formats": other_formats(opened.model, photos, folder),
            "steps": step_rows(photos, folder),
        }
        for rows, precision in zip(answer, ("float32", "int8"), strict=True):
            differing = sum(row.largest > 0 for row in rows)
            print(
                f"{precision}: {statistics.median(row.milliseconds for row in rows):.0f} ms a photograph (median),"
                f" {differing} tensors differ"
            )
        for title, lines in tables.items():
            text = "\n".join(lines)
            print(f"{title}\n{text}", flush=True)
            if arguments.write:
                write_between(PAGE, title, text)


if __name__ == "__main__":
    main()

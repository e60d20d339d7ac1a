"""Real networks in int8, the networks alone: Plimsoll's quantizer against the best others, in deviation and in speed.

    PLIMSOLL_AGPL=1 python benchmarks/quantizers.py PHOTOS --environments FOLDER [--networks nudenet ppocr_det …]
        [--tools nncf quark …] [--calibrate 50] [--judge 200] [--rounds 15] [--seconds 0.3] [--work FOLDER]
        [--unchecked]

Every tool runs in an environment of its own, a folder of FOLDER: `nncf` (pip install nncf openvino onnx), `quark`
(torch amd-quark onnxruntime), `modelopt` (torch nvidia-modelopt[onnx]), `aieq` (ai-edge-quantizer); ONNX Runtime's
quantizer runs here. `benchmarks/quantizer_jobs.py` says with which settings. MNN's own calibrators are those of
`mnn:cpu:int8`. What is missing is left out, and said.

The photographs are shuffled by a fixed seed: the first calibrate every quantizer, others judge. Networks that look for
text or faces get photographs with words or portraits on them (`tests/support/pictures.py`). Plimsoll quantizes with
each of its calibrators; which of them counts is decided on the calibration pictures, as `plimsoll ship` decides on its
validation part. The deviation is the signal to noise of the answers against the float32 network in ONNX Runtime, of
the worst quantity of the outputs (coordinates and scores of a head apart) and of all together. Plimsoll refuses what
deviates too much; with --unchecked it is judged all the same, as the other tools' files are.

Speed: in every round each network computes for so many seconds in a new random order, a stream a core; ratios are
within a round, with the sign test's 95 % interval. NNCF's networks run in OpenVINO, those of ai-edge-quantizer in
LiteRT, all other tools' in ONNX Runtime; each is compared with Plimsoll's in the same runtime.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll import backends, importers, quantize
from plimsoll.backends import conversion
from plimsoll.backends.base import ThreadPlan
from plimsoll.backends.runner import Runner
from plimsoll.benchmark.statistics import compare_speeds
from plimsoll.core.deviation import RunningDeviation
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import PlimsollError
from plimsoll.preprocessing import Preprocessor
from plimsoll.report.trial import Candidate
from plimsoll.ship.build import Artifacts, network
from plimsoll.ship.job_runner import convert
from plimsoll.system import host

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support import catalogue  # the real networks of docs/support.md
from support.cell import decibels, decoded
from support.pictures import shown

Array = NDArray[Any]
Outputs = dict[str, Array]

JOBS = Path(__file__).resolve().with_name("quantizer_jobs.py")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
FIVE = ("nudenet", "ppocr_det", "ppocr_rec", "nsfwjs_mobilenet", "mp_face_mesh")
RUNTIMES = ("onnxruntime", "openvino", "litert", "mnn", "ncnn")
ENVIRONMENTS = {"onnxruntime": "", "nncf": "nncf", "quark": "quark", "modelopt": "modelopt", "ai-edge": "aieq"}
"""The first part of a tool's name → the environment that has it; none: this one."""
TOOLS = (
    "onnxruntime",
    "onnxruntime-uint8-per-channel",
    "nncf",
    "nncf-mixed",
    "nncf-transformer",
    "quark",
    "quark-uint8",
    "quark-adaround",
    "quark-adaquant",
    "modelopt-entropy",
    "modelopt-max",
    "ai-edge",
)
TRAINED = ("quark-adaround", "quark-adaquant")
"""These train how weights are rounded."""


@dataclass(frozen=True)
class Data:
    """What the network reads of the photographs, `[N, …]`, and the float32 network's answers."""

    name: str
    model: Model
    calibration: Array
    pictures: Array
    photos: tuple[str, ...]
    """Of the calibration."""
    truth: Outputs
    calibration_truth: Outputs


@dataclass(frozen=True)
class Quantized:
    """A network in int8 and the target that runs it."""

    name: str
    model: Model
    target: Target
    ours: bool
    note: str = ""


def answers(runner: Runner, pictures: Array) -> Outputs:
    """Return every picture's outputs, `[N, …]`."""
    rows = [runner.infer(pictures[index : index + 1]) for index in range(len(pictures))]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def prepared(name: str, options: argparse.Namespace, folder: Path) -> Data:
    """Fetch a network, and read and split the photographs."""
    real = catalogue.networks()[name]
    spec = real.contract_spec
    model = importers.read(catalogue.fetch(name, real, folder), spec)
    photos = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    np.random.default_rng(0).shuffle(photos)
    if len(photos) <= options.calibrate:
        sys.exit(f"{options.photos} has {len(photos)} photographs; {options.calibrate} calibrate, others have to judge")
    chosen = shown(
        real.pictures, [str(photo) for photo in photos[: options.calibrate + options.judge]], folder / "pictures"
    )
    preprocess = Preprocessor(spec.input)
    tensors = np.stack([preprocess(Path(photo)) for photo in chosen])
    calibration, pictures = tensors[: options.calibrate], tensors[options.calibrate :]
    with Runner.open(model, Target("onnxruntime")) as runner:
        truth, calibration_truth = answers(runner, pictures), answers(runner, calibration)
    return Data(name, model, calibration, pictures, tuple(chosen[: options.calibrate]), truth, calibration_truth)


def ours(data: Data, options: argparse.Namespace, folder: Path) -> Iterator[Quantized]:
    """Quantize with Plimsoll for every runtime, with each calibrator; those of the runtime's own tool are not ours."""
    statistics = quantize.observe(data.model, [data.calibration])
    tables = {}
    for method in options.calibrators:
        tables[method] = folder / f"{method}.json"
        statistics.calibration(method).write(tables[method])
    for runtime in options.runtimes:
        target = Target(runtime, "cpu", "int8")
        try:
            backend = backends.for_target(target)
        except PlimsollError as error:
            print(f"{runtime} is left out: {error.message}", file=sys.stderr)
            continue
        for calibrator in (*options.calibrators, *backend.calibrators(target)):
            candidate = Candidate("reference", False, target, calibrator)
            work = folder / f"{runtime}-{calibrator}"
            work.mkdir(exist_ok=True)
            try:
                model = stored(work, data.model) or built(data, candidate, work, tables, options)
            except PlimsollError as error:
                print(f"{data.name}: {candidate.name}: {error.message}", file=sys.stderr)
                continue
            store(work, model)
            own = calibrator in quantize.METHODS
            name = f"Plimsoll, {runtime}" if own else f"{backend.title}'s {calibrator}"
            yield Quantized(name, model, target, own, calibrator)


def built(data: Data, candidate: Candidate, work: Path, tables: dict[str, Path], options: argparse.Namespace) -> Model:
    """Quantize as `plimsoll convert` does, or without its check of the answers; raises PlimsollError."""
    if not options.unchecked:
        return convert(data.model, candidate, data.photos, work, tables.get(candidate.calibrator or ""))
    vars(conversion)["check"] = lambda *_: None
    np.save(work / "tensors.npy", data.calibration)
    return network(data.model, candidate, work, Artifacts(tables=tables, tensors={False: work / "tensors.npy"}))


def stored(folder: Path, source: Model) -> Model | None:
    """Return what an earlier run with the same `--work` built in a folder; None where it built nothing."""
    facts = folder / "model.json"
    if not facts.is_file():
        return None
    path, kind, *further = json.loads(facts.read_text())
    return Model(Path(path), kind, source.spec, files=tuple(map(Path, further)))


def store(folder: Path, model: Model) -> None:
    """Write where a built model is."""
    (folder / "model.json").write_text(json.dumps([str(model.path), model.format, *map(str, model.files)]))


def theirs(data: Data, tools: Sequence[str], environments: Path, folder: Path) -> Iterator[Quantized]:
    """Quantize with the other tools, each in its environment."""
    calibration = folder / "calibration.npz"
    with Runner.open(data.model, Target("onnxruntime")) as runner:
        np.savez(calibration, allow_pickle=False, **{runner.picture_input: data.calibration})
    for tool in tools:
        environment = ENVIRONMENTS[next(start for start in ENVIRONMENTS if tool.startswith(start))]
        python = environments / environment / "bin" / "python" if environment else Path(sys.executable)
        if not python.exists():
            print(f"{tool} is left out: there is no {python}", file=sys.stderr)
            continue
        source, runtime, suffix = data.model, "onnxruntime", ".onnx"
        if environment == "nncf":
            runtime, suffix = "openvino", ".xml"
        try:
            if environment == "aieq":
                runtime, suffix = "litert", ".tflite"
                (folder / "float").mkdir(exist_ok=True)
                source = backends.get(runtime).build(data.model, Target(runtime), folder / "float")
            output = folder / f"{tool}{suffix}"
            if not output.is_file():
                run_job([str(path) for path in (python.absolute(), JOBS, tool, source.path, calibration, output)])
            model = read(output, data.model, source)
        except (PlimsollError, subprocess.SubprocessError) as error:
            print(f"{data.name}: {tool}: {str(error)[-200:]} (see {folder / tool}.log)", file=sys.stderr)
            continue
        yield Quantized(tool, model, Target(runtime, "cpu", "int8"), ours=False)


def run_job(command: list[str]) -> None:
    """Run a tool in its environment, its output in a log beside the result; raises SubprocessError."""
    output = Path(command[-1])
    with output.with_suffix(".log").open("w") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True, timeout=3600, cwd=output.parent)


def read(file: Path, source: Model, network: Model) -> Model:
    """Return another tool's file as a Model."""
    if file.suffix == ".onnx":
        return Model(file, "onnx", source.spec)
    if file.suffix == ".xml":
        return importers.read(file, source.spec)
    return Model(file, network.format, source.spec)


def quality(data: Data, truth: Outputs, given: Outputs) -> tuple[float, float]:
    """Return the signal to noise in dB of the worst quantity, and of all outputs together."""
    columns = decibels(data.model.require_spec(), truth, given)
    running = RunningDeviation()
    for first, second in zip(truth.values(), given.values(), strict=True):
        running.add(first, second)
    return min(columns.values()), running.deviation.snr_db


def rate(runner: Runner, pictures: Array, seconds: float) -> float:
    """Return pictures a second, a thread a stream."""
    counts = [0] * runner.streams
    started = time.perf_counter()

    def stream(number: int) -> None:
        index = number
        while time.perf_counter() - started < seconds:
            runner.infer(pictures[index % len(pictures)][np.newaxis])
            counts[number] += 1
            index += len(counts)

    threads = [threading.Thread(target=stream, args=(number,)) for number in range(runner.streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


@dataclass
class Row:
    """What was measured of a quantized network."""

    quantized: Quantized
    runner: Runner
    worst: float
    together: float
    on_calibration: float
    decoded: str
    """What became of the decoded answers, in short."""
    rates: list[float]


def measured(data: Data, candidates: Iterator[Quantized]) -> Iterator[Row]:
    """Open each candidate and judge its answers."""
    for candidate in candidates:
        try:
            runner = Runner.open(candidate.model, candidate.target, plan=ThreadPlan(host.cores(), 1))
            given = answers(runner, data.pictures)
            worst, together = quality(data, data.truth, given)
            short = decoded(data.model.require_spec(), data.truth, given)
            on_calibration = min(quality(data, data.calibration_truth, answers(runner, data.calibration)))
        except PlimsollError as error:
            print(f"{data.name}: {candidate.name} {candidate.note}: {error.message}", file=sys.stderr)
            continue
        print(
            f"  {candidate.name} {candidate.note}: {worst:.1f} dB, {together:.1f} dB, {short}",
            file=sys.stderr,
            flush=True,
        )
        yield Row(candidate, runner, worst, together, on_calibration, short, [])


def chosen(rows: Sequence[Row]) -> list[Row]:
    """Keep the calibrator of Plimsoll's that is best on the calibration pictures, for each runtime; and all others."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.quantized.ours:
            previous = best.get(row.quantized.name)
            if previous is None or row.on_calibration > previous.on_calibration:
                best[row.quantized.name] = row
    left_out = [row for row in rows if row.quantized.ours and row is not best[row.quantized.name]]
    for row in left_out:
        row.runner.close()
    return [row for row in rows if row not in left_out]


def table(data: Data, rows: Sequence[Row]) -> str:
    """Return the table of one network in Markdown."""
    lines = [
        f"**{data.name}**",
        "",
        "| quantizer | runs in | worst quantity, dB | all outputs, dB | answers | speed, of ours there |",
        "| --- | --- | ---: | ---: | --- | ---: |",
    ]
    own = {row.quantized.target.runtime: row for row in rows if row.quantized.ours}
    for row in sorted(rows, key=lambda row: (RUNTIMES.index(row.quantized.target.runtime), -row.worst)):
        runtime = row.quantized.target.runtime
        base = own.get(runtime)
        if base is row or base is None or not base.rates:
            speed = "1" if base is row else "–"
        else:
            ratio = compare_speeds("ours", "theirs", base.rates, row.rates).speed
            speed = f"{ratio.median:.2f} ({ratio.low:.2f} … {ratio.high:.2f})"
        note = f" ({row.quantized.note})" if row.quantized.ours else " (trains)" * (row.quantized.name in TRAINED)
        lines.append(
            f"| {row.quantized.name}{note} | {runtime} | {row.worst:.1f} | {row.together:.1f} | {row.decoded}"
            f" | {speed} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Quantize, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=list(FIVE))
    parser.add_argument("--tools", nargs="*", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--calibrate", type=int, default=50)
    parser.add_argument("--judge", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--calibrators", nargs="+", choices=list(quantize.METHODS), default=list(quantize.METHODS))
    parser.add_argument("--unchecked", action="store_true", help="judge what Plimsoll would refuse, too")
    parser.add_argument("--work", type=Path, help="keep what is built here, and use what is there")
    options = parser.parse_args()
    for name in options.networks:
        with tempfile.TemporaryDirectory(prefix="plimsoll-quantizers-") as temporary:
            folder = (options.work or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            data = prepared(name, options, folder)
            print(f"{name}: {len(data.calibration)} photographs calibrate, {len(data.pictures)} judge", file=sys.stderr)
            candidates = [*ours(data, options, folder), *theirs(data, options.tools, options.environments, folder)]
            rows = chosen(list(measured(data, iter(candidates))))
            order = np.random.default_rng(1)
            for _ in range(options.rounds):
                for index in order.permutation(len(rows)):
                    rows[index].rates.append(rate(rows[index].runner, data.pictures, options.seconds))
            print(table(data, rows), end="\n\n", flush=True)
            for row in rows:
                row.runner.close()
            print(json.dumps({"network": name, "host": host.processor(), "cores": host.cores()}), file=sys.stderr)


if __name__ == "__main__":
    main()

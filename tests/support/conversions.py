"""Generated networks × targets × calibrators: each built, and its answers to photographs held against ONNX Runtime's.

    PYTHONPATH=tests python -m support.conversions --targets mnn,ncnn:cpu:int8 --count 200 --out results.jsonl

Results are added to the file line by line, so a run that was ended goes on where it stopped. Each build runs in a
process that may crash. A pair is *wrong* where a float32 network lies below 60 dB or an int8 one below 20 dB and
nobody said so: no build refused it, and ONNX Runtime's own int8 does better.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helpers.generated_networks import SPEC, Case, cases
from plimsoll import backends, importers, quantize
from plimsoll.backends import conversion
from plimsoll.backends.base import ThreadPlan
from plimsoll.backends.comparison import Conversion, Outcome, compare
from plimsoll.backends.runner import Runner
from plimsoll.core.deviation import deviation
from plimsoll.core.model import Model, Tensors
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import PlimsollError
from plimsoll.preprocessing.preprocessor import Preprocessor
from plimsoll.quantize import METHODS
from plimsoll.report.trial import Candidate
from plimsoll.ship.build import Artifacts, network
from plimsoll.ship.strategy import calibrators_of
from plimsoll.system import subprocesses
from plimsoll.system.subprocesses import ProcessLimits

PHOTOS = Path(__file__).resolve().parents[2] / "examples" / "photos"
CALIBRATION, JUDGED = 24, 12
LIMITS = {"float32": 60.0, "float16": 40.0, "int8_weights": 25.0, "dynamic": 20.0, "int8": 20.0, "int16x8": 25.0}
"""In dB, an output."""
HARD = 6.0
"""An int8 network may lie below the limit by as much as ONNX Runtime's does, and so many dB."""
SECONDS = 180.0
DIED = "the process died"
INTERNAL = (NameError, TypeError, AttributeError, KeyError, IndexError)
"""Errors that no user should see, whatever the sentence around them."""
INT8 = Target("onnxruntime", "cpu", "int8")

Result = dict[str, Any]


@lru_cache(maxsize=1)
def pictures() -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what calibrates, and what is judged: other photographs."""
    preprocessor = Preprocessor(SPEC.input)
    photos = sorted(PHOTOS.glob("*.jpg"))
    tensors = np.stack([preprocessor(photo) for photo in photos])
    return tensors[::2][:CALIBRATION], tensors[1::2][:JUDGED]


class Source:
    """A generated network, with what it answers and what calibrates it."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.folder = folder
        calibrating, judged = pictures()
        written = case.write(folder / "network.onnx")
        if written is None:
            raise ValueError(f"the parts of {case.name} don't fit together")
        model = self.model = importers.read(written.path, SPEC)
        self.answers = answers(model, REFERENCE_TARGET, judged)
        np.save(folder / "tensors.npy", calibrating)
        statistics = quantize.observe(model, iter([calibrating]))
        self.tables = {}
        for method in METHODS:
            self.tables[method] = folder / f"{method}.json"
            statistics.calibration(method).write(self.tables[method])

    def decibels(self, target: Target, calibrator: str | None) -> dict[str, float]:
        """Return the signal to noise of each output of the network built for a target; of indices, the share that
        agrees as if it were one."""
        candidate = Candidate("reference", False, target, calibrator)
        artifacts = Artifacts(tables=self.tables, tensors={False: self.folder / "tensors.npy"})
        with tempfile.TemporaryDirectory(dir=self.folder) as built:
            model = network(self.model, candidate, Path(built), artifacts)
            given = answers(model, target, pictures()[1])
        figures = {}
        for name, reference in self.answers.items():
            if given[name].shape != reference.shape:
                figures[name] = float("-inf")
            elif reference.dtype == np.int64:
                wrong = float(np.mean(given[name] != reference))
                figures[name] = float("inf") if wrong == 0 else -20 * float(np.log10(wrong))
            else:
                figures[name] = deviation(reference, given[name].astype(reference.dtype)).snr_db
        return figures


def answers(model: Model, target: Target, judged: NDArray[Any]) -> Tensors:
    """Return what a network answers to pictures, one batch after another."""
    with Runner.open(model, target) as runner:
        batches = [runner.infer(judged[start : start + 4]) for start in range(0, len(judged), 4)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@lru_cache(maxsize=1)
def source_of(name: str, folder: Path) -> Source:
    """Return a network by its name; the last one is at hand."""
    own = folder / str(time.monotonic_ns())
    own.mkdir()
    return Source(Case.named(name), own)


def check_here(built: Conversion) -> Outcome:
    """Check a conversion in this process, which may crash: starting another one takes longer than all the rest."""
    session = built.backend.load(built.built, built.target, built.options, ThreadPlan.of("latency"))
    try:
        return compare(built, session)
    finally:
        session.close()


def run_here(module: str, payload: dict[str, Any], folder: Path, limits: ProcessLimits) -> dict[str, Any]:
    """Run a job in this process, which may crash, in place of `subprocesses.run_job`."""
    del limits
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = importlib.import_module(module).run(payload)
    return result


def serve(stdin: Iterator[str]) -> None:
    """Do the work that standard input names, line by line."""
    own_process, run_job = conversion._in_own_process, subprocesses.run_job
    output = sys.stdout.buffer.raw if hasattr(sys.stdout.buffer, "raw") else sys.stdout.buffer
    with tempfile.TemporaryDirectory(prefix="conversions-") as folder:
        for line in stdin:
            task = json.loads(line)
            result: Result = {}
            vars(conversion)["_in_own_process"] = own_process if task.get("again") else check_here
            vars(subprocesses)["run_job"] = run_job if task.get("again") else run_here
            try:
                source = source_of(task["case"], Path(folder))
                figures = source.decibels(Target.parse(task["target"]), task["calibrator"])
                result = {"db": min(figures.values()), "outputs": figures}
            except PlimsollError as error:
                kind = "failed" if isinstance(error.__cause__, INTERNAL) else "refused"
                result = {kind: error.message}
            except Exception as error:  # noqa: BLE001 - an internal error is a result too
                result = {"failed": f"{type(error).__name__}: {error}"[:500]}
            output.write((json.dumps(result) + "\n").encode())


class Worker:
    """A process that builds; another takes its place where it dies or hangs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def work(self, task: dict[str, Any]) -> Result:
        """Return what comes of a task, tried again as users have it where the process died; raises nothing."""
        result = self._work(task)
        return result if result.get("failed") != DIED else self._work({**task, "again": True})

    def _work(self, task: dict[str, Any]) -> Result:
        process, lines = self._start() if self._process is None else (self._process, self._lines)
        assert process.stdin is not None
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        try:
            line = lines.get(timeout=SECONDS)
        except queue.Empty:
            self.end()
            return {"failed": f"it hung for {SECONDS:.0f} s"}
        if line:
            result: Result = json.loads(line)
            return result
        process.wait()
        self._process = None
        return {"failed": DIED}

    def _start(self) -> tuple[subprocess.Popen[str], queue.Queue[str]]:
        command = [sys.executable, "-m", "support.conversions", "--worker"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        lines: queue.Queue[str] = queue.Queue()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    lines.put(line)
            lines.put("")

        threading.Thread(target=read, daemon=True).start()
        self._process, self._lines = process, lines
        return process, lines

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def tasks(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what is to be tried: of each network ONNX Runtime's int8 first, which the others are held against."""
    targets, calibrating = selected(arguments.targets), arguments.calibrators.split(",")
    spread = itertools.islice(cases(), 0, arguments.count * arguments.step, arguments.step)
    networks = map(Case.named, arguments.case) if arguments.case else spread
    for case in networks:
        for target in (INT8, *targets):
            offered = calibrators_of(target, tuple(METHODS))
            chosen = [name for name in offered if "all" in calibrating or name in calibrating]
            for calibrator in chosen if offered else [None]:
                yield {"case": case.name, "target": str(target), "calibrator": calibrator}


def selected(given: str) -> list[Target]:
    """Return the targets of this machine that a comma-separated list of runtimes or targets names."""
    offers = [offer for name in backends.names() if name != "reference" for offer in backends.get(name).targets()]
    names = given.split(",")
    return [
        offer.target
        for offer in offers
        if not offer.missing
        and (
            str(offer.target) in names
            or (
                offer.target.runtime in names and offer.target.precision in ("float32", "int8") and offer.target != INT8
            )
        )
    ]


def key(result: Result) -> tuple[str, str, str | None]:
    """Return what a result is of."""
    return result["case"], result["target"], result["calibrator"]


def verdict(result: Result, results: dict[tuple[str, str, str | None], Result]) -> str:
    """Return `ok`, `refused`, `hard` (ONNX Runtime's int8 is no better), `failed` or `wrong`."""
    if "refused" in result:
        return "refused"
    if "failed" in result:
        return "failed"
    limit = LIMITS[result["target"].rsplit(":", 1)[1]]
    if result["db"] >= limit:
        return "ok"
    if limit == LIMITS["int8"] and result["target"] != str(INT8):
        same = [other for other in results.values() if other["case"] == result["case"] and other["target"] == str(INT8)]
        if any("db" in other and result["db"] >= other["db"] - HARD for other in same):
            return "hard"
    return "wrong"


def main() -> None:
    """Run what is missing in the file of results, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default="onnxruntime,openvino,mnn,ncnn,litert", help="runtimes or targets")
    parser.add_argument("--calibrators", default="all", help="Plimsoll's own, and those of runtimes' own tools")
    parser.add_argument("--count", type=int, default=350, help="networks")
    parser.add_argument("--step", type=int, default=1, help="every so many networks of the sequence")
    parser.add_argument("--case", action="append", help="a network by its name; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("conversions.jsonl"))
    parser.add_argument("--again", action="store_true", help="try anew what was not right, or refused")
    parser.add_argument("--table", action="store_true", help="print the results alone")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(iter(sys.stdin.readline, ""))
        return
    results: dict[tuple[str, str, str | None], Result] = {}
    if arguments.out.exists():
        lines = arguments.out.read_text(encoding="utf-8").splitlines()
        results = {key(result): result for result in map(json.loads, lines)}
    if not arguments.table:
        run(arguments, results)
    show(results, {str(target) for target in selected(arguments.targets)})


def run(arguments: argparse.Namespace, results: dict[tuple[str, str, str | None], Result]) -> None:
    """Do what is to be done, and write it down."""
    worker = Worker()
    with arguments.out.open("a", encoding="utf-8") as file:
        for task in tasks(arguments):
            before = results.get(key(task))
            if before is not None and not (arguments.again and verdict(before, results) != "ok"):
                continue
            began = time.monotonic()
            result = {**task, **worker.work(task), "seconds": round(time.monotonic() - began, 2)}
            results[key(task)] = result
            file.write(json.dumps(result) + "\n")
            file.flush()
            if (word := verdict(result, results)) not in ("ok", "hard"):
                print(word, *(str(part) for part in key(result)), described(result), flush=True)
    worker.end()


def described(result: Result) -> str:
    """Return a result in words."""
    return str(result.get("refused") or result.get("failed") or f"{result['db']:.1f} dB")


def show(results: dict[tuple[str, str, str | None], Result], targets: set[str]) -> None:
    """Print a table of verdicts, a row for each target and calibrator."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for result in results.values():
        if result["target"] in targets or result["target"] == str(INT8):
            row = counts.setdefault((result["target"], result["calibrator"] or ""), Counter())
            row[verdict(result, results)] += 1
    words = ("ok", "hard", "refused", "failed", "wrong")
    print(f"{'target':28}{'calibrator':16}" + "".join(f"{word:>9}" for word in words))
    for (target, calibrator), row in sorted(counts.items()):
        print(f"{target:28}{calibrator:16}" + "".join(f"{row[word]:9}" for word in words))


if __name__ == "__main__":
    main()

"""open_nsfw in int8, the network alone: Plimsoll's quantizer against ONNX Runtime's and NNCF, in speed and in
deviation.

    pip install nncf          (to be installed for this alone: Plimsoll doesn't need it) python benchmarks/quantizers.py
    PHOTOS [--calibrate 100] [--calibrator percentile] [--streams 4] [--rounds 15] [--seconds 0.5]

The photographs are shuffled by a fixed seed; the first `--calibrate` calibrate every quantizer, the others test:
the deviation is the difference of the score from the float32 network's, and of its logit (a score of 0.001 that becomes
0.002 deviates by 0.001, its logit by 0.7).

Each quantizer is served as its makers have it. Ours: one thread a stream, as `plimsoll` runs them; `folded` reads the
picture's bytes. ONNX Runtime's: `quant_pre_process` and `quantize_static` with their defaults, and once more with uint8
activations and a scale for each channel, which suit x86 better; in as many streams. NNCF's: `nncf.quantize` with its
default preset and with `MIXED`, in OpenVINO's AsyncInferQueue with the optimal number of requests and the hint
THROUGHPUT, as benchmark_app does it. All get `--streams` cores.

In every round each candidate computes for so many seconds, in a new random order. Ratios are within a round, and their
interval is the sign test's (95 %). On a crowded machine believe the processor time rather than the speed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll import quantize, zoo
from plimsoll.backends.base import ThreadPlan
from plimsoll.backends.runner import Runner
from plimsoll.benchmark.statistics import compare_speeds, estimate
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.onnx.opset import raise_opset
from plimsoll.preprocessing import Preprocessor, folded
from plimsoll.quantize import StaticOptions
from plimsoll.system import host
from plimsoll.zoo import catalog

Array = NDArray[Any]
Serve = Callable[[Iterator[Array], Callable[[], bool]], int]
"""Answers pictures `[1, …]` until it is told to stop; returns how many it answered."""

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
INPUT = "input:0"
OURS = ("Plimsoll, onnxruntime", "Plimsoll, openvino")


@dataclass(frozen=True)
class Round:
    """What a candidate did in a round."""

    rate: float
    """Pictures a second."""
    processor: float
    """Seconds of processor time a picture, of all threads: on a crowded machine a better measure than the rate."""


@dataclass(frozen=True)
class Candidate:
    """A quantized network, served."""

    name: str
    pictures: Array
    """What it reads of the test pictures, `[N, …]`."""
    answer: Callable[[Array], Array]
    """From `[1, …]` to the scores `[1, 2]`."""
    serve: Serve

    def scores(self) -> Array:
        """Return every test picture's score."""
        return np.array(
            [self.answer(self.pictures[index : index + 1])[0, 1] for index in range(len(self.pictures))], np.float64
        )

    def measure(self, seconds: float) -> Round:
        """Compute for so long."""
        started, processor = time.perf_counter(), time.process_time()
        done = self.serve(_endless(self.pictures), lambda: time.perf_counter() - started >= seconds)
        return Round(done / (time.perf_counter() - started), (time.process_time() - processor) / done)


def _endless(pictures: Array) -> Iterator[Array]:
    while True:
        for index in range(len(pictures)):
            yield pictures[index : index + 1]


def in_lanes(name: str, model: Model, target: str, pictures: Array, streams: int) -> Candidate:
    """Serve a network by a Runner, a thread a stream."""
    runner = Runner.open(model, Target.parse(target), plan=ThreadPlan(streams, 1))

    def answer(batch: Array) -> Array:
        (output,) = runner.run({runner.inputs[0].name: batch}).values()
        return output

    def serve(source: Iterator[Array], stop: Callable[[], bool]) -> int:
        counts, lock = [0] * streams, threading.Lock()

        def stream(number: int) -> None:
            while not stop():
                with lock:
                    batch = next(source)
                answer(batch)
                counts[number] += 1

        threads = [threading.Thread(target=stream, args=(index,)) for index in range(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts)

    return Candidate(name, pictures, answer, serve)


def in_queue(name: str, network: Any, pictures: Array, cores: int) -> Candidate:
    """Serve an OpenVINO network as benchmark_app does."""
    import openvino

    network.reshape([1, *pictures.shape[1:]])
    compiled = openvino.Core().compile_model(
        network,
        "CPU",
        {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": cores, "INFERENCE_PRECISION_HINT": "f32"},
    )
    queue = openvino.AsyncInferQueue(compiled)
    request = compiled.create_infer_request()

    def serve(source: Iterator[Array], stop: Callable[[], bool]) -> int:
        done = 0
        while not stop():
            queue.start_async({0: next(source)})
            done += 1
        queue.wait_all()
        return done

    return Candidate(name, pictures, lambda batch: np.array(request.infer({0: batch})[0]), serve)


@dataclass(frozen=True)
class Bench:
    """What all candidates are made from."""

    model: Model
    calibration: Array
    pictures: Array
    """As the network reads them, float32 `[N, 224, 224, 3]`."""
    bytes: Array
    """The same, as the folded network reads them, uint8."""
    whole: Model
    """The network with its input steps folded into it."""
    folder: Path
    streams: int

    def subfolder(self, name: str) -> Path:
        """Return a new folder."""
        path = self.folder / name
        path.mkdir()
        return path

    def ours(self, calibrator: str) -> Iterator[Candidate]:
        """Quantize with Plimsoll, for both runtimes, as the network came and folded."""
        table = quantize.calibrate(self.model, [self.calibration], calibrator)
        for runtime in ("onnxruntime", "openvino"):
            target = Target(runtime, "cpu", "int8")
            for word, model, pictures in (("", self.model, self.pictures), (", folded", self.whole, self.bytes)):
                quantized = quantize.static(
                    model, table, self.subfolder(f"ours-{runtime}{word}"), StaticOptions.for_target(target)
                )
                yield in_lanes(f"Plimsoll, {runtime}{word}", quantized, str(target), pictures, self.streams)

    def onnx_runtimes(self) -> Iterator[Candidate]:
        """Quantize with ONNX Runtime's quantizer, as its documentation has it."""
        os.environ.update(host.TELEMETRY_OFF)
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
            def __init__(self, pictures: Array) -> None:
                self.source = iter([pictures[index : index + 1] for index in range(len(pictures))])

            def get_next(self) -> dict[str, Array] | None:
                return {INPUT: picture} if (picture := next(self.source, None)) is not None else None

        folder = self.subfolder("onnxruntime")
        raised = raise_opset(self.model, folder, 13)  # It refuses a scale for each channel below.
        quant_pre_process(
            str(raised.path),
            str(folder / "prepared.onnx"),
            skip_symbolic_shape=importlib.util.find_spec("sympy") is None,
        )
        for word, choices in (
            ("", {}),
            (", uint8, per channel", {"activation_type": QuantType.QUInt8, "per_channel": True}),
        ):
            path = folder / f"int8{word}.onnx"
            quantize_static(str(folder / "prepared.onnx"), str(path), Reader(self.calibration), **choices)
            yield in_lanes(
                f"ONNX Runtime's{word}", Model(path, "onnx"), "onnxruntime:cpu:int8", self.pictures, self.streams
            )

    def nncfs(self) -> Iterator[Candidate]:
        """Quantize with NNCF, as its documentation has it."""
        os.environ |= {"NNCF_CI": "1", "CI": "true"}  # It and OpenVINO, which it imports, report their use otherwise.
        import nncf
        import openvino

        for word, preset in (("", None), (", mixed", nncf.QuantizationPreset.MIXED)):
            source = nncf.Dataset(
                [self.calibration[index : index + 1] for index in range(len(self.calibration))],
                lambda picture: {INPUT: picture},
            )
            network = nncf.quantize(openvino.Core().read_model(str(self.model.path)), source, preset=preset)
            yield in_queue(f"NNCF{word}", network, self.pictures, self.streams)


def prepared(options: argparse.Namespace, folder: Path) -> Bench:
    """Read and split the photographs."""
    photos = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    np.random.default_rng(0).shuffle(photos)
    if len(photos) <= options.calibrate:
        sys.exit(
            f"{options.photos} has {len(photos)} photographs; {options.calibrate} calibrate, and others have to test"
        )
    model = Model(catalog.fetch("open_nsfw"), "onnx", zoo.card("open_nsfw").spec)
    whole = folded.fold(model, folder)
    plain, outside = Preprocessor(model.require_spec().input), Preprocessor(whole.require_spec().input)
    calibration, test_photos = photos[: options.calibrate], photos[options.calibrate :]
    return Bench(
        model,
        _stack(plain, calibration),
        _stack(plain, test_photos),
        _stack(outside, test_photos),
        whole,
        folder,
        options.streams,
    )


def _stack(preprocessor: Preprocessor, photos: Sequence[Path]) -> Array:
    return np.stack([preprocessor(photo) for photo in photos])


def _logits(scores: Array) -> Array:
    inside = np.clip(scores, 1e-9, 1 - 1e-9)  # Of an int8 head all probability may be on one side.
    return np.asarray(np.log(inside) - np.log1p(-inside))


def report(candidates: Sequence[Candidate], rounds: dict[str, list[Round]], truth: Array) -> None:
    """Print the table."""
    print(
        f"\n| | images/s | of {OURS[0]} | of {OURS[1]} | processor time, ms | of {OURS[1]} | deviation: largest | mean"
        " | logit, rms |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    rates = {name: [run.rate for run in row] for name, row in rounds.items()}
    times = {name: [run.processor for run in row] for name, row in rounds.items()}
    for candidate in candidates:
        cells = [
            f"{estimate(rates[candidate.name]).median:.0f}",
            *(_ratio(rates, other, candidate.name) for other in OURS),
        ]
        cells += [f"{1e3 * estimate(times[candidate.name]).median:.2f}", _ratio(times, OURS[1], candidate.name)]
        scores = candidate.scores()
        deviation, logit = np.abs(scores - truth), _logits(scores) - _logits(truth)
        cells += [f"{deviation.max():.4f}", f"{deviation.mean():.5f}", f"{np.sqrt(np.square(logit).mean()):.3f}"]
        print(f"| {candidate.name} | {' | '.join(cells)} |", flush=True)


def _ratio(values: dict[str, list[float]], other: str, name: str) -> str:
    if name == other:
        return "1"
    ratio = compare_speeds(other, name, values[other], values[name]).speed
    return f"{ratio.median:.2f} ({ratio.low:.2f} … {ratio.high:.2f})"


def main() -> None:
    """Quantize, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--calibrate", type=int, default=100)
    parser.add_argument("--calibrator", choices=list(quantize.METHODS), default="percentile")
    parser.add_argument("--streams", type=int, default=host.cores())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plimsoll-quantizers-") as temporary:
        bench = prepared(options, Path(temporary))
        candidates = [
            in_lanes(f"float32, {run}", bench.model, f"{run}:cpu:float32", bench.pictures, options.streams)
            for run in ("onnxruntime", "openvino")
        ]
        truth = candidates[0].scores()
        # OpenVINO was imported by Plimsoll first, without its telemetry.
        candidates += [*bench.ours(options.calibrator), *bench.onnx_runtimes()]
        if importlib.util.find_spec("nncf"):
            candidates += bench.nncfs()
        else:
            print("NNCF is left out: it is not installed (pip install nncf)", file=sys.stderr)
        for candidate in candidates:
            candidate.measure(options.seconds)
        rounds: dict[str, list[Round]] = {candidate.name: [] for candidate in candidates}
        order = np.random.default_rng(1)
        for _ in range(options.rounds):
            for index in order.permutation(len(candidates)):
                rounds[candidates[index].name].append(candidates[index].measure(options.seconds))
        print(
            f"\n{host.processor()}, {options.streams} of {host.cores()} cores; {len(bench.calibration)} photographs"
            f" calibrated ({options.calibrator}),"
        )
        print(f"{len(truth)} test; {options.rounds} rounds of {options.seconds} s each")
        report(candidates, rounds, truth)


if __name__ == "__main__":
    main()

"""Shipped bundles against the plain loop, end to end (bytes to answers), in one interleaved run; and what limits them.

    python benchmarks/shipped.py PHOTOS BUNDLE... [--rounds 12] [--each 50]

Each round scores the same photographs with the plain loop (`plain_loop.py`: Pillow in one thread, one `session.run` an
image), then with each bundle as `plimsoll predict` runs it, all in one process with everything loaded. A ratio is the
plain loop's time over the bundle's within one round. Then each stage of the bundle alone: its time on one core, and its
best on all cores; their sum is what a pipeline without any loss would take.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plain_loop

import plimsoll
from plimsoll.preprocessing.decode import read
from plimsoll.system import host
from plimsoll.tasks.classify import Classification
from plimsoll.zoo import catalog

os.environ.update(host.TELEMETRY_OFF)
import onnxruntime


def spread(work: Callable[[Any], object], items: Sequence[Any], threads: int) -> float:
    """Work on every item in threads; returns milliseconds of wall time an item."""
    left = iter(items)
    taking = threading.Lock()

    def take() -> None:
        while True:
            with taking:
                item = next(left, None)
            if item is None:
                return
            work(item)

    workers = [threading.Thread(target=take) for _ in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return 1e3 * (time.perf_counter() - started) / len(items)


def interleaved(photos: list[Path], bundles: dict[str, plimsoll.Predictor], rounds: int, each: int) -> None:
    """Print the answers a second of the plain loop and of each bundle, and their paired ratios."""
    session = onnxruntime.InferenceSession(str(catalog.fetch("open_nsfw")))
    random.Random(0).shuffle(photos)
    times: dict[str, list[float]] = {"plain loop": [], **{name: [] for name in bundles}}
    apart: dict[str, list[float]] = {name: [] for name in bundles}
    for number in range(rounds + 1):
        part = [str(photos[(number * each + index) % len(photos)]) for index in range(each)]
        started = time.perf_counter()
        scores = [plain_loop.score(session, path) for path in part]
        loop = time.perf_counter() - started
        for name, predictor in bundles.items():
            started = time.perf_counter()
            answers = [prediction.answer for prediction in predictor.predict_many(part)]
            bundle_scores = [answer.score for answer in answers if isinstance(answer, Classification)]
            took = time.perf_counter() - started
            if number:  # the first round warms up
                times[name].append(took)
                apart[name] += [abs(a - b) for a, b in zip(scores, bundle_scores, strict=True)]
        if number:
            times["plain loop"].append(loop)
    print(f"{rounds} rounds of {each} photographs, interleaved\n")
    print(f"{'':28} {'photos/s':>9}  ratio to the plain loop: median (min … max)   score difference: mean, largest")
    for name, taken in times.items():
        ratios = [base / own for base, own in zip(times["plain loop"], taken, strict=True)]
        ends = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"
        deviation = f"{statistics.fmean(apart[name]):.4f}, {max(apart[name]):.4f}" if name in apart else ""
        print(f"{name:28} {each / statistics.median(taken):9.1f}  {ends:45} {deviation}")


def stages(photos: list[Path], predictor: plimsoll.Predictor, cores: int) -> None:
    """Print what each stage takes alone, on one core and in one thread a core, and what a pipeline without loss would
    take."""
    runner = predictor.runner("throughput")
    items: list[Any] = list(photos)
    named: list[tuple[str, Callable[[Any], Any]]] = [("read", read), *predictor.preprocessor.stages]
    total_one = total_all = 0.0
    for name, stage in [*named, ("network", lambda tensor: runner.infer(np.ascontiguousarray(tensor)[np.newaxis]))]:
        one_core = min(spread(stage, items[:60], 1) for _ in range(3))
        every = min(spread(stage, items, cores) for _ in range(3))
        total_one, total_all = total_one + one_core, total_all + every
        print(f"  {name:10} {one_core:7.2f} ms on one core   {every:6.2f} ms on {cores} ({one_core / every:.1f} x)")
        items = [stage(item) for item in items] if name != "network" else items
    print(
        f"  {'together':10} {total_one:7.2f} ms on one core   {total_all:6.2f} ms on {cores}; at best"
        f" {total_one / cores:.2f} ms a picture"
    )


def main() -> None:
    """Run the comparison that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--each", type=int, default=50)
    given = parser.parse_args()
    host.keep_memory_level()
    photos = sorted(path for path in given.photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    bundles = {path.name: plimsoll.load(path) for path in given.bundles}
    interleaved(list(photos), bundles, given.rounds, given.each)
    for name, predictor in bundles.items():
        preprocessing = predictor.preprocessor.preprocessing
        print(f"\n{name}: {predictor.target} behind {preprocessing} preprocessing, each stage alone")
        stages(photos[:200], predictor, predictor.cores)


if __name__ == "__main__":
    main()

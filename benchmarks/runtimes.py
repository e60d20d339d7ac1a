"""open_nsfw's network alone in each runtime: interleaved rounds, medians, and ratios within a round.

    python benchmarks/runtimes.py [--int8 QDQ.onnx] [--rounds 7] [--seconds 0.5] [--batches 1 4 8] [--set
    openvino:fixed_sizes=0]

`--int8` adds the int8 targets, given open_nsfw with QuantizeLinear and DequantizeLinear (float32 input as in the
original). Each candidate computes as long as the round says, in as many threads as the plan has streams, each with a
batch of its own; then the next one does. A ratio is the first candidate's time an image over another's in the same
round: above 1 is faster. `--set` adds a candidate with an option beside the one without.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from plimsoll.backends.base import ThreadPlan
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.system import host
from plimsoll.zoo import catalog

SHAPE = (224, 224, 3)
INPUT = "input:0"


@dataclass(frozen=True)
class Candidate:
    """A network in a runtime."""

    target: Target
    model: Model
    options: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The target, with the options that are not as they come."""
        return " ".join(
            [
                f"{self.target.runtime}:{self.target.precision}",
                *(f"{key}={value}" for key, value in self.options.items()),
            ]
        )


def candidates(int8: Path | None, settings: list[str]) -> list[Candidate]:
    """List what is compared, the one that all are compared with first."""
    networks = [("float32", Model(catalog.fetch("open_nsfw"), "onnx"))] + (
        [("int8", Model(int8, "onnx"))] if int8 else []
    )
    plain = [
        Candidate(Target(runtime, "cpu", precision), model)
        for precision, model in networks
        for runtime in ("onnxruntime", "openvino")
    ]
    extra = []
    for setting in settings:
        runtime, _, rest = setting.partition(":")
        extra += [
            Candidate(case.target, case.model, dict([rest.split("=", 1)]))
            for case in plain
            if case.target.runtime == runtime
        ]
    return plain + extra


def milliseconds(runner: Runner, batch: int, streams: int, seconds: float) -> float:
    """Return the wall time an image, in milliseconds, of so many threads that call at once for so long."""
    pictures = np.random.default_rng(0).uniform(-123, 151, (streams, batch, *SHAPE)).astype(np.float32)
    calls = [0] * streams
    started = time.perf_counter()

    def call(stream: int) -> None:
        while calls[stream] == 0 or time.perf_counter() - started < seconds:
            runner.run({INPUT: pictures[stream]})
            calls[stream] += 1

    threads = [threading.Thread(target=call, args=(stream,)) for stream in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - started) / (sum(calls) * batch) * 1000


def compare(compared: list[Candidate], plan: ThreadPlan, batches: list[int], rounds: int, seconds: float) -> None:
    """Measure every batch size under one plan and print a line for each candidate."""
    runners = [Runner.open(case.model, case.target, plan=plan, options=case.options) for case in compared]
    for batch in batches:
        for runner in runners:
            milliseconds(runner, batch, plan.streams, seconds / 2)
        times = [[milliseconds(runner, batch, plan.streams, seconds) for runner in runners] for _ in range(rounds)]
        for index, case in enumerate(compared):
            mine = [row[index] for row in times]
            ratios = sorted(row[0] / row[index] for row in times)
            print(
                f"{plan.streams} x {plan.threads:<4} {batch:>5}  {case.name:36} {statistics.median(mine):7.2f}"
                f" {min(mine):7.2f}   {statistics.median(ratios):5.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})",
                flush=True,
            )
    for runner in runners:
        runner.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--int8", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--set", action="append", default=[], metavar="RUNTIME:NAME=VALUE")
    options = parser.parse_args()
    compared = candidates(options.int8, options.set)
    cores = host.cores()
    print(f"{host.processor()}, {cores} cores, {options.rounds} rounds of {options.seconds} s\n")
    print(f"{'plan':8} {'batch':>5}  {'':36} {'ms an image':>11} {'best':>3}   ratio: median (min … max)")
    for plan in (ThreadPlan(cores, 1), ThreadPlan(1, cores)):
        compare(compared, plan, options.batches, options.rounds, options.seconds)


if __name__ == "__main__":
    main()

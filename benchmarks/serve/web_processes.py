"""How many more requests several web processes answer, with a network that costs nothing.

    python benchmarks/serve/web_processes.py --processes 1,2 --rounds 5

Every service has the same tiny network and the same workers; they are asked in turns by 16 connections (wrk).
Beside the rates stands the processor time of a request, by kind of process. On a machine with few cores the load and
the workers take part of them, so that the rates alone say little: `possible` is the rate at which the busiest process
is busy all the time, and `bound` the rate at which all cores are, with everything that a request costs: no more can be
measured on this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
from compare import started
from measure import Load
from onnx import TensorProto, helper
from PIL import Image
from processes import command_line, own_seconds, tree
from servers import Running, plimsoll_server

from plimsoll.benchmark.statistics import compare_speeds, estimate
from plimsoll.system import host

SPEC = """
schema_version = 1
name = "tiny"
[input]
tensor = "x"
[[input.steps]]
step = "decode"
[[input.steps]]
step = "resize"
width = 8
height = 8
[output]
task = "classify"
tensor = "scores"
labels = ["a", "b"]
"""


def network(folder: Path) -> Path:
    """Write a network of one matrix, and its Spec."""
    weights = np.random.default_rng(0).normal(size=(192, 2)).astype(np.float32) / 100
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["y"]),
            helper.make_node("Softmax", ["y"], ["scores"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "tiny.onnx"
    onnx.save(model, path)
    (folder / "spec.toml").write_text(SPEC)
    return path


def picture() -> bytes:
    """Return a small picture."""
    written = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(written, "JPEG")
    return written.getvalue()


def seconds_by_kind(running: Running) -> dict[str, list[float]]:
    """Return the processor time of each process, by kind."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for pid in tree(running.main):
        line = command_line(pid)
        kind = next((name for name in ("serve.worker", "serve.web") if name in line), "main")
        by_kind[kind].append(own_seconds(pid))
    return by_kind


def main() -> int:
    """Parse the arguments, measure in turns, print rates, costs and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", default="1,2", help="numbers of web processes, with commas between")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.processes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        path = network(Path(folder))
        config = Path(folder, "serve.toml")
        config.write_text("[log]\nrequests = false\n")
        options = [
            "--spec",
            str(path.with_name("spec.toml")),
            "--workers",
            str(arguments.workers),
            "--config",
            str(config),
        ]
        servers = [
            plimsoll_server(f"{count} web", f"tiny={path}", *options, "--web-processes", str(count)) for count in counts
        ]
        rates: dict[str, list[float]] = defaultdict(list)
        costs: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        busiest: dict[str, list[float]] = defaultdict(list)
        load = Load([picture()], arguments.clients)
        with contextlib.closing(load), started(servers, [picture()], load) as running:
            for number in range(arguments.rounds):
                for turn in range(len(running)):
                    process = running[(turn + number) % len(running)]
                    process.freeze(signal.SIGCONT)
                    load.closed(process, 1)
                    before = seconds_by_kind(process)
                    measured = load.closed(process, arguments.seconds)
                    after = seconds_by_kind(process)
                    process.freeze()
                    name, answers = process.server.name, len(measured.latencies)
                    rates[name].append(measured.rate)
                    for kind, spent in after.items():
                        each = [now - then for now, then in zip(spent, before[kind], strict=True)]
                        costs[name][kind].append(1e3 * sum(each) / answers)
                    costs[name]["load"].append(1e3 * measured.generator_cpu_seconds / answers)
                    networked = after["serve.web"] or after["main"]
                    was = before["serve.web"] or before["main"]
                    spent = [max(now - then for now, then in zip(networked, was, strict=True))]
                    spent += [now - then for now, then in zip(after["main"], before["main"], strict=True)]
                    busiest[name].append(answers / max(spent))
    kinds = ("main", "serve.web", "serve.worker", "load")
    print(f"{host.cores()} cores, {arguments.workers} workers, {arguments.clients} connections")
    print(f"| | requests/s (95 % interval) | possible | bound | {' | '.join(f'{kind}, ms' for kind in kinds)} |")
    print("| --- | ---: | ---: | ---: |" + " ---: |" * len(kinds))
    for name, measured_rates in rates.items():
        rate = estimate(measured_rates)
        spent_by_kind = " | ".join(
            f"{estimate(costs[name][kind]).median:.3f}" if kind in costs[name] else "" for kind in kinds
        )
        possible = estimate(busiest[name]).median
        bound = 1e3 * host.cores() / sum(estimate(spent).median for spent in costs[name].values())
        print(
            f"| {name} | {rate.median:.0f} ({rate.low:.0f} … {rate.high:.0f}) | {possible:.0f} | {bound:.0f} |"
            f" {spent_by_kind} |"
        )
    first, *others = rates
    for name in others:
        print(compare_speeds(first, name, rates[first], rates[name]).sentence())
        print(compare_speeds(f"{first}, possible", f"{name}, possible", busiest[first], busiest[name]).sentence())
    return 0


if __name__ == "__main__":
    sys.exit(main())

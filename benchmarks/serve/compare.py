"""`plimsoll serve` against its peers, with the same network on the same cores, in one interleaved run.

    # once: the peers' environments, and wrk
    python benchmarks/serve/set_up.py
    # 16 clients, each of which sends its next request when the last one is answered
    python benchmarks/serve/compare.py closed PHOTOS --bundle BUNDLE
    # and 12-megapixel uploads beside them: each folder is a run of its own
    python benchmarks/serve/compare.py closed PHOTOS LARGE --bundle BUNDLE --servers plimsoll,flask,litserve
    # the highest Poisson rate with p99 <= 100 ms
    python benchmarks/serve/compare.py open PHOTOS --bundle BUNDLE
    python benchmarks/serve/compare.py closed PHOTOS --servers plimsoll,LitServe --rounds 2 --out results.json

Every server is started, checked on photographs against `plimsoll predict`, warmed and then stopped where it is
(SIGSTOP): it keeps its memory and uses no processor time. In each round every server in turn goes on, is warmed for a
second, measured, and stopped again. A ratio is of two servers within one round. The load generator runs on the same
cores; what it used is in the JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import Load, Measurement, percentile
from open_loop import highest_rates
from request_formats import photographs
from servers import Running, Server, peers, plimsoll_server

import plimsoll
from plimsoll.benchmark.statistics import SpeedComparison, compare_speeds, estimate
from plimsoll.system import host
from plimsoll.tasks.classify import Classification

ROOT = Path(__file__).resolve().parent.parent.parent
FIRST_PORT = 18100
CHECKED = 8
"""So many photographs are asked of every server and compared with `plimsoll predict`."""


@contextlib.contextmanager
def started(chosen: Sequence[Server], photos: Sequence[bytes], load: Load) -> Iterator[list[Running]]:
    """Start every server, warm it and stop it where it is; one that can't be started is told and left out."""
    with tempfile.TemporaryDirectory(prefix="plimsoll-logs-") as logs, contextlib.ExitStack() as stack:
        running = []
        for index, server in enumerate(chosen):
            process = Running(server, FIRST_PORT + index, Path(logs) / f"{index}.log")
            stack.enter_context(process)
            try:
                process.wait(photos[0])
            except RuntimeError as error:
                print(f"left out: {error}", flush=True)
                continue
            load.closed(process, 2)
            process.freeze()
            running.append(process)
        yield running


def check(running: Sequence[Running], photos: Sequence[bytes]) -> dict[str, float]:
    """Return each server's largest difference from the scores of `plimsoll predict`, over some photographs."""
    with plimsoll.load("open_nsfw") as model:
        expected = [
            prediction.answer.score
            for prediction in model.predict_many(photos[:CHECKED])
            if isinstance(prediction.answer, Classification)
        ]
    differences = {}
    for process in running:
        process.freeze(signal.SIGCONT)
        scores = [process.server.request_format.score(process.ask(photo).body) for photo in photos[:CHECKED]]
        process.freeze()
        differences[process.server.name] = max(abs(a - b) for a, b in zip(expected, scores, strict=True))
    return differences


def rounds_of(running: Sequence[Running], load: Load, rounds: int, seconds: float) -> dict[str, list[Measurement]]:
    """Measure every server in turn, round by round; each round begins with another one."""
    measurements: dict[str, list[Measurement]] = {process.server.name: [] for process in running}
    for number in range(rounds):
        for turn in range(len(running)):
            process = running[(turn + number) % len(running)]
            process.freeze(signal.SIGCONT)
            load.closed(process, 1)
            measured = load.closed(process, seconds)
            process.freeze()
            measurements[process.server.name].append(measured)
            print(
                f"round {number + 1}: {process.server.name:24} {measured.rate:7.1f}/s  p99"
                f" {measured.percentile(99):7.1f} ms",
                file=sys.stderr,
                flush=True,
            )
    return measurements


def table(measurements: Mapping[str, Sequence[Measurement]]) -> Iterator[str]:
    """Yield a row for each server: medians over the rounds, percentiles over all requests."""
    yield (
        "| server | requests/s (95 % interval) | p50 ms | p95 ms | p99 ms | CPU ms a request | of it web |"
        " memory MB | errors |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for name, rounds in measurements.items():
        rate, latencies = (
            estimate([measured.rate for measured in rounds]),
            [value for measured in rounds for value in measured.latencies],
        )
        failed = sum(sum(measured.errors.values()) for measured in rounds)
        times = " | ".join(f"{percentile(latencies, rank, failed):.0f}" for rank in (50, 95, 99))
        spent, web, memory = (
            estimate([measured.cpu_ms for measured in rounds]).median,
            estimate([measured.web_cpu_ms for measured in rounds]).median,
            max(measured.memory_mb for measured in rounds),
        )
        errors = (
            ", ".join(f"{count} × {how}" for measured in rounds for how, count in measured.errors.items()) or "none"
        )
        yield (
            f"| {name} | {rate.median:.0f} ({rate.low:.0f} … {rate.high:.0f}) | {times} | {spent:.1f} | {web:.2f} |"
            f" {memory:.0f} | {errors} |"
        )


def comparisons(measurements: Mapping[str, Sequence[Measurement]]) -> list[SpeedComparison]:
    """Compare what is ours with every peer, by answers a second; the best peer first."""
    mine = [name for name in measurements if name.startswith("plimsoll")]
    theirs = sorted(
        (name for name in measurements if name not in mine),
        key=lambda name: -estimate([measured.rate for measured in measurements[name]]).median,
    )
    return [
        compare_speeds(
            peer,
            own,
            [measured.rate for measured in measurements[peer]],
            [measured.rate for measured in measurements[own]],
        )
        for own in mine
        for peer in theirs
    ]


def chosen_servers(arguments: argparse.Namespace) -> list[Server]:
    """Return the servers that were asked for."""
    every = [
        plimsoll_server("plimsoll, float32", "open_nsfw", *arguments.options.split()),
        *([plimsoll_server("plimsoll, shipped", str(arguments.bundle.resolve()))] if arguments.bundle else []),
        *peers(),
    ]
    parts = [name.strip().lower() for name in arguments.servers.split(",")] if arguments.servers else [""]
    return [server for server in every if any(name in server.name.lower() for name in parts)]


def closed(running: Sequence[Running], load: Load, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure with clients that wait for their answers; print the table and the ratios."""
    measurements = rounds_of(running, load, arguments.rounds, arguments.seconds)
    print("\n".join(table(measurements)) + "\n")
    ratios = comparisons(measurements)
    for comparison in ratios:
        print(comparison.sentence())
    return {
        "servers": {name: [measured.to_dict() for measured in rounds] for name, rounds in measurements.items()},
        "ratios": [
            {
                "peer": comparison.baseline,
                "ours": comparison.candidate,
                "ratios": comparison.ratios,
                "median": comparison.speed.median,
                "low": comparison.speed.low,
            }
            for comparison in ratios
        ],
    }


def opened(running: Sequence[Running], load: Load, arguments: argparse.Namespace) -> dict[str, Any]:
    """Search each server's highest Poisson rate with p99 within the limit; print the table."""
    searches = highest_rates(running, load, arguments.limit, arguments.seconds, arguments.steps)
    print(
        f"| server | highest rate with p99 <= {arguments.limit:g} ms | too many | p99 ms there |\n| --- | ---: | ---: |"
        " ---: |"
    )
    for name, search in searches.items():
        print(f"| {name} | {search.passed:.0f}/s | {search.failed:.0f}/s | {search.p99:.0f} |")
    return {
        name: {"passed": search.passed, "failed": search.failed, "p99": search.p99, "probes": search.probes}
        for name, search in searches.items()
    }


def main() -> None:
    """Parse the arguments, measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("loop", choices=["closed", "open"])
    parser.add_argument(
        "photos", type=Path, nargs="*", default=[ROOT / "examples" / "photos"], help="folders of JPEG photographs"
    )
    parser.add_argument("--bundle", type=Path, help="what `plimsoll ship open_nsfw` made")
    parser.add_argument(
        "--options",
        default="",
        help="more options of `plimsoll serve open_nsfw`, as one word: '--target openvino:cpu:float32'",
    )
    parser.add_argument("--servers", help="parts of their names, with commas between (default: all)")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument(
        "--limit", type=float, default=100, help="open loop: milliseconds that the 99th percentile may take"
    )
    parser.add_argument("--steps", type=int, default=7, help="open loop: halvings of the search")
    parser.add_argument("--own-generator", action="store_true", help="traffic.py also where wrk is set up")
    parser.add_argument("--out", type=Path, help="JSON file for everything that was measured")
    arguments = parser.parse_args()
    results = [_measured(folder, arguments) for folder in arguments.photos]
    if arguments.out:
        arguments.out.write_text(json.dumps(results if len(results) > 1 else results[0], indent=1))


def _measured(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all servers with the photographs of a folder; print what came of it."""
    photos = photographs(folder)
    load = Load(photos, arguments.clients, arguments.own_generator)
    with contextlib.closing(load), started(chosen_servers(arguments), photos, load) as running:
        differences = check(running, photos)
        print(
            f"{folder}: {len(photos)} photographs, {arguments.clients} clients, {host.cores()} cores,"
            f" {'wrk' if load.wrk else 'traffic.py'}"
        )
        print(
            "largest difference from plimsoll predict: "
            + ", ".join(f"{name} {value:.1g}" for name, value in differences.items())
            + "\n",
            flush=True,
        )
        return {
            "loop": arguments.loop,
            "cores": host.cores(),
            "system": platform.platform(),
            "photos": len(photos),
            "differences": differences,
            "results": (closed if arguments.loop == "closed" else opened)(running, load, arguments),
        }


if __name__ == "__main__":
    main()

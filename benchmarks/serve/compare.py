"""`plimsoll serve` against its peers, with the same network on the same cores, in one interleaved run.

    python benchmarks/serve/set_up.py                                             once: the peers' environments, and wrk
    python benchmarks/serve/compare.py closed PHOTOS --bundle BUNDLE              16 clients, each asking again when it
    is answered python benchmarks/serve/compare.py open PHOTOS --bundle BUNDLE                the highest Poisson rate
    with p99 <= 100 ms python benchmarks/serve/compare.py closed PHOTOS --servers plimsoll,LitServe --rounds 2 --seconds
    4 --out found.json

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

from contracts import photographs
from measure import Load, Measured, percentile
from open_loop import highest_rates
from servers import Running, Server, ours, peers

import plimsoll
from plimsoll.benchmark.statistics import Comparison, compare, estimate
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
        for place, server in enumerate(chosen):
            one = Running(server, FIRST_PORT + place, Path(logs) / f"{place}.log")
            stack.enter_context(one)
            try:
                one.wait(photos[0])
            except RuntimeError as error:
                print(f"left out: {error}", flush=True)
                continue
            load.closed(one, 2)
            one.freeze()
            running.append(one)
        yield running


def check(running: Sequence[Running], photos: Sequence[bytes]) -> dict[str, float]:
    """Return each server's largest difference from the scores of `plimsoll predict`, over some photographs."""
    with plimsoll.load("open_nsfw") as model:
        wanted = [
            one.answer.score for one in model.predict_many(photos[:CHECKED]) if isinstance(one.answer, Classification)
        ]
    apart = {}
    for one in running:
        one.freeze(signal.SIGCONT)
        found = [one.server.contract.score(one.ask(photo).body) for photo in photos[:CHECKED]]
        one.freeze()
        apart[one.server.name] = max(abs(a - b) for a, b in zip(wanted, found, strict=True))
    return apart


def rounds_of(running: Sequence[Running], load: Load, rounds: int, seconds: float) -> dict[str, list[Measured]]:
    """Measure every server in turn, round by round; each round begins with another one."""
    found: dict[str, list[Measured]] = {one.server.name: [] for one in running}
    for number in range(rounds):
        for place in range(len(running)):
            one = running[(place + number) % len(running)]
            one.freeze(signal.SIGCONT)
            load.closed(one, 1)
            measured = load.closed(one, seconds)
            one.freeze()
            found[one.server.name].append(measured)
            print(
                f"round {number + 1}: {one.server.name:24} {measured.rate:7.1f}/s  p99"
                f" {measured.percentile(99):7.1f} ms",
                file=sys.stderr,
                flush=True,
            )
    return found


def table(found: Mapping[str, Sequence[Measured]]) -> Iterator[str]:
    """Yield a row for each server: medians over the rounds, percentiles over all requests."""
    yield "| server | requests/s (95 % interval) | p50 ms | p95 ms | p99 ms | CPU ms a request | memory MB | errors |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for name, measured in found.items():
        rate, latencies = (
            estimate([one.rate for one in measured]),
            [value for one in measured for value in one.latencies],
        )
        failed = sum(sum(one.errors.values()) for one in measured)
        times = " | ".join(f"{percentile(latencies, rank, failed):.0f}" for rank in (50, 95, 99))
        spent, memory = estimate([one.cpu_ms for one in measured]).median, max(one.memory_mb for one in measured)
        errors = ", ".join(f"{count} × {how}" for one in measured for how, count in one.errors.items()) or "none"
        yield (
            f"| {name} | {rate.median:.0f} ({rate.low:.0f} … {rate.high:.0f}) | {times} | {spent:.1f} | {memory:.0f} |"
            f" {errors} |"
        )


def comparisons(found: Mapping[str, Sequence[Measured]]) -> list[Comparison]:
    """Compare what is ours with every peer, by answers a second; the best peer first."""
    mine = [name for name in found if name.startswith("plimsoll")]
    theirs = sorted(
        (name for name in found if name not in mine),
        key=lambda name: -estimate([one.rate for one in found[name]]).median,
    )
    return [
        compare(peer, own, [one.rate for one in found[peer]], [one.rate for one in found[own]])
        for own in mine
        for peer in theirs
    ]


def chosen_servers(arguments: argparse.Namespace) -> list[Server]:
    """Return the servers that were asked for."""
    every = [
        ours("plimsoll, float32", "open_nsfw", *arguments.options.split()),
        *([ours("plimsoll, shipped", str(arguments.bundle.resolve()))] if arguments.bundle else []),
        *peers(),
    ]
    wanted = [name.strip().lower() for name in arguments.servers.split(",")] if arguments.servers else [""]
    return [server for server in every if any(name in server.name.lower() for name in wanted)]


def closed(running: Sequence[Running], load: Load, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure with clients that wait for their answers; print the table and the ratios."""
    found = rounds_of(running, load, arguments.rounds, arguments.seconds)
    print("\n".join(table(found)) + "\n")
    ratios = comparisons(found)
    for one in ratios:
        print(one.sentence())
    return {
        "servers": {name: [one.to_dict() for one in measured] for name, measured in found.items()},
        "ratios": [
            {
                "peer": one.baseline,
                "ours": one.candidate,
                "ratios": one.ratios,
                "median": one.speed.median,
                "low": one.speed.low,
            }
            for one in ratios
        ],
    }


def opened(running: Sequence[Running], load: Load, arguments: argparse.Namespace) -> dict[str, Any]:
    """Search each server's highest Poisson rate with p99 within the limit; print the table."""
    found = highest_rates(running, load, arguments.limit, arguments.seconds, arguments.steps)
    print(
        f"| server | highest rate with p99 <= {arguments.limit:g} ms | too many | p99 ms there |\n| --- | ---: | ---: |"
        " ---: |"
    )
    for name, one in found.items():
        print(f"| {name} | {one.held:.0f}/s | {one.failed:.0f}/s | {one.p99:.0f} |")
    return {
        name: {"held": one.held, "failed": one.failed, "p99": one.p99, "probes": one.probes}
        for name, one in found.items()
    }


def main() -> None:
    """Parse the arguments, measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("loop", choices=["closed", "open"])
    parser.add_argument(
        "photos", type=Path, nargs="?", default=ROOT / "examples" / "photos", help="folder of JPEG photographs"
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
    photos = photographs(arguments.photos)
    load = Load(photos, arguments.clients, arguments.own_generator)
    with contextlib.closing(load), started(chosen_servers(arguments), photos, load) as running:
        apart = check(running, photos)
        print(
            f"{len(photos)} photographs, {arguments.clients} clients, {host.cores()} cores,"
            f" {'wrk' if load.wrk else 'traffic.py'}"
        )
        print(
            "largest difference from plimsoll predict: "
            + ", ".join(f"{name} {value:.1g}" for name, value in apart.items())
            + "\n",
            flush=True,
        )
        result = (closed if arguments.loop == "closed" else opened)(running, load, arguments)
        if arguments.out:
            facts = {
                "loop": arguments.loop,
                "cores": host.cores(),
                "system": platform.platform(),
                "photos": len(photos),
                "differences": apart,
            }
            arguments.out.write_text(json.dumps(facts | {"found": result}, indent=1))


if __name__ == "__main__":
    main()

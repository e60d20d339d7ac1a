"""What is there to gain? Servers beside the same work without any server, in one interleaved run.

    python benchmarks/serve/limit.py PHOTOS --rounds 8
    # and the bundle in a loop beside the bundle served
    python benchmarks/serve/limit.py PHOTOS --bundle BUNDLE --rounds 6

As many processes as cores that score photographs in a loop (`peers/loop.py`: the peers' own function, network and
environment) against gunicorn + Flask and `plimsoll serve`, which answer 16 clients. Nothing that only serves can be
faster than the loops: their ratio to a peer is the limit of ours. With a bundle there are also loops of what our worker
computes, four photographs at once: what a server could reach at most that itself costs nothing, in whatever language.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from compare import ROOT, started
from measure import Load
from request_formats import photographs
from servers import Server, peers, plimsoll_server
from set_up import HERE

from plimsoll.benchmark.statistics import compare_speeds, estimate
from plimsoll.system import host

NO_SERVER = "no server"
BUNDLE_ALONE = "no server, the bundle"
BATCH = 4
"""Photographs that the bundle gets at once."""


class Loops:
    """As many processes as cores, each of which scores photographs when it is told."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._processes = [
            subprocess.Popen(
                command,
                cwd=HERE,
                env=os.environ | dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(host.cores())
        ]
        for process in self._processes:
            self._line(process)

    def run(self, seconds: float) -> tuple[float, float]:
        """Return photographs a second over all processes, and the processor milliseconds of one."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        results = [json.loads(self._line(process)) for process in self._processes]
        scored = sum(result["scored"] for result in results)
        rate = sum(result["scored"] / result["seconds"] for result in results)
        return rate, 1e3 * sum(result["cpu_seconds"] for result in results) / scored

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"a loop ended with exit code {process.wait()}")
        return line


@contextlib.contextmanager
def loops(like: Server, bundle: Path | None, photos: Sequence[bytes]) -> Iterator[dict[str, Loops]]:
    """Start the loops with the environment of a peer; and those of a bundle, where there is one."""
    with tempfile.TemporaryDirectory(prefix="plimsoll-photos-") as folder, contextlib.ExitStack() as stack:
        for index, photo in enumerate(photos):
            Path(folder, f"{index:05}.jpg").write_bytes(photo)

        def start(program: str, environment: Mapping[str, str], *more: str) -> Loops:
            command = [program, "-m", "peers.loop", folder, *more]
            return stack.enter_context(contextlib.closing(Loops(command, environment)))

        running = {NO_SERVER: start(str(Path(like.command[0]).parent / "python"), like.environment)}
        if bundle is not None:
            threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            running[BUNDLE_ALONE] = start(sys.executable, threads, str(bundle.resolve()), str(BATCH))
        yield running


def main() -> None:
    """Parse the arguments, measure in turns, print rates and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "photos", type=Path, nargs="?", default=ROOT / "examples" / "photos", help="folder of JPEG photographs"
    )
    parser.add_argument("--bundle", type=Path, help="what `plimsoll ship open_nsfw` made")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    photos = photographs(arguments.photos)
    flask = next((peer for peer in peers() if "Flask" in peer.name), None)
    if flask is None:
        raise SystemExit("gunicorn + Flask is not set up: python benchmarks/serve/set_up.py")
    servers = (
        [plimsoll_server("plimsoll, the bundle", str(arguments.bundle.resolve()))]
        if arguments.bundle
        else [
            plimsoll_server("plimsoll, onnxruntime", "open_nsfw"),
            plimsoll_server("plimsoll, openvino", "open_nsfw", "--target", "openvino:cpu:float32"),
        ]
    )
    servers.append(flask)
    measurements: dict[str, list[tuple[float, float]]] = defaultdict(list)
    load = Load(photos, 16)
    with (
        contextlib.closing(load),
        loops(flask, arguments.bundle, photos) as bare,
        started(servers, photos, load) as running,
    ):
        for _ in range(arguments.rounds):
            for name, loop in bare.items():
                measurements[name].append(loop.run(arguments.seconds))
            for process in running:
                process.freeze(signal.SIGCONT)
                load.closed(process, 1)
                measured = load.closed(process, arguments.seconds)
                process.freeze()
                measurements[process.server.name].append((measured.rate, measured.cpu_ms))
    print("| | photos/s (95 % interval) | CPU ms a photo |\n| --- | ---: | ---: |")
    for name, rounds in measurements.items():
        rate, spent = estimate([rate for rate, _ in rounds]), estimate([spent for _, spent in rounds])
        print(f"| {name} | {rate.median:.0f} ({rate.low:.0f} … {rate.high:.0f}) | {spent.median:.1f} |")
    pairs = [(flask.name, name) for name in measurements if name != flask.name]
    if arguments.bundle:
        pairs.append((BUNDLE_ALONE, servers[0].name))
    for baseline, name in pairs:
        rates = ([rate for rate, _ in measurements[which]] for which in (baseline, name))
        print(compare_speeds(baseline, name, *rates).sentence())


if __name__ == "__main__":
    main()

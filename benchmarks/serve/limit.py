"""What is there to gain? Servers beside the same work without any server, in one interleaved run.

    python benchmarks/serve/limit.py PHOTOS --rounds 8

Four processes that score photographs in a loop (`peers/loop.py`: the peers' own function, network and environment)
against gunicorn + Flask and `plimsoll serve`, which answer 16 clients. Nothing that only serves can be faster than the
loops: their ratio to a peer is the limit of ours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from compare import ROOT, started
from measure import Load
from request_formats import photographs
from servers import Server, peers, plimsoll_server
from set_up import HERE

from plimsoll.benchmark.statistics import compare_speeds, estimate
from plimsoll.system import host

NO_SERVER = "no server"


class Loops:
    """As many processes as cores, each of which scores photographs when it is told."""

    def __init__(self, like: Server, photos: Path) -> None:
        program = str(Path(like.command[0]).parent / "python")
        self._processes = [
            subprocess.Popen(
                [program, "-m", "peers.loop", str(photos)],
                cwd=HERE,
                env=os.environ | dict(like.environment),
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
def loops(like: Server, photos: Sequence[bytes]) -> Iterator[Loops]:
    """Start the loops with the environment of a peer."""
    with tempfile.TemporaryDirectory(prefix="plimsoll-photos-") as folder:
        for index, photo in enumerate(photos):
            Path(folder, f"{index:05}.jpg").write_bytes(photo)
        with contextlib.closing(Loops(like, Path(folder))) as running:
            yield running


def main() -> None:
    """Parse the arguments, measure in turns, print rates and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "photos", type=Path, nargs="?", default=ROOT / "examples" / "photos", help="folder of JPEG photographs"
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    photos = photographs(arguments.photos)
    flask = next((peer for peer in peers() if "Flask" in peer.name), None)
    if flask is None:
        raise SystemExit("gunicorn + Flask is not set up: python benchmarks/serve/set_up.py")
    servers = [
        plimsoll_server("plimsoll, onnxruntime", "open_nsfw"),
        plimsoll_server("plimsoll, openvino", "open_nsfw", "--target", "openvino:cpu:float32"),
        flask,
    ]
    measurements: dict[str, list[tuple[float, float]]] = {
        name: [] for name in (NO_SERVER, *(server.name for server in servers))
    }
    load = Load(photos, 16)
    with contextlib.closing(load), loops(flask, photos) as bare, started(servers, photos, load) as running:
        for _ in range(arguments.rounds):
            measurements[NO_SERVER].append(bare.run(arguments.seconds))
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
    for name in measurements:
        if name != flask.name:
            print(
                compare_speeds(
                    flask.name,
                    name,
                    [rate for rate, _ in measurements[flask.name]],
                    [rate for rate, _ in measurements[name]],
                ).sentence()
            )


if __name__ == "__main__":
    main()

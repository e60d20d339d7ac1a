"""`plimsoll predict open_nsfw` against the plain loop: whole commands, interleaved, as paired ratios; and peak memory.

    python benchmarks/predict.py PHOTOS [--rounds 7] [--memory]

Each round runs the plain loop, then `predict` with reference preprocessing, then with fast preprocessing, on the same
photos in the same order, from the start of the process to its end. A ratio is the plain loop's time over ours within
one round.
`--memory` adds peak memory (maximum resident set) for 250 and for 5,000 inputs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from plimsoll.zoo import catalog

HERE = Path(__file__).parent
PLIMSOLL = [sys.executable, "-m", "plimsoll", "--quiet", "predict", "open_nsfw", "-", "--format", "jsonl"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""A user's Python keeps what it compiled; a container's that doesn't would compile Plimsoll anew in each round."""


@dataclass(frozen=True)
class Run:
    """One finished command."""

    seconds: float
    processor_seconds: float
    peak_mb: float
    rows: list[dict[str, object]]


def run(command: list[str], listed: Path, out: Path) -> Run:
    """Run a command with the list on its standard input; its output is kept in `out`."""
    with listed.open("rb") as stdin, out.open("wb") as stdout:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=stdin, stdout=stdout, env=ENVIRONMENT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"failed with exit code {process.returncode}: {' '.join(command)}")
    scale = 1e6 if sys.platform == "darwin" else 1e3  # ru_maxrss is in bytes there, in kilobytes elsewhere
    processor_seconds = usage.ru_utime + usage.ru_stime
    return Run(
        seconds, processor_seconds, usage.ru_maxrss / scale, [json.loads(line) for line in out.read_text().splitlines()]
    )


def listing(photos: list[Path], count: int, folder: Path) -> Path:
    """Write a list of `count` photos, repeating them as needed."""
    file = folder / f"{count}.txt"
    file.write_text("".join(f"{photos[index % len(photos)]}\n" for index in range(count)))
    return file


def compare(photos: list[Path], rounds: int, folder: Path) -> None:
    """Run the three commands in turn and print their paired ratios."""
    listed = listing(photos, len(photos), folder)
    commands = {
        "plain loop": [sys.executable, str(HERE / "plain_loop.py"), str(catalog.fetch("open_nsfw")), str(listed)],
        "reference": [*PLIMSOLL, "--preprocessing", "reference"],
        "fast": [*PLIMSOLL, "--preprocessing", "fast"],
    }
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(rounds + 1):  # the first warms the caches and doesn't count
        for name, command in commands.items():
            done = run(command, listed, folder / "answers.jsonl")
            if number:
                runs[name].append(done)
    print(f"{len(photos)} photos, {rounds} rounds, whole commands\n")
    print(
        f"{'':12} {'photos/s':>9}  {'ratio to the plain loop: median (min … max)':44} {'peak MB':>8}  largest score"
        " difference"
    )
    for name, mine in runs.items():
        ratios = sorted(plain.seconds / ours.seconds for plain, ours in zip(runs["plain loop"], mine, strict=True))
        deviation = max(
            abs(float(str(a["score"])) - float(str(b["score"])))
            for a, b in zip(runs["plain loop"][0].rows, mine[0].rows, strict=True)
        )
        rate = len(photos) / statistics.median(measured.seconds for measured in mine)
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})"
        print(f"{name:12} {rate:9.1f}  {ratio:44} {max(measured.peak_mb for measured in mine):8.0f}  {deviation:.2g}")


def memory(photos: list[Path], folder: Path) -> None:
    """Print the peak memory for a short and a long list."""
    print("\npeak memory, MB")
    for preprocessing in ("reference", "fast"):
        peaks = [
            run(
                [*PLIMSOLL, "--preprocessing", preprocessing], listing(photos, count, folder), folder / "answers.jsonl"
            ).peak_mb
            for count in (250, 5000)
        ]
        ratio = peaks[1] / peaks[0]
        print(f"{preprocessing:12} 250 inputs: {peaks[0]:.0f}   5,000 inputs: {peaks[1]:.0f}   ratio {ratio:.3f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    photos = sorted(path.resolve() for path in options.photos.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})
    if not photos:
        sys.exit(f"no JPEG photos in {options.photos}")
    with tempfile.TemporaryDirectory() as folder:
        compare(photos, options.rounds, Path(folder))
        if options.memory:
            memory(photos, Path(folder))


if __name__ == "__main__":
    main()

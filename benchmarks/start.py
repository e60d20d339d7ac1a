"""How long a start takes: `import plimsoll` beside a bare interpreter, and `plimsoll --help`, in processor time.

python benchmarks/start.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys


def best_of(command: list[str], runs: int) -> float:
    """Return the least processor time of several runs, in seconds: what it takes on a machine that does nothing
    else."""
    times = []
    for _ in range(runs):
        before = os.times()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "COLUMNS": "100"})
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    bare = best_of([sys.executable, "-c", "pass"], runs)
    print(f"import plimsoll: {best_of([sys.executable, '-c', 'import plimsoll'], runs) - bare:.2f} s")
    print(f"plimsoll --help: {best_of([sys.executable, '-m', 'plimsoll', '--help'], runs):.2f} s")


if __name__ == "__main__":
    main()

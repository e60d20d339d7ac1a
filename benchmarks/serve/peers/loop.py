"""No server at all: this process scores photographs one after another, as often as it is told. What a server's worker
can reach at most.

Driven by `limit.py` over standard input and output: each line that comes in is a number of seconds, each that
goes out says how many photographs were scored in them, and what processor time that took.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path

from peers.steps import open_session, score


def main(folder: Path) -> None:
    """Score the photographs of a folder whenever a line comes."""
    session = open_session()
    photos = itertools.cycle([file.read_bytes() for file in sorted(folder.iterdir())])
    score(session, next(photos))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        count, began, spent = 0, time.monotonic(), time.process_time()
        while time.monotonic() - began < float(line):
            score(session, next(photos))
            count += 1
        sys.stdout.write(
            json.dumps(
                {"scored": count, "seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - spent}
            )
            + "\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

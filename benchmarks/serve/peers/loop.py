"""No server at all: this process scores photographs one after another, as often as it is told. What a server's worker
can reach at most: a peer's; or our own, with the path of a bundle and how many photographs it gets at once.

Driven by `limit.py` over standard input and output: each line that comes in is a number of seconds, each that
goes out says how many photographs were scored in them, and what processor time that took.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

Scorer = Callable[[Sequence[bytes]], object]


def peer_scorer() -> Scorer:
    """Return the peers' own function, which takes a photograph at a time."""
    from peers.steps import open_session, score

    session = open_session()
    return lambda photos: [score(session, photo) for photo in photos]


def bundle_scorer(bundle: str) -> Scorer:
    """Return what a worker of ours computes for a batch, without the worker."""
    from plimsoll.serve.executor import ModelExecutor, PictureItem

    config = {"model": bundle, "threads": 1, "options": {}}
    executor = ModelExecutor.open(config | dict.fromkeys(("spec", "target", "preprocessing", "verify")))
    return lambda photos: executor.run_pictures([PictureItem(prepared=executor.prepare(photo)) for photo in photos])


def main(folder: Path, score: Scorer, batch: int) -> None:
    """Score the photographs of a folder whenever a line comes."""
    photos = itertools.cycle([file.read_bytes() for file in sorted(folder.iterdir())])
    score([next(photos) for _ in range(batch)])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        count, began, spent = 0, time.monotonic(), time.process_time()
        while time.monotonic() - began < float(line):
            score([next(photos) for _ in range(batch)])
            count += batch
        sys.stdout.write(
            json.dumps(
                {"scored": count, "seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - spent}
            )
            + "\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(Path(sys.argv[1]), bundle_scorer(sys.argv[2]), int(sys.argv[3]))
    else:
        main(Path(sys.argv[1]), peer_scorer(), 1)

"""Kill `plimsoll ship` at random moments, start it again each time, and show that it ends with the same table and
repeats nothing.

    python benchmarks/ship_resume.py open_nsfw --images my_photos --work resume_work -- --calibrators percentile,minmax

Everything after `--` goes to `plimsoll ship`. Once without a kill, once with five: the tables are compared row by row
(status, verdict, answers; timings may differ), and no row or job log that was finished before a kill may have changed
after it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Run both and print what was modified; exit with 1 where something differs that may not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--images", required=True)
    parser.add_argument("--work", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    separator = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given = parser.parse_args(sys.argv[1:separator], argparse.Namespace(rest=sys.argv[separator + 1 :]))
    if given.work.exists():
        sys.exit(f"{given.work} exists; choose a folder that doesn't")
    given.work.mkdir(parents=True)
    started = time.monotonic()
    whole = finished(given, "whole")
    seconds = time.monotonic() - started
    print(f"without a kill: {seconds:.0f} s, {len(whole)} rows")
    finished_before = killed(given, seconds)
    table = finished(given, "killed")
    last = times(given.work / "killed" / "work")
    changed = sorted({name for before in finished_before for name, at in before.items() if last.get(name) != at})
    started = time.monotonic()
    again = finished(given, "killed")
    print(f"once more over the finished folder: {time.monotonic() - started:.0f} s")
    sys.exit(0 if verdict(whole, table, again, changed) else 1)


def command(given: argparse.Namespace, name: str) -> list[str]:
    """Return the command of a run with a work folder and a bundle of its own."""
    folder = given.work / name
    return [
        sys.executable, "-m", "plimsoll", "ship", given.model, "--images", given.images, "--out",
        str(folder / "bundle"), "--force",
        "--work", str(folder / "work"), *given.rest,
    ]  # fmt: skip


def finished(given: argparse.Namespace, name: str) -> dict[str, dict[str, Any]]:
    """Run to the end and return the table: the report's rows by their keys, without what time decides."""
    (given.work / name).mkdir(exist_ok=True)
    with (given.work / f"{name}.txt").open("ab") as log:
        subprocess.run(command(given, name), stdout=log, stderr=log, check=True)
    report = json.loads((given.work / name / "bundle" / "report" / "report.json").read_text(encoding="utf-8"))
    return {
        trial["key"]: {
            **{fact: trial[fact] for fact in ("status", "passed", "validation")},
            "size_bytes": trial["measured"]["size_bytes"],
        }
        for trial in report["details"]["trials"]
    }


def killed(given: argparse.Namespace, seconds: float) -> list[dict[str, int]]:
    """Kill the run at random moments, spread over the time that it takes; return what was finished at each kill."""
    rng = random.Random(given.seed)
    folder = given.work / "killed"
    folder.mkdir()
    finished_before: list[dict[str, int]] = []
    for index in range(given.kills):
        patience = rng.uniform(0.4, 1.4) * seconds / (given.kills + 1)
        with (given.work / "killed.txt").open("ab") as log:
            process = subprocess.Popen(command(given, "killed"), stdout=log, stderr=log, start_new_session=True)
            try:
                code: int | None = process.wait(patience)
            except subprocess.TimeoutExpired:
                code = None
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
        seen = times(folder / "work")
        how = "it had ended by itself" if code is not None else f"SIGKILL after {patience:.1f} s"
        print(f"kill {index + 1}: {how}; {sum(name.startswith('rows/') for name in seen)} pieces of work finished")
        finished_before.append(seen)
    return finished_before


def times(work: Path) -> dict[str, int]:
    """Return when each finished piece of work was finished_before and its log written last, by file."""
    modified: dict[str, int] = {}
    for row in work.glob("*/rows/*.json"):
        root = row.parents[1]
        log = root / "jobs" / row.stem / "log.txt"
        for file in (row, log):
            if file.exists():
                modified[file.relative_to(root).as_posix()] = file.stat().st_mtime_ns
    return modified


def verdict(
    whole: dict[str, dict[str, Any]],
    table: dict[str, dict[str, Any]],
    again: dict[str, dict[str, Any]],
    changed: list[str],
) -> bool:
    """Print the comparison; True where nothing differs that may not."""
    both = whole.keys() & table.keys()
    different = [key for key in both if whole[key] != table[key]]
    print(
        f"{len(both)} candidates in both tables: {len(both) - len(different)} with the same status, verdict and answers"
    )
    for key in sorted(different):
        print(f"  {key}:\n    whole  {whole[key]}\n    killed {table[key]}")
    # Which neighbours are looked at depends on which candidate was the fastest: that is timing.
    for when, keys in (("without a kill", whole.keys() - both), ("with kills", table.keys() - both)):
        if keys:
            print(f"tried only {when}, since another candidate was the fastest so far: {', '.join(sorted(keys))}")
    print(f"finished work that was done again: {', '.join(changed) or 'none'}")
    print(f"the table after the kills {'is' if table == again else 'is NOT'} the same when it is asked for once more")
    return not different and not changed and table == again


if __name__ == "__main__":
    main()

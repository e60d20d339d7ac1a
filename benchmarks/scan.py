"""`plimsoll scan` against `plimsoll predict`, its memory, what many SIGKILLs leave, and how long lists are planned.

    python benchmarks/scan.py pictures FOLDER [--count 3000]       make pictures from examples/photos
    python benchmarks/scan.py rate MODEL FOLDER [--rounds 3]       scan and predict in turn, as paired ratios; memory
    python benchmarks/scan.py kills MODEL FOLDER [--kills 20]      kill at random moments, go on, compare
    python benchmarks/scan.py plan [--paths 10000000]              plan and resume a list; the answers are a stub's

The pictures are crops of the examples, encoded anew as JPEG at 320 to 1,280 pixels: no two are equal.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image
from pyarrow import parquet

from plimsoll.inference.walk import LeftOut
from plimsoll.scan.plan import Plan, make_plan
from plimsoll.scan.storage import LocalFolder
from plimsoll.scan.table import Table

PHOTOS = Path(__file__).resolve().parent.parent / "examples" / "photos"
COUNTING = """
import os
from plimsoll.scan import facts, worker
_hash = facts.content_hash
_counter = os.open(os.environ["PLIMSOLL_BENCHMARK_COUNTER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def content_hash(data):
    os.write(_counter, b".")
    return _hash(data)
worker.content_hash = content_hash
"""
"""Counts the pictures that workers read."""
PLIMSOLL = [sys.executable, "-m", "plimsoll", "--quiet"]


def make_pictures(folder: Path, count: int) -> None:
    """Write `count` pictures into folders of 1,000."""
    draw = random.Random(16)
    photos = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.iterdir()) if path.suffix == ".jpg"]
    for number in range(count):
        photo = photos[number % len(photos)]
        side = draw.uniform(0.5, 1.0)
        width, height = int(photo.width * side), int(photo.height * side)
        left, top = draw.randint(0, photo.width - width), draw.randint(0, photo.height - height)
        long_side = draw.choice((320, 480, 640, 800, 1_280))
        scale = long_side / max(width, height)
        crop = photo.crop((left, top, left + width, top + height))
        crop = crop.resize((max(1, int(width * scale)), max(1, int(height * scale))), Image.Resampling.BILINEAR)
        path = folder / f"{number // 1_000:05}" / f"{number:08}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop.save(path, quality=draw.randint(60, 95))


def run(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds, and the peak memory, in MB, of the largest of its processes."""
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"failed: {' '.join(command)}")
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return time.perf_counter() - started, max(usage.ru_maxrss, children) / 1e3


def rate(model: str, folder: Path, rounds: int) -> None:
    """Compare whole commands in turn, and the memory at 250 pictures with that at all."""
    count = sum(1 for path in folder.rglob("*.jpg"))
    with tempfile.TemporaryDirectory() as work:
        first = [str(path) for path in sorted(folder.rglob("*.jpg"))[:250]]
        Path(work, "250.txt").write_text("\n".join(first))
        peaks = []
        for number, source in enumerate((f"{work}/250.txt", str(folder))):
            script = (
                "import resource, sys; import plimsoll; plimsoll.scan(*sys.argv[1:]);"
                "print(*(resource.getrusage(who).ru_maxrss / 1e3 for who in (resource.RUSAGE_SELF,"
                " resource.RUSAGE_CHILDREN)))"
            )
            command = [sys.executable, "-c", script, model, source, f"{work}/memory{number}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks.append([float(value) for value in done.stdout.split()])
        for name, number in (("parent", 0), ("worker", 1)):
            small, large = peaks[0][number], peaks[1][number]
            print(f"memory of the {name}: {small:.0f} MB at 250, {large:.0f} MB at {count:,} ({large / small:.2f})")
        ratios = []
        for number in range(rounds):
            scanned, _ = run([*PLIMSOLL, "scan", model, str(folder), "--out", f"{work}/table{number}"])
            predicted, _ = run([*PLIMSOLL, "predict", model, str(folder), "--out", f"{work}/rows{number}.jsonl"])
            ratios.append(predicted / scanned)
            print(
                f"scan {count / scanned:.1f}/s, predict {count / predicted:.1f}/s, ratio {ratios[-1]:.3f}", flush=True
            )
        print(f"scan at {statistics.median(ratios):.3f} of the rate of predict (median of {rounds})")


def kills(model: str, folder: Path, times: int) -> None:
    """Kill a scan at random moments, resume it each time, and compare the table with an undisturbed one."""
    draw = random.Random(1)
    with tempfile.TemporaryDirectory() as work:
        undisturbed, table = Path(work, "undisturbed"), Path(work, "table")
        seconds, _ = run([*PLIMSOLL, "scan", model, str(folder), "--out", str(undisturbed)])
        command = [*PLIMSOLL, "scan", model, str(folder), "--out", str(table)]
        site, counter = Path(work, "site"), Path(work, "counter")
        site.mkdir()
        (site / "sitecustomize.py").write_text(COUNTING)
        paths = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": paths, "PLIMSOLL_BENCHMARK_COUNTER": str(counter)}
        count = sum(1 for _ in folder.rglob("*.jpg"))
        killed = 0
        while killed < times:
            goal = _stored(table) + draw.uniform(0.2, 1.8) * count / (times + 2)
            process = subprocess.Popen(command, env=environment)
            while process.poll() is None and _stored(table) < goal:
                time.sleep(0.05)
            time.sleep(draw.uniform(0, 0.5))
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        subprocess.run(command, env=environment, check=True)
        before, after = _rows(undisturbed), _rows(table)
        most = max(Counter(row["path"] for row in after).values())
        differing = [pair for pair in zip(before, after, strict=True) if _plain(pair[0]) != _plain(pair[1])]
        scores = [abs(row["score"] - again["score"]) for row, again in zip(before, after, strict=True) if row["score"]]
        read = counter.stat().st_size
        print(f"{killed} kills; an undisturbed run took {seconds:.1f} s")
        print(f"{len(after):,} rows, at most {most} a picture; undisturbed {len(before):,}")
        print(f"rows that differ, but for time and score: {len(differing)}; scores differ by up to {max(scores):.2g}")
        print(
            f"pictures read: {read:,}; repeated: {read / len(after) - 1:.2%}, {(read - len(after)) / killed:.1f} a kill"
        )


def _stored(table: Path) -> int:
    """Return how many pictures have a row, finished or not."""
    count = 0
    for part in table.glob("rows/*.parquet"):
        count += parquet.read_metadata(part).num_rows
    for part in table.glob("partial/*.jsonl"):
        try:
            count += part.read_bytes().count(b"\n")
        except FileNotFoundError:
            count += 0
    return count


def _rows(table: Path) -> list[dict[str, Any]]:
    parts = sorted((table / "rows").glob("*.parquet"))
    return sorted(
        (row for part in parts for row in parquet.read_table(part).to_pylist()), key=lambda row: str(row["path"])
    )


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("time", "score", "scores")}


def plan(count: int) -> None:
    """Plan a list of `count` paths that don't exist, finish half of its shards with empty parts, and resume."""
    with tempfile.TemporaryDirectory() as work:
        listed = Path(work, "paths.txt")
        with listed.open("w") as stream:
            for number in range(0, count, 10_000):
                stream.writelines(
                    f"images/{index // 1_000:06}/{index:010}.jpg\n"
                    for index in range(number, min(count, number + 10_000))
                )
        size = listed.stat().st_size
        table = Table(LocalFolder(Path(work, "table")))
        started = time.perf_counter()
        frozen = make_plan(table.folder, [str(listed)], (), LeftOut())
        seconds = time.perf_counter() - started
        folder = Path(work, "table", "rows")
        folder.mkdir()
        for shard in frozen.read(table.folder):
            if shard.number % 2:
                (folder / f"{shard.name}.parquet").touch()
        started = time.perf_counter()
        finished = table.finished()
        left = sum(shard.count or 0 for shard in frozen.read(table.folder) if shard.number not in finished)
        resumed = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(
            f"{count:,} paths ({size / 1e9:.2f} GB): {frozen.shards:,} shards planned in {seconds:.1f} s;"
            f" {left:,} pictures"
            f" left to do, known after {resumed:.2f} s; peak memory {peak:.0f} MB; {Plan.FILE} has"
            f" {Path(work, 'table', Plan.FILE).stat().st_size / 1e6:.1f} MB"
        )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    pictures = commands.add_parser("pictures")
    pictures.add_argument("folder", type=Path)
    pictures.add_argument("--count", type=int, default=3_000)
    for name, option, default in (("rate", "--rounds", 3), ("kills", "--kills", 20)):
        command = commands.add_parser(name)
        command.add_argument("model")
        command.add_argument("folder", type=Path)
        command.add_argument(option, type=int, default=default)
    planned = commands.add_parser("plan")
    planned.add_argument("--paths", type=int, default=10_000_000)
    options = parser.parse_args()
    if options.command == "pictures":
        shutil.rmtree(options.folder, ignore_errors=True)
        make_pictures(options.folder, options.count)
    elif options.command == "rate":
        rate(options.model, options.folder, options.rounds)
    elif options.command == "kills":
        kills(options.model, options.folder, options.kills)
    else:
        plan(options.paths)


if __name__ == "__main__":
    main()

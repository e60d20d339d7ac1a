"""Decode whole collections of picture files, good and damaged, and compare the reference, fast and plain Pillow.

    python benchmarks/corpora.py FOLDER… [--rows FILE]

A folder is searched for files by their first bytes. Every file is decoded by a child process: three times, and once
more with all frames. What fails the run: a crash, an exception that is no ImageError, more than 5 s or 1 GB for a file,
a file that one implementation answers and the other refuses, other pixels or other words. Files whose pixels differ
from plain Pillow's are listed, since there the reference decides something itself (docs/decisions/0004).

Worth trying: the `Tests/images` of Pillow's source distribution, PngSuite, `testimages` of libjpeg-turbo, the test
files of libvips, libheif, pillow_heif and of image-rs (image, image-png, image-tiff, jpeg-decoder), and
exif-orientation-examples.
"""

from __future__ import annotations

import argparse
import io
import json
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from plimsoll.errors import ImageError
from plimsoll.preprocessing import fast_decode
from plimsoll.preprocessing.decode import Pixels, as_array, decode
from plimsoll.preprocessing.frames import frames
from plimsoll.spec.steps import Decode, ImageFormat

FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
MOST_SECONDS = 5.0
MOST_BYTES = 2**30
PATIENCE_S = 60.0


def outcome(run: Callable[[], Pixels]) -> Any:
    """Return the pixels, or the words of the refusal; an unforeseen exception is marked."""
    try:
        return as_array(run())
    except ImageError as error:
        return error.message
    except Exception as error:  # noqa: BLE001 - that there is none is what is tested
        return f"UNFORESEEN {type(error).__name__}: {error}"


def plain(data: bytes) -> Image.Image:
    """What a loop with Pillow alone gives."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def judged(path: Path) -> dict[str, Any]:
    """Return a file's row."""
    data = path.read_bytes()
    step = Decode(formats=FORMATS, max_megapixels=178)
    asking = step.model_copy(update={"frames": "all", "exif_orientation": True, "colour_profile": "srgb"})
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    started = time.perf_counter()
    reference = outcome(lambda: decode(data, step))
    seconds = time.perf_counter() - started
    peak = peak_memory()
    fast_pixels = outcome(lambda: fast_decode.decode(data, step))
    seconds = max(seconds, time.perf_counter() - started - seconds)
    began = time.perf_counter()
    all_frames = outcome(lambda: deque(frames(data, asking), maxlen=1)[0][1])
    seconds, peak = max(seconds, time.perf_counter() - began), max(peak, peak_memory())
    try:
        pillow: Any = np.asarray(plain(data))
    except Exception as error:  # noqa: BLE001 - whatever Pillow raises is a refusal
        pillow = str(error) or type(error).__name__
    return {
        "path": str(path),
        "seconds": seconds,
        "peak": peak,
        "reference": words(reference),
        "fast": words(fast_pixels),
        "frames": words(all_frames),
        "pillow": words(pillow),
        "answered": not isinstance(reference, str),
        "pillow_answers": not isinstance(pillow, str),
        "alike": same(reference, fast_pixels),
        "as_pillow": same(reference, pillow) if not isinstance(pillow, str) else isinstance(reference, str),
    }


def same(first: Any, second: Any) -> bool:
    """Tell whether two outcomes are the same pixels or the same words."""
    if isinstance(first, str) or isinstance(second, str):
        return isinstance(first, str) and isinstance(second, str) and first == second
    return bool(np.array_equal(first, second))


def words(result: Any) -> str:
    """Return a refusal as it is, and the shape of pixels."""
    return result if isinstance(result, str) else "x".join(map(str, result.shape))


def peak_memory() -> int:
    """Return the largest resident size since it was reset, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def serve() -> None:
    """Judge the paths on standard input, a line each."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        print(json.dumps(judged(Path(line.rstrip("\n")))), flush=True)


class Child:
    """A process that judges files, replaced after a crash or a hang."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def judge(self, path: Path) -> dict[str, Any]:
        """Return a file's row, or what became of the process."""
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=PATIENCE_S)
        except queue.Empty:
            line = ""
        if line:
            row: dict[str, Any] = json.loads(line)
            return row
        self._process.kill()
        code = self._process.wait()
        self._process = None
        return {"path": str(path), "crash": f"ended with {code}, or took more than {PATIENCE_S:g} s"}

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True).start()

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")


def pictures(folders: list[Path]) -> Iterator[Path]:
    """Yield every file in the folders."""
    for folder in folders:
        yield from sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".list")


def main() -> None:
    """Judge every file and print what came of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--rows", type=Path, help="write every file's row here, a line of JSON each")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        serve()
        return
    child = Child()
    rows = [child.judge(path) for path in pictures(arguments.folders)]
    if arguments.rows:
        arguments.rows.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sys.exit(report(rows))


def report(rows: list[dict[str, Any]]) -> int:
    """Print what came of all files; return 1 if something failed."""
    whole = [row for row in rows if "crash" not in row]
    answered = [row for row in whole if row["answered"]]
    failures = [(row["path"], row["crash"]) for row in rows if "crash" in row]
    for row in whole:
        if "UNFORESEEN" in row["reference"] + row["fast"] + row["frames"]:
            failures.append((row["path"], f"{row['reference']} | {row['fast']} | {row['frames']}"))
        elif not row["alike"]:
            failures.append((row["path"], f"reference: {row['reference']}; fast: {row['fast']}"))
        if row["seconds"] > MOST_SECONDS or row["peak"] > MOST_BYTES:
            failures.append((row["path"], f"{row['seconds']:.1f} s, {row['peak'] / 1e6:.0f} MB"))
    print(f"{len(rows):,} files: {len(answered):,} answered, {len(whole) - len(answered):,} refused")
    slowest, largest = (max(row[key] for row in whole) for key in ("seconds", "peak"))
    print(f"slowest {slowest:.2f} s, most memory {largest / 1e6:.0f} MB")
    groups = Counter(
        "equal to Pillow"
        if row["as_pillow"]
        else "other pixels than Pillow"
        if row["answered"] and row["pillow_answers"]
        else "answered, Pillow refuses"
        if row["answered"]
        else "refused, Pillow answers"
        for row in whole
        if row["answered"] or row["pillow_answers"]
    )
    for name, count in groups.most_common():
        print(f"  {count:5,} {name}")
    for row in whole:
        if not row["as_pillow"]:
            print(f"{row['path']}: reference: {row['reference']}; Pillow: {row['pillow'][:80]}")
    for path, text in failures:
        print(f"FAILED {path}: {text}")
    return 1 if failures else 0


if __name__ == "__main__":
    main()

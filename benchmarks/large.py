"""Whole commands on small, large and mixed pictures, against the plain Pillow loop.

    python benchmarks/large.py PHOTOS [--bundle BUNDLE] [--sets small large huge mix] [--rounds 3] [--folder FOLDER]

Each round runs the plain loop, then `plimsoll predict` with reference, fast and scaled preprocessing, then the bundle,
on the same files in the same order, from the start of the process to its end. A ratio is the plain loop's time
over ours within one round. What was made stays in FOLDER, so that the next run needs not make it again.

The sets, made of the photographs by `large_pictures.py`:

- small: the photographs themselves, repeated to 500 files.
- large: 12 JPEG files of 12 megapixels as phones write them (4:2:0, quality 92, 3 to 4 MB), each eight times.
- huge: 4 JPEG files of 48 megapixels, each four times.
- mix: 40 files as an upload form gets them, each three times: 12 photographs of a phone (12 MP JPEG, one in four turned
  by its EXIF orientation), one of 48 MP, 8 that a messenger has stored anew (1600 × 1200, quality 80, one in four
  progressive), 6 small ones, 5 screenshots (1170 × 2532, PNG, three of them with alpha), 4 WebP of 3 MP and one of 12,
  one PNG and one BMP of 4 MP, one CMYK JPEG of 4 MP.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from large_pictures import SIZES, encode, picture, screenshot
from predict import PLIMSOLL, Run, run

from plimsoll.zoo import catalog

HERE = Path(__file__).parent


def large(photos: Sequence[Path], megapixels: str, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of `count` JPEG files as phones write them."""
    for number in range(count):
        yield f"{number}.jpg", encode(picture(photos, number * 7, *SIZES[megapixels]), "jpeg")


def mix(photos: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield the names and bytes of files as an upload form gets them."""
    for number in range(12):
        phone = picture(photos, 100 + number, *SIZES["12"])
        yield f"phone{number}.jpg", encode(phone, "jpeg", orientation=6 if number % 4 == 3 else 1)
    yield "phone48.jpg", encode(picture(photos, 120, *SIZES["48"]), "jpeg")
    for number in range(8):
        again = picture(photos, 130 + number, 1600, 1200)
        yield f"messenger{number}.jpg", encode(again, "jpeg", quality=80, progressive=number % 4 == 3)
    for number in range(6):
        yield f"small{number}.jpg", photos[number * 11 % len(photos)].read_bytes()
    for number in range(5):
        yield f"screen{number}.png", encode(screenshot(photos, number), "rgba png" if number % 2 == 0 else "png")
    for number in range(4):
        yield f"web{number}.webp", encode(picture(photos, 140 + number, 2048, 1536), "webp")
    yield "web12.webp", encode(picture(photos, 150, *SIZES["12"]), "webp")
    for kind, ending in (("png", "png"), ("bmp", "bmp"), ("cmyk", "jpg")):
        yield f"{kind}4.{ending}", encode(picture(photos, 160, *SIZES["4"]), kind)


SETS: dict[str, tuple[int, Callable[[Sequence[Path]], Iterator[tuple[str, bytes]]]]] = {
    "large": (8, lambda photos: large(photos, "12", 12)),
    "huge": (4, lambda photos: large(photos, "48", 4)),
    "mix": (3, mix),
}
"""How often each file is listed, and what makes the files."""
SMALL_COUNT = 500


def listed(name: str, photos: Sequence[Path], folder: Path) -> tuple[Path, int]:
    """Make a set where it isn't there yet; return the list of its files, and how many it has."""
    if name == "small":
        files = [photos[index % len(photos)] for index in range(SMALL_COUNT)]
    else:
        times, make = SETS[name]
        set_folder = folder / name
        if not set_folder.is_dir():
            unfinished = folder / f"{name}.unfinished"
            unfinished.mkdir(parents=True, exist_ok=True)
            for file, content in make(photos):
                (unfinished / file).write_bytes(content)
            unfinished.rename(set_folder)
        files = sorted(set_folder.iterdir()) * times
    listing = folder / f"{name}.txt"
    listing.write_text("".join(f"{file}\n" for file in files))
    return listing, len(files)


def compare(name: str, listing: Path, count: int, bundle: Path | None, rounds: int, folder: Path) -> None:
    """Run all commands in turn and print their paired ratios."""
    network = str(catalog.fetch("open_nsfw"))
    commands = {
        "plain loop": [sys.executable, str(HERE / "plain_loop.py"), network, str(listing)],
        **{kind: [*PLIMSOLL, "--preprocessing", kind] for kind in ("reference", "fast", "scaled")},
    }
    if bundle is not None:
        commands["bundle"] = [str(bundle) if part == "open_nsfw" else part for part in PLIMSOLL]
    runs: dict[str, list[Run]] = {command: [] for command in commands}
    for _ in range(rounds):
        for command, line in commands.items():
            runs[command].append(run(line, listing, folder / "answers.jsonl"))
    print(f"\n{name}: {count} files, {rounds} rounds, whole commands\n")
    print(
        "| | pictures/s | of the plain loop: median (least … most) | processor ms a picture | peak MB |"
        " score difference: mean | largest |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for command, mine in runs.items():
        ratios = sorted(plain.seconds / own.seconds for plain, own in zip(runs["plain loop"], mine, strict=True))
        apart = [
            abs(float(str(a["score"])) - float(str(b["score"])))
            for a, b in zip(runs["plain loop"][0].rows, mine[0].rows, strict=True)
        ]
        rate = count / statistics.median(measured.seconds for measured in mine)
        print(
            f"| {command} | {rate:.1f} | {statistics.median(ratios):.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f}) |"
            f" {1e3 * min(measured.processor_seconds for measured in mine) / count:.1f} |"
            f" {max(measured.peak_mb for measured in mine):.0f} | {statistics.fmean(apart):.4f} | {max(apart):.3f} |",
            flush=True,
        )


def main() -> None:
    """Make the sets, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--sets", nargs="+", default=["small", *SETS], choices=["small", *SETS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only-make", action="store_true", help="make the sets and measure nothing")
    options = parser.parse_args()
    photos = sorted(path.resolve() for path in options.photos.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})
    if not photos:
        sys.exit(f"no JPEG photos in {options.photos}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.sets:
            listing, count = listed(name, photos, folder)
            if not options.only_make:
                compare(name, listing, count, options.bundle, options.rounds, folder)


if __name__ == "__main__":
    main()

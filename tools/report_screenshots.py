"""Take the screenshots in docs/screenshots of the page of a `ship`, with headless Chromium.

    python tools/report_screenshots.py report.json

writes ship-desktop-light.png, ship-desktop-dark.png, ship-phone-light.png and ship-phone-dark.png, and of what stands
further below ship-pictures-light.jpg and ship-pictures-dark.jpg, each within 250 kB.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from plimsoll.report.page import render
from plimsoll.report.report import Report

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "screenshots"
LARGEST = 250_000
VIEWS = {
    "desktop": (1280, 2400, 1.0, ""),
    "phone": (390, 2600, 1.5, ""),
    "pictures": (1280, 1760, 1.0, "header, .section-line, .section-results"),
}
"""Width and height in CSS pixels, how many pixels each has, and what above is left out."""
SCHEMES = {"light": 1, "dark": 0}
"""What Blink's `preferredColorScheme` calls them."""
_SMALLEST_WINDOW = 500
"""Chromium makes no narrower window: a narrower page is shown in a frame of its width."""


def browser() -> str:
    """Return the path of Chromium; exits with a hint where there is none."""
    executable = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if executable is None:
        sys.exit("Chromium is not installed; on Debian: apt-get install chromium")
    return executable


def chromium(page: Path, scheme: str, *options: str) -> None:
    """Let headless Chromium open a local page, with no other connection to anywhere."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--hide-scrollbars", f"--user-data-dir={profile}",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", *options, page.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        sys.exit(f"Chromium ended with {done.returncode}:\n{done.stderr[-2000:]}")


def shoot(page: Path, scheme: str, size: tuple[int, int], scale: float) -> Image.Image:
    """Return a picture of the page, `size` in CSS pixels."""
    width, height = size
    with tempfile.TemporaryDirectory() as folder:
        shown = page
        if width < _SMALLEST_WINDOW:
            shown = Path(folder) / "frame.html"
            style = f"position:absolute;left:0;top:0;width:{width}px;height:{height}px;border:0;color-scheme:{scheme}"
            shown.write_text(
                f'<!DOCTYPE html><meta name="color-scheme" content="{scheme}"><iframe src="{page.as_uri()}"'
                f' style="{style}"></iframe>'
            )
        file = Path(folder) / "shot.png"
        window = f"--window-size={max(width, _SMALLEST_WINDOW)},{height}"
        chromium(shown, scheme, f"--screenshot={file}", window, f"--force-device-scale-factor={scale}")
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    return picture.crop((0, 0, round(width * scale), round(height * scale)))


def write(picture: Image.Image, file: Path) -> None:
    """Write a JPEG, or a PNG of at most 250 kB: in all its colours where they fit, else in 256, and if need be smaller
    than the picture."""
    if file.suffix == ".jpg":
        picture.save(file, "JPEG", quality=80, subsampling=0, optimize=True)
        return
    for factor, colours in ((1.0, None), (1.0, 256), (0.85, 256), (0.7, 256), (0.55, 256)):
        smaller = (
            picture
            if factor == 1.0
            else picture.resize(
                (round(picture.width * factor), round(picture.height * factor)), Image.Resampling.LANCZOS
            )
        )
        stream = io.BytesIO()
        # Median cut forgets the few pixels of a small mark's colour; the octree keeps them.
        reduced = (
            smaller
            if colours is None
            else smaller.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        )
        reduced.save(stream, "PNG", optimize=True)
        if stream.tell() <= LARGEST:
            break
    file.write_bytes(stream.getvalue())
    print(f"{file.name}: {smaller.width}×{smaller.height}, {stream.tell() / 1000:.0f} kB")  # what the command is for


def main() -> None:
    """Write the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="the report.json of a `plimsoll ship`")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder to write to")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    text = render(Report.read(given.report))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        for view, (width, height, scale, hidden) in VIEWS.items():
            style = f"<style>{hidden} {{ display: none; }}</style></head>" if hidden else "</head>"
            page.write_text(text.replace("</head>", style, 1), encoding="utf-8")
            for scheme in SCHEMES:
                # Photographs in 256 colours are no sight.
                suffix = ".jpg" if view == "pictures" else ".png"
                write(shoot(page, scheme, (width, height), scale), given.out / f"ship-{view}-{scheme}{suffix}")


if __name__ == "__main__":
    main()

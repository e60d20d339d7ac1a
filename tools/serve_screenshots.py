"""Take the screenshots in docs/screenshots of the page of a service that runs, with headless Chromium.

    plimsoll serve open_nsfw.plimsoll &
    python tools/serve_screenshots.py http://localhost:8000 PICTURES …

writes serve-desktop.png and serve-phone.png, each within 250 kB.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image
from report_screenshots import FOLDER, write

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from helpers.browser import Browser, browser

VIEWS = {"desktop": (1280, 900, 1.0, 1420), "phone": (390, 844, 1.5, 2000)}
"""Width and height in CSS pixels, how many pixels each has, and how far down the picture goes."""


def shoot(driven: Browser, url: str, pictures: list[Path], view: str) -> Image.Image:
    """Return a picture of the page after it has answered the pictures, for the second time: the first warms everything
    up."""
    width, height, scale, depth = VIEWS[view]
    driven.view(width, height, scale)
    for _ in range(2):
        driven.open(url)
        driven.drop(*pictures)
        driven.until(f"document.querySelectorAll('#answers .timing').length === {len(pictures)}")
    driven.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
    with Image.open(io.BytesIO(driven.shot(whole=True))) as shot:
        return shot.convert("RGB").crop((0, 0, round(width * scale), min(shot.height, round(depth * scale))))


def main() -> None:
    """Write the two screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder to write to")
    given = parser.parse_args()
    with browser() as driven:
        for view in VIEWS:
            write(
                shoot(driven, given.url, [picture.resolve() for picture in given.pictures], view),
                given.out / f"serve-{view}.png",
            )


if __name__ == "__main__":
    main()

"""Take the screenshots in docs/screenshots of a web package's page, with headless Chromium.

    python tools/web_screenshots.py PACKAGE [PICTURES …]

writes web-desktop-light.png, web-desktop-dark.png, web-phone-light.png and web-phone-dark.png, each within 250 kB.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from PIL import Image
from report_screenshots import FOLDER, SCHEMES, write

from plimsoll.export.web import chromium

VIEWS = {"desktop": (1280, 1340, 1.0), "phone": (390, 2160, 1.5)}
"""Width and height in CSS pixels, and how many pixels each has."""
_SMALLEST_WINDOW = 500
_DROP = """
export default async function run() {
  const style = "border: 0; width: WIDTHpx; height: HEIGHTpx; color-scheme: SCHEME";
  const frame = Object.assign(document.createElement("iframe"), { src: "/index.html", style });
  document.documentElement.style.colorScheme = "SCHEME";
  document.body.append(frame);
  await new Promise((resolve) => frame.addEventListener("load", resolve));
  const page = frame.contentDocument;
  const until = async (ready) => { while (!ready()) await new Promise((resolve) => setTimeout(resolve, 50)); };
  await until(() => page.documentElement.dataset.checked);
  const files = new frame.contentWindow.DataTransfer();
  for (const [address, name] of PICTURES) {
    files.items.add(new frame.contentWindow.File([await (await fetch(address)).blob()], name));
  }
  frame.contentWindow.dispatchEvent(new frame.contentWindow.DragEvent("drop", { dataTransfer: files }));
  await until(() => page.querySelectorAll(".time").length === PICTURES.length);
  await Promise.all([...page.images].map((image) => image.decode().catch(() => {})));
}
"""


def shoot(package: Path, pictures: list[Path], scheme: str, view: tuple[int, int, float]) -> Image.Image:
    """Return a picture of the package's page after it has answered the pictures."""
    width, height, scale = view
    files = {f"_pictures/{index}": picture for index, picture in enumerate(pictures)}
    named = [[f"/{address}", picture.name] for address, picture in files.items()]
    program = (
        _DROP.replace("WIDTH", str(width))
        .replace("HEIGHT", str(height))
        .replace("SCHEME", scheme)
        .replace("PICTURES", json.dumps(named))
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "shot.png"
        flags = (
            f"--window-size={max(width, _SMALLEST_WINDOW)},{height}",
            f"--force-device-scale-factor={scale}",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        )
        chromium.run(program, package, files, screenshot=file, flags=flags)
        with Image.open(file) as opened:
            return opened.convert("RGB").crop((0, 0, round(width * scale), round(height * scale)))


def main() -> None:
    """Write the four screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("pictures", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder to write to")
    given = parser.parse_args()
    for view, size in VIEWS.items():
        for scheme in SCHEMES:
            write(shoot(given.package, given.pictures, scheme, size), given.out / f"web-{view}-{scheme}.png")


if __name__ == "__main__":
    main()

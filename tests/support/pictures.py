"""What the networks of docs/support.md are tried on: photographs, and photographs that show what a network looks for.

A detector of text or faces answers all but zero to a landscape, and noise beside zero says nothing. So words are drawn
on the photographs for those that find text, strips with one word are cut for those that read a line, and two portraits
are laid on the photographs for those that find faces; those that judge one face get one of the portraits, with the
photograph shining through. Everything is chosen by the photograph's name: the same each time.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont, ImageOps

Kind = Literal["photographs", "captions", "lines", "faces", "portraits"]
WORDS = ("Harbour 42", "EXIT", "Open 9-17", "No parking", "Market St", "K7 PLM 88", "Fresh bread", "Platform 3")
PORTRAITS = (("astronaut.jpg", (145, 15, 310, 200)), ("grace_hopper.jpg", (120, 20, 390, 350)))
"""Photographs of `examples/photos`, and where the head is: left, top, right, bottom."""
PORTRAIT_FOLDER = Path(__file__).resolve().parents[2] / "examples" / "photos"


def shown(kind: Kind, photos: Sequence[str], folder: Path) -> list[str]:
    """Return the pictures of a kind for photographs, written to `folder` where they are made anew."""
    if kind == "photographs":
        return list(photos)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for photo in photos:
        picture = folder / f"{Path(photo).stem}.{kind}.png"
        chance = random.Random(zlib.crc32(Path(photo).name.encode()))
        with Image.open(photo) as opened:
            _MAKERS[kind](ImageOps.exif_transpose(opened).convert("RGB"), chance).save(picture)
        pictures.append(str(picture))
    return pictures


def _captions(photo: Image.Image, chance: random.Random) -> Image.Image:
    """Draw three words, each a line of its own."""
    draw = ImageDraw.Draw(photo)
    for line, word in enumerate(chance.sample(WORDS, 3)):
        size = round(min(photo.size) * chance.uniform(0.08, 0.14))
        corner = (chance.uniform(0.02, 0.3) * photo.width, (line + chance.uniform(0.1, 0.4)) * photo.height / 3)
        _write(draw, corner, word, size, chance)
    return photo


def _line(photo: Image.Image, chance: random.Random) -> Image.Image:
    """Cut out a strip, and draw a word that fills it."""
    word = chance.choice(WORDS)
    size = photo.width // 6
    strip = photo.crop((0, photo.height // 3, photo.width, photo.height // 3 + round(1.4 * size)))
    _write(ImageDraw.Draw(strip), (0.03 * photo.width, 0.1 * size), word, size, chance)
    return strip


def _write(draw: ImageDraw.ImageDraw, corner: tuple[float, float], word: str, size: int, chance: random.Random) -> None:
    ink, edge = ((20, 20, 30), "white") if chance.random() < 0.5 else ("white", (20, 20, 30))
    draw.text(corner, word, ink, ImageFont.load_default(size), stroke_width=max(1, size // 12), stroke_fill=edge)


def _faces(photo: Image.Image, chance: random.Random) -> Image.Image:
    """Lay the portraits on it, one left and one right, in sizes of their own."""
    for side, (name, box) in enumerate(chance.sample(PORTRAITS, 2)):
        with Image.open(PORTRAIT_FOLDER / name) as opened:
            face = opened.convert("RGB").crop(box)
        height = round(photo.height * chance.uniform(0.35, 0.6))
        face = face.resize((round(face.width * height / face.height), height), Image.Resampling.BICUBIC)
        if chance.random() < 0.5:
            face = ImageOps.mirror(face)
        left = side * photo.width // 2 + round(chance.uniform(0, 0.1) * photo.width)
        photo.paste(face, (left, round(chance.uniform(0, photo.height - height))))
    return photo


def _portrait(photo: Image.Image, chance: random.Random) -> Image.Image:
    """Blend one portrait, its frame a little off, with the photograph."""
    name, box = chance.choice(PORTRAITS)
    margin = 0.12 * (box[2] - box[0])
    frame = tuple(round(edge + chance.uniform(-margin, margin)) for edge in box)
    with Image.open(PORTRAIT_FOLDER / name) as opened:
        face = opened.convert("RGB").crop((max(0, frame[0]), max(0, frame[1]), frame[2], frame[3]))
    if chance.random() < 0.5:
        face = ImageOps.mirror(face)
    return Image.blend(face, photo.resize(face.size), chance.uniform(0.05, 0.25))


_MAKERS: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "captions": _captions,
    "lines": _line,
    "faces": _faces,
    "portraits": _portrait,
}

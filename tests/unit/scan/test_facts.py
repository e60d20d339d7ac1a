"""What a file says besides the answer."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image

from plimsoll.scan.facts import FileFacts, facts_of
from plimsoll.spec.steps import Decode

PHOTOS = Path(__file__).resolve().parents[3] / "examples" / "photos"


def stored(image: Image.Image, quality: int = 60) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def distance(first: str | None, second: str | None) -> int:
    assert first is not None
    assert second is not None
    return (int(first, 16) ^ int(second, 16)).bit_count()


def test_the_size_is_the_files_own_and_what_is_no_picture_has_none() -> None:
    image = Image.new("RGB", (30, 20))
    tags = image.getexif()
    tags[0x0112] = 6  # turned by a quarter
    out = io.BytesIO()
    image.save(out, "JPEG", exif=tags)
    facts = facts_of(out.getvalue(), "hash", Decode(step="decode"), pdq=False)
    assert facts == FileFacts("hash", len(out.getvalue()), 30, 20)
    assert facts_of(b"no picture", "hash", Decode(step="decode"), pdq=True) == FileFacts("hash", 10)


def test_pdq_stays_alike_when_a_picture_is_resized_and_encoded_anew() -> None:
    pytest.importorskip("pdqhash")
    photos = [Image.open(PHOTOS / name).convert("RGB") for name in ("astronaut.jpg", "coffee_cup.jpg")]

    def pdq(data: bytes) -> str | None:
        return facts_of(data, hashlib.sha256(data).hexdigest(), Decode(step="decode"), pdq=True).pdq

    first, other = (pdq(stored(photo, 95)) for photo in photos)
    smaller = pdq(stored(photos[0].resize((300, 300 * photos[0].height // photos[0].width))))
    assert distance(first, smaller) <= 31, "what the authors of PDQ call alike"
    assert distance(first, other) > 80

"""Damaged and hostile pictures are refused by a web package's decoders in their own words: nothing else is thrown,
nothing hangs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from helpers.javascript import HAS_NODE, tensors
from plimsoll.spec import Input

pytestmark = pytest.mark.skipif(not HAS_NODE, reason="Node.js is not installed")


def decode(**more: object) -> Input:
    return Input.model_validate({"steps": [{"step": "decode", "exif_orientation": True, "max_megapixels": 1, **more}]})


def test_random_damage_is_decoded_or_refused(awkward: Path, tmp_path: Path) -> None:
    chance = random.Random(4)
    whole = [
        (awkward / name).read_bytes()
        for name in ("animated.gif", "cmyk.jpg", "exif_rotated.jpg", "palette.png", "grey16.png", "alpha.png")
    ]
    jobs = []
    for number in range(240):
        data = bytearray(whole[number % len(whole)])
        for _ in range(chance.choice((1, 4, 16))):
            at = chance.randrange(min(len(data), chance.choice((60, 700, len(data)))))
            if chance.random() < 0.7:
                data[at] = chance.randrange(256)
            else:
                del data[at : at + chance.randrange(1, 100)]
        file = tmp_path / f"{number}"
        file.write_bytes(data)
        jobs.append((decode(truncated=chance.choice(("error", "fill"))), file))
    answers = tensors(jobs, tmp_path)
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert 40 < len(refused) < 200
    assert all(len(words) < 300 for words in refused)


def test_small_files_that_claim_to_be_huge_are_refused_by_their_size(tmp_path: Path) -> None:
    size = (60_000).to_bytes(2, "big")
    claims = {
        "jpeg": b"\xff\xd8\xff\xc0\x00\x11\x08"
        + size
        + size
        + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
        + b"\xff\xd9",
        "png": b"\x89PNG\r\n\x1a\n"
        + b"\x00\x00\x00\x0dIHDR"
        + (60_000).to_bytes(4, "big") * 2
        + b"\x08\x02\x00\x00\x00"
        + bytes.fromhex("f6020c62"),
        "gif": b"GIF89a"
        + (60_000).to_bytes(2, "little") * 2
        + b"\x00\x00\x00"
        + b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b",
    }
    for name, data in claims.items():
        (tmp_path / name).write_bytes(data)
    for name, words in zip(
        claims, tensors([(decode(truncated="fill"), tmp_path / name) for name in claims], tmp_path), strict=True
    ):
        assert isinstance(words, str), name
        assert "megapixels" in words, f"{name}: {words}"


def test_a_jpeg_of_a_thousand_scans_is_refused(awkward: Path, tmp_path: Path) -> None:
    (tmp_path / "scans.jpg").write_bytes(
        (awkward / "grey.jpg").read_bytes()[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 1000
    )
    (words,) = tensors([(decode(), tmp_path / "scans.jpg")], tmp_path)
    assert isinstance(words, str)
    assert "scans" in words

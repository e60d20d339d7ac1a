"""Hostile pictures: every one is answered with pixels or refused with an ImageError, in bounded time and memory.

Each attack runs in a process of its own (this file, run as a script), so that a crash is seen and memory is measured:
`python test_pictures.py ATTACK ARGUMENT` prints one line of JSON.
"""

from __future__ import annotations

import io
import json
import random
import re
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plimsoll.core.target import Preprocessing
from plimsoll.errors import ImageError
from plimsoll.preprocessing import Preprocessor
from plimsoll.spec import Input

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "coffee_cup.jpg"
GIGABYTE = 2**30
PATIENCE_S = 240
MUTATIONS = 200
PREPROCESSING: tuple[Preprocessing, ...] = ("reference", "fast")

FORMATS: dict[str, dict[str, Any]] = {
    "jpeg": {"format": "JPEG"},
    "jpeg_progressive": {"format": "JPEG", "progressive": True},
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP"},
    "webp_lossless": {"format": "WEBP", "lossless": True},
    "bmp": {"format": "BMP"},
    "gif": {"format": "GIF"},
    "tiff": {"format": "TIFF", "compression": "tiff_lzw"},
    "avif": {"format": "AVIF"},
    "heif": {"format": "HEIF", "quality": 80},
}


def preprocessor(preprocessing: Preprocessing, **decode: Any) -> Preprocessor:
    formats = ("jpeg", "png", "webp", "bmp", "gif", "tiff", "avif", "heif")
    resize = {"step": "resize", "width": 32, "height": 32}
    return Preprocessor(
        Input.model_validate({"steps": [{"step": "decode", "formats": formats, **decode}, resize]}), preprocessing
    )


def picture(name: str, side: int = 96) -> bytes:
    stream = io.BytesIO()
    with Image.open(PHOTO) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        options: dict[str, Any] = {} if name in {"bmp", "gif"} else {"exif": exif}
        if name == "heif":
            from pillow_heif import from_pillow

            from_pillow(image.convert("RGB").resize((side, side))).save(stream, quality=80)
        else:
            image.convert("RGB").resize((side, side)).save(stream, **FORMATS[name], **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    *,
    extra: bytes = b"",
    after: bytes = b"",
    depth: int = 8,
    colour: int = 2,
    body: bytes = b"",
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + extra
        + chunk(b"IDAT", body or zlib.compress(b"\0" * 100))
        + after
        + chunk(b"IEND", b"")
    )


def mutated(data: bytes, seed: int) -> bytes:
    """Change, cut out, double or cut off some bytes; half of the changes hit the header."""
    rng, out = random.Random(seed), bytearray(data)
    for _ in range(rng.choice((1, 2, 4, 16))):
        at = rng.randrange(min(len(out), rng.choice((64, 700, len(out)))))
        kind = rng.randrange(6)
        if kind <= 2:
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
        elif kind == 3:
            del out[at : at + rng.randrange(1, 40)]
        elif kind == 4:
            out[at:at] = out[at : at + rng.randrange(1, 400)]
        elif len(out) > 100:
            del out[rng.randrange(60, len(out)) :]
        if not out:
            out = bytearray(b"\xff")
    return bytes(out)


# ---------------------------------------------------------------------------------------------- attacks, run in a child


def answer(run: Preprocessor, data: bytes) -> str:
    """Return what became of one picture; whatever is no ImageError goes through and fails the attack."""
    try:
        tensor = run(data)
    except ImageError:
        return "refused"
    assert tensor.shape in ((32, 32, 3), (32, 32, 1))
    assert tensor.dtype == np.uint8
    return "answered"


def attack(pictures: Iterator[bytes], options: tuple[dict[str, Any], ...] = ({},)) -> dict[str, Any]:
    preprocessors = [preprocessor(preprocessing, **decode) for preprocessing in PREPROCESSING for decode in options]
    counts = {"answered": 0, "refused": 0}
    slowest, start = 0.0, time.perf_counter()
    for data in pictures:
        for run in preprocessors:
            began = time.perf_counter()
            counts[answer(run, data)] += 1
            slowest = max(slowest, time.perf_counter() - began)
    return {**counts, "slowest": slowest, "seconds": time.perf_counter() - start, "peak": peak_memory()}


def mutate(name: str) -> dict[str, Any]:
    options: tuple[dict[str, Any], ...] = (
        {},
        {"truncated": "fill", "exif_orientation": True, "alpha": "composite"},
        {"dct": "fast", "colour": "grey"},
    )
    data = picture(name)
    return attack((mutated(data, seed) for seed in range(MUTATIONS)), options)


def truncate(name: str) -> dict[str, Any]:
    data = picture(name)
    lengths = [*range(60), *range(60, len(data), max(1, len(data) // 100))]
    return attack((data[:length] for length in lengths), ({}, {"truncated": "fill"}))


def claim(name: str) -> dict[str, Any]:
    """The header claims more pixels than the limit: 12,000 x 12,000 (Pillow's own limit is higher), or 16,383 x 16,383
    for WebP."""
    data = picture(name)
    side = 12_000

    def patched(at: int, new: bytes) -> bytes:
        return data[:at] + new + data[at + len(new) :]

    claims: dict[str, Callable[[], bytes]] = {
        "jpeg": lambda: patched(data.index(b"\xff\xc0") + 5, struct.pack(">HH", side, side)),
        "jpeg_progressive": lambda: patched(data.index(b"\xff\xc2") + 5, struct.pack(">HH", side, side)),
        "png": lambda: png(side, side),
        "webp": lambda: patched(24, (16_382).to_bytes(3, "little") * 2),
        "webp_lossless": lambda: patched(24, (16_382).to_bytes(3, "little") * 2),
        "bmp": lambda: patched(18, struct.pack("<ii", side, side)),
        "gif": lambda: patched(6, struct.pack("<HH", side, side)),
        "avif": lambda: patched(data.index(b"ispe") + 8, struct.pack(">II", side, side)),
        "heif": lambda: patched(data.index(b"ispe") + 8, struct.pack(">II", side, side)),
        "tiff": lambda: re.sub(
            rb"([\x00\x01]\x01[\x03\x04]\x00\x01\x00{3})\x60\x00", lambda tag: tag[1] + struct.pack("<H", side), data
        ),  # tags 256 and 257
    }
    hostile = claims[name]()
    assert hostile != data
    return attack(iter([hostile]))


def understated(name: str) -> dict[str, Any]:
    """The container states 16 x 16 over a coded picture of 4,000 x 3,000, with transparency or as an animation too."""
    kind, _, part = name.partition("_")
    width, height = size = (4000, 3000)
    image = Image.linear_gradient("L").resize(size).convert("RGBA" if part == "alpha" else "RGB")
    stream, true, claimed = io.BytesIO(), struct.pack(">II", width, height), struct.pack(">II", 16, 16)
    if kind == "heif":
        from pillow_heif import from_pillow

        from_pillow(image).save(stream, quality=10)
    else:
        frames: dict[str, Any] = {"save_all": True, "append_images": [image]} if part == "frames" else {}
        image.save(stream, "AVIF", quality=10, speed=10, **frames)
    data = stream.getvalue().replace(b"ispe" + bytes(4) + true, b"ispe" + bytes(4) + claimed)
    matrix = b"@\0\0\0"  # It ends before a track's size, in 1/65536 of a pixel.
    data = data.replace(
        matrix + struct.pack(">II", width << 16, height << 16), matrix + struct.pack(">II", 1 << 20, 1 << 20)
    )
    assert data != stream.getvalue()
    return attack(iter([data]), ({"frames": "all"},) if part == "frames" else ({},))


def bombs() -> Iterator[bytes]:
    """PNG chunks of a few kilobytes that unpack to 500 MB, before and behind the pixels."""
    packed = zlib.compressobj(9)
    zeros = b"".join(packed.compress(bytes(10_000_000)) for _ in range(50)) + packed.flush()
    text, profile = chunk(b"zTXt", b"Comment\0\0" + zeros), chunk(b"iCCP", b"icc\0\0" + zeros)
    international = chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros)
    pixels = zlib.compress(b"".join(b"\0" + bytes(30) for _ in range(10)))
    for hostile in (text, profile, international, text * 50, chunk(b"eXIf", bytes(1_000_000)) * 20):
        yield png(10, 10, extra=hostile, body=pixels)
        yield png(10, 10, after=hostile, body=pixels)
    yield png(10, 10, body=zeros)


def flood(path: str) -> dict[str, Any]:
    """All frames of an animation, as far as they are answered."""
    frames, refused, began = 0, 0, time.perf_counter()
    try:
        for _ in preprocessor("reference", frames="all", max_megapixels=4).frames(Path(path)):
            frames += 1
    except ImageError:
        refused = 1
    return {"refused": refused, "frames": frames, "seconds": time.perf_counter() - began, "peak": peak_memory()}


def decoded(argument: str) -> dict[str, Any]:
    """One picture from a file, through one preprocessing: `PREPROCESSING:FILE`."""
    preprocessing, _, path = argument.partition(":")
    run = preprocessor("fast" if preprocessing == "fast" else "reference", alpha="composite")
    began = time.perf_counter()
    outcome = answer(run, Path(path).read_bytes())
    return {outcome: 1, "seconds": time.perf_counter() - began, "peak": peak_memory()}


def peak_memory() -> int:
    """Return this process's largest resident size, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss counts what the parent held when it started this process, too.
        return 1024 * next(
            int(line.split()[1]) for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM")
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


ATTACKS: dict[str, Callable[[str], dict[str, Any]]] = {
    "mutate": mutate,
    "truncate": truncate,
    "claim": claim,
    "understated": understated,
    "bombs": lambda _: attack(bombs(), ({}, {"truncated": "fill", "exif_orientation": True})),
    "decoded": decoded,
    "flood": flood,
}


# The tests


def run_attack(name: str, argument: str) -> dict[str, Any]:
    """Run an attack in a child; a crash, a foreign exception, a hang and a flood of memory all fail here."""
    command = [sys.executable, __file__, name, argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, f"{' '.join(command[1:])} ended with {done.returncode}\n{done.stderr[-3000:]}"
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["peak"] < GIGABYTE, f"{result['peak'] / 1e6:.0f} MB"
    return result


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_pictures(name: str) -> None:
    outcome = run_attack("mutate", name)
    assert outcome["answered"] + outcome["refused"] == MUTATIONS * 6
    assert outcome["answered"] > 20, "the mutations hit nothing but headers"
    assert outcome["refused"] > 100
    assert outcome["slowest"] < 60
    assert outcome["peak"] < GIGABYTE / 2


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_pictures(name: str) -> None:
    outcome = run_attack("truncate", name)
    assert outcome["refused"] > 200
    assert outcome["answered"] > 0 or name in {"webp", "webp_lossless", "tiff", "avif", "heif"}
    assert outcome["peak"] < GIGABYTE / 4


@pytest.mark.parametrize("name", FORMATS)
def test_a_claim_of_more_pixels_than_the_limit(name: str) -> None:
    outcome = run_attack("claim", name)
    assert outcome["refused"] == 2
    assert outcome["peak"] < GIGABYTE / 4


@pytest.mark.parametrize("name", ["avif", "avif_alpha", "avif_frames", "heif"])
def test_a_coded_picture_larger_than_the_file_states(name: str) -> None:
    outcome = run_attack("understated", name)
    assert outcome["answered"] == 0
    assert outcome["refused"] > 0


def test_bombs_in_png_chunks() -> None:
    outcome = run_attack("bombs", "")
    assert outcome["slowest"] < 60
    assert outcome["peak"] < GIGABYTE / 2


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize(("count", "side", "most"), [(1_000, 16, 200), (15, 2_000, 10)], ids=["many", "large"])
def test_a_flood_of_frames(format_: str, count: int, side: int, most: int, tmp_path: Path) -> None:
    frames = [Image.new("L", (side, side), 37 * level % 256) for level in range(count)]
    frames[0].save(tmp_path / "flood", format_, save_all=True, append_images=frames[1:], duration=20)
    outcome = run_attack("flood", str(tmp_path / "flood"))
    assert (outcome["frames"], outcome["refused"]) == (most, 1)
    assert outcome["peak"] < GIGABYTE / 2


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pictures of exactly 50 megapixels, the limit, in the most expensive forms."""
    folder = tmp_path_factory.mktemp("large")
    width, height = 8_000, 6_250
    noise = (
        Image.effect_noise((width // 4, height // 4), 60)
        .convert("RGB")
        .resize((width, height), Image.Resampling.NEAREST)
    )
    noise.save(folder / "progressive", "JPEG", progressive=True, subsampling=0, quality=60)
    noise.save(folder / "webp", "WEBP", quality=10, method=0)
    packed, row = zlib.compressobj(1), b"\0" + bytes(range(256)) * (width * 8 // 256)
    for name, colour, depth, size in (("rgba", 6, 8, 4), ("rgba16", 6, 16, 8), ("grey16", 0, 16, 2)):
        packed = zlib.compressobj(1)
        body = b"".join(packed.compress(row[: 1 + width * size]) for _ in range(height)) + packed.flush()
        (folder / name).write_bytes(png(width, height, colour=colour, depth=depth, body=body))
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "preprocessing"),
    [
        ("progressive", "reference"),
        ("progressive", "fast"),
        ("webp", "fast"),
        ("rgba", "fast"),
        ("rgba16", "reference"),
        ("grey16", "fast"),
    ],
)
def test_fifty_megapixels_stay_below_a_gigabyte(name: str, preprocessing: str, large: dict[str, Path]) -> None:
    outcome = run_attack("decoded", f"{preprocessing}:{large[name]}")
    assert outcome["answered"] == 1


if __name__ == "__main__":
    sys.stdout.write(json.dumps(ATTACKS[sys.argv[1]](sys.argv[2])))

"""Zip archives that are damaged, lie about what is in them, or would fill the disk."""

from __future__ import annotations

import random
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import pytest

from attacks.bundles.conftest import RequestError
from helpers.minimal_bundle import entries, entry, put, zipped
from plimsoll.bundle import Bundle
from plimsoll.bundle.archive import Limits
from plimsoll.errors import BundleError


def test_nul_in_a_zip_name(folder: Path, out: Path, refused: RequestError) -> None:
    refused(zipped(out, [*entries(folder), (entry("golden/b.txt\0.jpg"), b"")]), "would be read as 'golden/b.txt'")


def test_duplicate_names_in_a_zip(folder: Path, out: Path, refused: RequestError) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns the attacker
        zipped(out, [*entries(folder), (entry("spec.toml"), b"another")])
    refused(out, "'spec.toml'", "duplicate")


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive" * 100, b"PK\x05\x06" + bytes(17), b"\x1f\x8b" + bytes(200)])
def test_not_a_zip(out: Path, refused: RequestError, data: bytes) -> None:
    out.write_bytes(data)
    refused(out, "not a zip archive")


def test_empty_zip_has_no_manifest(out: Path, refused: RequestError) -> None:
    refused(zipped(out, []), "no manifest.json")


def test_truncated_zip(folder: Path, out: Path, refused: RequestError) -> None:
    data = zipped(out, entries(folder)).read_bytes()
    for size in range(0, len(data), 97):
        out.write_bytes(data[:size])
        refused(out)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (b"MZ", b"", "other bytes before"),
        (b"", b"\0", "bytes after its end"),
        (b"", b"PK\x05\x06" + bytes(18), "other bytes before or between"),
    ],
)
def test_bytes_around_a_zip(
    folder: Path, out: Path, refused: RequestError, before: bytes, after: bytes, words: str
) -> None:
    out.write_bytes(before + zipped(out, entries(folder)).read_bytes() + after)
    refused(out, words)


def test_zip_bomb(folder: Path, out: Path, refused: RequestError) -> None:
    bomb = bytes(50_000_000)
    zipped(out, [*entries(folder), (entry("golden/b.jpg", method=zipfile.ZIP_DEFLATED), bomb)])
    assert out.stat().st_size < 100_000
    refused(out, "'golden/b.jpg'", "50,000,000", "200 times")


def test_more_than_the_limits(folder: Path, out: Path, refused: RequestError) -> None:
    zipped(out, entries(folder))
    refused(out, "6 entries; at most 5", limits=Limits(entries=5))
    refused(out, "bytes when unpacked; at most 1,000", limits=Limits(total_bytes=1000))


def test_limits_that_are_the_default(folder: Path, out: Path, refused: RequestError) -> None:
    zipped(out, [*entries(folder), *((entry(f"golden/{number}"), b"") for number in range(10_000))])
    refused(out, "10,006 entries; at most 10,000")


def test_central_directory_too_large_to_read(folder: Path, out: Path, refused: RequestError) -> None:
    extra = struct.pack("<HH", 0xCAFE, 65_000) + bytes(65_000)
    padded = [*entries(folder), *((entry(f"golden/{number}"), b"") for number in range(140))]
    for info, _ in padded:
        info.extra = extra
    refused(zipped(out, padded), "a zip directory of", "at most 8,388,608")


def patched(out: Path, name: str, offsets: dict[int, bytes], local: dict[int, bytes]) -> Path:
    """Overwrite fields of an entry's central and local header, given by their offsets there."""
    data = bytearray(out.read_bytes())
    central = data.rindex(name.encode()) - 46
    (start,) = struct.unpack_from("<L", data, central + 42)
    for base, fields in ((central, offsets), (start, local)):
        for offset, value in fields.items():
            data[base + offset : base + offset + len(value)] = value
    out.write_bytes(bytes(data))
    return out


def sizes(compressed: int, inflated: int, crc: int) -> tuple[dict[int, bytes], dict[int, bytes]]:
    value = struct.pack("<LLL", crc, compressed, inflated)
    return {16: value}, {14: value}


@pytest.mark.parametrize("claimed", [9, 11, 0, 2**31])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_entry_of_another_size_than_it_claims(
    folder: Path, out: Path, refused: RequestError, claimed: int, method: int
) -> None:
    files = [(entry(info.filename, method=method), data) for info, data in entries(folder)]
    zipped(out, files)
    stored = zipfile.ZipFile(out).getinfo("model/small.onnx").compress_size
    crc = zlib.crc32(b"no network"[:claimed])  # so that the checksum alone would not tell
    refused(patched(out, "model/small.onnx", *sizes(stored, claimed, crc)), "model/small.onnx")


@pytest.mark.parametrize("checked", [10, 11])
def test_small_claim_for_a_stream_that_inflates_to_a_lot(
    folder: Path, out: Path, refused: RequestError, checked: int
) -> None:
    put(folder, "golden/b.jpg", bytes(10))
    files = [(info, data) for info, data in entries(folder) if info.filename != "golden/b.jpg"]
    zipped(out, [*files, (entry("golden/b.jpg", method=zipfile.ZIP_DEFLATED), bytes(50_000_000))])
    stored = zipfile.ZipFile(out).getinfo("golden/b.jpg").compress_size
    patched(out, "golden/b.jpg", *sizes(stored, 10, zlib.crc32(bytes(checked))))
    tracemalloc.start()
    refused(out, "'golden/b.jpg'")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


def test_overlapping_entries(folder: Path, out: Path, refused: RequestError) -> None:
    zipped(out, entries(folder))
    size = 10 + 30 + len("spec.toml") + 5
    refused(patched(out, "model/small.onnx", *sizes(size, size, 0)), "'model/small.onnx' overlaps")


def test_two_entries_with_one_body(folder: Path, out: Path, refused: RequestError) -> None:
    zipped(out, [*entries(folder), (entry("golden/b.jpg"), b"no picture")])
    offset = zipfile.ZipFile(out).getinfo("golden/a.jpg").header_offset
    refused(patched(out, "golden/b.jpg", {42: struct.pack("<L", offset)}, {}), "overlaps")


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_encrypted_entry(folder: Path, out: Path, refused: RequestError, flag: int) -> None:
    zipped(out, entries(folder))
    refused(
        patched(out, "spec.toml", {8: struct.pack("<H", flag)}, {6: struct.pack("<H", flag)}),
        "'spec.toml'",
        "encrypted",
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_is_not_read(folder: Path, out: Path, refused: RequestError, method: int) -> None:
    refused(
        zipped(out, [*entries(folder), (entry("golden/b.jpg", method=method), b"x" * 100)]),
        "'golden/b.jpg'",
        f"method {method}",
    )


def test_false_zip64_end_record(folder: Path, out: Path, refused: RequestError) -> None:
    data = zipped(out, entries(folder)).read_bytes()
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, 5, 1)
    out.write_bytes(data[:-22] + locator + data[-22:])
    refused(out, "ZIP64")


def test_random_damage_never_raises_anything_else(folder: Path, out: Path, temporary: Path) -> None:
    data = zipped(
        out, [(entry(info.filename, method=zipfile.ZIP_DEFLATED), content) for info, content in entries(folder)]
    ).read_bytes()
    chance = random.Random(20261121)
    names = set()
    for _ in range(1500):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        out.write_bytes(damaged)
        try:
            Bundle.open(out).close()
        except BundleError as error:
            names.add(error.message[-20:])
        assert not list(temporary.iterdir())
    assert len(names) > 20

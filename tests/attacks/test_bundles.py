"""Hostile and damaged bundles: each is refused in words, nothing is written outside, nothing is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import stat
import struct
import tempfile
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plimsoll.bundle import Bundle
from plimsoll.bundle.archive import Limits
from plimsoll.errors import BundleError
from small_bundles import edit, entries, entry, put, small, zipped

Refused = Callable[..., None]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mode, path.lstat().st_size if not path.is_dir() else 0) for path in folder.rglob("*")}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder where temporary folders are made; it must be empty again at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


@pytest.fixture
def refused(tmp_path: Path, temporary: Path) -> Refused:
    """Assert that opening raises BundleError with all these words and changes nothing on disk."""

    def check(path: Path, *words: str, limits: Limits | None = None) -> None:
        before = snapshot(tmp_path)
        with pytest.raises(BundleError) as caught:
            Bundle.open(path, limits)
        for word in (*words, str(path)):
            assert word in str(caught.value)
        assert snapshot(tmp_path) == before
        assert not list(temporary.iterdir())

    return check


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small(tmp_path / "bundle")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "bundle.zip"


def test_the_undamaged_bundle_opens_both_ways(folder: Path, out: Path, temporary: Path) -> None:
    for path in (folder, zipped(out, entries(folder))):
        with Bundle.open(path) as bundle:
            assert bundle.name == "small"
            assert len(list(temporary.iterdir())) == (path == out)


NAMES = {
    "parent": ("../outside.txt", "leads out"),
    "parent inside": ("golden/../../outside.txt", "leads out"),
    "absolute": ("/outside.txt", "absolute"),
    "drive": ("C:outside.txt", "':'"),
    "backslash": ("..\\outside.txt", "'\\\\\\\\'"),
    "stream": ("golden/a.jpg:hidden", "':'"),
    "device": ("golden/NUL.txt", "Windows"),
    "trailing dot": ("golden/a.jpg.", "Windows"),
    "dot": ("./a.txt", "'.'"),
    "empty part": ("golden//b.txt", "empty part"),
    "escape": ("golden/\x1b[2J.txt", "\\\\x1b"),
    "long part": ("golden/" + "x" * 300, "255"),
    "long": ("/".join(["x" * 200] * 6), "1024"),
    "case": ("golden/A.jpg", "one file"),
    "composition": ("golden/e\u0301.jpg", "one file"),
    "file as folder": ("golden/a.jpg/b.txt", "also the folder"),
    "case of a folder": ("GOLDEN/a.jpg", "one file"),
    "case of the manifest": ("Manifest.json", "one file"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "words"), NAMES.values(), ids=NAMES)
def test_unsafe_name_in_the_manifest(folder: Path, refused: Refused, name: str, words: str) -> None:
    if "\u0301" in name:
        put(folder, "golden/\u00e9.jpg", b"")
    refused(edit(folder, lambda manifest: manifest["files"].update({name: {"size": 0, "sha256": hashlib.sha256().hexdigest()}})), words.replace("\\\\", "\\"))


@pytest.mark.parametrize(("name", "words"), NAMES.values(), ids=NAMES)
def test_unsafe_name_in_a_zip(folder: Path, out: Path, refused: Refused, name: str, words: str) -> None:
    if "\u0301" in name:
        put(folder, "golden/\u00e9.jpg", b"")
    refused(zipped(out, [*entries(folder), (entry(name), b"gotcha")]), words.replace("\\\\", "\\"))
    assert not list(out.parent.rglob("*outside*"))


def test_nul_in_a_zip_name(folder: Path, out: Path, refused: Refused) -> None:
    refused(zipped(out, [*entries(folder), (entry("golden/b.txt\0.jpg"), b"")]), "would be read as 'golden/b.txt'")


def test_duplicate_names_in_a_zip(folder: Path, out: Path, refused: Refused) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns the attacker
        zipped(out, [*entries(folder), (entry("spec.toml"), b"another")])
    refused(out, "'spec.toml'", "twice")


@pytest.mark.parametrize("place", ["model/small.onnx", "spec.toml", "golden/a.0.npy"])
def test_manifest_uses_a_file_outside(folder: Path, refused: Refused, place: str) -> None:
    text = (folder / "manifest.json").read_text().replace(f'"{place}"', '"../../outside"')
    data = json.loads(text)
    data["files"][place] = data["files"].pop("../../outside")
    (folder / "manifest.json").write_text(json.dumps(data))
    refused(folder, "'../../outside'", "not among its files")


def test_further_model_file_outside_the_models_folder(folder: Path, refused: Refused) -> None:
    refused(edit(folder, lambda manifest: manifest["model"].update(files=["golden/a.jpg"])), "golden/a.jpg", "not below")


@pytest.mark.parametrize("name", ["golden/a.jpg", "manifest.json", "golden", "model"])
def test_symbolic_link_in_a_folder(folder: Path, refused: Refused, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    refused(folder, f"'{name}'", "symbolic link")


def test_pipe_in_a_folder(folder: Path, refused: Refused) -> None:
    (folder / "golden/a.jpg").unlink()
    os.mkfifo(folder / "golden/a.jpg")
    refused(folder, "'golden/a.jpg'", "not a regular file")


@pytest.mark.parametrize(
    ("mode", "words"), [(stat.S_IFLNK | 0o777, "symbolic link"), (stat.S_IFIFO, "neither"), (stat.S_IFCHR, "neither"), (stat.S_IFDIR, "neither")]
)
def test_special_entry_in_a_zip(folder: Path, out: Path, refused: Refused, mode: int, words: str) -> None:
    refused(zipped(out, [*entries(folder), (entry("golden/link", mode), b"/etc/passwd")]), "'golden/link'", words)


def test_endless_folders_in_a_folder(folder: Path, refused: Refused) -> None:
    (folder / "/".join("d" * 600)).mkdir(parents=True)
    refused(folder, "longer than 1024 bytes")


def test_wrong_hash(folder: Path, out: Path, refused: Refused) -> None:
    found = hashlib.sha256(b"no Network").hexdigest()
    expected = hashlib.sha256(b"no network").hexdigest()
    (folder / "model/small.onnx").write_bytes(b"no Network")
    refused(folder, "model/small.onnx", found, expected)
    refused(zipped(out, entries(folder)), "model/small.onnx", found, expected)


def test_wrong_size(folder: Path, refused: Refused) -> None:
    (folder / "model/small.onnx").write_bytes(b"no network at all")
    refused(folder, "model/small.onnx", "expected 10 bytes, found 17")


def test_extra_file(folder: Path, out: Path, refused: Refused) -> None:
    (folder / "golden/extra.so").write_bytes(b"")
    refused(folder, "not in its manifest", "'golden/extra.so'")
    refused(zipped(out, entries(folder)), "not in its manifest", "'golden/extra.so'")


def test_missing_file(folder: Path, out: Path, refused: Refused) -> None:
    (folder / "golden/a.jpg").unlink()
    refused(folder, "missing", "'golden/a.jpg'")
    refused(zipped(out, entries(folder)), "missing", "'golden/a.jpg'")


def test_missing_manifest(folder: Path, refused: Refused) -> None:
    (folder / "manifest.json").unlink()
    refused(folder, "no manifest.json")


def test_huge_manifest(folder: Path, out: Path, refused: Refused) -> None:
    edit(folder, lambda manifest: manifest.update(origin={"text": "x" * 5_000_000}))
    refused(folder, "manifest.json", "larger than 4,000,000")
    refused(zipped(out, entries(folder)), "manifest.json", "larger than 4,000,000")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"format": "plimsoll-bundle", "version": 1, "origin": ' + "[" * 100_000 + "]" * 100_000 + "}"]
)
def test_deeply_nested_manifest(folder: Path, refused: Refused, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    refused(folder, "manifest.json", "not valid JSON")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(version=2), "version '2'; this Plimsoll reads version 1"),
        (lambda data: data.update(format="zip"), "not a bundle's manifest"),
        (lambda data: data.update(more=1), "more: Extra inputs"),
        (lambda data: data.update(target="onnxruntime"), ""),
        (lambda data: data.update(target="a:b:c:d"), "is not a target"),
        (lambda data: data.update(golden=[]), "golden"),
        (lambda data: data.update(name="../x"), "name"),
        (lambda data: data["tolerance"].update(network="NaN"), "tolerance.network"),
        (lambda data: data["tolerance"].update(network="Infinity"), "tolerance.network"),
        (lambda data: data["tolerance"].update(network=-1), "tolerance.network"),
        (lambda data: data["files"]["spec.toml"].update(size=-1), "files.spec.toml.size"),
        (lambda data: data["files"]["spec.toml"].update(sha256="0"), "files.spec.toml.sha256"),
        (lambda data: data.update({"\x1b[2J": 1}), "?[2J: Extra inputs"),
    ],
)
def test_manifest_that_is_not_one(folder: Path, refused: Refused, change: Callable[[dict[str, Any]], object], words: str) -> None:
    if not words:
        with Bundle.open(edit(folder, change)) as bundle:
            assert str(bundle.target) == "onnxruntime:cpu:float32"
        return
    refused(edit(folder, change), "manifest.json", words)


@pytest.mark.parametrize("text", ["NaN", '{"format": NaN}', "", "null", "\xff", "1" * 5000])
def test_manifest_that_is_no_json(folder: Path, refused: Refused, text: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    refused(folder, "manifest.json")


def test_spec_that_is_not_one(folder: Path, refused: Refused) -> None:
    refused(put(folder, "spec.toml", b'name = "x"'), "spec.toml: 2 mistakes in the Spec")


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive" * 100, b"PK\x05\x06" + bytes(17), b"\x1f\x8b" + bytes(200)])
def test_not_a_zip(out: Path, refused: Refused, data: bytes) -> None:
    out.write_bytes(data)
    refused(out, "not a zip archive")


def test_nothing_there(tmp_path: Path, refused: Refused) -> None:
    refused(tmp_path / "nothing", "there is no such bundle")


def test_empty_zip_has_no_manifest(out: Path, refused: Refused) -> None:
    refused(zipped(out, []), "no manifest.json")


def test_truncated_zip(folder: Path, out: Path, refused: Refused) -> None:
    data = zipped(out, entries(folder)).read_bytes()
    for size in range(0, len(data), 97):
        out.write_bytes(data[:size])
        refused(out)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [(b"MZ", b"", "other bytes before"), (b"", b"\0", "bytes after its end"), (b"", b"PK\x05\x06" + bytes(18), "other bytes before or between")],
)
def test_bytes_around_a_zip(folder: Path, out: Path, refused: Refused, before: bytes, after: bytes, words: str) -> None:
    out.write_bytes(before + zipped(out, entries(folder)).read_bytes() + after)
    refused(out, words)


def test_zip_bomb(folder: Path, out: Path, refused: Refused) -> None:
    bomb = bytes(50_000_000)
    zipped(out, [*entries(folder), (entry("golden/b.jpg", method=zipfile.ZIP_DEFLATED), bomb)])
    assert out.stat().st_size < 100_000
    refused(out, "'golden/b.jpg'", "50,000,000", "200 times")


def test_more_than_the_limits(folder: Path, out: Path, refused: Refused) -> None:
    zipped(out, entries(folder))
    refused(out, "6 entries; at most 5", limits=Limits(entries=5))
    refused(out, "bytes when unpacked; at most 1,000", limits=Limits(total_bytes=1000))


def test_limits_that_are_the_default(folder: Path, out: Path, refused: Refused) -> None:
    zipped(out, [*entries(folder), *((entry(f"golden/{number}"), b"") for number in range(10_000))])
    refused(out, "10,006 entries; at most 10,000")


def test_central_directory_too_large_to_read(folder: Path, out: Path, refused: Refused) -> None:
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
def test_entry_of_another_size_than_it_claims(folder: Path, out: Path, refused: Refused, claimed: int, method: int) -> None:
    files = [(entry(info.filename, method=method), data) for info, data in entries(folder)]
    zipped(out, files)
    stored = zipfile.ZipFile(out).getinfo("model/small.onnx").compress_size
    crc = zlib.crc32(b"no network"[:claimed])  # so that the checksum alone would not tell
    refused(patched(out, "model/small.onnx", *sizes(stored, claimed, crc)), "model/small.onnx")


@pytest.mark.parametrize("checked", [10, 11])
def test_small_claim_for_a_stream_that_inflates_to_a_lot(folder: Path, out: Path, refused: Refused, checked: int) -> None:
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


def test_overlapping_entries(folder: Path, out: Path, refused: Refused) -> None:
    zipped(out, entries(folder))
    size = 10 + 30 + len("spec.toml") + 5
    refused(patched(out, "model/small.onnx", *sizes(size, size, 0)), "'model/small.onnx' overlaps")


def test_two_entries_with_one_body(folder: Path, out: Path, refused: Refused) -> None:
    zipped(out, [*entries(folder), (entry("golden/b.jpg"), b"no picture")])
    offset = zipfile.ZipFile(out).getinfo("golden/a.jpg").header_offset
    refused(patched(out, "golden/b.jpg", {42: struct.pack("<L", offset)}, {}), "overlaps")


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_encrypted_entry(folder: Path, out: Path, refused: Refused, flag: int) -> None:
    zipped(out, entries(folder))
    refused(patched(out, "spec.toml", {8: struct.pack("<H", flag)}, {6: struct.pack("<H", flag)}), "'spec.toml'", "encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_is_not_read(folder: Path, out: Path, refused: Refused, method: int) -> None:
    refused(zipped(out, [*entries(folder), (entry("golden/b.jpg", method=method), b"x" * 100)]), "'golden/b.jpg'", f"method {method}")


def test_false_zip64_end_record(folder: Path, out: Path, refused: Refused) -> None:
    data = zipped(out, entries(folder)).read_bytes()
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, 5, 1)
    out.write_bytes(data[:-22] + locator + data[-22:])
    refused(out, "ZIP64")


def test_random_damage_never_raises_anything_else(folder: Path, out: Path, temporary: Path) -> None:
    data = zipped(out, [(entry(info.filename, method=zipfile.ZIP_DEFLATED), content) for info, content in entries(folder)]).read_bytes()
    chance = random.Random(20261121)
    found = set()
    for _ in range(1500):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        out.write_bytes(damaged)
        try:
            Bundle.open(out).close()
        except BundleError as error:
            found.add(error.message[-20:])
        assert not list(temporary.iterdir())
    assert len(found) > 20


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.marker,)


def hostile_tensor(folder: Path, data: bytes, *words: str) -> None:
    with Bundle.open(put(folder, "golden/a.input.npy", data)) as bundle, pytest.raises(BundleError) as caught:
        bundle.tensor("golden/a.input.npy")
    for word in (str(folder), "a.input.npy", *words):
        assert word in str(caught.value)


def npy(header: bytes, body: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    size = struct.pack("<H" if version == 1 else "<L", len(header) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + body


def plain(descr: str, shape: str, order: str = "False") -> bytes:
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode("latin-1")


def test_pickle_in_a_tensor_never_runs(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    array = np.array([Bomb(marker)], dtype=object)
    path = tmp_path / "bomb.npy"
    np.save(path, array, allow_pickle=True)
    assert not marker.exists()
    hostile_tensor(folder, path.read_bytes(), "type '|O'")
    hostile_tensor(folder, pickle.dumps(Bomb(marker)), "expected a .npy file")
    assert not marker.exists()
    np.load(path, allow_pickle=True)
    assert marker.exists()  # else the bomb would be a dud and this test prove nothing


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "starts with b''"),
        (b"\x93NUMPY", "expected a .npy file"),
        (npy(plain("<f4", "(1,)"), bytes(4), version=3), "expected a .npy file"),
        (npy(plain("<f4", "(1,)"), bytes(4), version=2, length=2**32 - 1), "a header of 4,294,967,295 bytes"),
        (npy(b"{" + b" " * 20_000 + b"}\n"), "a header of"),
        (npy(b"(" * 9_000), "what numpy.save writes"),
        (npy(b"-" * 9_000 + b"1"), "what numpy.save writes"),
        (npy(plain("<f4", "(1,)"), length=9_999), "what numpy.save writes"),
        (npy(plain("<f4", "(1,)", "True"), bytes(4)), "what numpy.save writes"),
        (npy(plain("<f4", "(1,)", "exit()"), bytes(4)), "what numpy.save writes"),
        (npy(plain("<f4", "(-1,)"), bytes(4)), "what numpy.save writes"),
        (npy(plain("<f4", "(1)"), bytes(4)), "what numpy.save writes"),
        (npy(plain("<f4", "(1000000000000, 1000000)")), "4,000,000,000,000,000,000 bytes of values, the file has 0"),
        (npy(plain("<f4", f"({'9' * 30},)")), "beyond what an array can have"),
        (npy(plain("<f4", f"({', '.join('1' * 40)})"), bytes(4)), "beyond what an array can have"),
        (npy(plain("<f4", "(0, 9999999999999999999)")), "can't read the tensor"),
        (npy(plain("<f4", "(2,)"), bytes(7)), "8 bytes of values, the file has 7"),
        (npy(plain("<f4", "(2,)"), bytes(9)), "8 bytes of values, the file has 9"),
        (npy(plain(">f4", "(1,)"), bytes(4)), "type '>f4'"),
        (npy(plain("|S4", "(1,)"), bytes(4)), "type '|S4'"),
        (npy(plain("<M8", "(1,)"), bytes(8)), "type '<M8'"),
        (npy(plain("|V8", "(1,)"), bytes(8)), "type '|V8'"),
        (npy(b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n", bytes(4)), "what numpy.save writes"),
    ],
)  # fmt: skip
def test_hostile_tensor(folder: Path, data: bytes, words: str) -> None:
    hostile_tensor(folder, data, words)

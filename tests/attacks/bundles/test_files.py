"""Unsafe names, links, and files that are missing, too many or not those of the manifest, in folders and zip
archives."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from attacks.bundles.conftest import RequestError
from helpers.minimal_bundle import edit, entries, entry, put, zipped
from plimsoll.bundle import Bundle


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
    "case": ("golden/A.jpg", "same file"),
    "composition": ("golden/e\u0301.jpg", "same file"),
    "file as folder": ("golden/a.jpg/b.txt", "also the folder"),
    "case of a folder": ("GOLDEN/a.jpg", "same file"),
    "case of the manifest": ("Manifest.json", "same file"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "words"), NAMES.values(), ids=NAMES)
def test_unsafe_name_in_the_manifest(folder: Path, refused: RequestError, name: str, words: str) -> None:
    if "\u0301" in name:
        put(folder, "golden/\u00e9.jpg", b"")
    refused(
        edit(
            folder,
            lambda manifest: manifest["files"].update({name: {"size": 0, "sha256": hashlib.sha256().hexdigest()}}),
        ),
        words.replace("\\\\", "\\"),
    )


@pytest.mark.parametrize(("name", "words"), NAMES.values(), ids=NAMES)
def test_unsafe_name_in_a_zip(folder: Path, out: Path, refused: RequestError, name: str, words: str) -> None:
    if "\u0301" in name:
        put(folder, "golden/\u00e9.jpg", b"")
    refused(zipped(out, [*entries(folder), (entry(name), b"gotcha")]), words.replace("\\\\", "\\"))
    assert not list(out.parent.rglob("*outside*"))


@pytest.mark.parametrize("path", ["model/small.onnx", "spec.toml", "golden/a.0.npy"])
def test_manifest_uses_a_file_outside(folder: Path, refused: RequestError, path: str) -> None:
    text = (folder / "manifest.json").read_text().replace(f'"{path}"', '"../../outside"')
    data = json.loads(text)
    data["files"][path] = data["files"].pop("../../outside")
    (folder / "manifest.json").write_text(json.dumps(data))
    refused(folder, "'../../outside'", "not among its files")


def test_further_model_file_outside_the_models_folder(folder: Path, refused: RequestError) -> None:
    refused(
        edit(folder, lambda manifest: manifest["model"].update(files=["golden/a.jpg"])), "golden/a.jpg", "not below"
    )


@pytest.mark.parametrize("name", ["golden/a.jpg", "manifest.json", "golden", "model"])
def test_symbolic_link_in_a_folder(folder: Path, refused: RequestError, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    refused(folder, f"'{name}'", "symbolic link")


def test_pipe_in_a_folder(folder: Path, refused: RequestError) -> None:
    (folder / "golden/a.jpg").unlink()
    os.mkfifo(folder / "golden/a.jpg")
    refused(folder, "'golden/a.jpg'", "not a regular file")


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (stat.S_IFLNK | 0o777, "symbolic link"),
        (stat.S_IFIFO, "neither"),
        (stat.S_IFCHR, "neither"),
        (stat.S_IFDIR, "neither"),
    ],
)
def test_special_entry_in_a_zip(folder: Path, out: Path, refused: RequestError, mode: int, words: str) -> None:
    refused(zipped(out, [*entries(folder), (entry("golden/link", mode), b"/etc/passwd")]), "'golden/link'", words)


def test_endless_folders_in_a_folder(folder: Path, refused: RequestError) -> None:
    (folder / "/".join("d" * 600)).mkdir(parents=True)
    refused(folder, "longer than 1024 bytes")


def test_wrong_hash(folder: Path, out: Path, refused: RequestError) -> None:
    digest = hashlib.sha256(b"no Network").hexdigest()
    expected = hashlib.sha256(b"no network").hexdigest()
    (folder / "model/small.onnx").write_bytes(b"no Network")
    refused(folder, "model/small.onnx", digest, expected)
    refused(zipped(out, entries(folder)), "model/small.onnx", digest, expected)


def test_wrong_size(folder: Path, refused: RequestError) -> None:
    (folder / "model/small.onnx").write_bytes(b"no network at all")
    refused(folder, "model/small.onnx", "expected 10 bytes, found 17")


def test_extra_file(folder: Path, out: Path, refused: RequestError) -> None:
    (folder / "golden/extra.so").write_bytes(b"")
    refused(folder, "not in its manifest", "'golden/extra.so'")
    refused(zipped(out, entries(folder)), "not in its manifest", "'golden/extra.so'")


def test_missing_file(folder: Path, out: Path, refused: RequestError) -> None:
    (folder / "golden/a.jpg").unlink()
    refused(folder, "missing", "'golden/a.jpg'")
    refused(zipped(out, entries(folder)), "missing", "'golden/a.jpg'")


def test_nothing_there(tmp_path: Path, refused: RequestError) -> None:
    refused(tmp_path / "nothing", "there is no such bundle")

"""Manifests and Specs that are huge, deeply nested, lying or no such thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attacks.bundles.conftest import RequestError
from helpers.minimal_bundle import edit, entries, put, zipped
from plimsoll.bundle import Bundle


def test_missing_manifest(folder: Path, refused: RequestError) -> None:
    (folder / "manifest.json").unlink()
    refused(folder, "no manifest.json")


def test_huge_manifest(folder: Path, out: Path, refused: RequestError) -> None:
    edit(folder, lambda manifest: manifest.update(origin={"text": "x" * 5_000_000}))
    refused(folder, "manifest.json", "larger than 4 MB")
    refused(zipped(out, entries(folder)), "manifest.json", "larger than 4 MB")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format": "plimsoll-bundle", "version": 1, "origin": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_deeply_nested_manifest(folder: Path, refused: RequestError, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    refused(folder, "manifest.json", "not valid JSON")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(version=3), "version '3'; this Plimsoll reads versions 1 and 2"),
        (lambda data: data.update(format="zip"), "not the manifest of a bundle"),
        (lambda data: data.update(more=1), "more: unknown key"),
        (lambda data: data.update(target="onnxruntime"), ""),
        (lambda data: data.update(target="a:b:c:d"), "is not a target"),
        (lambda data: data.update(golden=[]), "golden"),
        (lambda data: data.update(name="../x"), "name"),
        (lambda data: data["tolerance"].update(network="NaN"), "tolerance.network"),
        (lambda data: data["tolerance"].update(network="Infinity"), "tolerance.network"),
        (lambda data: data["tolerance"].update(network=-1), "tolerance.network"),
        (lambda data: data["files"]["spec.toml"].update(size=-1), "files.spec.toml.size"),
        (lambda data: data["files"]["spec.toml"].update(sha256="0"), "files.spec.toml.sha256"),
        (lambda data: data.update({"\x1b[2J": 1}), "?[2J: unknown key"),
    ],
)
def test_manifest_that_is_not_one(
    folder: Path, refused: RequestError, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    if not words:
        with Bundle.open(edit(folder, change)) as bundle:
            assert str(bundle.target) == "onnxruntime:cpu:float32"
        return
    refused(edit(folder, change), "manifest.json", words)


@pytest.mark.parametrize("text", ["NaN", '{"format": NaN}', "", "null", "\xff", "1" * 5000])
def test_manifest_that_is_not_json(folder: Path, refused: RequestError, text: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    refused(folder, "manifest.json")


def test_spec_that_is_not_one(folder: Path, refused: RequestError) -> None:
    refused(put(folder, "spec.toml", b'name = "x"'), "spec.toml: 2 mistakes in the Spec")

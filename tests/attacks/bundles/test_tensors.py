"""Tensors in a bundle that would run code, or claim sizes that they don't have."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.minimal_bundle import put
from plimsoll.bundle import Bundle
from plimsoll.errors import BundleError


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
        (npy(b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n", bytes(4)),
            "what numpy.save writes"),
    ],
)  # fmt: skip
def test_hostile_tensor(folder: Path, data: bytes, words: str) -> None:
    hostile_tensor(folder, data, words)

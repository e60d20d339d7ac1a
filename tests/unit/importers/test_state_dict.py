"""State dicts read without PyTorch: their tensors are right, and no pickle runs anything or asks for memory."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from plimsoll.errors import InputError, ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.importers.conversion import import_model
from plimsoll.importers.torch.state_dict import read_tensors

Arrays = Mapping[str, NDArray[Any]]
STORAGES = {"<f4": "FloatStorage", "<i8": "LongStorage", "<f2": "HalfStorage", "|b1": "BoolStorage"}


class Tensor:
    """What `torch.save` sees of a tensor: a view of a storage."""

    def __init__(self, values: NDArray[Any], key: str, **form: Any) -> None:
        self.values, self.key, self.form = values, key, form

    def __reduce__(self) -> Any:
        contiguous = [stride // self.values.itemsize for stride in self.values.strides]
        shape, strides = self.form.get("shape", self.values.shape), self.form.get("strides", tuple(contiguous))
        view: Any = (Storage(self), self.form.get("offset", 0), tuple(shape), tuple(strides), False, {})
        return sys.modules["torch._utils"]._rebuild_tensor_v2, view


class Storage:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class Pickler(pickle.Pickler):
    old = False

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Storage):
            return None
        tensor = value.tensor
        kind = getattr(sys.modules["torch"], STORAGES[tensor.values.dtype.str])
        return ("storage", kind, tensor.key, "cpu", tensor.values.size, *([None] if self.old else []))


@pytest.fixture(autouse=True)
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules by whose names the pickles call, since PyTorch is not installed here."""
    root, utilities = ModuleType("torch"), ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(root, name, type(name, (), {"__module__": "torch"}))

    def rebuild(*_: Any) -> None: ...

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utilities._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", root)
    monkeypatch.setitem(sys.modules, "torch._utils", utilities)


def saved(path: Path, entries: Mapping[str, Any], *, old: bool, protocol: int = 2) -> Path:
    """Write a file as `torch.save` does, in the archive of today or the stream of before 1.6."""
    stream = io.BytesIO()
    pickler = Pickler(stream, protocol)
    pickler.old = old
    pickler.dump(OrderedDict(entries))
    arrays = {entry.key: entry.values for entry in entries.values() if isinstance(entry, Tensor)}
    if old:
        facts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001}]
        data = b"".join(pickle.dumps(fact, 2) for fact in facts) + stream.getvalue() + pickle.dumps(list(arrays), 2)
        data += b"".join(struct.pack("<q", values.size) + values.tobytes() for values in arrays.values())
        path.write_bytes(data)
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", stream.getvalue())
        archive.writestr("net/byteorder", "little")
        for key, values in arrays.items():
            archive.writestr(f"net/data/{key}", values.tobytes())
    return path


@pytest.mark.parametrize("old", [False, True])
def test_tensors_are_read_as_they_were_saved(old: bool, tmp_path: Path) -> None:
    arrays: Arrays = {
        "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "steps": np.array([7], np.int64),
        "half": np.array([[0.5, -2.0]], np.float16),
        "mask": np.array([True, False]),
    }
    entries = {name: Tensor(values, str(number)) for number, (name, values) in enumerate(arrays.items())}
    shared = Tensor(arrays["conv.weight"], "0", shape=(4, 2), strides=(1, 4), offset=3)
    tensors = read_tensors(saved(tmp_path / "net.pth", {**entries, "view": shared}, old=old))
    assert list(tensors) == [*arrays, "view"]
    for name, values in arrays.items():
        np.testing.assert_array_equal(tensors[name], values)
    np.testing.assert_array_equal(tensors["view"], arrays["conv.weight"].ravel()[3:11].reshape(2, 4).T)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"offset": 1}, "outside"),
        ({"shape": (5, 2), "strides": (2, 1)}, "outside"),
        ({"strides": (-2, 1)}, "steps"),
        ({"shape": (1 << 40, 2), "strides": (0, 0)}, "outside"),
        ({"shape": (1,) * 30, "strides": (1,) * 30}, "shape"),
    ],
)
def test_a_view_outside_of_its_array_is_refused(form: dict[str, Any], message: str, tmp_path: Path) -> None:
    entries = {"a": Tensor(np.zeros((2, 2), np.float32), "0", **form)}
    with pytest.raises(ModelError, match=message):
        read_tensors(saved(tmp_path / "net.pth", entries, old=False))


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("old", [False, True])
def test_nothing_in_a_pickle_runs(old: bool, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for entry in (Evil(), [1, 2], OrderedDict(x=Evil())):
        with pytest.raises(ModelError, match="not a dictionary of tensors"):
            read_tensors(saved(tmp_path / "net.pth", {"a": entry}, old=old, protocol=protocol))
    assert not (tmp_path / "ran").exists()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.pth", {"a": Tensor(np.ones(9, np.float32), "0")}, old=True).read_bytes()
    read_tensors(tmp_path / "whole.pth")
    for end in range(0, len(whole), 7):
        (tmp_path / "cut.pth").write_bytes(whole[:end])
        with pytest.raises(ModelError):
            read_tensors(tmp_path / "cut.pth")
    for at in range(0, len(whole) - 48, 3):
        (tmp_path / "changed.pth").write_bytes(whole[:at] + bytes([whole[at] ^ 0x2A]) + whole[at + 1 :])
        try:
            read_tensors(tmp_path / "changed.pth")
        except ModelError:
            continue


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    file = saved(tmp_path / "net.pth", {"conv.weight": Tensor(np.ones((2, 2), np.float32), "0")}, old=False)
    with pytest.raises(ModelError, match=r"'_conv_stem\.weight': no such tensor"):
        import_model(file, tmp_path / "out", ImportOptions(architecture="efficientnet_lite0"))
    with pytest.raises(InputError, match="no input image"):
        import_model(file, tmp_path / "out", ImportOptions(architecture="efficientnet_lite0", inputs=("image",)))
    with pytest.raises(ModelError) as caught:
        import_model(file, tmp_path / "out")
    assert "efficientnet_lite0" in caught.value.hint

"""Which kind of model a path means, by its looks alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from plimsoll import importers
from plimsoll.errors import ModelError
from plimsoll.importers.conversion import import_model


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    ("there", "given", "kind"),
    [
        (["m.keras"], "m.keras", "Keras file"),
        (["M.H5"], "M.H5", "Keras file"),
        (["s/saved_model.pb"], "s", "SavedModel"),
        (["s/saved_model.pb"], "s/saved_model.pb", "SavedModel"),
        (["g.pb"], "g.pb", "frozen graph"),
        (["c/m.ckpt.meta", "c/m.ckpt.index"], "c", "TensorFlow 1 checkpoint"),
        (["m.ckpt-9.meta", "m.ckpt-9.index"], "m.ckpt-9", "TensorFlow 1 checkpoint"),
        (["m.ckpt.meta", "m.ckpt.index"], "m.ckpt.meta", "TensorFlow 1 checkpoint"),
        (["m.ckpt.meta", "m.ckpt.data-00000-of-00001"], "m.ckpt.data-00000-of-00001", "TensorFlow 1 checkpoint"),
        (["m.onnx"], "m.onnx", "onnx"),
    ],
)
def test_a_path_means_a_kind(tmp_path: Path, there: list[str], given: str, kind: str) -> None:
    assert importers.format_of(touch(tmp_path, *there) / given).name == kind


def test_an_onnx_file_loads_no_other_importer(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from plimsoll import importers\n"
        "assert importers.format_of(Path('m.onnx')).name == 'onnx'\n"
        "print([name for name in sys.modules if name.startswith('plimsoll.importers.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=touch(tmp_path, "m.onnx"), capture_output=True, text=True, check=True
    )
    assert "onnx" in done.stdout
    assert not {"tfjs", "torch", "tensorflow", "caffe"} & set(re.findall(r"\w+", done.stdout))


@pytest.mark.parametrize(
    ("there", "given", "message"),
    [
        ([], "nothing.keras", "can't be read"),
        ([], "nothing", "no such file or folder"),
        (["a.txt"], "a.txt", "unknown model format"),
        (["f/a.txt"], "f", "a folder"),
        (["m.keras"], "m.keras", "neither a .keras nor an HDF5 file"),
        (["m.ckpt.index", "m.ckpt.data-00000-of-00001"], "m.ckpt.index", "m.ckpt.meta is missing"),
        (["m.ckpt.meta", "m.ckpt.index"], "m.ckpt.meta", "are not beside it"),
        (["m.onnx"], "m.onnx", "needs no import"),
    ],
)
def test_what_can_t_be_imported_is_reported_before_a_toolchain_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], given: str, message: str
) -> None:
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ModelError, match=message):
        import_model(touch(tmp_path, *there) / given, tmp_path / "out")
    assert not (tmp_path / "cache").exists()


def test_what_is_converted_can_t_be_read_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="converted to ONNX first") as caught:
        importers.read(touch(tmp_path, "m.keras") / "m.keras")
    assert "plimsoll import" in caught.value.hint

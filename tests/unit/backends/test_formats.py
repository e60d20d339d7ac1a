"""The runtimes' own formats: read as they are, run by their runtime, refused where they are damaged or hostile."""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from plimsoll import importers, zoo
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import BuildError, ModelError
from plimsoll.importers.conversion import import_model
from plimsoll.inference import predictor
from plimsoll.preprocessing import Preprocessor

IR = (
    '<?xml version="1.0"?>\n<net name="n" version="11"><layers><layer type="Const"><data offset="0"'
    ' size="16"/></layer></layers></net>'
)
PARAM = "7767517\n2 2\nInput in0 0 1 in0 0=4 1=4 2=3\nReLU r 1 1 in0 out0\n"


@pytest.fixture(scope="module")
def nsfw_ir(nsfw_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """open_nsfw as OpenVINO's own converter writes it, its weights in float16."""
    pytest.importorskip("openvino")
    from plimsoll.backends.openvino.backend import _import

    openvino = _import()
    folder = tmp_path_factory.mktemp("ir")
    openvino.save_model(openvino.convert_model(str(nsfw_model_path)), str(folder / "nsfw.xml"), compress_to_fp16=False)
    return folder / "nsfw.xml"


def test_openvino_ir_answers_as_the_network_that_it_was_made_from(
    nsfw_ir: Path, nsfw_model_path: Path, example_photos: list[Path]
) -> None:
    spec = zoo.card("open_nsfw").spec
    picture = Preprocessor(spec.input)(example_photos[0])[np.newaxis]
    model = importers.read(nsfw_ir, spec)
    assert (model.format, [file.name for file in model.files]) == ("openvino", ["nsfw.bin"])
    with (
        Runner.open(model, Target("openvino", "cpu", "float32")) as own,
        Runner.open(Model(nsfw_model_path, "onnx", spec), REFERENCE_TARGET) as reference,
    ):
        actual, expected = own.infer(picture), reference.infer(picture)
    np.testing.assert_allclose(actual["outputs"], expected["outputs"], atol=1e-5)
    assert predictor.open_model(str(nsfw_ir)).target == Target("openvino", "cpu", "float32")


def test_openvino_ir_runs_nowhere_else_and_not_as_what_it_is_not(nsfw_ir: Path) -> None:
    model = importers.read(nsfw_ir)
    with pytest.raises(BuildError, match="onnxruntime loads ONNX files, this one is openvino"):
        Runner.open(model, REFERENCE_TARGET)
    with pytest.raises(BuildError, match=r"this one is in floating point"):
        Runner.open(model, Target("openvino", "cpu", "int8"))
    with pytest.raises(ModelError, match="openvino is read as it is and needs no import"):
        import_model(nsfw_ir, nsfw_ir.parent / "out")


def written(folder: Path, name: str, text: str | bytes, weights: bytes | None = bytes(16)) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    if weights is not None:
        path.with_suffix(".bin").write_bytes(weights)
    return path


def test_each_format_is_known_by_its_looks(tmp_path: Path) -> None:
    flat = struct.pack("<IHHiI", 8, 4, 4, 4, 0)
    assert importers.read(written(tmp_path, "a.xml", IR)).format == "openvino"
    assert importers.read(written(tmp_path, "b.ncnn.param", PARAM)).files == (tmp_path / "b.ncnn.bin",)
    mnn = written(tmp_path, "c.mnn", flat, None)
    assert importers.read(mnn).files == ()
    beside = tmp_path / "c.mnn.signature.json"
    beside.write_text("{}")
    assert importers.read(mnn).files == (beside,)


ENTITIES = '<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("n.xml", IR.replace('size="16"', 'size="17"'), "its weights reach to byte 17; n.bin has 16 bytes"),
        ("n.xml", IR.replace('offset="0"', 'offset="-1"'), "weights at offset '-1'"),
        ("n.xml", IR.replace('size="16"', 'size="99999999999999999999"'), "of size '99999999999999999999'"),
        ("n.xml", IR.replace('version="11"', 'version="7"'), "<net version=7>, expected OpenVINO IR"),
        ("n.xml", IR[:-10], "can't be read as XML"),
        ("n.xml", IR.replace("<net", ENTITIES + "<net", 1), "it declares"),
        ("n.xml", IR.replace("<net", '<!DOCTYPE net SYSTEM "file:///etc/passwd"><net', 1), "it declares 'net'"),
        ("n.param", "", "empty"),
        ("n.param", PARAM.replace("7767517", "7767518"), "not an ncnn network"),
        ("n.param", PARAM.replace("2 2", "3 2"), "says 3 layers, 2 are there"),
        ("n.param", PARAM.replace("2 2", "999999999999 2"), "not an ncnn network"),
        ("n.param", b"\xdd\x85\x76\x00\x02\x00\xff", "not UTF-8"),
        ("n.mnn", b"\xff\xff\xff\xff", "doesn't begin as a FlatBuffer"),
        ("n.mnn", struct.pack("<Ii", 4, 2**30) + b"\0" * 8, "doesn't begin as a FlatBuffer"),
        ("n.mnn", b"abc", "doesn't begin as a FlatBuffer"),
    ],
)
def test_damaged_and_hostile_files_are_refused(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        importers.read(written(tmp_path, name, text))


def test_weights_that_are_missing_or_links_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"reach to byte 16; a\.bin has 0 bytes"):
        importers.read(written(tmp_path, "a.xml", IR, None))
    with pytest.raises(ModelError, match=r"b\.bin: No such file"):
        importers.read(written(tmp_path, "b.param", PARAM, None))
    if sys.platform != "win32":
        path = written(tmp_path, "c.param", PARAM)
        shutil.move(path.with_suffix(".bin"), tmp_path / "elsewhere")
        path.with_suffix(".bin").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ModelError, match="a link"):
            importers.read(path)

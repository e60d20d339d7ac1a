"""Names that a network's maker chose: they reach no file, no shell, no terminal, no page, and no other line of a text.

Every input, output, node, stored tensor and inner value of a network is called something hostile, and the network is
built for the runtimes of this machine: it answers as ever, or is refused in words, and no file lies elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from helpers.generated_networks import SIDE, SPEC, Case
from plimsoll import backends, importers, quantize
from plimsoll.backends.runner import Runner
from plimsoll.cli.main import _say
from plimsoll.core.deviation import deviation
from plimsoll.core.model import Model, TensorInfo
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import ModelError
from plimsoll.export.triton import readme
from plimsoll.onnx import names
from plimsoll.report.trial import Candidate
from plimsoll.ship.build import Artifacts, network
from plimsoll.system import toolchains

CASE = Case("conv3x3", "silu", "", "gemm_sigmoid")
HOSTILE = (
    "<script>alert(1)</script>",
    "$(touch {outside}/shell)",
    "`touch {outside}/backticks`",
    "; touch {outside}/semicolon",
    "%s%n%d",
    "x" * 900,
    "--out={outside}/option",
    "con",
    "pіcture",  # Cyrillic
    "a b",
    "a'b\"c\\d",
    "~/x",
    ".",
)
INNER = ("a\nb", "a\rb", "\x1b[31mred", "\u202egnp", "x" * 20_000)
PATHS = ("../../../../../../../..{outside}/up", "{outside}/absolute")
TARGETS = ("mnn:cpu:int8", "ncnn:cpu:int8", "litert:cpu:int8", "openvino:cpu:int8", "onnxruntime:cpu:int8")


def write(folder: Path, ends: tuple[str, str], outside: Path) -> Path:
    """Write a network whose input and output have these names, and all else hostile ones."""
    built = CASE.write(folder / "network.onnx")
    assert built is not None
    proto = onnx.load(built.path)
    given = {proto.graph.input[0].name: ends[0], proto.graph.output[0].name: ends[1]}
    pool = [name.format(outside=outside) for name in (*HOSTILE, *INNER, *PATHS)]
    for node in proto.graph.node:
        for name in (*node.input, *node.output):
            given.setdefault(name, pool[len(given) % len(pool)] + str(len(given)))
    for number, node in enumerate(proto.graph.node):
        node.input[:] = [given[name] for name in node.input]
        node.output[:] = [given[name] for name in node.output]
        node.name = pool[number % len(pool)]
    for values in (proto.graph.input, proto.graph.output, proto.graph.initializer, proto.graph.value_info):
        for value in values:
            value.name = given[value.name]
    proto.graph.name = proto.doc_string = proto.producer_name = ends[0]
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = ends[1]
    onnx.save(proto, folder / "network.onnx")
    return folder / "network.onnx"


def pictures(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)


@pytest.mark.parametrize("target", TARGETS)
def test_a_hostile_network_answers_and_writes_nowhere_else(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Target.parse(target)
    offers = {str(offer.target): offer for offer in backends.get(chosen.runtime).targets()}
    if offers[target].missing or (offers[target].toolchain and not toolchains.is_ready(offers[target].toolchain)):
        pytest.skip(f"{target} can't be built here")
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    monkeypatch.chdir(inside)
    path = write(inside, (PATHS[0].format(outside=outside), "<img src=x onerror=alert(1)>\\'\""), outside)
    model = importers.read(path, SPEC)
    candidate = Candidate("reference", False, chosen, "minmax")
    built = network(model, candidate, inside / "built", artifacts(model, inside))
    with Runner.open(model, REFERENCE_TARGET) as reference, Runner.open(built, chosen) as runner:
        expected, answers = reference.infer(pictures(4)), runner.infer(pictures(4))
    assert list(answers) == list(expected)
    for name, value in expected.items():
        assert deviation(value, answers[name]).snr_db > 20
    assert not list(outside.iterdir())


def artifacts(model: Model, folder: Path) -> Artifacts:
    table, tensors = folder / "minmax.json", folder / "tensors.npy"
    quantize.observe(model, iter([pictures(6)])).calibration("minmax").write(table)
    np.save(tensors, pictures(6))
    return Artifacts(tables={"minmax": table}, tensors={False: tensors})


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "\x1b[31mred", "\u202egnp", "\ud800", "x" * 1_001])
def test_an_end_that_no_text_can_hold_is_refused_in_words(name: str) -> None:
    with pytest.raises(ModelError, match="an input or output of the network is called") as caught:
        TensorInfo(name, (None,), "float32")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("name", [*HOSTILE, *INNER, *PATHS, "", "a/../b", "a//b", "/a", "nul.txt", "plimsoll_input_0"])
def test_no_converter_sees_it(name: str) -> None:
    assert not names.is_plain(name)
    assert names.is_plain(names.stored(name, "input", 3).removeprefix("plimsoll_"))


@pytest.mark.parametrize(
    "name", ["input", "data_0", "image/pixels:0", "StatefulPartitionedCall:1", "x.1", "model.0/conv"]
)
def test_names_as_frameworks_give_them_stay(name: str) -> None:
    assert names.stored(name, "output", 0) == name


@pytest.mark.parametrize("name", ["a`b", "`", "``a`"])
def test_a_name_in_a_readme_stays_code(name: str) -> None:
    text = readme._code(name)
    fence = text[: len(text) - len(text.lstrip("`"))]
    assert text.endswith(fence)
    assert fence not in text[len(fence) : -len(fence)]


def test_an_error_that_repeats_a_file_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    _say(ModelError("the layer '\x1b[2J\u202e' is unknown", "Rename '\x07'."))
    assert "\x1b[2J" not in (text := capsys.readouterr().err)
    assert "\u202e" not in text
    assert "\x07" not in text

"""TFLite files as a source: read as they are, and converted to ONNX in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tflite_writer import STEPS, Kind, expected, network, pictures
from helpers.toolchain_required import require
from plimsoll import importers
from plimsoll.backends.runner import Runner
from plimsoll.core.target import Target
from plimsoll.errors import InputError, ModelError, SpecError
from plimsoll.importers.base import ImportOptions
from plimsoll.importers.conversion import import_model
from plimsoll.onnx.form import form_of
from plimsoll.spec import Input, Spec
from plimsoll.spec.spec import Classify


def spec(side: int = 2, labels: int = 4, tensor: str | None = None) -> Spec:
    steps: list[dict[str, Any]] = [
        {"step": "decode"},
        {"step": "resize", "width": side, "height": side},
        {"step": "scale", "divisor": 255},
    ]
    return Spec(
        name="small",
        input=Input.model_validate({"steps": steps, "tensor": tensor}),
        output=Classify(labels=tuple("abcdefgh"[:labels])),
    )


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_file_is_read_as_it_is(tmp_path: Path, kind: Kind) -> None:
    model = importers.read(network(tmp_path / "net.tflite", kind), spec())
    assert (model.format, model.require_spec().name) == ("tflite", "small")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (spec(side=3), r"float32 \[3, 3, 3\].*takes float32 \[1, 2, 2, 3\]"),
        (spec(labels=3), "3 labels"),
        (spec(tensor="image"), "'image'.*'picture'"),
    ],
    ids=["size", "labels", "name"],
)
def test_a_spec_for_another_network_is_refused(tmp_path: Path, given: Spec, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        importers.read(network(tmp_path / "net.tflite"), given)


def test_options_that_have_no_meaning_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="converted as it is") as caught:
        import_model(network(tmp_path / "net.tflite"), tmp_path / "out", ImportOptions(batch=4, outputs=("scores",)))
    assert "--inputs or --outputs, --batch" in caught.value.hint


@pytest.mark.parametrize("kind", ["float32", "int8", "uint8", "dynamic"])
def test_every_precision_becomes_the_same_network_in_float32(tmp_path: Path, kind: Kind) -> None:
    require("tensorflow")
    imported = import_model(network(tmp_path / "net.tflite", kind, batch=-1), tmp_path / "out")
    assert imported.parity is not None
    assert imported.parity.holds
    assert imported.parity.tolerance == 1e-4
    assert form_of(imported.model.path) == "float32"
    assert any("quantized" in note for note in imported.notes) == (kind != "float32")
    assert any("picture, scores" in note for note in imported.notes) == (kind in ("int8", "uint8"))
    with Runner.open(imported.model, Target("onnxruntime")) as runner:
        assert (runner.inputs[0].name, runner.inputs[0].shape, runner.inputs[0].dtype) == (
            "picture",
            (None, 2, 2, 3),
            "float32",
        )
        scores = runner.infer(pictures(5))["scores"]
    np.testing.assert_allclose(scores, expected(pictures(5)), atol=1e-5 if kind == "float32" else STEPS["scores"][0])


@pytest.mark.parametrize(("kind", "message"), [("custom", "custom operators Frobnicate"), ("select", "Betainc")])
def test_operators_without_onnx_are_named(tmp_path: Path, kind: Kind, message: str) -> None:
    require("tensorflow")
    with pytest.raises(ModelError, match=message):
        import_model(network(tmp_path / "net.tflite", kind), tmp_path / "out")

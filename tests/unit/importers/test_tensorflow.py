"""TensorFlow and Keras: every form that a network was ever saved in becomes the same ONNX network; what runs code is
refused."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from helpers.toolchain_required import program, require_time
from plimsoll import importers
from plimsoll.backends.runner import Runner
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import CheckError, InputError, ModelError
from plimsoll.importers.base import Conversion, ImportOptions, Probe
from plimsoll.importers.conversion import ImportedModel, finish, import_model

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]
WAYS = ("network.keras", "network.h5", "savedmodel", "frozen.pb", "checkpoint", "network.tflite")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    program("tensorflow", "write_tensorflow.py", "small", folder)
    return folder


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    program("tensorflow", "write_tensorflow.py", "odd", folder)
    return folder


def answers(imported: ImportedModel, feed: NDArray[Any]) -> NDArray[Any]:
    with Runner.open(imported.model, REFERENCE_TARGET) as runner:
        (only,) = runner.infer(feed).values()
    return only


def held(folder: Path, way: str, out: Path, options: ImportOptions | None = None) -> NDArray[Any]:
    """Import one of the forms and return what it answers; its parity has to hold."""
    path = folder / way
    if not any(kind.recognises(path) for kind in importers.formats()):
        pytest.skip(f"no source here reads {path.suffix}")
    imported = import_model(path, out / way, options)
    assert imported.parity is not None
    assert imported.parity.holds
    with np.load(folder / "answers.npz") as arrays:
        return answers(imported, arrays["feed"])


@pytest.mark.parametrize("way", WAYS)
def test_a_small_network_answers_as_keras_does(small: Path, tmp_path: Path, way: str) -> None:
    actual = held(small, way, tmp_path)
    with np.load(small / "answers.npz") as arrays:
        np.testing.assert_allclose(actual, arrays["answer"], atol=1e-6)


@pytest.mark.large
@pytest.mark.parametrize("network", ["inception", "open_nsfw"])
def test_six_ways_in_one_answer(network: str, tmp_path: Path, nsfw_model_path: Path) -> None:
    require_time()
    program(
        "tensorflow", "write_tensorflow.py", network, tmp_path, *([nsfw_model_path] if network == "open_nsfw" else [])
    )
    with np.load(tmp_path / "answers.npz") as arrays:
        feed, expected = arrays["feed"], arrays["answer"]
    actual = [held(tmp_path, way, tmp_path / "imported") for way in WAYS]
    if network == "open_nsfw":
        with Runner.open(importers.read(nsfw_model_path), REFERENCE_TARGET) as runner:
            actual += runner.infer(feed).values()
    else:
        assert np.ptp(expected, axis=0).max() > 0.02  # Else a network that answers all pictures alike would pass.
    for output in (expected, *actual):
        assert max(float(np.abs(output - other).max()) for other in actual) < 1e-5


@pytest.fixture(scope="module")
def saved(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ImportedModel, Path]:
    """The checkpoint, imported, and the frozen graph that was kept."""
    folder = tmp_path_factory.mktemp("saved")
    file = folder / "below" / "frozen.pb"
    return import_model(small / "checkpoint" / "network.ckpt", folder, ImportOptions(keep=file)), file


def test_the_frozen_graph_that_is_kept_is_folded_and_is_the_network(
    small: Path, saved: tuple[ImportedModel, Path], tmp_path: Path
) -> None:
    first, file = saved
    assert any("18 nodes" in note for note in first.notes)  # No batch normalization is left.
    again = import_model(file, tmp_path)
    with np.load(small / "answers.npz") as arrays:
        np.testing.assert_allclose(answers(again, arrays["feed"]), arrays["answer"], atol=1e-6)


def test_an_answer_that_isn_t_the_framework_s_is_refused(small: Path, saved: tuple[ImportedModel, Path]) -> None:
    path = saved[0].model.path
    graph = onnx.load(path).graph
    with np.load(small / "answers.npz") as arrays:
        feed, answer = arrays["feed"], arrays["answer"]
    for wrong in (answer * 1.001, np.full_like(answer, np.nan)):
        with pytest.raises(CheckError, match="answers differ"):
            finish(
                "frozen graph",
                Conversion(path, Probe("TensorFlow", {graph.input[0].name: feed}, {graph.output[0].name: wrong})),
            )


def test_the_toolchain_asks_nothing_of_the_network(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "plimsoll"):
        free = import_model(small / "network.keras", tmp_path).model
    assert "the network, which it doesn't have" not in caplog.text
    axes = onnx.load(free.path).graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in axes] == ["N", 32, 32, 3]


def test_switches_of_training_are_set_and_reported(odd: Path, tmp_path: Path) -> None:
    imported = import_model(odd / "switches.meta", tmp_path, ImportOptions(outputs=("scores",)))
    assert {"the input 'is_training' is set to False", "the input 'keep_prob' is set to 1.0"} <= set(imported.notes)
    operators = Counter(node.op_type for node in onnx.load(imported.model.path).graph.node)
    assert "If" not in operators
    assert not any("Random" in operator for operator in operators)


def test_an_inner_tensor_can_be_the_answer_and_the_batch_fixed(odd: Path, tmp_path: Path) -> None:
    imported = import_model(odd / "switches.meta", tmp_path, ImportOptions(outputs=("Mean",), batch=2))
    graph = onnx.load(imported.model.path).graph
    assert graph.output[0].name == "Mean"
    assert [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim] == [2, 16, 16, 3]
    with pytest.raises(ModelError, match="no tensor 'nowhere'") as caught:
        import_model(odd / "switches.meta", tmp_path, ImportOptions(outputs=("nowhere",)))
    assert "'scores'" in caught.value.hint


def test_a_network_of_keras_2_is_read_by_keras_2(odd: Path, tmp_path: Path) -> None:
    imported = import_model(odd / "old.h5", tmp_path)
    assert imported.parity is not None
    assert "Keras 2." in imported.parity.framework


@pytest.mark.parametrize(
    ("file", "message", "hint"),
    [
        ("lambda.keras", "Lambda layer", "--trust"),
        ("lambda.h5", "Lambda layer", "--trust"),
        ("own.keras", "'Own' of strangers", "SavedModel"),
        ("reader", "ReadFile", "--trust"),
        ("only.weights.h5", "weights only", "whole network"),
        ("training.meta", "2 tensors that could be its answer: 'scores', 'chosen'", "--outputs"),
    ],
)
def test_what_runs_code_or_lacks_something_is_refused(
    odd: Path, tmp_path: Path, file: str, message: str, hint: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        import_model(odd / file, tmp_path)
    assert hint in caught.value.hint


def test_a_network_saved_in_training_mode_is_refused(odd: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="in training mode"):
        import_model(odd / "training.meta", tmp_path, ImportOptions(outputs=("scores",)))


def test_a_lambda_of_a_trusted_author_is_imported(odd: Path, tmp_path: Path) -> None:
    parity = import_model(odd / "lambda.keras", tmp_path, ImportOptions(trust=True)).parity
    assert parity is not None
    assert parity.holds


def test_the_command_says_what_it_chose(small: Path, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).parent / "plimsoll"),
        "import",
        str(small / "checkpoint"),
        "--out",
        str(tmp_path / "out.onnx"),
    ]
    done = subprocess.run(
        [*command, "--keep", str(tmp_path / "kept.pb")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "240"},
    )
    assert done.returncode == 0, done.stderr
    for message in ("TensorFlow 1 checkpoint", "picture: float32 [N, 32, 32, 3]", "opset", "relative", "kept.pb"):
        assert message in done.stderr
    assert importers.read(tmp_path / "out.onnx").format == "onnx"
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_an_architecture_is_nothing_for_it(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains its architecture"):
        import_model(small / "frozen.pb", tmp_path, ImportOptions(architecture="resnet18"))

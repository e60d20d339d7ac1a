"""What runs inside Triton's Python backend, with a stand-in for Triton; and once inside Triton itself."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import plimsoll
from helpers import fake_triton_backend as triton
from helpers.contract_networks import expected, network
from helpers.small_models import HERE, TENSOR_SPEC, brightness, small_model
from helpers.triton_server import ask, serve_repository
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import RunError
from plimsoll.export.triton import TritonOptions, export
from plimsoll.export.triton.serving import NetworkModel, PreprocessingModel
from plimsoll.preprocessing import Preprocessor
from plimsoll.spec.files import loads


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return export(
        small_model(tmp_path, TENSOR_SPEC),
        HERE,
        tmp_path / "models",
        options=TritonOptions(max_batch=4, network="python"),
    )


def arguments(repository: Path, name: str, parameters: dict[str, str], tensors: tuple[str, str]) -> dict[str, str]:
    """Return what Triton tells a model that starts, as far as it is read."""
    config = {
        "input": [{"name": tensors[0]}],
        "output": [{"name": tensors[1]}],
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
    }
    return {"model_config": json.dumps(config), "model_repository": str(repository / name), "model_version": "1"}


@pytest.fixture
def steps(repository: Path) -> PreprocessingModel:
    built = PreprocessingModel()
    built.initialize(
        arguments(repository, "small.steps", {"preprocessing": "reference", "max_pictures": "4"}, ("image", "picture"))
    )
    return built


@pytest.fixture
def net(repository: Path) -> NetworkModel:
    built = NetworkModel()
    built.initialize(
        arguments(
            repository,
            "small.tensor",
            {"model": "model/small.onnx", "target": "onnxruntime:cpu:float32", "threads": "1"},
            ("picture", "scores"),
        )
    )
    return built


def tensor(array: NDArray[Any]) -> triton.InferenceRequest:
    return triton.InferenceRequest([triton.Tensor("picture", array)])


def test_the_repositorys_programs_name_what_is_served(repository: Path) -> None:
    for name, served in (("small.steps", PreprocessingModel), ("small.tensor", NetworkModel)):
        namespace: dict[str, Any] = {}
        exec((repository / name / "1" / "model.py").read_text(), namespace)
        assert namespace["TritonPythonModel"] is served


def test_pictures_become_what_the_input_steps_make(steps: PreprocessingModel, example_photos: list[Path]) -> None:
    files = [photo.read_bytes() for photo in example_photos[:3]]
    batch, two = steps.execute([triton.pictures(*files[:1]), triton.pictures(*files[1:])])
    preprocessor = Preprocessor(loads(TENSOR_SPEC).input)
    built = np.concatenate([batch.output_tensors[0].as_numpy(), two.output_tensors[0].as_numpy()])
    assert np.array_equal(built, np.stack([preprocessor(data) for data in files]))
    assert batch.output_tensors[0].name() == "picture"


def test_a_bad_picture_fails_its_own_request_alone(steps: PreprocessingModel, example_photos: list[Path]) -> None:
    good = example_photos[0].read_bytes()
    bad, fine, many, none = steps.execute(
        [triton.pictures(good, b"no picture"), triton.pictures(good), triton.pictures(*[good] * 5), triton.pictures()]
    )
    assert fine.error is None
    assert bad.error.code() == many.error.code() == none.error.code() == triton.TritonError.INVALID_ARG
    assert bad.error.message().startswith("picture 1: ")
    assert "1 to 4 are taken" in many.error.message()
    assert not bad.output_tensors


def test_pictures_that_become_tensors_of_different_sizes_are_refused(
    repository: Path, example_photos: list[Path]
) -> None:
    whole = TENSOR_SPEC.replace("width = 6\nheight = 5", 'fit = "short_edge"\nsize = 6')
    (repository / "small.steps" / "1" / "spec.toml").write_text(whole)
    built = PreprocessingModel()
    built.initialize(
        arguments(repository, "small.steps", {"preprocessing": "reference", "max_pictures": "4"}, ("image", "picture"))
    )
    shapes = {Preprocessor(loads(whole).input)(photo).shape: photo for photo in example_photos}
    assert len(shapes) > 1
    (answer,) = built.execute([triton.pictures(*(photo.read_bytes() for photo in list(shapes.values())[:2]))])
    assert "different sizes" in answer.error.message()


def test_requests_are_computed_together_and_answered_apart(net: NetworkModel, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(0)
    requests = [chance.random((count, 5, 6, 3)).astype(np.float32) for count in (1, 3, 2)]
    calls: list[int] = []
    infer = net.runner.infer

    def counting(batch: NDArray[Any]) -> Any:
        calls.append(len(batch))
        return infer(batch)

    monkeypatch.setattr(net.runner, "infer", counting)
    answers = net.execute([tensor(request) for request in requests])
    assert calls == [6]
    for request, answer in zip(requests, answers, strict=True):
        assert answer.output_tensors[0].as_numpy() == pytest.approx(expected(request), abs=1e-6)


def test_a_request_that_fails_fails_alone(net: NetworkModel, monkeypatch: pytest.MonkeyPatch) -> None:
    infer = net.runner.infer

    def refusing(batch: NDArray[Any]) -> Any:
        if (batch == 7).any():
            raise RunError("a poisoned one")
        return infer(batch)

    monkeypatch.setattr(net.runner, "infer", refusing)
    fine, poisoned = net.execute(
        [tensor(np.zeros((1, 5, 6, 3), np.float32)), tensor(np.full((1, 5, 6, 3), 7, np.float32))]
    )
    assert fine.error is None
    assert fine.output_tensors[0].as_numpy().shape == (1, 4)
    assert poisoned.error.code() == triton.TritonError.INTERNAL
    wrong, right = net.execute([tensor(np.zeros((1, 4, 6, 3), np.float32)), tensor(np.zeros((1, 5, 6, 3), np.float32))])
    assert right.error is None
    assert wrong.error.code() == triton.TritonError.INVALID_ARG


def test_the_session_is_given_back(net: NetworkModel) -> None:
    net.finalize()
    (answer,) = net.execute([tensor(np.zeros((1, 5, 6, 3), np.float32))])
    assert "closed" in answer.error.message()


@pytest.mark.toolchain
def test_triton_itself_answers_as_plimsoll_does(
    nsfw_model_path: Path, example_photos: list[Path], tmp_path: Path
) -> None:
    """Its core and its Python backend, which PyTriton's wheel carries: the ensemble, the batcher, warm-up and labels
    are Triton's own."""
    del nsfw_model_path
    photos = [str(photo) for photo in example_photos[:6]]
    (tmp_path / "nonsense.jpg").write_bytes(b"no picture")
    with plimsoll.load("open_nsfw") as model:
        export(
            model.model,
            model.target,
            tmp_path / "models",
            options=TritonOptions(max_batch=4, network="python", decoders=2),
        )
        expected = [model.predict(photo) for photo in photos]
    requests = [
        ["open_nsfw", photos[:4]],
        ["open_nsfw", photos[4:]],
        ["open_nsfw", [photos[0], str(tmp_path / "nonsense.jpg")]],
        ["open_nsfw", photos],
    ]
    with serve_repository(tmp_path / "models", tmp_path) as address:
        first, second, bad, many = (
            json.loads(line) for line in ask("triton_ask.py", address, json.dumps(requests)).splitlines()
        )
    rows = first["outputs"]["outputs"] + second["outputs"]["outputs"]
    assert [row[1] for row in rows] == pytest.approx([answer.score for answer in expected], abs=1e-4)  # type: ignore[attr-defined]  # it classifies
    assert bad["status"] == "400"
    assert "picture 1" in bad["error"]
    assert "1 to 4 are taken" in many["error"]


def in_python(repository: Path, name: str) -> None:
    """Let Plimsoll's session compute a network whose configuration names a backend that PyTriton's wheel lacks; all
    else stays."""
    folder = repository / f"{name}.tensor"
    text = (folder / "config.pbtxt").read_text()
    text = re.sub(r'backend: "\w+"\ndefault_model_filename: "model.onnx"', 'backend: "python"', text)
    for key, value in (("model", "model.onnx"), ("target", "onnxruntime:cpu:float32")):
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    (folder / "config.pbtxt").write_text(text)
    program = (repository / f"{name}.steps" / "1" / "model.py").read_text()
    (folder / "1" / "model.py").write_text(program.replace("import PreprocessingModel", "import NetworkModel"))


@pytest.mark.toolchain
def test_triton_itself_takes_every_kind_of_configuration(example_photos: list[Path], tmp_path: Path) -> None:
    """Batched, not batched (as for OpenVINO), for one picture at a time, and with an output that is a number: sizes fit
    from step to step."""
    pytest.importorskip("openvino")
    free, fixed, lone = (
        network(tmp_path / "free.onnx"),
        network(tmp_path / "fixed.onnx", batch=1),
        brightness(tmp_path / "lone.onnx"),
    )
    built = [
        ("batched", free, HERE, 3),
        ("unbatched", free, Target("openvino"), 3),
        ("single", fixed, HERE, 1),
        ("lone", lone, HERE, 3),
    ]
    for name, model, target, _ in built:
        spec = loads(TENSOR_SPEC.replace("small", name))
        export(
            Model(model.path, "onnx", spec), target, tmp_path / "models", options=TritonOptions(max_batch=4, decoders=1)
        )
        in_python(tmp_path / "models", name)
    photos = [str(photo) for photo in example_photos[:3]]
    with serve_repository(tmp_path / "models", tmp_path) as address:
        answers = [
            json.loads(line)
            for line in ask(
                "triton_ask.py", address, json.dumps([[name, photos[:count]] for name, _, _, count in built])
            ).splitlines()
        ]
    pictures = np.stack([Preprocessor(loads(TENSOR_SPEC).input)(Path(photo)) for photo in photos])
    for (name, _, _, count), answer in zip(built[:3], answers, strict=False):
        assert np.array(answer["outputs"]["scores"]) == pytest.approx(expected(pictures[:count]), abs=1e-5), name
    assert np.array(answers[3]["outputs"]["brightness"]) == pytest.approx(
        pictures.mean(axis=(1, 2, 3))[:, np.newaxis], abs=1e-5
    )

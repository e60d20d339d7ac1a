"""What MODEL means: a zoo name, a bundle, a model file, or something that becomes ONNX first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.contract_networks import network
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import ModelError
from plimsoll.inference.predictor import open_model


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Nothing is converted; what would be is listed."""
    listed: list[Path] = []

    def import_model(path: Path, folder: Path, spec: Any = None) -> SimpleNamespace:
        listed.append(path)
        return SimpleNamespace(model=Model(folder / "model.onnx", "onnx", spec))

    monkeypatch.setattr("plimsoll.importers.conversion.import_model", import_model)
    return listed


def test_a_model_file_runs_on_the_reference_target_unless_another_is_named(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx").path
    with open_model(str(path)) as resolved:
        assert (resolved.model.path, resolved.target, resolved.preprocessing) == (path, REFERENCE_TARGET, "reference")
    chosen = Target("openvino", "cpu", "int8")
    with open_model(str(path), target=chosen, preprocessing="fast") as resolved:
        assert (resolved.target, resolved.preprocessing) == (chosen, "fast")


def test_a_name_that_means_nothing_is_refused_with_what_is_near() -> None:
    with pytest.raises(ModelError, match="did you mean 'open_nsfw'") as caught:
        open_model("open_nsfv")
    assert "open_nsfw_tf" in caught.value.hint


@pytest.mark.parametrize(
    ("files", "given"),
    [
        (["net.keras"], "net.keras"),
        (["saved/saved_model.pb"], "saved"),
        (["checkpoint/model.meta", "checkpoint/model.index"], "checkpoint/model"),
        (["web/model.json"], "web"),
    ],
    ids=["file", "folder", "beginning of names", "folder with a file that is looked into"],
)
def test_what_becomes_onnx_first_is_converted_where_there_is_a_folder_for_it(
    tmp_path: Path, imported: list[Path], files: list[str], given: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"modelTopology": {}}')
    resolved = open_model(str(tmp_path / given), import_folder=tmp_path / "import")
    assert imported == [tmp_path / given]
    assert resolved.model.path == tmp_path / "import" / "model.onnx"
    with pytest.raises(ModelError, match="converted to ONNX first"):
        open_model(str(tmp_path / given))
    assert len(imported) == 1


def test_a_hint_with_options_of_the_import_says_whose_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise ModelError("it has 2 tensors that could be its answer: a, b", "Say which with --outputs.")

    monkeypatch.setattr("plimsoll.importers.conversion.import_model", refused)
    path = tmp_path / "model.meta"
    path.touch()
    (tmp_path / "model.index").touch()
    with pytest.raises(ModelError) as caught:
        open_model(str(path), import_folder=tmp_path / "import")
    assert caught.value.hint.splitlines() == [
        "Say which with --outputs.",
        f"  These are options of `plimsoll import {path} --out model.onnx`; then give its result.",
    ]


def test_onnx_is_not_converted(tmp_path: Path, imported: list[Path]) -> None:
    path = network(tmp_path / "net.onnx").path
    assert open_model(str(path), import_folder=tmp_path / "import").model.path == path
    assert not imported

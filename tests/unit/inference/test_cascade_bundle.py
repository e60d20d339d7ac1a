"""A bundle carries a whole cascade: it answers as the cascade does, checks itself, and reaches nothing outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.answer_networks import draw, network, saved, spec_of
from plimsoll import load
from plimsoll.bundle import Bundle, CascadeBundle
from plimsoll.errors import BundleError, HoldsCascadeError, InputError
from plimsoll.inference.cascade import CascadePredictor
from plimsoll.inference.cascade_bundle import pack_cascade, verify_cascade
from plimsoll.serve.executor import ModelExecutor, PictureItem
from plimsoll.serve.messages import ModelMetadata
from plimsoll.spec import files as spec_files
from plimsoll.system.files import sha256
from plimsoll.tasks.detect import Detection

CASCADE = """
name = "corners"
[[stages]]
model = "detect.onnx"
spec = "detect.toml"
[[stages]]
model = "landmarks.onnx"
spec = "landmarks.toml"
presence = 0.0
[stages.crop]
scale = 1.6
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], list[Detection]]:
    """Return a bundle, pictures, and the cascade's answers to them."""
    folder = tmp_path_factory.mktemp("cascade")
    for task in ("detect", "landmarks"):
        saved(network(task), folder / f"{task}.onnx", spec_of(task))
        (folder / f"{task}.toml").write_text(spec_files.dumps(spec_of(task)))
    (folder / "cascade.toml").write_text(CASCADE)
    pictures = draw(folder / "drawn", 3)
    with load(folder / "cascade.toml") as cascade:
        assert isinstance(cascade, CascadePredictor)
        answers = [cascade.predict(picture) for picture in pictures]
        stages = [stage.opened for stage in cascade.networks]
        out = pack_cascade(cascade.stages.spec, stages, folder / "whole.zip", images=pictures[:2])
    return out, pictures, answers


@pytest.fixture
def unpacked(packed: tuple[Path, list[Path], list[Detection]], tmp_path: Path) -> Path:
    with CascadeBundle.open(packed[0]) as bundle:
        return Path(shutil.copytree(bundle.folder, tmp_path / "whole"))


def change(folder: Path, name: str, edit: Callable[[Any], Any]) -> None:
    """Change a file and have the manifest say so, as whoever forges a bundle would."""
    file = folder / name
    file.write_bytes(edit(file.read_bytes()))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"size": file.stat().st_size, "sha256": sha256(file)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_it_answers_as_the_cascade_and_verifies(packed: tuple[Path, list[Path], list[Detection]]) -> None:
    out, pictures, answers = packed
    with load(out) as cascade:
        assert [cascade.predict(picture) for picture in pictures] == answers
    with CascadeBundle.open(out) as bundle:
        report = verify_cascade(bundle)
    assert report.passed
    assert {check.name.partition(":")[0] for check in report.checks} == {
        f"1-{spec_of('detect').name}",
        f"2-{spec_of('landmarks').name}",
        "whole cascade",
    }
    assert report.measurements["golden boxes"] == sum(len(answer.boxes) for answer in answers[:2])
    with pytest.raises(HoldsCascadeError, match="takes a single network"):
        Bundle.open(out)
    with pytest.raises(InputError, match="own Specs, targets"):
        load(out, target="onnxruntime:cpu:float32")


def test_a_golden_picture_shows_nothing(packed: tuple[Path, list[Path], list[Detection]]) -> None:
    """So that a cascade that finds objects everywhere doesn't verify."""
    with CascadeBundle.open(packed[0]) as bundle:
        counts = [len(json.loads(bundle.file(each.answer).read_text())["boxes"]) for each in bundle.manifest.golden]
    assert len(counts) == 3, "two that were given"
    assert counts.count(0) == 1


def test_a_service_answers_pictures_with_it(packed: tuple[Path, list[Path], list[Detection]]) -> None:
    out, pictures, answers = packed
    chosen = dict.fromkeys(("spec", "target", "preprocessing"))
    executor = ModelExecutor.open({**chosen, "threads": 1, "options": {}, "verify": True, "model": str(out)})
    try:
        metadata = ModelMetadata.from_dict(executor.metadata())
        assert (metadata.task, metadata.inputs) == ("detect", ())
        assert metadata.bundle is not None, "its report is in the bundle of the whole"
        assert Path(metadata.bundle, "cascade.toml").is_file()
        sent = [*(picture.read_bytes() for picture in pictures), b"no picture"]
        items = [PictureItem(prepared=executor.prepare(data)) for data in sent]
        raw = PictureItem(prepared=executor.prepare(sent[0]), raw=True)
        executor.run_pictures([*items, raw])
    finally:
        executor.close()
    assert [item.row for item in items] == [*(answer.row() for answer in answers), None]
    assert items[-1].problem is not None
    assert raw.problem is not None
    assert "no input or output tensors" in raw.problem.message


def test_another_answer_of_the_whole_fails(unpacked: Path) -> None:
    def without_boxes(data: bytes) -> bytes:
        return json.dumps({"boxes": json.loads(data)["boxes"][:-1]}).encode()

    change(unpacked, "golden/1.json", without_boxes)
    with CascadeBundle.open(unpacked) as bundle:
        report = verify_cascade(bundle)
    assert [check.name for check in report.checks if not check.passed] == ["whole cascade: answers"]


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("cascade.toml", b"stages/1-", b"../stages/1-", "was changed|its networks are"),
        ("cascade.toml", b'model = "stages/1-', b'spec = "/etc/passwd"\nmodel = "stages/1-', "its networks are"),
        ("golden/1.json", b'"score"', b'"scores"', "not a cascade's answer"),
    ],
)
def test_what_reaches_outside_or_is_damaged_is_refused(
    name: str, old: bytes, new: bytes, reason: str, unpacked: Path
) -> None:
    change(unpacked, name, lambda data: data.replace(old, new))
    with pytest.raises(BundleError, match=reason), CascadeBundle.open(unpacked) as bundle:
        verify_cascade(bundle)
    if name == "cascade.toml":
        with pytest.raises(BundleError, match=reason):
            load(unpacked)


def test_every_file_counts(unpacked: Path) -> None:
    inner = next(unpacked.glob("stages/*/model/*"))
    inner.write_bytes(inner.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="expected"):
        load(unpacked)

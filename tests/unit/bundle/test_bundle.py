"""Bundles: what is written opens again, all of it or nothing is written, and nothing but a bundle is overwritten."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.minimal_bundle import SPEC, TENSOR, contents, edit, facts, small
from plimsoll.bundle import Bundle, archive, check_destination, tensor_file, write
from plimsoll.bundle.manifest import schema
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import BundleError
from plimsoll.spec.files import loads


@pytest.fixture(params=["bundle", "bundle.zip", "small.plimsoll.zip", "BUNDLE.ZIP"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def test_what_is_written_opens(out: Path) -> None:
    assert small(out) == out
    assert out.is_file() == (out.suffix.lower() == ".zip")
    with Bundle.open(out) as bundle:
        assert bundle.path == out
        assert bundle.name == "small"
        assert bundle.spec == loads(SPEC)
        assert bundle.target == REFERENCE_TARGET
        assert bundle.preprocessing == "reference"
        assert bundle.model.path.read_bytes() == b"no network"
        assert bundle.model.spec == bundle.spec
        assert bundle.model.format == "onnx"
        assert np.array_equal(bundle.tensor("golden/a.input.npy"), TENSOR)
        assert set(bundle.manifest.files) == set(contents())
        record = bundle.manifest.files["model/small.onnx"]
        assert (record.size, record.sha256) == (10, hashlib.sha256(b"no network").hexdigest())
    assert list(out.parent.iterdir()) == [out], "nothing is left beside it"


def test_a_zip_is_unpacked_until_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small(tmp_path / "bundle.zip")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    bundle = Bundle.open(path)
    assert bundle.folder.parent == temporary
    assert bundle.folder.stat().st_mode & 0o077 == 0, "nobody else can put files there"
    bundle.close()
    bundle.close()
    assert not list(temporary.iterdir())


def test_a_folder_is_opened_in_place_and_stays(tmp_path: Path) -> None:
    path = small(tmp_path / "bundle")
    with Bundle.open(path) as bundle:
        assert bundle.folder == path
    assert (path / "manifest.json").is_file()


def test_equal_contents_make_equal_archives_of_stored_entries(tmp_path: Path) -> None:
    first, second = small(tmp_path / "a.zip"), small(tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as opened:
        assert opened.namelist()[0] == "manifest.json"
        assert {entry.compress_type for entry in opened.infolist()} == {zipfile.ZIP_STORED}
        assert opened.testzip() is None


def test_a_zip_made_by_another_tool_opens(tmp_path: Path) -> None:
    folder = small(tmp_path / "bundle")
    with zipfile.ZipFile(tmp_path / "other.zip", "w", zipfile.ZIP_DEFLATED) as archive_:
        for path in sorted(folder.rglob("*")):  # folders too
            archive_.write(path, path.relative_to(folder))
    with Bundle.open(tmp_path / "other.zip") as bundle:
        assert bundle.name == "small"


def test_zip64_opens(tmp_path: Path) -> None:
    folder = small(tmp_path / "bundle")
    with zipfile.ZipFile(tmp_path / "large.zip", "w") as archive_:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            with archive_.open(path.relative_to(folder).as_posix(), "w", force_zip64=True) as sink:
                sink.write(path.read_bytes())
    with Bundle.open(tmp_path / "large.zip") as bundle:
        assert bundle.name == "small"


def test_zip64_end_record_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        zipfile, "ZIP_FILECOUNT_LIMIT", 1
    )  # so that zipfile writes the ZIP64 records of a large archive
    path = small(tmp_path / "bundle.zip")
    assert b"PK\x06\x06" in path.read_bytes()
    with Bundle.open(path) as bundle:
        assert bundle.name == "small"


def test_an_existing_destination_is_kept(out: Path) -> None:
    small(out)
    before = Bundle.open(out)
    before.close()
    changed = facts().model_copy(update={"name": "another"})
    with pytest.raises(BundleError, match=r"exists\n.*--force"):
        write(out, contents(), changed)
    with Bundle.open(out) as bundle:
        assert bundle.name == "small"
    write(out, contents(), changed, overwrite=True)
    with Bundle.open(out) as bundle:
        assert bundle.name == "another"
    assert list(out.parent.iterdir()) == [out]


def test_only_a_bundle_is_overwritten(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "child.jpg").write_bytes(b"dear")
    with pytest.raises(BundleError, match="is not a bundle, or holds more"):
        write(photos, contents(), facts(), overwrite=True)
    (photos / "manifest.json").write_text("{}")
    with pytest.raises(BundleError, match="is not a bundle"):
        write(photos, contents(), facts(), overwrite=True)
    bundle = small(tmp_path / "bundle")
    (bundle / "report.json").write_bytes(b"mine")
    with pytest.raises(BundleError, match="is not a bundle"):
        write(bundle, contents(), facts(), overwrite=True)
    assert (bundle / "report.json").read_bytes() == b"mine"
    assert (photos / "child.jpg").read_bytes() == b"dear"


def test_a_file_does_not_become_a_folder_nor_a_folder_a_file(tmp_path: Path) -> None:
    file, folder, link = tmp_path / "model.onnx", tmp_path / "folder.zip", tmp_path / "link"
    file.write_bytes(b"weights")
    folder.mkdir()
    link.symlink_to(small(tmp_path / "bundle"))
    for path in (file, folder, link):
        with pytest.raises(BundleError):
            check_destination(path, overwrite=True)
    assert file.read_bytes() == b"weights"


def test_an_empty_folder_may_become_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(BundleError, match="exists"):
        small(tmp_path / "bundle")
    write(tmp_path / "bundle", contents(), facts(), overwrite=True)
    Bundle.open(tmp_path / "bundle").close()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("../outside", b"", "leads out"),
        ("manifest.json", b"", "duplicate"),
        ("golden/A.JPG", b"", "same file"),
        ("golden/a.1.npy", np.array(["text"], dtype=object), "object can't be stored"),
        ("golden/a.1.npy", np.array(["text"]), "can't be stored"),
        ("golden/b.jpg", Path("does-not-exist.jpg"), "No such file"),
    ],
)
def test_nothing_is_written_where_something_fails(out: Path, name: str, content: Any, words: str) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        write(out, {**contents(), name: content}, facts())
    assert str(out) in str(caught.value)
    assert not list(out.parent.iterdir())


def test_a_failure_keeps_the_bundle_that_was_there(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(out)
    before = out.read_bytes() if out.is_file() else None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    places: list[tuple[Any, str]] = [(Path, "write_bytes")] + ([(archive, "write")] if out.is_file() else [])
    for path in places:
        with monkeypatch.context() as patch:
            patch.setattr(*path, full)
            with pytest.raises(BundleError, match="No space left"):
                write(out, contents(), facts(), overwrite=True)
        assert list(out.parent.iterdir()) == [out]
        assert before is None or out.read_bytes() == before
        Bundle.open(out).close()


def test_a_folder_that_can_not_be_put_in_place_leaves_the_old_one_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = small(tmp_path / "bundle")
    rename = Path.rename

    def stuck(self: Path, target: Path) -> Path:
        if target == out and not self.name.endswith(".old"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stuck)
    with pytest.raises(BundleError, match="Permission denied"):
        write(out, contents(), facts(), overwrite=True)
    assert list(tmp_path.iterdir()) == [out]
    Bundle.open(out).close()


def test_a_manifest_that_uses_what_is_not_there_is_not_written(out: Path) -> None:
    missing = {name: content for name, content in contents().items() if name != "golden/a.0.npy"}
    with pytest.raises(BundleError, match=r"refers to 'golden/a\.0\.npy', which is not among its files"):
        write(out, missing, facts())
    assert not list(out.parent.iterdir())


def test_folders_above_are_made(tmp_path: Path) -> None:
    Bundle.open(small(tmp_path / "a" / "b" / "bundle.zip")).close()


def test_the_error_about_a_folder_that_is_not_a_bundle_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no manifest.json\n.*plimsoll pack"):
        Bundle.open(tmp_path)


def test_the_schema_names_every_key(tmp_path: Path) -> None:
    written = json.loads((small(tmp_path / "bundle") / "manifest.json").read_text())
    assert written.keys() == schema()["properties"].keys()


tensors = [
    np.arange(6, dtype=np.float32).reshape(1, 2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    np.arange(6, dtype=">i4"),
    np.array(3.5, np.float16),
    np.zeros((0, 4), np.uint8),
    np.array([True, False]),
    np.arange(10, dtype=np.int64)[::2],
    np.array([np.nan, np.inf, -0.0], np.float32),
]


@pytest.mark.parametrize("tensor", tensors, ids=lambda tensor: f"{tensor.dtype}{tensor.shape}")
def test_tensors_come_back(tmp_path: Path, tensor: NDArray[Any]) -> None:
    path = tmp_path / "tensor.npy"
    path.write_bytes(tensor_file.dumps(tensor))
    read = tensor_file.read(path)
    assert (read.shape, read.dtype) == (tensor.shape, tensor.dtype.newbyteorder("<"))
    assert np.array_equal(read, tensor, equal_nan=tensor.dtype.kind == "f")
    assert not read.flags.writeable
    assert np.array_equal(np.load(path), tensor, equal_nan=tensor.dtype.kind == "f")


def test_a_bundle_of_version_1_is_read_as_it_was_packed(tmp_path: Path) -> None:
    folder = small(tmp_path / "bundle")

    def as_before(content: dict[str, Any]) -> None:
        content.pop("preprocessing")
        content.update(version=1, steps="fast")

    edit(folder, as_before)
    with Bundle.open(folder) as bundle:
        assert bundle.preprocessing == "fast"
        assert bundle.manifest.version == 2
    edit(folder, lambda content: content.update(steps="quick"))
    with pytest.raises(BundleError, match="preprocessing: allowed"):
        Bundle.open(folder)

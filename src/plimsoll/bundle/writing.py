"""Write a bundle, all of it or nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from plimsoll.bundle import archive, manifest, tensor_file
from plimsoll.bundle.archive import Limits
from plimsoll.bundle.bundle import errors_about, file_sizes
from plimsoll.bundle.manifest import FileRecord, Manifest
from plimsoll.errors import BundleError
from plimsoll.system import files

Content = Path | bytes | NDArray[Any]
"""What a file of a bundle is made of: a file to copy, bytes, or a tensor."""


def _is_zip(out: Path) -> bool:
    """Return whether a bundle of this name is written as one zip."""
    return out.suffix.lower() == ".zip"


def check_destination(out: Path, *, overwrite: bool) -> None:
    """Raise BundleError where a bundle can't be written to `out`.

    Only a bundle is ever overwritten: a mistyped folder of photos must not vanish.
    """
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise BundleError(f"{out} exists", "Choose another name, or overwrite it with --force (in Python: force=True).")
    folder = out.is_dir() and not out.is_symlink()
    if _is_zip(out) and not out.is_file():
        raise BundleError(f"{out} is not a file; a zipped bundle can't replace it")
    if not _is_zip(out) and not (folder and (_is_bundle(out) or not any(out.iterdir()))):
        raise BundleError(
            f"{out} exists and is not a bundle, or holds more than one, so it is not overwritten",
            "Choose another name, or remove it yourself.",
        )


def _is_bundle(folder: Path) -> bool:
    """Return whether a folder holds the files of a bundle and none of anybody else's."""
    try:
        return file_sizes(folder).keys() <= {manifest.FILE, *manifest.read(folder).files}
    except (OSError, BundleError):
        return False


def write(out: Path, contents: Mapping[str, Content], facts: Manifest, *, overwrite: bool = False) -> Path:
    """Write a bundle, all of it or nothing: a zip where `out` ends in .zip, else a folder. Returns `out`.

    `contents` are its files by name, the Spec and the model among them; `facts` is its manifest, whose `files` are
    filled in here. Raises BundleError for what can't be stored, and where `out` exists unless `overwrite`.
    """
    with errors_about(out):
        check_destination(out, overwrite=overwrite)
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = out.parent / f".{out.name}.{uuid.uuid4().hex[:12]}"
        try:
            staged.mkdir()
            _fill(staged, contents, facts)
            if _is_zip(out):
                _put_zip(staged, out)
            else:
                _put_folder(staged, out)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return out


def _fill(folder: Path, contents: Mapping[str, Content], facts: Manifest) -> None:
    archive.check_names((manifest.FILE, *contents))
    records: dict[str, FileRecord] = {}
    for name, content in contents.items():
        path = folder.joinpath(*name.split("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else tensor_file.dumps(content))
        records[name] = FileRecord(size=path.stat().st_size, sha256=files.sha256(path))
    complete = facts.model_copy(update={"files": records})
    complete.check()
    (folder / manifest.FILE).write_bytes(manifest.dumps(complete))


def _put_zip(staged: Path, out: Path) -> None:
    sizes = file_sizes(staged)
    if sum(sizes.values()) > Limits.total_bytes:
        raise BundleError(
            f"{sum(sizes.values()):,} bytes; a zipped bundle holds at most {Limits.total_bytes:,}",
            "Write a folder instead: a name without .zip.",
        )
    ordered = [manifest.FILE, *sorted(sizes.keys() - {manifest.FILE})]
    with files.replacing(out) as temporary, temporary.open("xb") as stream:
        archive.write(stream, staged, ordered)


def _put_folder(staged: Path, out: Path) -> None:
    if not out.is_dir():
        staged.rename(out)
        return
    old = staged.with_name(f"{staged.name}.old")
    out.rename(old)
    try:
        staged.rename(out)
    except OSError:
        with contextlib.suppress(OSError):
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)

"""`Bundle`: a bundle that was opened, every file of it checked.

Opening checks that exactly the listed files exist, with their sizes and hashes. That detects damage, not forgery:
whoever can change a file can change the manifest too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, Self

from numpy.typing import NDArray

from plimsoll.bundle import archive, manifest, tensor_file
from plimsoll.bundle.archive import Limits
from plimsoll.bundle.manifest import AnyManifest, CascadeManifest, FileRecord, Manifest
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BundleError, HoldsCascadeError, SpecError
from plimsoll.spec import Spec
from plimsoll.spec import files as spec_files
from plimsoll.system import files
from plimsoll.system.files import sha256


class _OpenedFiles:
    """An opened bundle of either kind, every file checked."""

    def __init__(self, path: Path, folder: Path, unpacked: TemporaryDirectory[str] | None = None) -> None:
        self.path = path
        """The folder or .zip that was opened."""
        self.folder = folder
        """The folder of its files; a temporary one for a .zip."""
        self._unpacked = unpacked

    @classmethod
    def open(cls, path: Path, limits: Limits | None = None) -> Self:
        """Open a folder or a zip and check every file in it; raises BundleError with the file and what is wrong."""
        with errors_about(path):
            if path.is_dir():
                return cls(path, path)
            if not path.is_file():
                raise BundleError("there is no such bundle" if not path.exists() else "neither a folder nor a file")
            unpacked = TemporaryDirectory(prefix="plimsoll-bundle-")
            try:
                archive.unpack(path, Path(unpacked.name), limits or Limits())
                return cls(path, Path(unpacked.name), unpacked)
            except BaseException:
                unpacked.cleanup()
                raise

    def file(self, name: str) -> Path:
        """Return the path of a file by its name in the bundle."""
        return self.folder.joinpath(*name.split("/"))

    def close(self) -> None:
        """Remove the unpacked files; may be called twice."""
        if self._unpacked is not None:
            self._unpacked.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CascadeBundle(_OpenedFiles):
    """An opened bundle that holds a cascade, every file checked. Use it in a `with` block or close it: a zip is
    unpacked until then."""

    def __init__(self, path: Path, folder: Path, unpacked: TemporaryDirectory[str] | None = None) -> None:
        super().__init__(path, folder, unpacked)
        content = _check_files(folder)
        if isinstance(content, Manifest):
            raise BundleError("it holds a single network, not a cascade")
        self.manifest: CascadeManifest = content


class Bundle(_OpenedFiles):
    """An opened bundle, every file checked. Use it in a `with` block or close it: a zip is unpacked until then."""

    def __init__(self, path: Path, folder: Path, unpacked: TemporaryDirectory[str] | None = None) -> None:
        super().__init__(path, folder, unpacked)
        content = _check_files(folder)
        if isinstance(content, CascadeManifest):
            raise HoldsCascadeError(
                "it holds a cascade of networks, and this takes a single network",
                f"Its networks are bundles of their own, in the folders {', '.join(content.stages)}.",
            )
        self.manifest: Manifest = content
        self.spec: Spec = _read_spec(folder, self.manifest.spec)

    @property
    def name(self) -> str:
        """The short name of the network."""
        return self.manifest.name

    @property
    def model(self) -> Model:
        """The network with its Spec."""
        files = self.manifest.model
        return Model(
            self.file(files.path), files.format, self.spec, files=tuple(self.file(name) for name in files.files)
        )

    @property
    def target(self) -> Target:
        """The target that it was packed for."""
        return Target.parse(self.manifest.target)

    @property
    def preprocessing(self) -> Literal["reference", "fast", "scaled"]:
        """The preprocessing that it was packed with."""
        return self.manifest.preprocessing

    @property
    def scaled_sides(self) -> tuple[int, int] | None:
        """The shorter sides, in pixels, of the pictures on which its scaled preprocessing was proven: the shortest and
        the longest."""
        return self.manifest.scaled_sides

    def tensor(self, name: str) -> NDArray[Any]:
        """Read one of the golden tensors; raises BundleError."""
        with errors_about(self.path):
            return tensor_file.read(self.file(name))


def open_any(path: Path) -> Bundle | CascadeBundle:
    """Open a bundle of either kind; raises BundleError."""
    try:
        return Bundle.open(path)
    except HoldsCascadeError:
        return CascadeBundle.open(path)


@contextmanager
def errors_about(path: Path) -> Iterator[None]:
    """Name the bundle in every BundleError, and turn an OSError into one."""
    try:
        yield
    except BundleError as error:
        raise type(error)(f"{path}: {error.message}", error.hint) from error
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from error


def _check_files(folder: Path) -> AnyManifest:
    """Return the manifest after checking that the folder holds the listed files, byte for byte, and no others."""
    sizes = file_sizes(folder)
    if manifest.FILE not in sizes:
        raise BundleError(f"it has no {manifest.FILE}", "Is this a bundle? `plimsoll pack` makes one.")
    content = manifest.read(folder)
    missing = sorted(content.files.keys() - sizes.keys())
    unknown = sorted(sizes.keys() - content.files.keys() - {manifest.FILE})
    if missing:
        raise BundleError(f"missing: {_few(missing)}", "Copy or download it again.")
    if unknown:
        raise BundleError(f"not in its manifest: {_few(unknown)}", "Remove the files that do not belong to the bundle.")
    for name, record in content.files.items():
        if sizes[name] != record.size:
            raise BundleError(
                f"{name}: expected {record.size:,} bytes, found {sizes[name]:,}", "Copy or download it again."
            )
        digest = sha256(folder.joinpath(*name.split("/")))
        if digest != record.sha256:
            raise BundleError(
                f"{name}: expected SHA-256 {record.sha256}, found {digest}",
                "It was damaged or changed. Copy or download it again.",
            )
    return content


def file_sizes(folder: Path, below: str = "") -> dict[str, int]:
    """Return the size of every file by its name with /; raises BundleError for links, pipes, devices and too many
    files."""
    sizes: dict[str, int] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name = below + entry.name
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                archive.check_names([name])
                sizes |= file_sizes(folder / entry.name, f"{name}/")
            elif stat.S_ISREG(status.st_mode):
                sizes[name] = status.st_size
            else:
                kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
                raise BundleError(f"{name!r} is {kind}", "A bundle holds plain files only.")
            if len(sizes) > Limits.entries:
                raise BundleError(f"more than {Limits.entries:,} files", "Is this a bundle?")
    return sizes


def _read_spec(folder: Path, name: str) -> Spec:
    path = folder.joinpath(*name.split("/"))
    try:
        return spec_files.read(path)
    except SpecError as error:
        raise BundleError(error.message.replace(str(path), name), error.hint) from error


def _few(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


Content = Path | bytes | NDArray[Any]
"""The content of a file in a bundle: a file to copy, bytes, or a tensor."""


def _is_zip(out: Path) -> bool:
    """Tell whether a bundle of this name is written as one zip."""
    return out.suffix.lower() == ".zip"


def check_destination(out: Path, *, overwrite: bool) -> None:
    """Raise BundleError if a bundle can't be written to `out`.

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
    """Tell whether a folder holds the files of a bundle and no others."""
    try:
        return file_sizes(folder).keys() <= {manifest.FILE, *manifest.read(folder).files}
    except (OSError, BundleError):
        return False


def write(out: Path, contents: Mapping[str, Content], facts: AnyManifest, *, overwrite: bool = False) -> Path:
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


def _fill(folder: Path, contents: Mapping[str, Content], facts: AnyManifest) -> None:
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

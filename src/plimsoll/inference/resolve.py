"""`open_model`: what MODEL means on the command line and in `plimsoll.load`: a zoo name, a bundle, or a model file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from plimsoll import backends, importers, zoo
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import ModelError, PlimsollError, SpecError
from plimsoll.importers.base import Converter
from plimsoll.preprocessing import Preprocessing
from plimsoll.spec import Spec
from plimsoll.spec import files as spec_files
from plimsoll.zoo import fetch

if TYPE_CHECKING:
    from plimsoll.bundle import Bundle


@dataclass
class ResolvedModel:
    """A model and how to run it. Use it in a `with` block: a zipped bundle is unpacked until its end."""

    model: Model
    target: Target = REFERENCE_TARGET
    preprocessing: Preprocessing = "reference"
    origin: Mapping[str, Any] | None = None
    """Licence, authors and source, where known."""
    bundle: Bundle | None = None

    def close(self) -> None:
        """Remove what a zipped bundle was unpacked to."""
        if self.bundle is not None:
            self.bundle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_model(
    reference: str,
    spec: Path | None = None,
    *,
    target: Target | None = None,
    preprocessing: Preprocessing | None = None,
    import_folder: Path | None = None,
) -> ResolvedModel:
    """Open a zoo name (its weights are fetched where they are missing), a bundle (folder or .zip) or a model file.

    `spec` is the Spec of a model file; `target` and `preprocessing` replace what the bundle says. A model that has to
    become ONNX first is converted in `import_folder`, and refused without one. Raises ModelError, BundleError or
    SpecError.
    """
    given = spec_files.read(spec) if spec is not None else None
    resolved = _resolve(reference, given, import_folder)
    resolved.target = target or resolved.target
    resolved.preprocessing = preprocessing or resolved.preprocessing
    return resolved


def _resolve(reference: str, given: Spec | None, import_folder: Path | None) -> ResolvedModel:
    if reference in zoo.names():
        card, file = zoo.card(reference), fetch.fetch(reference)
        # The card pins the file by its hash, and card and file were checked together: only another Spec needs the
        # reader's checks.
        model = importers.read(file, given) if given is not None else Model(file, card.source.format, card.spec)
        return ResolvedModel(model, origin=card.origin)
    path = Path(reference)
    if _is_bundle(path):
        return _open_bundle(path, given)
    if import_folder is not None and _has_converter(path):
        from plimsoll.importers.conversion import import_model  # needed by few calls

        return ResolvedModel(import_model(path, import_folder, spec=given).model)
    if not path.exists() and not _has_converter(path):
        raise ModelError(
            f"'{reference}' is neither a file or folder nor a network of the zoo{_near(reference)}",
            f"The zoo has: {', '.join(zoo.names())}.",
        )
    model = importers.read(path, given)
    own = backends.for_format(model.format)
    return ResolvedModel(model, own.default_target or REFERENCE_TARGET) if own is not None else ResolvedModel(model)


def _is_bundle(path: Path) -> bool:
    """Tell whether a path is a .zip, or a folder that no importer knows."""
    return (path.suffix.lower() == ".zip" and path.exists()) or (path.is_dir() and not _has_converter(path))


def _has_converter(path: Path) -> bool:
    """Tell whether a path, which may be the beginning of a checkpoint's names, means a model that becomes ONNX
    first."""
    try:
        return isinstance(importers.format_of(path), Converter)
    except ModelError:
        return False


def _open_bundle(path: Path, given: Spec | None) -> ResolvedModel:
    from plimsoll.bundle import Bundle  # Most calls open no bundle, and start sooner without it.

    bundle = Bundle.open(path)
    if given is not None:
        bundle.close()
        raise SpecError(
            f"{path}: a bundle has its own Spec",
            "Omit --spec; to use its model with another Spec, unpack the bundle.",
        )
    try:
        # The hashes prove that this is the file that was packed, not that it is harmless: its reader checks that.
        model = importers.read(bundle.model.path, bundle.spec)
    except PlimsollError:
        bundle.close()
        raise
    return ResolvedModel(model, bundle.target, bundle.preprocessing, bundle.manifest.origin, bundle)


def _near(reference: str) -> str:
    near = difflib.get_close_matches(reference, zoo.names(), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""

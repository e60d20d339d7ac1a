"""Write the web package of a cascade: each network with its own Spec and golden pictures, how they feed each other, and
golden answers of the whole."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from plimsoll.bundle.golden import tolerance_for
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import ModelError
from plimsoll.export.web import golden
from plimsoll.export.web.folder import checked, describe, new_package, write_json, write_network, write_site
from plimsoll.spec import Spec

_log = logging.getLogger(__name__)
_STAGE_PICTURES = 2
"""Golden pictures of a network: each tensor stored is a download."""


class _Answer(Protocol):
    def row(self) -> dict[str, Any]: ...


class _Network(Protocol):
    model: Model
    target: Target
    spec: Spec


class _Stages(Protocol):
    @property
    def spec(self) -> BaseModel: ...


class Cascade(Protocol):
    """What `plimsoll.load` gives of a cascade."""

    spec: Spec

    @property
    def stages(self) -> _Stages:
        """How its networks feed each other."""

    @property
    def networks(self) -> Sequence[_Network]:
        """The network of each stage."""

    @property
    def origin(self) -> Mapping[str, Any]:
        """Whose the networks are."""

    def predict(self, picture: Path, /) -> _Answer:
        """Answer a picture."""

    def write_inputs(self, picture: Path, folder: Path, name: str, /) -> tuple[list[list[str]], list[float]]:
        """Write what each network reads of a picture; return the files of each."""


def package_cascade(
    cascade: Cascade, target: Target, out: Path, *, images: Sequence[Path] = (), force: bool = False
) -> Path:
    """Write the web package of a cascade into the folder `out` and return it.

    Its networks have to be ONNX, in their target's precision: web:wasm:float32 takes cascades of float32 networks
    alone, web:wasm:int8 those with at least one in int8, as `plimsoll ship` makes them. `images` (at most 16) replace
    the golden pictures, and should show what the cascade finds. Open the cascade with reference preprocessing, which is
    what a browser computes. Raises as `package` does.
    """
    spec = cascade.spec
    precisions = {network.target.precision for network in cascade.networks}
    expected = "int8" if "int8" in precisions else "float32"
    if target.precision != expected:
        raise ModelError(
            f"{spec.name}: {target} doesn't fit, its networks are in {', '.join(sorted(precisions))}",
            f"Choose web:wasm:{expected}; `plimsoll ship` finds the networks that int8 serves.",
        )
    targets = [Target("web", "wasm", network.target.precision) for network in cascade.networks]
    specs = [checked(network.model, own) for network, own in zip(cascade.networks, targets, strict=True)]
    described = cascade.stages.spec.model_dump(mode="json")
    tolerances = [tolerance_for(own, each) for own, each in zip(specs, targets, strict=True)]
    with new_package(out, force=force) as folder, tempfile.TemporaryDirectory(prefix="plimsoll-web-") as name:
        runtime, inputs = write_site(folder), Path(name)
        limit = max(tolerance.answers or tolerance.network for tolerance in tolerances)
        given = _write_golden(folder, cascade, golden.chosen(images, spec.input.decode), inputs, limit)
        stages, size = [], 0
        for number, (network, own) in enumerate(zip(cascade.networks, specs, strict=True)):
            part = folder / "stages" / f"{number + 1}-{own.name}"
            part.mkdir(parents=True)
            facts = write_network(part, network.model)
            write_json(part / "model.json", {"name": own.name, "target": str(targets[number]), "model": facts})
            write_json(part / "spec.json", own.model_dump(mode="json"))
            golden.write(part, network.model, targets[number], own, given[number])
            size += facts["bytes"] + sum(file["bytes"] for file in facts["external"])
            tensor = own.input.tensor_spec
            parts = {key: value for key, value in described["stages"][number].items() if key not in ("model", "spec")}
            stages.append({"folder": f"stages/{part.name}", "size": [tensor.width, tensor.height], **parts})
        whole = {"model": {"bytes": size}, "runtime": runtime, "labels": described["labels"], "stages": stages}
        describe(folder, spec, target, {**whole, "origin": dict(cascade.origin)})
    return out


def _write_golden(
    folder: Path, cascade: Cascade, pictures: Sequence[tuple[str, bytes]], inputs: Path, limit: float
) -> list[list[Path]]:
    """Write the golden pictures and what the whole answers to them; return pictures for each network, of what it read
    of them."""
    own = folder / golden.FOLDER
    own.mkdir()
    read: list[list[Path]] = [[] for _ in cascade.networks]
    entries, boxes = [], 0
    for number, (name, data) in enumerate(pictures, 1):
        picture = golden.store_picture(own, golden.stem(number, name), data)
        row = cascade.predict(folder / picture).row()
        boxes += len(row["boxes"])
        entries.append({"picture": picture, "row": row})
        for files, more in zip(read, cascade.write_inputs(folder / picture, inputs, str(number))[0], strict=True):
            files += map(Path, more)
    if not boxes:
        _log.warning(
            "the cascade finds nothing in the golden pictures: the page's check compares no answer of the whole"
        )
    write_json(folder / "golden.json", {"tolerance": limit, "pictures": entries})
    # What a network reads is stored as PNG; a network that refuses PNG, or gets nothing to read, has Plimsoll's own.
    return [
        files[:_STAGE_PICTURES] if "png" in network.spec.input.decode.formats else []
        for files, network in zip(read, cascade.networks, strict=True)
    ]

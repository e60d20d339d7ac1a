"""A cascade in a bundle: a bundle for each stage, how they feed each other, and golden answers of the whole.

```
manifest.json            what there is, with the size and SHA-256 of every other file
cascade.toml             how the networks feed each other
stages/1-NAME/…          the first stage's bundle, with its own manifest and golden vectors
golden/1.jpg             a picture
golden/1.json            the boxes that the whole cascade gave
```
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from plimsoll.bundle import Bundle, CascadeBundle, Content, cascade, check_destination, open_any, write
from plimsoll.bundle.bundle import errors_about, file_sizes
from plimsoll.bundle.packing import pack
from plimsoll.errors import BundleError, PlimsollError
from plimsoll.inference.cascade import CascadePredictor
from plimsoll.inference.cascade_spec import CascadeSpec, read_cascade, write_cascade
from plimsoll.inference.predictor import ResolvedModel, cascade_file, is_bundle
from plimsoll.preprocessing import Preprocessing

_CASCADE = "cascade.toml"


def pack_cascade(  # noqa: PLR0913 - what to pack, and the options of `pack`
    spec: CascadeSpec,
    stages: Sequence[ResolvedModel],
    out: Path,
    *,
    images: Sequence[Path] = (),
    origin: Mapping[str, Any] | None = None,
    extras: Mapping[str, bytes] | None = None,
    force: bool = False,
) -> Path:
    """Write a bundle of a cascade, each network with its target, its Spec and its golden vectors; returns `out`.

    `images` (at most 16) replace Plimsoll's golden pictures, `extras` are further files by their names. Raises what
    `plimsoll.bundle.packing.pack` raises.
    """
    check_destination(out, overwrite=force)
    with tempfile.TemporaryDirectory(prefix="plimsoll-cascade-") as folder, ExitStack() as stack:
        contents, bundles = dict[str, Content](extras or {}), dict[str, Bundle]()
        for number, stage in enumerate(stages, 1):
            name = f"stages/{number}-{stage.model.require_spec().name}"
            packed = pack(
                stage.model,
                stage.target,
                Path(folder, name),
                preprocessing=stage.preprocessing,
                scaled_sides=stage.scaled_sides,
                images=images,
                origin=stage.origin,
            )
            contents |= {f"{name}/{file}": packed / file for file in file_sizes(packed)}
            bundles[name] = stack.enter_context(Bundle.open(packed))
        inside = zip(spec.stages, bundles, strict=True)
        renamed = tuple(stage.model_copy(update={"model": name, "spec": None}) for stage, name in inside)
        file = Path(folder, _CASCADE)
        file.write_text(write_cascade(spec.model_copy(update={"stages": renamed})), encoding="utf-8")
        contents[_CASCADE] = file.read_bytes()
        with CascadePredictor.open(file) as predictor:
            step, confidence = predictor.spec.input.decode, predictor.task.threshold or 0.0
            golden, answers = cascade.golden_answers(images, step, predictor.answer_from, confidence)
        facts = cascade.facts(spec.name, bundles, golden, origin)
        return write(out, contents | answers, facts, overwrite=force)


def open_cascade(path: Path, preprocessing: Preprocessing | None = None, cores: int | None = None) -> CascadePredictor:
    """Open a bundle that holds a cascade for answering pictures; raises BundleError or ModelError."""
    bundle = CascadeBundle.open(path)
    try:
        _check_inside(bundle)
        predictor = CascadePredictor.open(bundle.file(_CASCADE), preprocessing, cores)
    except PlimsollError:
        bundle.close()
        raise
    predictor.folder = bundle.folder
    predictor.at_close.callback(bundle.close)
    return predictor


def open_whole(
    reference: str, cores: int | None = None, preprocessing: Preprocessing | None = None
) -> CascadePredictor | None:
    """Open a cascade: of the zoo, a TOML file, or a bundle that holds one; None for anything else. Raises as `load`
    does."""
    if (file := cascade_file(reference)) is not None:
        return CascadePredictor.open(file, preprocessing, cores)
    path = Path(reference)
    return open_cascade(path, preprocessing, cores) if _holds_cascade(path) else None


def _holds_cascade(path: Path) -> bool:
    if not is_bundle(path):
        return False
    try:
        with open_any(path) as bundle:
            return isinstance(bundle, CascadeBundle)
    except BundleError:  # Whoever opens it says what is wrong.
        return False


def _check_inside(bundle: CascadeBundle) -> CascadeSpec:
    """Return the cascade of a bundle; raises BundleError where it names anything outside of the bundle."""
    with errors_about(bundle.path):
        spec = read_cascade(bundle.file(_CASCADE))
        named = tuple(stage.model for stage in spec.stages)
        if named != bundle.manifest.stages or any(stage.spec is not None for stage in spec.stages):
            raise BundleError(
                f"{_CASCADE} names {', '.join(map(repr, named))}; its networks are"
                f" {', '.join(map(repr, bundle.manifest.stages))}",
                "It was changed. Copy or download it again.",
            )
    return spec


def verify_cascade(bundle: CascadeBundle) -> cascade.Verification:
    """Run the golden pictures of all networks and of the whole on this machine; raises what
    `plimsoll.bundle.golden.verify` raises."""
    _check_inside(bundle)
    with CascadePredictor.open(bundle.file(_CASCADE)) as predictor:
        return cascade.verify(bundle, predictor.answer_from, predictor.task.threshold or 0.0)

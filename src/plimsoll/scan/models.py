"""Which models answer: what a table says of them, and the hash of all that their answers depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from plimsoll.inference.predictor import Predictor
from plimsoll.system import files


class ScanModel(BaseModel):
    """A model of a scan, as the manifest has it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    """Its Spec's name: the column `model`."""
    task: str
    target: str
    preprocessing: str
    model_sha256: str
    """Of the network's files; of a cascade, of all networks'."""
    spec_sha256: str
    bundle_sha256: str
    """Of all that the answers depend on: networks, Specs, targets, preprocessing, options of the runtime, threshold.
    It is the same for a bundle and for its parts given one by one."""
    positive: str | None = None
    """The label that `score` is of; None where it is that of the best label, or there is none."""
    bands: tuple[tuple[str, float | None], ...] = ()
    """How people read the score: a label, and the score below which it ends."""

    @classmethod
    def of(cls, predictor: Predictor, threshold: float | None) -> Self:
        """Return what is to be known of an opened model; reads its files."""
        networks = [_network(network) for network in predictor.networks]
        stages = getattr(predictor, "stages", None)
        whole: dict[str, Any] = {
            "networks": networks,
            "cascade": None if stages is None else stages.spec.model_dump(mode="json"),
            "options": predictor.options,
            "threshold": threshold,
        }
        return cls(
            name=predictor.spec.name,
            task=predictor.spec.output.task,
            target=str(predictor.target),
            preprocessing=predictor.preprocessor.preprocessing,
            model_sha256=_joined([network["files"] for network in networks]),
            spec_sha256=_joined([network["spec"] for network in networks]),
            bundle_sha256=hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest(),
            positive=getattr(predictor.spec.output, "positive", None),
            bands=tuple((band.label, band.below) for band in getattr(predictor.spec.output, "bands", ())),
        )


def _network(predictor: Predictor) -> Mapping[str, Any]:
    spec = json.dumps(predictor.spec.model_dump(mode="json"), sort_keys=True)
    sides = predictor.preprocessor.scaled_sides
    return {
        "files": _joined([files.sha256(file) for file in predictor.model.files or (predictor.model.path,)]),
        "spec": hashlib.sha256(spec.encode()).hexdigest(),
        "target": str(predictor.target),
        "preprocessing": predictor.preprocessor.preprocessing,
        "scaled_sides": list(sides) if sides is not None else None,
    }


def _joined(hashes: list[str]) -> str:
    """Return the only hash, or the hash of several."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()

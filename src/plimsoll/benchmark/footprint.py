"""What a deployment costs beside time: bytes on disk, time to load, peak memory. Measured in a process of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from plimsoll.backends.base import ThreadPlan
from plimsoll.benchmark.measure import SystemUnderTest
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.spec import Spec
from plimsoll.system import host, subprocesses

TIMEOUT_S = 120.0
PICTURES = 64
"""How many pictures the process answers: more than are in progress at once on a small machine, so that the peak is
reached."""


@dataclass(frozen=True)
class Footprint:
    """What one system costs beside its time to answer."""

    disk_bytes: int
    """The network's files."""
    load_seconds: float
    """Importing the runtime, building and loading the network, in a fresh process."""
    peak_bytes: float
    """The largest resident memory while it loads and answers pictures; NaN where the operating system doesn't say."""
    threads: ThreadPlan
    """How the cores are shared when it answers many pictures."""


def footprint(system: SystemUnderTest, images: Sequence[Path], timeout_s: float = TIMEOUT_S) -> Footprint:
    """Load the system in a new process and answer 64 pictures there; raises JobError with the reason if that fails."""
    predictor = system.predictor
    model = predictor.model
    payload = {
        "path": str(model.path.resolve()),
        "format": model.format,
        "files": [str(file.resolve()) for file in model.files],
        "spec": predictor.spec.model_dump(mode="json", exclude_unset=True),
        "target": str(predictor.target),
        "preprocessing": predictor.preprocessor.preprocessing,
        "options": predictor.options,
        "cores": predictor.cores,
        "images": [str(images[index % len(images)].resolve()) for index in range(PICTURES)],
    }
    with TemporaryDirectory(prefix="plimsoll-footprint-") as folder:
        result = subprocesses.run_job(__name__, payload, Path(folder), subprocesses.ProcessLimits(timeout_s))
    peak = math.nan if result["peak_bytes"] is None else float(result["peak_bytes"])
    return Footprint(model.size, result["load_seconds"], peak, ThreadPlan.of("throughput", predictor.cores))


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Load the model and answer the pictures of the payload; return `{"load_seconds": …, "peak_bytes": …}` of this
    process."""
    model = Model(
        Path(payload["path"]),
        payload["format"],
        Spec.model_validate(payload["spec"]),
        files=tuple(map(Path, payload["files"])),
    )
    opened = ResolvedModel(model, Target.parse(payload["target"]), payload["preprocessing"])
    with Predictor(opened, options=payload["options"], cores=payload["cores"]) as predictor:
        started = time.perf_counter()
        predictor.runner("throughput")
        load = time.perf_counter() - started
        for _ in predictor.predict_many(payload["images"]):
            pass
    return {"load_seconds": load, "peak_bytes": host.peak_bytes()}

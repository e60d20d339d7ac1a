"""The pieces of a `ship` that run in a process of their own: answer, calibrate, try a variant, race the finalists, look into layers.

Each is a function from plain data to plain data; `run` is what `plimsoll.isolate` calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll import machine, quantize
from plimsoll.benchmark import Candidate, Outcome, Scenario, SingleStream, bench, profile
from plimsoll.benchmark.scenarios import Offline
from plimsoll.errors import ImageError
from plimsoll.image import InputPlan
from plimsoll.model import Model
from plimsoll.opener import Opened
from plimsoll.predict import Predictor
from plimsoll.prove.layers import layers
from plimsoll.ship import make
from plimsoll.ship.variant import Variant
from plimsoll.spec import files as spec_files
from plimsoll.target import Target

_BATCH = 8
_LAYER_PICTURES = 8


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Do one piece of work."""
    work: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "answer": answer,
        "calibrate": calibrate,
        "try": try_variant,
        "race": race,
        "layers": compare_layers,
    }
    return work[payload["do"]](payload)


def answer(payload: dict[str, Any]) -> dict[str, Any]:
    """Answer pictures with one variant: `{"rows": [{path, label, score, scores, error}]}`."""
    with _predictor(payload, _variant(payload["variant"])) as predictor:
        return {"rows": _rows(predictor, payload["pictures"])}


def calibrate(payload: dict[str, Any]) -> dict[str, Any]:
    """Run the calibration pictures through the network once and write one table for each calibrator: `{"tables": {calibrator: file}}`."""
    model = _model(payload)
    plan = InputPlan(model.contract().input, "reference")
    statistics = quantize.collect(model, _batches(plan, payload["pictures"]), cores=payload["cores"])
    folder = Path(payload["built"]) / "calibration"
    folder.mkdir(parents=True, exist_ok=True)
    tables = {method: folder / f"{method}.json" for method in payload["calibrators"]}
    for method, file in tables.items():
        statistics.calibration(method).write(file)
    return {"tables": {method: str(file) for method, file in tables.items()}}


def try_variant(payload: dict[str, Any]) -> dict[str, Any]:
    """Build a variant, answer the selection pictures with it, and measure it in turns with the reference."""
    variant = _variant(payload["variant"])
    started = time.perf_counter()
    with _predictor(payload, variant) as predictor:
        built = time.perf_counter() - started
        started = time.perf_counter()
        predictor.runner("throughput")
        loaded = time.perf_counter() - started
        rows = _rows(predictor, payload["pictures"])
        peak = machine.peak_bytes()
        profiled = profile(Candidate(variant.key, predictor), payload["pictures"], min_seconds=payload["seconds"] / 8)
        with _predictor(payload, _variant(payload["reference"])) as reference:
            outcome = bench(
                [Candidate("reference", reference), Candidate(variant.key, predictor)],
                payload["pictures"],
                scenario=_scenario(payload),
                min_seconds=payload["seconds"],
            )
        return {
            "rows": rows,
            "built_seconds": built,
            "load_seconds": loaded,
            "peak_bytes": peak,
            "size_bytes": predictor.model.size,
            "stages": {stage.name: 1e3 * stage.seconds for stage in profiled.stages},
            "front_rate": profiled.front_rate,
            "speed": _speeds(outcome)[variant.key],
            "warnings": outcome.warnings,
        }


def race(payload: dict[str, Any]) -> dict[str, Any]:
    """Measure the reference and the finalists against one another, in turns: `{"speeds": {key: speed}, "warnings": […]}`."""
    with ExitStack() as stack:
        candidates = [Candidate(key, stack.enter_context(_predictor(payload, _variant(variant)))) for key, variant in payload["variants"].items()]
        outcome = bench(candidates, payload["pictures"], scenario=_scenario(payload), min_seconds=payload["seconds"])
        return {"speeds": _speeds(outcome), "warnings": outcome.warnings}


def compare_layers(payload: dict[str, Any]) -> dict[str, Any]:
    """Compare every value that a variant's unfolded network shares with the reference's: `{"layers": [{name, op, snr_db}]}`."""
    model = _model(payload)
    variant = _variant(payload["variant"] | {"folded": False})
    other = make.network(model, variant, Path(payload["built"]), _table(payload, variant))
    plan = InputPlan(model.contract().input, "reference")
    pairs = ((batch, batch) for batch in _batches(plan, payload["pictures"][:_LAYER_PICTURES]))
    return {"layers": [{"name": one.name, "op": one.operator, "snr_db": one.snr_db} for one in layers(model, other, pairs)]}


def _speeds(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Return for every candidate but the first how many times as fast it was, and its answers a second."""
    rates = {one.name: one for one in outcome.measured}
    baseline = outcome.measured[0].rate.median
    return {
        one.candidate: {
            "ratio": one.speed.median,
            "low": one.speed.low,
            "high": one.speed.high,
            "verdict": one.verdict,
            "images_per_second": rates[one.candidate].rate.median,
            "reference_images_per_second": baseline,
        }
        for one in outcome.comparisons
    }


def _scenario(payload: dict[str, Any]) -> Scenario:
    return SingleStream() if payload["objective"] == "latency" else Offline()


def _model(payload: dict[str, Any]) -> Model:
    model = payload["model"]
    spec = spec_files.loads(model["spec"], "the Spec of the work folder")
    return Model(Path(model["path"]), model["format"], spec, files=tuple(Path(file) for file in model["files"]))


def _variant(data: dict[str, Any]) -> Variant:
    return Variant(data["steps"], data["folded"], Target.parse(data["target"]), data["calibrator"])


def _table(payload: dict[str, Any], variant: Variant) -> Path | None:
    return Path(payload["tables"][variant.calibrator]) if variant.calibrator is not None else None


def _predictor(payload: dict[str, Any], variant: Variant) -> Predictor:
    made = make.network(_model(payload), variant, Path(payload["built"]), _table(payload, variant))
    return Predictor(Opened(made, variant.target, variant.steps), cores=payload["cores"])


def _rows(predictor: Predictor, pictures: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for prediction in predictor.predict_many(pictures):
        answered = prediction.answer.row() if prediction.answer is not None else predictor.task.empty_row()
        rows.append({"path": prediction.path, **answered, "error": prediction.error})
    return rows


def _batches(plan: InputPlan, pictures: Sequence[str]) -> Iterator[NDArray[Any]]:
    """Yield batches of reference tensors; a picture that can't be read calibrates nothing."""
    gathered: list[NDArray[Any]] = []
    for picture in pictures:
        try:
            gathered.append(plan(Path(picture)))
        except ImageError:
            continue
        if len(gathered) == _BATCH:
            yield np.stack(gathered)
            gathered = []
    if gathered:
        yield np.stack(gathered)

"""The pieces of a `ship` that run in a process of their own: answer, try a candidate, race the finalists, look into
layers.

What candidates are made from (`plimsoll.ship.preparation`) is prepared in processes too.

Each is a function from plain data to plain data; `run` is what `plimsoll.system.subprocesses` calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from plimsoll import backends
from plimsoll.benchmark import Outcome, Scenario, SingleStream, SystemUnderTest, bench, profile
from plimsoll.benchmark.scenarios import Offline
from plimsoll.inference.predictor import Predictor
from plimsoll.inference.resolve import ResolvedModel
from plimsoll.preprocessing import Preprocessor
from plimsoll.prove import compare_layers as compare_layers_of_models
from plimsoll.ship import build, preparation
from plimsoll.ship.artifacts import Artifacts
from plimsoll.ship.candidate import Candidate
from plimsoll.ship.pictures import batches
from plimsoll.system import host

_LAYER_PICTURES = 8
_PROFILE_TURNS = 3
_SIDES = {"reference": "reference", "winner": "candidate"}
"""Name in the result → name in the payload."""


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Do one piece of work."""
    work: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "answer": answer,
        "try": try_candidate,
        "race": race,
        "profile": profile_both,
        "layers": compare_layers,
        **preparation.PIECES,
    }
    return work[payload["do"]](payload)


def answer(payload: dict[str, Any]) -> dict[str, Any]:
    """Answer pictures with one candidate: `{"rows": [{path, label, score, scores, error}]}`."""
    with _predictor(payload, Candidate.from_dict(payload["candidate"])) as predictor:
        return {"rows": _rows(predictor, payload["pictures"])}


def try_candidate(payload: dict[str, Any]) -> dict[str, Any]:
    """Build a candidate, answer the selection pictures with it, and measure it in turns with the reference."""
    candidate = Candidate.from_dict(payload["candidate"])
    started = time.perf_counter()
    with _predictor(payload, candidate) as predictor:
        built = time.perf_counter() - started
        started = time.perf_counter()
        predictor.runner("throughput")
        loaded = time.perf_counter() - started
        rows = _rows(predictor, payload["pictures"])
        peak = host.peak_bytes()
        profiled = profile(
            SystemUnderTest(candidate.key, predictor), payload["pictures"], min_seconds=payload["seconds"] / 8
        )
        with _predictor(payload, Candidate.from_dict(payload["reference"])) as reference:
            outcome = bench(
                [SystemUnderTest("reference", reference), SystemUnderTest(candidate.key, predictor)],
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
            "speed": _speeds(outcome)[candidate.key],
            "warnings": outcome.warnings,
        }


def race(payload: dict[str, Any]) -> dict[str, Any]:
    """Measure the reference and the finalists against one another, in turns: `{"speeds": {key: speed}, "warnings":
    […]}`."""
    with ExitStack() as stack:
        candidates = [
            SystemUnderTest(key, stack.enter_context(_predictor(payload, Candidate.from_dict(candidate))))
            for key, candidate in payload["candidates"].items()
        ]
        outcome = bench(candidates, payload["pictures"], scenario=_scenario(payload), min_seconds=payload["seconds"])
        return {"speeds": _speeds(outcome), "warnings": outcome.warnings}


def profile_both(payload: dict[str, Any]) -> dict[str, Any]:
    """Measure the stages of the reference and of a candidate in turns: `{"stages": {"reference", "winner": {stage:
    ms}}, "front_rate"}`, medians of three."""
    with ExitStack() as stack:
        predictors = {
            name: stack.enter_context(_predictor(payload, Candidate.from_dict(payload[key])))
            for name, key in _SIDES.items()
        }
        candidates = {name: SystemUnderTest(name, predictor) for name, predictor in predictors.items()}
        turns = [
            {
                name: profile(one, payload["pictures"], min_seconds=payload["seconds"] / 8)
                for name, one in candidates.items()
            }
            for _ in range(_PROFILE_TURNS)
        ]
    stages = {
        name: {
            stage.name: 1e3 * median(turn[name].stages[place].seconds for turn in turns)
            for place, stage in enumerate(turns[0][name].stages)
        }
        for name in _SIDES
    }
    return {"stages": stages, "front_rate": median(turn["winner"].front_rate for turn in turns)}


def compare_layers(payload: dict[str, Any]) -> dict[str, Any]:
    """Compare every value that a candidate's unfolded network shares with the reference's: `{"layers": [{name, op,
    snr_db}]}`; none where it is the same."""
    candidate = Candidate.from_dict(payload["candidate"] | {"folded": False})
    model = preparation.model_of(payload)
    if backends.get(candidate.target.runtime).onnx_form(candidate.target) == "float32":
        return {"layers": []}
    other = build.in_onnx(model, candidate, Path(payload["built"]), Artifacts.from_dict(payload["artifacts"]))
    preprocessor = Preprocessor(model.contract().input, "reference")
    pairs = ((batch, batch) for batch in batches(preprocessor, payload["pictures"][:_LAYER_PICTURES]))
    return {
        "layers": [
            {"name": one.name, "op": one.operator, "snr_db": one.snr_db}
            for one in compare_layers_of_models(model, other, pairs)
        ]
    }


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


def _predictor(payload: dict[str, Any], candidate: Candidate) -> Predictor:
    made = build.network(
        preparation.model_of(payload), candidate, Path(payload["built"]), Artifacts.from_dict(payload["artifacts"])
    )
    return Predictor(ResolvedModel(made, candidate.target, candidate.steps), cores=payload["cores"])


def _rows(predictor: Predictor, pictures: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for prediction in predictor.predict_many(pictures):
        answered = prediction.answer.row() if prediction.answer is not None else predictor.task.empty_row()
        rows.append({"path": prediction.path, **answered, "error": prediction.error})
    return rows

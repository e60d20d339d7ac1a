"""The account of a `ship`: everything that was tried and measured, as a `Report` that the page and the terminal are
drawn from."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from pydantic import JsonValue

from plimsoll.backends import registry
from plimsoll.core.check import Check
from plimsoll.errors import ImageError
from plimsoll.preprocessing.decode import as_image, decode, read
from plimsoll.prove.comparison import Comparison, default_thresholds
from plimsoll.report.report import Report, environment
from plimsoll.report.ship_result import BudgetFacts, Symbol
from plimsoll.ship import REFERENCE, Ship, Shipped, Trial
from plimsoll.spec.output import Classify
from plimsoll.spec.steps import Decode

_WORST = 10
_THUMBNAIL = 240
"""Pixels of the longer side."""


def report(ship: Ship, shipped: Shipped, commands: Sequence[str]) -> Report:
    """Return the report of kind "ship"; its `details` are a `ShipResult`."""
    winner = shipped.winner
    rows = [_scored(ship.output, ours, theirs) for ours, theirs in shipped.rows]
    details: dict[str, Any] = {
        "winner": winner.candidate.key,
        "reference": shipped.reference.candidate.key,
        "outcome": shipped.outcome,
        "objective": ship.config.objective,
        "symbols": _symbols(trial.candidate.target.runtime for trial in shipped.trials),
        "split": {
            "calibration": len(ship.split.calibration),
            "validation": len(ship.split.selection),
            "test": len(ship.split.judging),
            "unreadable": len(ship.split.unreadable),
            "duplicates": ship.split.duplicates,
        },
        "budget": BudgetFacts.of(ship.config.budget).model_dump(mode="json"),
        "trials": [_row(ship, one, shipped) for one in _with_reference(shipped)],
        "test": _evaluation(shipped.judged, shipped.checks),
        "scores": rows,
        "worst": _worst(rows),
        "thresholds": list(default_thresholds(ship.output)),
        "score_label": ship.output.positive or "score",
        "layers": [{"name": one["name"], "operator": one["op"], "snr_db": one["snr_db"]} for one in shipped.layers],
        "stages": shipped.stages,
        "infinite_network_images_per_second": shipped.front_rate,
        "commands": list(commands),
        "seconds": shipped.seconds,
        "notes": list(shipped.notes),
    }
    return Report(
        kind="ship",
        subject=subject(ship, shipped),
        environment=environment(),
        checks=shipped.checks,
        measurements=_measurements(shipped),
        details=details,
    )


def _symbols(runtimes: Iterable[str]) -> dict[str, str]:
    """Return the runtimes' symbols in the plot, of those that name one that the plot has."""
    named = {runtime: registry.get(runtime).symbol for runtime in set(runtimes)}
    return {runtime: symbol for runtime, symbol in named.items() if symbol in get_args(Symbol)}


def subject(ship: Ship, shipped: Shipped) -> str:
    """Return what the report is about: the network with its file and the first digits of its SHA-256, what ships of it,
    and the day."""
    model = ship.opened.model
    source = f"{model.name} ({model.path.name}, SHA-256 {model.sha256[:12]})"
    return f"{source} as {shipped.winner.candidate.name}, {datetime.now(UTC):%Y-%m-%d}"


def _measurements(shipped: Shipped) -> dict[str, float | int | str]:
    sizes = [float(one.result["size_bytes"]) for one in (shipped.winner, shipped.reference)]
    return {
        "times as fast as the reference": _ratio(shipped),
        "size as a share of the reference's": sizes[0] / sizes[1],
        "pictures judged": shipped.judged.pictures,
    }


def _with_reference(shipped: Shipped) -> list[Trial]:
    """Return all trials, the reference among them once: it is as fast as itself."""
    others = [one for one in shipped.trials if one.candidate != shipped.reference.candidate]
    return [shipped.reference, *others]


def _ratio(shipped: Shipped) -> float:
    return 1.0 if shipped.winner.candidate == shipped.reference.candidate else shipped.winner.ratio


def _row(ship: Ship, trial: Trial, shipped: Shipped) -> dict[str, Any]:
    """Return one row of the table, as data."""
    candidate = trial.candidate
    row: dict[str, Any] = {
        "candidate": {
            "preprocessing": candidate.steps,
            "folded": candidate.folded,
            "target": str(candidate.target),
            "calibrator": candidate.calibrator,
            "float_layers": candidate.float_layers,
        },
        "status": trial.status,
        "reason": trial.reason,
    }
    if trial.status != "ok":
        return row
    refused = ship.refused.get(candidate)
    row["reason"] = refused or _why_not(trial, shipped)
    return row | {
        "passed": (trial.passed and refused is None) or candidate == REFERENCE,
        "validation": _evaluation(ship.compare(trial.result["rows"]), trial.checks),
        "measured": {
            "speed": _speed(trial, shipped),
            "size_bytes": trial.result["size_bytes"],
            "build_seconds": trial.result["built_seconds"],
            "load_seconds": trial.result["load_seconds"],
            "peak_bytes": trial.result["peak_bytes"],
            "stages": trial.result["stages"],
            "final": bool(trial.result.get("raced")),
        },
    }


def _why_not(trial: Trial, shipped: Shipped) -> str:
    """Say why a candidate that kept the budget and was measured faster than what ships does not ship; nothing for all
    others."""
    faster = trial.passed and trial.candidate != shipped.winner.candidate and trial.ratio > _ratio(shipped)
    if not faster or shipped.outcome == "nothing_passed":
        return ""
    if shipped.outcome == "not_better":
        return "not surely better than the reference by the least gain that was asked for"
    if not trial.result.get("raced"):
        return "not raced: others did better in their first measurement"
    return "what ships is simpler, and as fast within 2 %"


def _speed(trial: Trial, shipped: Shipped) -> dict[str, Any]:
    """Return a candidate's speed. What was measured at another time, when the machine had more or less to do, is told
    at one and the same pace.

    Only the ratios are measured side by side; the pace is the reference's in the winner's last measurement.
    """
    speed = dict(trial.result["speed"])
    pace = float(shipped.winner.result["speed"]["reference_images_per_second"])
    if trial.candidate == REFERENCE:
        speed |= {"ratio": 1.0, "low": None, "high": None, "verdict": ""}
    return speed | {
        "images_per_second": pace * speed["ratio"],
        "measured_images_per_second": trial.result["speed"]["images_per_second"],
    }


def _evaluation(comparison: Comparison, checks: Sequence[Check]) -> dict[str, Any]:
    found = comparison.details()
    labelled = found["labelled"]
    assert isinstance(labelled, dict)  # noqa: S101 - it is built so
    drops = {
        name: {
            "reference": one["reference"],
            "candidate": one["other"],
            "drop": _minus(one["change"]),
            "low": _minus(one["high"]),
            "high": _minus(one["low"]),
        }
        for name, one in labelled.items()
        if isinstance(one, dict)
    }
    return {
        "count": found["count"],
        "failed": found["failed"],
        "deviation": found["deviation"] or {},
        "flips": found["flips"],
        "rank_correlation": found["rank_correlation"],
        "labelled": drops,
        "labelled_count": found["labelled_count"],
        "headline": comparison.headline,
        "checks": [check.model_dump(mode="json") for check in checks],
    }


def _minus(value: JsonValue) -> float | None:
    return -value if isinstance(value, (int, float)) else None


def _scored(output: Classify, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return both scores of one picture: of the positive label, else of the one that the reference finds best."""
    label = output.positive or max(ours["scores"], key=lambda one: ours["scores"][one])
    return {
        "path": ours["path"],
        "reference": ours["scores"][label],
        "winner": theirs["scores"].get(label) if theirs["error"] is None else None,
    }


def _worst(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pictures whose score moved most, with a thumbnail; none where no score moved."""
    moved = [row for row in rows if row["winner"] is not None and row["winner"] != row["reference"]]
    moved.sort(key=lambda row: -abs(row["winner"] - row["reference"]))
    return [row | {"thumbnail": _thumbnail(row["path"])} for row in moved[:_WORST]]


def _thumbnail(path: str) -> str:
    """Return a small JPEG as a data URI, or nothing for a picture that can't be shown."""
    try:
        image = as_image(decode(read(Path(path)), Decode())).copy()
    except ImageError:
        return ""
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stored.getvalue()).decode()

"""The account of a `ship`: everything that was tried and measured, as a `Report` that the page and the terminal are drawn from."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from plimsoll.budget import Budget
from plimsoll.errors import ImageError
from plimsoll.image.decode import decode
from plimsoll.image.formats import read
from plimsoll.image.pixels import as_image
from plimsoll.prove.comparison import default_thresholds
from plimsoll.report import Report, environment
from plimsoll.ship import Attempt, Ship, Shipped
from plimsoll.spec.output import Classify
from plimsoll.spec.steps import Decode

_WORST = 8
_THUMBNAIL = 240
"""Pixels of the longer side."""


def report(ship: Ship, shipped: Shipped, commands: Sequence[str]) -> Report:
    """Return the report of kind "ship"; its `details` are those of `plimsoll.page.data.ShipDetails`."""
    winner = shipped.winner
    rows = [_scored(ship.output, ours, theirs) for ours, theirs in shipped.rows]
    details: dict[str, Any] = {
        "winner": winner.variant.key,
        "reference": shipped.reference.variant.key,
        "outcome": shipped.outcome,
        "split": {
            "calibration": len(ship.split.calibration),
            "selection": len(ship.split.selection),
            "judging": len(ship.split.judging),
            "unreadable": len(ship.split.unreadable),
            "duplicates": ship.split.duplicates,
        },
        "budget": _budget(ship.wishes.budget),
        "variants": [_row(ship, one) for one in _with_reference(shipped)],
        "judged": _judged(shipped),
        "scores": rows,
        "worst": _worst(rows),
        "thresholds": list(default_thresholds(ship.output)),
        "score_label": ship.output.positive or "score",
        "layers": list(shipped.layers),
        "stages": {"reference": shipped.reference.result["stages"], "winner": winner.result["stages"]},
        "infinite_network_images_per_second": winner.result["front_rate"],
        "commands": list(commands),
        "seconds": shipped.seconds,
        "notes": list(shipped.notes),
    }
    return Report(
        kind="ship",
        subject=ship.opened.model.name,
        environment=environment(),
        checks=shipped.checks,
        measurements={"times as fast as the reference": _ratio(shipped), "pictures judged": shipped.judged.pictures},
        details=details,
    )


def _with_reference(shipped: Shipped) -> list[Attempt]:
    """Return all attempts, the reference among them once: it is as fast as itself."""
    others = [one for one in shipped.attempts if one.variant != shipped.reference.variant]
    return [shipped.reference, *others]


def _ratio(shipped: Shipped) -> float:
    return 1.0 if shipped.winner.variant == shipped.reference.variant else shipped.winner.ratio


def _budget(budget: Budget) -> dict[str, JsonValue]:
    limits = {limit.metric: limit for limit in budget.limits}
    facts: dict[str, JsonValue] = {"texts": [str(limit) for limit in budget.limits]}
    if "drift" in limits:
        return facts | {"drift_limit": limits["drift"].value, "drift_measure": "mean"}
    if "max_drift" in limits:
        return facts | {"drift_limit": limits["max_drift"].value, "drift_measure": "max"}
    return facts | {"drift_limit": None, "drift_measure": "mean"}


def _row(ship: Ship, attempt: Attempt) -> dict[str, Any]:
    """Return one row of the ladder, as data."""
    variant = attempt.variant
    row: dict[str, Any] = {"key": variant.key, **variant.to_dict(), "status": attempt.status, "reason": attempt.reason}
    if attempt.status != "ok":
        return row
    comparison = ship.compare(attempt.result["rows"])
    found = comparison.details()
    speed = dict(attempt.result["speed"])
    if variant == ship.reference:
        speed |= {"ratio": 1.0, "low": None, "high": None, "verdict": ""}
    return row | {
        "passed": attempt.passed or variant == ship.reference,
        "checks": [check.model_dump(mode="json") for check in attempt.checks],
        "drift": found["drift"] or {},
        "flips": found["flips"],
        "speed": speed,
        "size_bytes": attempt.result["size_bytes"],
        "load_seconds": attempt.result["load_seconds"],
        "peak_bytes": attempt.result["peak_bytes"],
        "stages": attempt.result["stages"],
    }


def _judged(shipped: Shipped) -> dict[str, Any]:
    found = shipped.judged.details()
    labelled = found["labelled"]
    assert isinstance(labelled, dict)  # noqa: S101 - it is built so
    drops = {
        name: {"reference": one["reference"], "winner": one["other"], "drop": _minus(one["change"]), "low": _minus(one["high"]), "high": _minus(one["low"])}
        for name, one in labelled.items()
        if isinstance(one, dict)
    }
    return {
        "count": found["count"],
        "failed": found["lost"],
        "drift": found["drift"] or {},
        "flips": found["flips"],
        "rank_correlation": found["rank_correlation"],
        "labelled": drops or None,
        "checks": [check.model_dump(mode="json") for check in shipped.checks],
    }


def _minus(value: JsonValue) -> float | None:
    return -value if isinstance(value, (int, float)) else None


def _scored(output: Classify, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return both scores of one picture: of the positive label, else of the one that the reference finds best."""
    label = output.positive or max(ours["scores"], key=lambda one: ours["scores"][one])
    return {"path": ours["path"], "reference": ours["scores"][label], "winner": theirs["scores"].get(label) if theirs["error"] is None else None}


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

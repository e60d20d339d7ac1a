"""A realistic report of a `ship`, made up but seeded: what the page and its readers are tested with."""

from __future__ import annotations

import base64
import io
import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from plimsoll.core.target import Target
from plimsoll.preprocessing import Preprocessing
from plimsoll.report.report import Report
from plimsoll.report.trial import Candidate

LIMIT = 0.01
TEST = 125
FAILED = "the process ended with signal 9 (SIGKILL) after 12 s, at 3.9 GB: out of memory?"
SKIPPED = "the time limit of 10 min 0 s was reached before its turn"

_ROWS: Sequence[tuple[Preprocessing, bool, str, str | None, float, float, float]] = (
    # preprocessing, folded, target, calibrator, speed, mean deviation, largest deviation
    ("reference", False, "onnxruntime:cpu:float32", None, 1.0, 0.0, 0.0),
    ("fast", False, "onnxruntime:cpu:float32", None, 2.31, 0.00021, 0.0041),
    ("fast", True, "onnxruntime:cpu:float32", None, 2.36, 0.00021, 0.0041),
    ("fast", False, "openvino:cpu:float32", None, 2.92, 0.00022, 0.0042),
    ("fast", False, "openvino:cpu:bfloat16", None, 4.02, 0.00096, 0.0160),
    ("fast", True, "openvino:cpu:bfloat16", None, 4.21, 0.00097, 0.0163),
    ("fast", False, "onnxruntime:cpu:int8", "percentile", 4.36, 0.0031, 0.0710),
    ("fast", False, "onnxruntime:cpu:int8", "minmax", 4.35, 0.0142, 0.1550),
    ("fast", False, "onnxruntime:cpu:int8", "entropy", 4.33, 0.0049, 0.0930),
    ("fast", True, "openvino:cpu:int8", "percentile", 4.84, 0.0028, 0.0484),
    ("fast", False, "openvino:cpu:int8", "minmax", 4.92, 0.0131, 0.1480),
    ("fast", False, "onnxruntime:cpu:dynamic", None, 0.71, 0.0224, 0.2610),
    ("fast", False, "onnxruntime:cpu:float16", None, math.nan, math.nan, math.nan),
    ("reference", True, "openvino:cpu:int8", "mse", math.nan, math.nan, math.nan),
)

_STAGES = {
    "reference": {
        "read": 0.04,
        "decode": 1.83,
        "resize": 1.24,
        "jpeg": 0.61,
        "crop": 0.03,
        "normalize": 0.75,
        "inference": 20.1,
        "output": 0.02,
    },
    "winner": {
        "read": 0.04,
        "decode": 0.82,
        "resize": 0.41,
        "jpeg": 0.48,
        "crop": 0.02,
        "inference": 3.31,
        "output": 0.02,
    },
}


def check(
    name: str, measured: float, limit: float, unit: str = "", detail: str = "", *, bound: float | None = None
) -> dict[str, Any]:
    return {
        "name": name,
        "measured": measured,
        "bound": bound,
        "limit": limit,
        "direction": "at_most",
        "unit": unit,
        "detail": detail,
        "passed": (measured if bound is None else bound) <= limit,
    }


def trial(row: tuple[Preprocessing, bool, str, str | None, float, float, float], rng: random.Random) -> dict[str, Any]:
    preprocessing, folded, target, calibrator, ratio, mean, largest = row
    chosen = Candidate(preprocessing, folded, Target.parse(target), calibrator)
    base = {
        "key": chosen.key,
        "name": chosen.name,
        "candidate": {"preprocessing": preprocessing, "folded": folded, "target": target, "calibrator": calibrator},
    }
    if math.isnan(ratio):
        failed = target.endswith("float16")
        return {
            **base,
            "status": "failed" if failed else "skipped",
            "reason": (
                {"kind": "failed", "message": FAILED} if failed else {"kind": "out_of_time", "limit_seconds": 600.0}
            ),
            "passed": None,
            "measured": {"speed": {"ratio": math.nan}},
        }
    spread = 0.0 if ratio == 1.0 else ratio * rng.uniform(0.01, 0.035)
    verdict = "no difference" if ratio == 1.0 else "faster" if ratio > 1 else "slower"
    flipped = 0 if largest < 0.06 else 1 if largest < 0.1 else 3
    bound = {0: 0.058, 1: 0.091, 3: 0.147}[flipped]
    small = {"int8": 6.2e6, "dynamic": 6.1e6, "float16": 11.9e6}.get(target.rpartition(":")[2], 23.6e6)
    checks = [check("mean deviation", mean, LIMIT), check("flips at 0.8", 2.0 * flipped, 15.0, "%")]
    return {
        **base,
        "status": "ok",
        "reason": None if mean <= LIMIT else {"kind": "misses_budget", "part": "validation", "checks": checks[:1]},
        "passed": mean <= LIMIT,
        "validation": {
            "count": 50,
            "checks": checks,
            "deviation": {"max": largest, "mean": mean, "p99": None},
            "flips": [
                {"threshold": 0.2, "count": 50, "flipped": 0, "upper": 0.058},
                {"threshold": 0.8, "count": 50, "flipped": flipped, "upper": bound},
            ],
        },
        "measured": {
            "speed": {
                "ratio": ratio,
                "low": ratio - spread,
                "high": ratio + spread * 1.2,
                "verdict": verdict,
                "images_per_second": 163.4 * ratio,
            },
            "size_bytes": small,
            "load_seconds": rng.uniform(0.08, 0.4),
            "peak_bytes": rng.uniform(1.4e8, 4.2e8),
            "stages": _STAGES["winner"],
        },
    }


def thumbnail(photo: Path) -> str:
    with Image.open(photo) as opened:
        small = opened.convert("RGB")
    small.thumbnail((160, 160))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def scores(rng: random.Random, photos: Sequence[Path]) -> list[dict[str, Any]]:
    rows = []
    for index in range(TEST):
        reference = min(0.995, rng.betavariate(0.5, 5.0) if rng.random() < 0.75 else rng.random())
        # Deviation is largest in the middle of the range, where the softmax is steep.
        moved = rng.gauss(0, 0.035) * 4 * reference * (1 - reference) * rng.random()
        winner = min(1.0, max(0.0, reference + moved))
        if any((reference >= threshold) != (winner >= threshold) for threshold in (0.2, 0.8)):
            winner = reference
        rows.append({"path": f"photos/{photos[index % len(photos)].name}", "reference": reference, "winner": winner})
    return rows


def layers(rng: random.Random, count: int = 72) -> list[dict[str, Any]]:
    rows = []
    for index in range(count):
        dip = 9.0 if index % 17 == 13 else 0.0
        ops = ("Conv", "Relu", "Conv", "Add")
        rows.append(
            {
                "name": f"stage{1 + index // 18}/block{index // 4}/{ops[index % 4].lower()}_{index}",
                "operator": ops[index % 4],
                "snr_db": 44 - index * 0.22 - dip + rng.gauss(0, 1.6),
            }
        )
    return rows


def details(photos: Sequence[Path], seed: int = 3) -> dict[str, Any]:
    """Return the details of a ship of open_nsfw over 250 pictures."""
    rng = random.Random(seed)
    trials = [trial(row, rng) for row in _ROWS]
    tested = scores(rng, photos)
    moved = sorted((abs(score["winner"] - score["reference"]) for score in tested), reverse=True)
    worst = sorted(tested[: len(photos)], key=lambda score: -abs(score["winner"] - score["reference"]))[:10]
    flips = [{"threshold": threshold, "count": TEST, "flipped": 0, "upper": 0.02367} for threshold in (0.2, 0.8)]
    mean = sum(moved) / len(moved)
    return {
        "winner": "fast-folded-openvino-cpu-int8-percentile",
        "reference": "reference-plain-onnxruntime-cpu-float32",
        "outcome": "better",
        "split": {"calibration": 75, "validation": 50, "test": TEST, "unreadable": 1, "duplicates": 2},
        "budget": {
            "texts": ["flips=4%", f"mean_deviation={LIMIT}"],
            "deviation_limit": LIMIT,
            "deviation_measure": "mean",
        },
        "trials": trials,
        "symbols": {"onnxruntime": "circle", "openvino": "square"},
        "test": {
            "count": TEST,
            "failed": 0,
            "deviation": {"max": moved[0], "mean": mean, "p99": None},
            "flips": flips,
            "rank_correlation": 0.99871,
            "labelled": {},
            "checks": [
                check("flips at 0.2", 0.0, 4.0, "%", "0 of 125", bound=2.367),
                check("flips at 0.8", 0.0, 4.0, "%", "0 of 125", bound=2.367),
                check("mean deviation", mean, LIMIT, bound=mean * 1.2),
            ],
        },
        "scores": tested,
        "worst": [{**score, "thumbnail": thumbnail(photos[0].parent / Path(score["path"]).name)} for score in worst],
        "thresholds": [0.2, 0.8],
        "score_label": "nsfw",
        "layers": layers(rng),
        "stages": _STAGES,
        "infinite_network_images_per_second": 2259.9,
        "commands": [
            "plimsoll ship open_nsfw --images photos --out open_nsfw.plimsoll --time 10m",
            "plimsoll verify open_nsfw.plimsoll",
        ],
        "seconds": 312.5,
        "notes": ["The machine was quiet: paired runs of the reference with itself differ by 0.6 %."],
    }


def report(result: dict[str, Any]) -> Report:
    """Return the report of these details, as of one fixed machine, after the way through its JSON file."""
    written = Report(
        kind="ship",
        subject="open_nsfw, with made-up figures",
        created=datetime(2026, 3, 14, 9, 26, tzinfo=UTC),
        environment={
            "system": "Linux 6.8",
            "architecture": "x86_64",
            "processor": "AMD EPYC 9R14",
            "instruction_sets": ["avx2", "avx512_bf16", "avx512_vnni", "fma"],
            "cores": 4,
            "python": "3.11.9",
            "load": 0.4,
            "versions": {
                "plimsoll": "0.1.0",
                "numpy": "2.3.1",
                "onnxruntime": "1.31.0",
                "openvino": "2026.4.0",
                "pillow": "12.3.0",
            },
        },
        details=result,
    )
    return Report.model_validate_json(written.to_json())

"""The parts of a `ShipResult`, from what the jobs found; and the report and the bundle that are made of it."""

from __future__ import annotations

import base64
import io
import math
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from plimsoll import backends
from plimsoll.core.budget import Check
from plimsoll.core.model import Model
from plimsoll.errors import ImageError
from plimsoll.preprocessing.decode import as_image, decode, read
from plimsoll.preprocessing.formats import sniff
from plimsoll.prove.classifications import ClassificationComparison
from plimsoll.report import summary
from plimsoll.report.measurements import Deviations, Evaluation, FlippedDecisions, LabelledMetric, Speed
from plimsoll.report.report import HEADLINE, Report, environment
from plimsoll.report.ship_result import PictureScore, ShipResult, Symbol, WorstPicture
from plimsoll.report.trial import Trial
from plimsoll.ship.config import REFERENCE
from plimsoll.ship.jobs import Answer
from plimsoll.spec.spec import Classify
from plimsoll.spec.steps import Decode

CALIBRATION = "report/calibration.json"
"""The calibration table in a bundle."""
GOLDEN_PICTURES = 8
"""Of the user's own, where they are to be in the bundle."""
_WORST = 10
_THUMBNAIL = 240
"""Pixels of the longer side."""

AnswerPair = tuple[Answer, Answer]
"""The reference's answer to a picture and a candidate's."""


def evaluation(comparison: ClassificationComparison, checks: Sequence[Check] = ()) -> Evaluation:
    """Return a comparison of answers as it is stored and shown, with the budget's checks."""
    deviation = comparison.deviation
    return Evaluation(
        count=comparison.pictures,
        failed=comparison.failed,
        deviation=Deviations()
        if deviation is None
        else Deviations(
            max=deviation.maximum,
            mean=deviation.mean,
            mean_upper=deviation.mean_upper,
            p99=_figure(deviation.p99),
        ),
        flips=tuple(
            FlippedDecisions(
                threshold=threshold,
                count=flips.total,
                flipped=flips.count,
                up=flips.up,
                down=flips.down,
                upper=flips.upper_bound() if flips.total else math.nan,
            )
            for threshold, flips in comparison.flips
        ),
        rank_correlation=_figure(comparison.rank_correlation),
        labelled={
            change.name: LabelledMetric(
                reference=_figure(change.reference),
                candidate=_figure(change.other),
                drop=-_figure(change.change),
                low=-change.interval[1] if change.interval else math.nan,
                high=-change.interval[0] if change.interval else math.nan,
            )
            for change in comparison.changes
        },
        labelled_count=comparison.labelled,
        headline=comparison.headline,
        checks=tuple(checks),
    )


def _figure(value: float | None) -> float:
    return math.nan if value is None else value


def final_trials(trials: Sequence[Trial], reference: Trial, winner: Trial) -> tuple[Trial, ...]:
    """Return all trials, the reference first and once.

    Only ratios of speeds are measured side by side. What was measured at another time, when the machine had more or
    less to do, is stated at one and the same pace: the reference's in the winner's last measurement.
    """
    pace = winner.measured.speed.reference_images_per_second
    stated = []
    for trial in (reference, *(trial for trial in trials if trial.candidate != REFERENCE)):
        if trial.status == "ok":
            speed = trial.measured.speed
            if trial.candidate == REFERENCE:
                speed = Speed(
                    ratio=1.0,
                    images_per_second=speed.images_per_second,
                    measured_images_per_second=speed.measured_images_per_second,
                    reference_images_per_second=speed.reference_images_per_second,
                )
            speed = speed.model_copy(update={"images_per_second": pace * speed.ratio})
            measured = trial.measured.model_copy(update={"speed": speed})
            trial = trial.model_copy(update={"measured": measured})
        stated.append(trial)
    return tuple(stated)


def symbols(trials: Sequence[Trial]) -> dict[str, Symbol]:
    """Return each runtime's symbol in the plot, of those that name one that the plot has."""
    named = {runtime: backends.get(runtime).symbol for runtime in {trial.runtime for trial in trials}}
    return {runtime: symbol for runtime, name in named.items() for symbol in get_args(Symbol) if symbol == name}


def picture_scores(output: Classify, pairs: Sequence[AnswerPair]) -> tuple[PictureScore, ...]:
    """Return both scores of each picture: of the positive label, else of the one that the reference finds best."""
    scores = []
    for reference, winner in pairs:
        label = output.positive or max(reference.scores, key=lambda name: reference.scores[name])
        score = winner.scores.get(label, math.nan) if winner.error is None else math.nan
        scores.append(PictureScore(path=reference.path, reference=reference.scores[label], winner=score))
    return tuple(scores)


def worst_pictures(scores: Sequence[PictureScore]) -> tuple[WorstPicture, ...]:
    """Return the pictures whose score moved most, with a thumbnail; none where no score moved."""
    moved = sorted((score for score in scores if _moved(score) > 0), key=lambda score: -_moved(score))
    return tuple(
        WorstPicture(path=score.path, reference=score.reference, winner=score.winner, thumbnail=_thumbnail(score.path))
        for score in moved[:_WORST]
    )


def _moved(score: PictureScore) -> float:
    return abs(score.winner - score.reference)


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


def golden_pictures(scores: Sequence[PictureScore], formats: Sequence[str]) -> list[Path]:
    """Return test pictures in these formats, spread evenly from the one whose score moved least to the one that moved
    most."""
    answered = (score for score in scores if math.isfinite(_moved(score)) and _format(Path(score.path)) in formats)
    moved = sorted((_moved(score), score.path) for score in answered)
    count = min(GOLDEN_PICTURES, len(moved))
    indices = [round(step * (len(moved) - 1) / max(count - 1, 1)) for step in range(count)]
    return [Path(moved[index][1]) for index in indices]


def _format(path: Path) -> str | None:
    try:
        return sniff(read(path))
    except ImageError:
        return None


def repeat_commands(command: Sequence[str], out: Path, with_table: bool) -> tuple[str, ...]:
    """Return what repeats the work: `command`, which started it; the proof on another machine; and, where the
    bundle has a calibration table, the same ranges again."""
    commands = [shlex.join(command)] if command else []
    commands.append(f"plimsoll verify {shlex.quote(str(out))}")
    if with_table and command and not _option(command, "--calibration"):
        calibrators = _option(command, "--calibrators")
        again = [word for index, word in enumerate(command) if index not in calibrators]
        again += ["--calibration", str(out / CALIBRATION)]
        commands.append(f"# Reuse the ranges that it was quantized with:\n{shlex.join(again)}")
    return tuple(commands)


def _option(command: Sequence[str], name: str) -> set[int]:
    """Return where an option and its value stand in a command."""
    indices: set[int] = set()
    for index, word in enumerate(command):
        if word == name:
            indices |= {index, index + 1}
        elif word.startswith(f"{name}="):
            indices.add(index)
    return indices


def report(result: ShipResult, model: Model) -> Report:
    """Return the report of kind "ship": its subject is the network with its file and the first digits of its SHA-256,
    what ships of it, and the day."""
    winner = result.shipped
    share = winner.measured.size_bytes / result.baseline.measured.size_bytes
    given = model
    while given.parent is not None:  # What it was made from on the way in has another hash.
        given = given.parent
    source = f"{model.name} ({given.path.name}, SHA-256 {given.sha256[:12]})"
    return Report(
        kind="ship",
        subject=f"{source} as {winner.name}, {datetime.now(UTC):%Y-%m-%d}",
        environment=environment(),
        checks=result.test.checks,
        measurements={
            HEADLINE: summary.title(result),
            "times as fast as the reference": winner.ratio,
            "times as fast as the reference, 95 % interval, low": winner.measured.speed.low,
            "times as fast as the reference, 95 % interval, high": winner.measured.speed.high,
            "mean deviation": result.test.deviation.mean,
            "mean deviation, 95 % bound": result.test.deviation.mean_upper,
            "max deviation": result.test.deviation.max,
            "size as a share of the reference's": share,
            "test pictures": result.test.count,
        },
        details=result.model_dump(mode="json"),
    )

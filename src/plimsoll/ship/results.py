"""The parts of a `ShipResult`, from what the jobs found; and the report and the bundle that are made of it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from plimsoll import backends
from plimsoll.core.model import Model
from plimsoll.errors import ImageError
from plimsoll.inference.drawing import thumbnail
from plimsoll.preprocessing.decode import read
from plimsoll.preprocessing.formats import sniff
from plimsoll.prove.classifications import ScorePair
from plimsoll.report import summary
from plimsoll.report.measurements import Speed
from plimsoll.report.report import HEADLINE, Report, environment
from plimsoll.report.ship_result import PictureChange, PictureScore, ShipResult, Symbol, WorstPicture
from plimsoll.report.trial import Candidate, Trial
from plimsoll.ship.config import REFERENCE
from plimsoll.ship.evaluation import ComparedPicture
from plimsoll.ship.jobs import Answer
from plimsoll.spec.spec import Classify, Output
from plimsoll.spec.steps import Decode

CALIBRATION = "report/calibration.json"
"""The calibration table in a bundle."""
GOLDEN_PICTURES = 8
"""Of the user's own, where they are to be in the bundle."""
_WORST = 10


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


def picture_scores(output: Output, pictures: Sequence[ComparedPicture]) -> tuple[PictureScore, ...]:
    """Return both scores of each picture: of the positive label, else of the one that the reference finds best; nothing
    for answers without scores."""
    if not isinstance(output, Classify):
        return ()
    scores = []
    for picture in pictures:
        pair: ScorePair | None = picture.measured
        if pair is None:
            scores.append(PictureScore(path=picture.path))
            continue
        label = output.positive or max(pair.reference, key=lambda name: pair.reference[name])
        scores.append(PictureScore(path=picture.path, reference=pair.reference[label], winner=pair.other[label]))
    return tuple(scores)


def worst_pictures(scores: Sequence[PictureScore]) -> tuple[WorstPicture, ...]:
    """Return the pictures whose score moved most, with a thumbnail; none where no score moved."""
    moved = sorted((score for score in scores if _moved(score) > 0), key=lambda score: -_moved(score))
    return tuple(
        WorstPicture(**score.model_dump(), thumbnail=thumbnail(score.path, Decode())) for score in moved[:_WORST]
    )


def most_changed(changes: Sequence[PictureChange]) -> list[PictureChange]:
    """Return the pictures whose answer moved most, the most first; none where no answer moved."""
    return sorted((change for change in changes if change.moved > 0), key=lambda change: -change.moved)[:_WORST]


def _moved(score: PictureScore) -> float:
    return abs(score.winner - score.reference)


def golden_pictures(result: ShipResult, formats: Sequence[str]) -> list[Path]:
    """Return test pictures in these formats, spread evenly from the one whose answer moved least to the one that moved
    most."""
    by_path = [(_moved(score), score.path) for score in result.scores]
    by_path += [(change.moved, change.path) for change in result.changes]
    moved = sorted((by, path) for by, path in by_path if math.isfinite(by) and _format(Path(path)) in formats)
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
    """Return the report of kind "ship": its subject is the network with its file and the first digits of its SHA-256
    (or a cascade with its networks), what ships of it, and the day."""
    winner = result.shipped
    share = winner.measured.size_bytes / result.baseline.measured.size_bytes
    given = model
    while given.parent is not None:  # What it was made from on the way in has another hash.
        given = given.parent
    networks = ", ".join(network.name for network in result.networks)
    source = f"{model.name} ({networks or f'{given.path.name}, SHA-256 {given.sha256[:12]}'})"
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


def with_names(warning: str, candidates: Sequence[Candidate]) -> str:
    """Put the names that people know in the place of keys."""
    for candidate in candidates:
        warning = warning.replace(candidate.key, candidate.name)
    return warning


def renamed(answers: Sequence[Answer], pictures: Sequence[str]) -> list[Answer]:
    """Return answers under the pictures' present paths: in an earlier run they may have been elsewhere, but were split
    in the same order."""
    return [answer.model_copy(update={"path": picture}) for answer, picture in zip(answers, pictures, strict=True)]

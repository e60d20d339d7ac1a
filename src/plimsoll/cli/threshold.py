"""`plimsoll threshold TABLE --labels DECISIONS`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plimsoll.cli import options
from plimsoll.core.wording import printable

if TYPE_CHECKING:
    from plimsoll.core.budget import Check
    from plimsoll.report.report import Report
    from plimsoll.scan.decisions import Decisions
    from plimsoll.scan.models import ScanModel
    from plimsoll.scan.table import Manifest
    from plimsoll.scan.threshold import BandFigures, Estimate, Named, ThresholdStudy
    from plimsoll.spec.policy import Policy

_WIDTH = 112
"""Columns of the table of bands: a narrower terminal wraps its lines, but loses nothing."""


def threshold(  # noqa: PLR0913 - each parameter is an option of the command
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table of `plimsoll scan`.")],
    labels: Annotated[
        Path,
        typer.Option(
            "--labels",
            metavar="DECISIONS",
            help="What people decided of a random sample: CSV or Parquet with the columns decision, and sha256 or path;"
            " stratum (such as 0.2-0.8), weight and reviewer may be there.",
        ),
    ],
    bad: Annotated[
        list[str] | None,
        typer.Option("--bad", metavar="WORD", help="The decision on a bad picture; may be repeated. Default: bad."),
    ] = None,
    strata: Annotated[
        str | None,
        typer.Option(
            "--strata",
            metavar="SCORES",
            help="The scores where strata meet, for example 0.2,0.8: within each, pictures were drawn at random."
            " Default: as the decisions say, else the whole table is a single stratum.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Whose scores, where the table has several models'.")
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            "--bands", metavar="SCORES", help="Judge the bands that meet at these scores. Default: those of the Spec."
        ),
    ] = None,
    pass_: Annotated[
        float | None,
        options.share(
            "--pass", "Choose where the safe band ends: at most this share of the bad pictures passes.", default=""
        ),
    ] = None,
    precision: Annotated[
        float | None,
        options.share(
            "--precision", "Choose where the unsafe band begins: at least this share of it is bad.", default=""
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Write the bands as a policy (TOML), for --policy of other commands."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE", help="Write the report to this file: a page if it ends in .html, else JSON."
        ),
    ] = None,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Find thresholds from pictures that people have reviewed, with what the bands between them hold and cost.

    Every figure has a 95 % interval that respects how the sample was drawn. Exits with code 1 if no threshold keeps
    --pass or --precision.
    """
    from plimsoll.scan.decisions import Decisions, ReviewedTable
    from plimsoll.scan.threshold import ThresholdStudy

    for file in (out, report):
        if file is not None:
            options.check_new(file, force=force)
    stored, manifest = _open(table)
    scanned = _model(manifest, model)
    decisions = Decisions.read(labels, frozenset(bad or ("bad",)))
    named = _given_bands(bands, scanned, chosen=pass_ is not None or precision is not None)
    ends = [below for _, below in named if below is not None]
    known = decisions.strata(None if strata is None else _scores("--strata", strata))
    study = ThresholdStudy(ReviewedTable.count(stored, scanned.bundle_sha256, decisions, known, ends))
    if not named:
        named = study.choose(pass_, precision)
    figures = study.bands(named)
    result = _report(table, scanned, decisions, study, figures, _checks(figures, pass_, precision))
    if report is not None:
        from plimsoll.report.page import render

        _write(report, render(result) if report.suffix.lower() in (".html", ".htm") else result.to_json())
    if json_:
        typer.echo(result.to_json())
    else:
        _show(result, decisions, study, figures)
    if out is not None:
        _write(out, _policy(result, scanned, figures).dumps())


def _open(address: str) -> tuple[Any, Manifest]:
    from plimsoll.errors import InputError
    from plimsoll.scan import storage
    from plimsoll.scan.table import Table

    stored = Table(storage.folder(address))
    manifest = stored.manifest()
    if manifest is None:
        raise InputError(
            f"{printable(address)} is no table of `plimsoll scan`", "Make one: plimsoll scan MODEL SOURCE --out TABLE."
        )
    return stored, manifest


def _model(manifest: Manifest, name: str | None) -> ScanModel:
    from plimsoll.core.wording import unknown
    from plimsoll.errors import InputError

    names = [model.name for model in manifest.models]
    if name is None and len(names) > 1:
        raise InputError(f"the table has scores of {', '.join(names)}", "Name one with --model.")
    if name is not None and names.count(name) != 1:
        raise InputError(unknown("model", name, names) if name not in names else f"two models are called {name}")
    model = manifest.models[names.index(name) if name is not None else 0]
    if model.task != "classify":
        raise InputError(
            f"{model.name}: its task is '{model.task}', and thresholds are for the score of a classifier",
            "Name a classifier with --model, or scan with one.",
        )
    return model


def _given_bands(text: str | None, model: ScanModel, *, chosen: bool) -> list[Named]:
    """Return the bands to be judged; none where they are to be chosen."""
    from plimsoll.errors import InputError
    from plimsoll.scan.threshold import named_bands

    if text is not None and chosen:
        raise InputError("--bands doesn't go with --pass and --precision, which choose them", "Give one or the other.")
    if text is not None:
        return named_bands(_scores("--bands", text))
    if not chosen and len(model.bands) < 2:
        raise InputError(
            f"{model.name}: its Spec has no bands to judge",
            "Give --bands 0.2,0.8, or have them chosen with --pass 0.5% and --precision 95%.",
        )
    return [] if chosen else list(model.bands)


def _scores(option: str, text: str) -> list[float]:
    from plimsoll.errors import InputError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option}: '{printable(text, 60)}', expected scores such as 0.2,0.8") from None


def _checks(figures: Sequence[BandFigures], largest_pass: float | None, precision: float | None) -> list[Check]:
    from plimsoll.core.budget import Check

    checks = []
    detail = "the end of a two-sided 95 % interval"
    if largest_pass is not None:
        passed = figures[0].of_bad
        checks.append(
            Check(
                name="bad pictures that pass",
                measured=100 * passed.value,
                bound=100 * passed.high,
                limit=100 * largest_pass,
                unit="%",
                detail=detail,
            )
        )
    if precision is not None:
        last = figures[-1].bad
        checks.append(
            Check(
                name=f"precision of {figures[-1].label}",
                measured=100 * last.value,
                bound=100 * last.low,
                limit=100 * precision,
                direction="at_least",
                unit="%",
                detail=detail,
            )
        )
    return checks


def _report(
    table: str,
    model: ScanModel,
    decisions: Decisions,
    study: ThresholdStudy,
    figures: Sequence[BandFigures],
    checks: Sequence[Check],
) -> Report:
    from plimsoll.report.report import HEADLINE, Report
    from plimsoll.scan.threshold import cost

    reviewed = study.reviewed
    return Report(
        kind="threshold",
        subject=f"{model.name} on {table}",
        checks=tuple(checks),
        measurements={
            HEADLINE: cost(figures),
            "pictures": reviewed.population,
            "pictures_without_score": reviewed.without_score,
            "reviewed": int(reviewed.scores.size),
            "reviewed_bad": int(reviewed.bad.sum()),
            "bad_share": study.bad.value,
            "bad_share_low": study.bad.low,
            "bad_share_high": study.bad.high,
        },
        details={
            "table": table,
            "model": model.model_dump(mode="json"),
            "decisions": decisions.file,
            "strata": reviewed.strata.tolist(),
            "unmatched": len(reviewed.unmatched),
            "ties": decisions.ties,
            "skipped": decisions.skipped,
            "bands": [band.as_dict() for band in figures],
            "curve": [point.as_dict() for point in study.curve],
        },
    )


def _policy(report: Report, model: ScanModel, figures: Sequence[BandFigures]) -> Policy:
    from plimsoll.spec.policy import Policy
    from plimsoll.spec.spec import Band

    last = figures[-1]
    counts = {key: value for key, value in report.measurements.items() if key != "headline"}
    origin: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "plimsoll": report.plimsoll,
        "table": report.details["table"],
        "decisions": report.details["decisions"],
        "model": model.name,
        "bundle_sha256": model.bundle_sha256,
        "cost": report.measurements["headline"],
        **counts,
        "bands": [
            {
                "label": band.label,
                "share_of_pictures": band.share,
                "reviewed": band.reviewed,
                "bad": _plain(band.bad),
                "share_of_bad": _plain(band.of_bad),
            }
            for band in figures
        ],
    }
    return Policy(
        positive=model.positive,
        threshold=last.low if last.label != "review" else None,
        bands=tuple(Band(label=band.label, below=band.below) for band in figures),
        origin=origin,
    )


def _plain(estimate: Estimate) -> dict[str, float]:
    """Return an estimate as a table of TOML."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _write(file: Path, text: str) -> None:
    from plimsoll.errors import InputError
    from plimsoll.system import files

    try:
        files.write(file, text.encode())
    except OSError as error:
        raise InputError(f"{file}: can't write it: {error.strerror}") from error


def _show(report: Report, decisions: Decisions, study: ThresholdStudy, figures: Sequence[BandFigures]) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    from plimsoll.cli.output import checks_table

    console = Console(highlight=False)
    if console.width < _WIDTH:
        console = Console(highlight=False, width=_WIDTH)
    headline = str(report.measurements["headline"])
    console.print(Text(f"{headline[0].upper()}{headline[1:]}.", style="bold"), soft_wrap=True)
    for line in _notes(decisions, study, figures):
        console.print(Text(printable(line, 500), style="dim"), soft_wrap=True)
    console.print()
    rows = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("band", "scores", "pictures", "of all", "reviewed", "bad in it", "share of all bad"):
        rows.add_column(heading, justify="left" if heading in ("band", "scores") else "right", no_wrap=True)
    for band in figures:
        low, below = (("…" if end is None else f"{end:g}") for end in (band.low, band.below))
        counts = (f"{band.pictures:,}", f"{band.share:.1%}", f"{band.reviewed:,}")
        rows.add_row(printable(band.label), f"{low} - {below}", *counts, _interval(band.bad), _interval(band.of_bad))
    console.print(rows)
    if report.checks:
        console.print()
        console.print(checks_table(report.checks))


def _interval(estimate: Estimate) -> str:
    value = "?" if estimate.value != estimate.value else f"{estimate.value:.2%}"
    return f"{value} ({estimate.low:.2%} - {estimate.high:.2%})"


def _notes(decisions: Decisions, study: ThresholdStudy, figures: Sequence[BandFigures]) -> list[str]:
    from plimsoll.report.figures import counted

    reviewed = study.reviewed
    drawn = (
        f"drawn at random between the scores {', '.join(f'{edge:g}' for edge in reviewed.strata)}"
        if reviewed.strata.size
        else "taken as drawn at random from the whole table"
    )
    lines = [
        f"{reviewed.population:,} pictures, {_interval(study.bad)} of them bad; {reviewed.scores.size:,} reviewed,"
        f" {drawn}; 95 % intervals."
    ]
    left_out = [
        (reviewed.without_score, counted(reviewed.without_score, "picture") + " without a score"),
        (
            len(reviewed.unmatched),
            f"{counted(len(reviewed.unmatched), 'decision')} on pictures that are not in the table or"
            f" have no score, for example {next(iter(reviewed.unmatched), '')}",
        ),
        (decisions.ties, counted(decisions.ties, "picture") + " with a tie"),
        (decisions.skipped, counted(decisions.skipped, "row") + " without a decision"),
    ]
    if any(count for count, _ in left_out):
        lines.append(f"Left out: {'; '.join(words for count, words in left_out if count)}.")
    lines += [
        f"Nobody reviewed any of {counted(band.unseen, 'picture')} of {band.label}, which may all be bad:"
        " review some of each stratum on both sides of its ends."
        for band in figures
        if band.unseen
    ]
    return lines

"""`plimsoll ship MODEL --images DIR --out BUNDLE`."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import typer

from plimsoll.cli import options
from plimsoll.core import wording

if TYPE_CHECKING:
    from plimsoll.core.target import Target
    from plimsoll.ship import Export, Pictures, Search, SearchConfig, ShipResult, Trial


ObjectiveName = Literal["throughput", "latency", "size"]


def ship(  # noqa: PLR0913 - each parameter is an option of the command
    model: options.Model,
    images: Annotated[list[str], options.images("Your own pictures")],
    out: options.OutBundle,
    spec: options.Spec = None,
    labels: options.Labels = None,
    budget: options.Budget = None,
    targets: Annotated[
        str,
        typer.Option(
            "--targets",
            metavar="TARGET,…",
            help="Targets to try; 'all' includes those that need a toolchain and makes it. Default: all but those.",
        ),
    ] = "",
    calibrators: Annotated[
        str,
        typer.Option(
            "--calibrators",
            metavar="NAME,…",
            help="Calibrators to try. Default: percentile,minmax,moving_average,entropy,mse.",
        ),
    ] = "",
    calibration: options.CalibrationTable = None,
    objective: Annotated[
        ObjectiveName, options.choice("--objective", ("throughput", "latency", "size"), "What to optimize.")
    ] = "throughput",
    time: Annotated[
        float,
        options.duration(
            "--time",
            "How long to look for better candidates; more targets need more. The final benchmark and the test come"
            " on top.",
            default="3m",
            at_least="0s",
        ),
    ] = 180.0,
    measure: Annotated[
        float,
        options.duration(
            "--measure",
            "How long to measure each candidate; longer where the machine is noisy.",
            default="2s",
            at_least="50ms",
        ),
    ] = 2.0,
    min_gain: Annotated[
        float, options.share("--min-gain", "The least gain that is worth a change.", default="3%")
    ] = 0.03,
    max_images: Annotated[
        int, options.max_images("Use at most this many of the pictures, drawn at random.", least=12)
    ] = 2000,
    golden_from_images: Annotated[
        bool,
        typer.Option(
            "--golden-from-images",
            help="Put some of the test pictures into the bundle for `plimsoll verify`. Default: pictures that come"
            " with Plimsoll.",
        ),
    ] = False,
    accept_accuracy: Annotated[
        bool,
        typer.Option(
            "--accept-accuracy",
            help="With --labels: ship even where the network is hardly ever right on the labelled pictures.",
        ),
    ] = False,
    keep_pictures: Annotated[
        bool,
        typer.Option(
            "--keep-pictures",
            help="Put thumbnails and paths of your pictures into the bundle's report. Default: neither; the whole"
            " report stays in the work folder.",
        ),
    ] = False,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work", metavar="DIR", help="Where everything built and measured is kept, so that a stopped run resumes."
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Find the fastest deployment whose answers stay within the budget, prove it, and pack it.

    Candidates are built, compared with the reference on your pictures, and measured end to end, each in a process of
    its own. The winner is tested on pictures that nothing has seen before. If nothing passes, the reference ships.
    """
    from plimsoll.bundle import check_destination
    from plimsoll.inference.images import check_exist, find_images
    from plimsoll.prove.run import budget_for
    from plimsoll.ship import Pictures, export
    from plimsoll.ship.cascade import keyed, open_subject, search_for
    from plimsoll.ship.split import split
    from plimsoll.ship.store import WorkFolder
    from plimsoll.system.cache import cache_folder

    check_destination(out, overwrite=force)
    check_exist(images)
    config = _config(_targets(targets), (calibrators, calibration), budget, objective, (time, measure, min_gain))
    config = replace(config, accept_accuracy=accept_accuracy)
    root = work or cache_folder() / "ship"
    with open_subject(model, spec, root) as resolved:
        if not budget:
            config = replace(config, budget=budget_for(resolved.model.require_spec().output))
        truths = options.labels_of(labels, resolved.model.require_spec(), images)
        formats = resolved.model.require_spec().input.decode.formats
        parts = keyed(resolved, split(find_images(images, formats), max_images))
        folder = WorkFolder.of(root, resolved.model, parts)
        with folder.locked():
            search = search_for(resolved, parts, folder, config, truths)
            _make_toolchains(config.targets)
            result = _run(search, sys.stdout.isatty())
            command = ["plimsoll", *sys.argv[1:]]
            pictures = Pictures(golden=golden_from_images, in_report=keep_pictures)
            exported = export(search, result, out, command, pictures=pictures, force=force)
            _print_result(result, exported, pictures)


def _targets(text: str) -> tuple[Target, ...]:
    """Return the targets to try; raises for those that can't be tried here."""
    from plimsoll import backends
    from plimsoll.core.target import Target
    from plimsoll.errors import InputError
    from plimsoll.ship import all_targets, default_targets

    if not text:
        return default_targets()
    names = [name for name in text.split(",") if name.strip()]
    targets = all_targets() if text == "all" else tuple(dict.fromkeys(map(Target.parse, names)))
    if not targets:
        example = ",".join(map(str, default_targets()[:2]))
        raise InputError(f"--targets '{text}' names no target", f"For example --targets {example}.")
    for target in targets:
        backends.for_target(target)  # Raises for what can't be tried here: whoever names it wants to know.
    return targets


def _make_toolchains(targets: tuple[Target, ...]) -> None:
    """Install what targets that were asked for need and what is not there yet."""
    from plimsoll.ship import missing_toolchains

    if missing := missing_toolchains(targets):
        from plimsoll.system.toolchains import make

        for name in missing:
            make(name)


def _config(
    targets: tuple[Target, ...],
    calibration: tuple[str, Path | None],
    budget: list[str] | None,
    objective: ObjectiveName,
    limits: tuple[float, float, float],
) -> SearchConfig:
    from plimsoll.core.budget import DEFAULT_BUDGET, Budget
    from plimsoll.errors import InputError
    from plimsoll.ship import CALIBRATORS, SearchConfig

    names, table = calibration
    if names and table is not None:
        raise InputError("--calibrators and --calibration exclude each other", "Give one of the two.")
    calibrators = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip())) or CALIBRATORS
    if unknown := [name for name in calibrators if name not in CALIBRATORS]:
        raise InputError(f"--calibrators: {wording.unknown('calibrator', unknown[0], CALIBRATORS)}")
    search_seconds, measure_seconds, min_gain = limits
    return SearchConfig(
        targets,
        calibrators,
        Budget.parse(budget) if budget else DEFAULT_BUDGET,
        objective,
        search_seconds=search_seconds,
        measure_seconds=measure_seconds,
        min_gain=min_gain,
        calibration=table,
    )


def _run(search: Search, live: bool) -> ShipResult:
    """Run the search, with a table that grows meanwhile; on anything but a terminal, with a line for each candidate."""
    from plimsoll.cli.ship import ResultsTable

    with ResultsTable(search, live) as table:
        return search.run(table.add, table.show_activity)


def _print_result(result: ShipResult, exported: Export, pictures: Pictures) -> None:
    from rich.console import Console
    from rich.text import Text

    from plimsoll.cli.output import checks_table
    from plimsoll.report import summary

    console = Console(highlight=False, soft_wrap=True)
    style = "bold green" if result.outcome == "better" else "bold yellow"
    if console.is_terminal:
        Console(highlight=False).print(_table(result.ranked(), console.width))
    for words in summary.reasons(result):
        console.print(Text(words, style="dim"))
    console.print(Text(f"\n{summary.title(result)}", style=style))
    for term, value in summary.plate(result):
        console.print(Text(f"{term}: {value}"))
    for sentence in summary.sentences(result):
        console.print(Text(sentence))
    for words in summary.nearest(result):
        console.print(Text(f"nearest: {words}"))
    if result.test.checks:
        console.print(Text(summary.verdict(result)[0], style="bold"))
        console.print(checks_table(result.test.checks))
    for words in summary.labelled(result):
        console.print(Text(words))
    for note in result.notes:
        console.print(Text(f"note: {note}", style="dim"))
    golden = "some of your test pictures" if pictures.golden else "pictures that come with Plimsoll, none of yours"
    shown = "with" if pictures.in_report else "without"
    console.print(Text(f"bundle: {exported.bundle}"))
    inside = f"golden pictures for `plimsoll verify`: {golden}; its report: {shown} your pictures and their paths"
    console.print(Text(f"  {inside}", style="dim"))
    console.print(Text(f"whole report: {exported.page}"))


_LEFT_OUT = 8
"""Lines of the terminal that the table leaves to what is above and below it."""
_TARGET_WIDTH = 25
"""Characters of the first column at least: so long are targets, and they are not broken."""


class ResultsTable:
    """Shows each trial as soon as it is known: a live table on a terminal, else one line for each."""

    def __init__(self, search: Search, live: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._by_size = search.config.objective == "size"
        self._trials: list[Trial] = []
        self._activity, self._since = "", time.monotonic()
        self._console = Console(highlight=False)
        # Drawn seldom: the processes that are being measured need the cores.
        self._live = (
            Live(console=self._console, refresh_per_second=2, get_renderable=self._rendered, transient=True)
            if live
            else None
        )
        split = search.split
        parts = (("calibration", split.calibration), ("validation", split.validation), ("test", split.test))
        counts = ", ".join(f"{len(pictures):,} {name}" for name, pictures in parts)
        head = f"pictures: {counts}; budget: {search.config.budget}\nwork folder: {search.work.path}"
        self._console.print(head, soft_wrap=True, markup=False)

    def add(self, trial: Trial) -> None:
        """Show one more trial."""
        self._trials.append(trial)
        if self._live is None:
            self._console.print(_line(trial), soft_wrap=True)

    def show_activity(self, activity: str) -> None:
        """Show what is being done now, on a terminal."""
        self._activity, self._since = activity, time.monotonic()

    def _rendered(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        seconds = time.monotonic() - self._since
        activity = Text(f"{self._activity} … {seconds:.0f} s", style="dim") if self._activity else Text("")
        ranked = sorted(self._trials, key=self._rank)
        return Group(_table(ranked, self._console.width, max(5, self._console.height - _LEFT_OUT)), activity)

    def _rank(self, trial: Trial) -> tuple[float, ...]:
        """The best by the objective first; what failed or was skipped last."""
        if trial.status != "ok":
            return (1.0, 0.0)
        return (0.0, trial.measured.size_bytes if self._by_size else -trial.ratio)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


_COLUMNS = ("times as fast", "mean deviation", "max deviation", "flips", "on disk")
_WIDE = 100
"""From this width on all columns have room; below it the last is left out."""


def _table(ranked: Sequence[Trial], width: int, limit: int | None = None) -> Any:
    """Return the table with at most so many rows: the best stay, and a last line counts the others."""
    from rich.table import Table
    from rich.text import Text

    columns = _columns(ranked)
    shown = columns if width >= _WIDE else columns[:-1]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("candidate", overflow="fold", min_width=_TARGET_WIDTH)
    for heading in shown:
        table.add_column(_broken(heading), justify="right", no_wrap=True, vertical="bottom")
    table.add_column("result", no_wrap=True)
    for trial in ranked[:limit]:
        name, *figures, verdict = _cells(trial, columns)
        table.add_row(*map(Text, (name, *figures[: len(shown)], verdict)), style=_style(trial))
    if limit is not None and len(ranked) > limit:
        table.add_row(f"… and {len(ranked) - limit} more", style="dim")
    return table


def _columns(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return the headings between a candidate and its verdict: deviations of scores, or the budget's figures."""
    from plimsoll.report.summary import judged_figures

    names = judged_figures(trials)
    return (_COLUMNS[0], *names, _COLUMNS[-1]) if names else _COLUMNS


def _broken(heading: str) -> str:
    """Break a heading into lines of about a dozen characters."""
    return "\n".join(textwrap.wrap(heading, 14))


def _cells(trial: Trial, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the candidate, a figure for each column, and the verdict."""
    from plimsoll.report.figures import MISSING
    from plimsoll.report.summary import row

    words = row(trial, {})
    if trial.status != "ok":
        return (trial.name, *[""] * len(columns), words.verdict)
    known = {
        "times as fast": words.times_as_fast,
        "mean deviation": words.mean_deviation,
        "max deviation": words.max_deviation,
        "flips": words.flips,
        "on disk": words.size,
        **words.measured,
    }
    figures = [known.get(column, MISSING) for column in columns]
    return (trial.name, *figures, f"{'✓' if trial.passed else '✗'} {words.verdict}")


def _line(trial: Trial) -> Any:
    from rich.text import Text

    from plimsoll.report.reason import in_words

    shown = _columns([trial])
    name, *figures, verdict = _cells(trial, shown)
    reason = in_words(trial.reason, {})
    result = f"{verdict}: {reason}" if reason else verdict
    if trial.status != "ok":
        return Text(f"{name:<72} {result}")
    columns = "  ".join(f"{column} {figure:<8}" for column, figure in zip(shown, figures, strict=True))
    return Text(f"{name:<72} {columns}  {result}")


def _style(trial: Trial) -> str | None:
    if trial.passed:
        return "green"
    return {"ok": None, "failed": "red"}.get(trial.status, "dim")

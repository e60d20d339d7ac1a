"""What `plimsoll bench` shows: the verdict first, then the figures, then where the time goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from plimsoll.benchmark import BenchmarkResult, Estimate, Footprint, MaxRate, Profile, RateTrial

_STYLES = {"faster": "bold green", "slower": "bold red", "no difference": "bold yellow"}
_BAR = 32


@contextmanager
def progress(*, enabled: bool) -> Iterator[Callable[[float], None] | None]:
    """Show a bar on the terminal's standard error; yields what to call with the share that is done."""
    console = Console(stderr=True)
    if not enabled or not console.is_terminal:
        yield None
        return
    with Progress(TextColumn("measuring"), BarColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=1.0)
        yield lambda share: bar.update(task, completed=share)


def show(
    result: BenchmarkResult, profiles: Sequence[Profile], footprints: Mapping[str, Footprint], notes: Sequence[str]
) -> None:
    """Print everything about a finished benchmark."""
    console = Console(highlight=False)
    for comparison in result.comparisons:
        console.print(Text(comparison.sentence(), style=_STYLES[comparison.verdict]), soft_wrap=True)
    if result.comparisons:
        console.print()
    console.print(_table(result, footprints))
    counts = (
        f"{result.images:,} pictures, {len(result.systems[0].rounds)} rounds in turns, {result.cores} cores, from"
        " file to answer"
    )
    console.print(Text(counts, style="dim"), soft_wrap=True)
    for profile in profiles:
        console.print()
        _show_profile(console, profile)
    for warning in [*result.warnings, *notes]:
        console.print(Text(f"! {warning}", style="yellow"), soft_wrap=True)


def _table(result: BenchmarkResult, footprints: Mapping[str, Footprint]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    ranks = sorted({name for system in result.systems for name in system.percentiles}, key=lambda name: float(name[1:]))
    table.add_column(
        "candidate", overflow="fold", min_width=min(24, max(len(system.name) for system in result.systems))
    )
    figures = ["images/s", *(f"{name.upper()} ms" for name in ranks)]
    cost_headings = ["MB on disk", "load s", "peak MB", "threads"] if footprints else []
    for heading in [*figures, *cost_headings, "answers"]:
        table.add_column(heading, justify="right", no_wrap=True)
    for system in result.systems:
        times = [f"{1e3 * system.percentiles[name]:.1f}" if name in system.percentiles else "–" for name in ranks]
        failed = f" ({system.failed:,} failed)" if system.failed else ""
        costs = _costs(footprints.get(system.name)) if footprints else []
        table.add_row(Text(system.name), _interval(system.rate), *times, *costs, f"{system.answered:,}{failed}")
    return table


def _interval(rate: Estimate) -> str:
    known = math.isfinite(rate.uncertainty)
    return f"{rate.median:,.1f} ± {rate.uncertainty:.0%}" if known else f"{rate.median:,.1f}"


def _costs(footprint: Footprint | None) -> list[str]:
    if footprint is None:
        return ["–"] * 4
    peak = f"{footprint.peak_bytes / 1e6:,.0f}" if math.isfinite(footprint.peak_bytes) else "–"
    return [
        f"{footprint.disk_bytes / 1e6:.1f}",
        f"{footprint.load_seconds:.2f}",
        peak,
        f"{footprint.threads.streams} × {footprint.threads.threads}",
    ]


def _show_profile(console: Console, profile: Profile) -> None:
    total = sum(stage.seconds for stage in profile.stages)
    console.print(Text(f"{profile.name}: {1e3 * total:.2f} ms of work a picture", style="bold"), soft_wrap=True)
    widest = max(len(stage.name) for stage in profile.stages)
    for stage in profile.stages:
        filled = round(_BAR * stage.share)
        line = Text(f"  {stage.name:<{widest}}  ")
        line.append("█" * filled, style="cyan")
        line.append("·" * (_BAR - filled), style="dim")
        line.append(f" {1e3 * stage.seconds:7.2f} ms {stage.share:6.1%}")
        console.print(line)
    console.print(
        Text(
            f"  {'queue':<{widest}}  {'':{_BAR}} {1e3 * profile.queue:7.2f} ms of waiting while all cores are busy",
            style="dim",
        ),
        soft_wrap=True,
    )
    console.print(
        Text(
            f"  with an infinitely fast network: {profile.infinite_network_rate:,.0f} images/s; with infinitely fast"
            f" preprocessing: {profile.infinite_preprocessing_rate:,.0f} images/s"
        )
    )


def trial_printer(name: str) -> Callable[[RateTrial], None]:
    """Return what prints each trial of a search, on standard error."""
    console = Console(stderr=True, highlight=False)

    def show_trial(trial: RateTrial) -> None:
        latency = f"{1e3 * trial.latency:,.1f} ms" if math.isfinite(trial.latency) else "too many too late"
        console.print(Text(f"{name}: {trial.rate:,.1f} a second: {latency}", style="dim"), soft_wrap=True)

    return show_trial


def show_rates(rates: Mapping[str, MaxRate]) -> None:
    """Print the highest rate of each candidate."""
    console = Console(highlight=False)
    for name, highest in rates.items():
        bound = f"P{highest.rank:g} ≤ {1e3 * highest.latency_bound:g} ms"
        text = (
            f"{name} keeps {bound} up to {highest.rate:,.1f} pictures a second"
            if highest.rate
            else f"{name} keeps {bound} at no rate that was tried"
        )
        console.print(Text(text, style="bold"), soft_wrap=True)

"""Where the time goes: the work on one picture, stage by stage, reference and winner on one scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from plimsoll.report import figures
from plimsoll.report.ship_result import ShipResult

_NETWORK = frozenset({"inference", "network", "infer"})
_OUTPUT = frozenset({"output", "answer", "postprocess", "decode output"})
_WAITING = frozenset({"queue", "wait", "waiting", "transfer"})
_TINTS = 6

Stages = dict[str, float]
"""Stage → milliseconds, in the order in which they run."""


@dataclass(frozen=True)
class Segment:
    """One stage's part of a bar."""

    stage: str
    milliseconds: float
    css_class: str
    start: float
    """Where it starts, and its length: shares of the longest bar."""
    length: float
    share: float
    """Of its own bar."""


@dataclass(frozen=True)
class Bar:
    """The work on one picture."""

    name: str
    total: float
    segments: list[Segment]
    note: str = ""


def bars(result: ShipResult) -> list[Bar]:
    """Return a bar for the reference, one for the winner, and one for the winner if its network took no time; those
    that were timed."""
    before, after = known(result.stages.reference), known(result.stages.winner)
    longest = max(sum(before.values()), sum(after.values()))
    if longest <= 0:
        return []
    drawn = [("reference", before, ""), ("ships", after, "")]
    ceiling = result.infinite_network_images_per_second
    if math.isfinite(ceiling) and any(map(_is_network, after)):
        rest = {stage: 0.0 if _is_network(stage) else value for stage, value in after.items()}
        if sum(rest.values()) > 0:
            drawn.append(("with an infinitely fast network", rest, f"{figures.rate(ceiling)} images/s"))
    return [
        Bar(name, sum(stages.values()), list(_segments(stages, longest)), note)
        for name, stages, note in drawn
        if stages
    ]


def _segments(stages: Stages, longest: float) -> Iterator[Segment]:
    start, total = 0.0, sum(stages.values())
    for index, (stage, value) in enumerate(stages.items()):
        length = value / longest
        yield Segment(stage, value, stage_class(stage, index), start, length, value / total if total else 0.0)
        start += length


def summary(result: ShipResult) -> str:
    """Return what the bars say, in a sentence or two."""
    before, after = known(result.stages.reference), known(result.stages.winner)
    total = sum(after.values())
    if total <= 0:
        return ""
    own = [value for stage, value in after.items() if _is_network(stage)]
    subject = "the network is" if len(own) < 2 else "the networks are"
    versus = f" instead of {figures.milliseconds(sum(before.values()))} ms" if before else ""
    work = (
        f"One picture is {figures.milliseconds(total)} ms of work{versus}; {subject}"
        f" {figures.percent(sum(own) / total)} of it."
    )
    ceiling = result.infinite_network_images_per_second
    if not math.isfinite(ceiling):
        return work
    which = "an infinitely fast network" if len(own) < 2 else "infinitely fast networks"
    return f"{work} With {which}: {figures.rate(ceiling)} images/s."


def known(stages: dict[str, float]) -> Stages:
    """Return the stages that were timed."""
    return {stage: value for stage, value in stages.items() if math.isfinite(value) and value >= 0}


def _is_network(stage: str) -> bool:
    return _own(stage) in _NETWORK


def _own(stage: str) -> str:
    """Return a stage's name without the network's, which stands before it in a cascade."""
    return stage.lower() if stage.lower() in _OUTPUT else stage.lower().rpartition(" ")[2]


def stage_class(stage: str, index: int) -> str:
    """Return the CSS class of a stage: the network, the output and waiting stand out, the input steps are tints of one
    colour."""
    if _is_network(stage):
        return "s-network"
    if _own(stage) in _OUTPUT:
        return "s-answer"
    return "s-waiting" if _own(stage) in _WAITING else f"s-input-{index % _TINTS}"


@dataclass(frozen=True)
class StageRow:
    """A stage in the table: its time and share in the reference and in the winner; NaN where one has no such stage."""

    stage: str
    css_class: str
    times: tuple[tuple[float, float], ...]


def stage_rows(result: ShipResult) -> list[StageRow]:
    """Return every stage once; what only the winner has follows what precedes it there."""
    both = known(result.stages.reference), known(result.stages.winner)
    before, after = map(list, both)
    names = list(before)
    for index, stage in enumerate(after):
        if stage not in names:
            names.insert(names.index(after[index - 1]) + 1 if index else 0, stage)
    indices = {stage: index for stages in both for index, stage in enumerate(stages)}
    return [
        StageRow(stage, stage_class(stage, indices[stage]), tuple(_time(stages, stage) for stages in both))
        for stage in names
    ]


def _time(stages: Stages, stage: str) -> tuple[float, float]:
    value, total = stages.get(stage, math.nan), sum(stages.values())
    return value, value / total if total > 0 else math.nan

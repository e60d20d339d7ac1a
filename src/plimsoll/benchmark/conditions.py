"""What else the machine was doing: a benchmark that ran beside other work says so."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from plimsoll.system import host

_STAT = Path("/proc/stat")
_IDLE, _IOWAIT, _STEAL = 3, 4, 7
"""Columns of the `cpu` line of /proc/stat (proc_stat(5)); the first eight are disjoint."""


@dataclass(frozen=True)
class Snapshot:
    """The machine's counters at one moment, in seconds of CPU time; NaN where the system doesn't provide them."""

    wall: float
    own: float
    busy: float
    steal: float
    total: float
    load: float
    """The load average of the last minute."""


def snapshot(stat: Path = _STAT) -> Snapshot:
    """Read the counters."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    busy, steal, total = _processor_times(stat)
    return Snapshot(time.perf_counter(), time.process_time(), busy, steal, total, load)


def _processor_times(stat: Path) -> tuple[float, float, float]:
    try:
        fields = stat.read_text().splitlines()[0].split()
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in fields[1:9]]
    except (OSError, ValueError, IndexError, AttributeError):
        return math.nan, math.nan, math.nan
    if fields[0] != "cpu" or len(ticks) <= _STEAL:
        return math.nan, math.nan, math.nan
    total = sum(ticks)
    return total - ticks[_IDLE] - ticks[_IOWAIT] - ticks[_STEAL], ticks[_STEAL], total


@dataclass(frozen=True)
class Conditions:
    """How quiet the machine was between two snapshots; NaN where the system doesn't provide it."""

    load_before: float
    """The load average of the last minute before the start."""
    others: float
    """How many cores other programs kept busy on average; in a container this counts the whole host."""
    steal: float
    """The share of CPU time that the hypervisor gave to other machines."""

    @classmethod
    def between(cls, before: Snapshot, after: Snapshot) -> Conditions:
        """Work out what happened between two snapshots."""
        wall, total = after.wall - before.wall, after.total - before.total
        others = (after.busy - before.busy - (after.own - before.own)) / wall if wall > 0 else math.nan
        steal = (after.steal - before.steal) / total if total > 0 else math.nan
        return cls(before.load, max(0.0, others) if math.isfinite(others) else math.nan, steal)

    def warnings(self, cores: int | None = None) -> list[str]:
        """Return what a reader of the figures must know."""
        count = cores or host.cores()
        warnings = []
        if self.others > 0.1 * count:
            warnings.append(f"other programs kept {self.others:.1f} of {count} cores busy")
        elif math.isnan(self.others) and self.load_before > 0.5 * count:
            warnings.append(f"the load average was {self.load_before:.1f} on {count} cores before the start")
        if self.steal > 0.01:
            warnings.append(f"the hypervisor took {self.steal:.0%} of the CPU time for other machines")
        return warnings

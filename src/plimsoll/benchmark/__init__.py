"""How fast a deployment is, end to end, and whether another one is faster: measured in turns, with an interval, after
MLPerf LoadGen's scenarios.

    measure       bench(): systems measured round by round, A B A B …
    scenarios     offline, single stream, server, and the highest rate that a server sustains
    statistics    percentiles, intervals, verdicts
    profile       where a picture's time goes; bytes on disk, time to load, peak memory
    results       all of it as a Report

>>> from plimsoll.benchmark import SystemUnderTest, bench
>>> reference = SystemUnderTest("reference", load("open_nsfw"))  # doctest: +SKIP
>>> fast = SystemUnderTest("fast", load("open_nsfw", preprocessing="fast"))  # doctest: +SKIP
>>> result = bench([reference, fast], photos)  # doctest: +SKIP
>>> print(result.comparisons[0].sentence())  # doctest: +SKIP
"""

from plimsoll.benchmark.measure import BenchmarkResult, SystemResult, SystemUnderTest, bench
from plimsoll.benchmark.profile import Footprint, Profile, Stage, footprint, profile
from plimsoll.benchmark.results import rates_report, report
from plimsoll.benchmark.scenarios import (
    MaxRate,
    Offline,
    RateTrial,
    RoundResult,
    Scenario,
    Server,
    SingleStream,
    arrivals,
    max_rate,
)
from plimsoll.benchmark.statistics import Estimate, SpeedComparison, compare_speeds, estimate, percentile, percentiles

__all__ = [
    "BenchmarkResult",
    "Estimate",
    "Footprint",
    "MaxRate",
    "Offline",
    "Profile",
    "RateTrial",
    "RoundResult",
    "Scenario",
    "Server",
    "SingleStream",
    "SpeedComparison",
    "Stage",
    "SystemResult",
    "SystemUnderTest",
    "arrivals",
    "bench",
    "compare_speeds",
    "estimate",
    "footprint",
    "max_rate",
    "percentile",
    "percentiles",
    "profile",
    "rates_report",
    "report",
]

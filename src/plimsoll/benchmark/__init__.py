"""How fast a deployment is, end to end, and whether another one is faster: measured in turns, with an interval, after
MLPerf LoadGen's scenarios.

    measure       bench(): systems measured round by round, A B A B …
    scenarios     offline, single stream, server
    rates         the highest arrival rate at which a server keeps its latency bound
    statistics    percentiles, intervals, verdicts
    profile       where a picture's time goes
    footprint     bytes on disk, time to load, peak memory
    conditions    what else the machine was doing
    results       all of it as a Report

>>> from plimsoll.benchmark import SystemUnderTest, bench
>>> reference = SystemUnderTest("reference", load("open_nsfw"))  # doctest: +SKIP
>>> fast = SystemUnderTest("fast", load("open_nsfw", preprocessing="fast"))  # doctest: +SKIP
>>> result = bench([reference, fast], photos)  # doctest: +SKIP
>>> print(result.comparisons[0].sentence())  # doctest: +SKIP
"""

from plimsoll.benchmark.footprint import Footprint, footprint
from plimsoll.benchmark.measure import BenchmarkResult, SystemResult, SystemUnderTest, bench
from plimsoll.benchmark.profile import Profile, Stage, profile
from plimsoll.benchmark.rates import MaxRate, RateTrial, max_rate
from plimsoll.benchmark.results import rates_report, report
from plimsoll.benchmark.scenarios import Offline, RoundResult, Scenario, Server, SingleStream, arrivals
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

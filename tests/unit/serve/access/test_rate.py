"""Token buckets, with a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.access_keys import Clock
from plimsoll.serve.access.keys import Limit, Rate, TokenBucket, TokenBuckets


@pytest.mark.parametrize(
    ("text", "per_second"),
    [("10/s", 10.0), ("600/m", 10.0), (" 5000 / h", 5000 / 3600), ("0.5/s", 0.5), ("86400/d", 1.0)],
)
def test_a_rate_is_read(text: str, per_second: float) -> None:
    assert Rate.parse(text).per_second == pytest.approx(per_second)
    assert Rate.parse(str(Rate.parse(text))) == Rate.parse(text)


@pytest.mark.parametrize(
    "text", ["", "10", "10/w", "-1/s", "0/s", "nan/s", "1e9/s", "inf/s", "١/s", "10/s\n10/s", "9" * 5000 + "/s"]
)
def test_what_is_not_a_rate_is_reported(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        Rate.parse(text)


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(Limit(Rate.parse("2/s"), 3), clock)
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    clock.now += 0.5
    assert [bucket.take(), bucket.take()] == [0.0, 0.5]
    clock.now += 3600
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_who_is_refused_pays_nothing() -> None:
    clock = Clock()
    bucket = TokenBucket(Limit(Rate.parse("1/s"), 1), clock)
    bucket.take()
    assert [bucket.take() for _ in range(100)] == [1.0] * 100
    clock.now += 1
    assert bucket.take() == 0.0


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 10))
def test_a_bucket_never_gives_more_than_its_rate_and_burst(gaps: list[float], rate: int, burst: int) -> None:
    clock = Clock()
    bucket = TokenBucket(Limit(Rate(rate, 1.0), burst), clock)
    taken = 0
    for gap in gaps:
        clock.now += gap
        while bucket.take() == 0.0:
            taken += 1
    assert taken <= burst + rate * sum(gaps) + 1e-6


def test_what_is_owed_is_waited_for() -> None:
    clock = Clock()
    bucket = TokenBucket(Limit(Rate.parse("10/s"), 10), clock)
    assert bucket.take() == 0.0
    bucket.owe(29)
    assert bucket.take() == pytest.approx(2.1)
    clock.now += 2.1
    assert bucket.take() == 0.0


def test_a_new_limit_keeps_what_was_used() -> None:
    clock = Clock()
    buckets = TokenBuckets(10, clock)
    first = buckets.of("a", Limit(Rate.parse("1/s"), 5))
    for _ in range(5):
        first.take()
    second = buckets.of("a", Limit(Rate.parse("1/s"), 50))
    assert second is first
    assert second.take() == 1.0


def test_callers_without_end_take_no_memory_without_end() -> None:
    buckets = TokenBuckets(100)
    bucket = buckets.of("regular", Limit(Rate.parse("1/h"), 1))
    assert bucket.take() == 0.0
    for number in range(1000):
        buckets.of(number, Limit(Rate.parse("1/h"), 1))
        assert buckets.of("regular", Limit(Rate.parse("1/h"), 1)).take() > 0, (
            "a caller that comes back is not forgotten"
        )
    assert len(buckets) == 100

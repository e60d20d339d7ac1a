"""The queue: its bound, its order, its batches."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from plimsoll.serve.messages import RequestError, RequestOptions
from plimsoll.serve.scheduler import Queue
from plimsoll.serve.worker_handle import Item


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def item(clock: Clock, priority: int = 0, rows: int = 1, kind: Any = "answer", attempts: int = 0) -> Item:
    return Item(
        kind,
        {},
        (),
        rows,
        RequestOptions(priority=priority),
        asyncio.Future(loop=asyncio.new_event_loop()),
        clock(),
        attempts,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> Queue:
    return Queue(8, clock)


@pytest.fixture(autouse=True)
def _closed_loops(monkeypatch: pytest.MonkeyPatch) -> Any:
    loops = []
    original = asyncio.new_event_loop

    def new() -> Any:
        loops.append(original())
        return loops[-1]

    monkeypatch.setattr(asyncio, "new_event_loop", new)
    yield
    for loop in loops:
        loop.close()


def test_it_is_bounded_by_rows_and_what_is_discarded_makes_room(queue: Queue, clock: Clock) -> None:
    first = item(clock, rows=7)
    queue.admit(7, 1.0)
    queue.put(first)
    queue.admit(250, 1.0)  # any request gets in while there is room for a single picture, or large ones never would
    queue.put(second := item(clock, rows=250))
    with pytest.raises(RequestError, match="queue is full: 257 of 8") as refused:
        queue.admit(1, 7.0)
    assert queue.discard(second)
    assert (refused.value.problem.status, refused.value.problem.retry_after) == (503, 7.0)
    assert queue.discard(first)
    assert not queue.discard(first)
    queue.admit(8, 1.0)
    assert queue.take(8) == []


def test_order_is_by_priority_and_then_by_arrival_and_no_batch_is_too_large(queue: Queue, clock: Clock) -> None:
    low, first, second, high = items = item(clock, -1), item(clock), item(clock), item(clock, 1)
    for waiting in items:
        queue.put(waiting)
    clock.now += 0.5
    assert queue.take(3) == [high, first, second]
    assert queue.take(3) == [low]
    assert [waiting.waited for waiting in items] == [0.5] * 4
    assert queue.rows == 0


def test_rows_count_and_pictures_and_tensors_do_not_mix(queue: Queue, clock: Clock) -> None:
    wide, narrow, picture = item(clock, rows=3, kind="tensors"), item(clock, rows=2, kind="tensors"), item(clock)
    for waiting in (wide, narrow, picture):
        queue.put(waiting)
    assert queue.take(4) == [wide]
    assert queue.take(4) == [narrow]
    assert queue.take(4) == [picture]


def test_an_item_wider_than_a_batch_goes_alone(queue: Queue, clock: Clock) -> None:
    wide = item(clock, rows=5)
    queue.put(wide)
    queue.put(item(clock))
    assert queue.take(4) == [wide]


def test_what_lost_a_worker_goes_first_and_alone(queue: Queue, clock: Clock) -> None:
    others = [item(clock), item(clock)]
    for waiting in others:
        queue.put(waiting)
    assert not queue.next_is_suspect
    lost = item(clock, attempts=1)
    queue.requeue(lost)
    assert queue.next_is_suspect
    assert queue.take(8) == [lost]
    assert queue.take(8) == others


def test_a_lone_picture_never_waits_and_a_stream_waits_for_its_batch(queue: Queue, clock: Clock) -> None:
    queue.put(item(clock))
    assert queue.batch_delay(4, 0.01) == 0, "nothing says that another one will come"
    queue.take(4)
    for _ in range(31):
        clock.now += 0.001
        queue.put(item(clock))
        if queue.rows > 1:
            queue.take(4)
    assert queue.rows == 1
    assert queue.batch_delay(4, 0.01) == pytest.approx(0.01)
    assert queue.batch_delay(4, 0) == 0
    assert queue.batch_delay(1, 0.01) == 0, "the batch is full"
    clock.now += 0.02
    assert queue.batch_delay(4, 0.01) == 0, "it has waited long enough"

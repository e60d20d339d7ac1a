"""The bound on what pictures under way take."""

from __future__ import annotations

import threading

import pytest

from plimsoll.preprocessing.memory import MemoryBudget, budget
from plimsoll.system import host


def test_threads_wait_for_room_and_all_of_them_finish() -> None:
    shared = MemoryBudget(100)
    most, lock, together = [0], threading.Lock(), [0]

    def work() -> None:
        for size in (40, 60, 30, 250):
            with shared.picture():
                shared.reserve(size)
                with lock:
                    together[0] += size
                    alone = together[0] == size
                    most[0] = max(most[0], together[0] if not alone else 0)
                with lock:
                    together[0] -= size

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert most[0] <= 100
    assert shared.taken == 0


def test_a_picture_larger_than_all_room_waits_until_it_is_alone() -> None:
    shared = MemoryBudget(100)
    started, entered = threading.Event(), threading.Event()

    def large() -> None:
        with shared.picture():
            started.set()
            shared.reserve(500)
            entered.set()

    with shared.picture():
        shared.reserve(10)
        thread = threading.Thread(target=large)
        thread.start()
        assert started.wait(10)
        assert not entered.wait(0.1)
    assert entered.wait(10)
    thread.join(10)
    assert shared.taken == 0


def test_a_thread_that_holds_some_takes_more_without_waiting() -> None:
    shared = MemoryBudget(100)
    with shared.picture():
        shared.reserve(80)
        shared.reserve(80)
        assert shared.taken == 160
    assert shared.taken == 0


def test_an_error_gives_back_what_was_taken() -> None:
    shared = MemoryBudget(100)

    def fails() -> None:
        with shared.picture():
            shared.reserve(80)
            raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        fails()
    assert shared.taken == 0


def test_outside_of_a_picture_nothing_is_taken() -> None:
    shared = MemoryBudget(100)
    shared.reserve(1000)
    assert shared.taken == 0


def test_the_room_follows_the_memory_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for memory, room in ((1 << 30, 200_000_000), (32 << 30, 1 << 30), (1 << 40, 4_000_000_000), (None, 500_000_000)):
        monkeypatch.setattr(host, "memory_bytes", lambda memory=memory: memory)
        budget.cache_clear()
        assert budget().room == room
    budget.cache_clear()

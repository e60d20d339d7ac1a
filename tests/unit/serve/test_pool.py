"""When a worker is replaced: the reasons, with a clock that the test sets."""

from __future__ import annotations

import pytest

from plimsoll.core.target import Target
from plimsoll.serve.folders import ServiceFolder
from plimsoll.serve.ipc import Arena
from plimsoll.serve.pool import PlanOptions, Pool, PoolCallbacks, WorkerPlan
from plimsoll.serve.settings import MEBIBYTE, Settings
from plimsoll.serve.worker_handle import Batch, WorkerHandle

NOW = 1000.0


def pool(settings: Settings) -> Pool:
    callbacks = PoolCallbacks(lambda *_: None, lambda *_: None, lambda: None, lambda _: None)
    plan = WorkerPlan.of(Target("onnxruntime"), 0, PlanOptions(workers=1), 1)
    return Pool("m", {}, plan, settings, Arena.create(64), ServiceFolder(None), callbacks)


@pytest.fixture
def worker() -> WorkerHandle:
    return WorkerHandle(
        1, ServiceFolder(None), 64, last_heard=NOW, resident=100 * MEBIBYTE, resident_at_start=100 * MEBIBYTE
    )


def test_a_worker_that_is_well_has_no_reason(worker: WorkerHandle) -> None:
    assert pool(Settings())._hang_reason(worker, NOW + 1.9) == ""
    assert pool(Settings())._memory_reason(worker) == ""


def test_silence_and_a_batch_that_takes_too_long_are_hangs(worker: WorkerHandle) -> None:
    watched = pool(Settings(heartbeat_timeout=2, batch_timeout=60))
    assert watched._hang_reason(worker, NOW + 2.1).startswith("silent: ")
    worker.in_flight[1] = Batch([], NOW - 60.5)
    assert watched._hang_reason(worker, NOW).startswith("hung: ")
    worker.in_flight[1] = Batch([], NOW - 59.5)
    assert watched._hang_reason(worker, NOW) == ""


@pytest.mark.parametrize(
    ("at_start", "limit", "resident", "replaced"),
    [
        (100, None, 1123, False),
        (100, None, 1125, True),
        (1000, None, 3999, False),
        (1000, None, 4001, True),
        (100, 200, 199, False),
        (100, 200, 201, True),
    ],
)
def test_memory_has_a_limit(
    worker: WorkerHandle, at_start: int, limit: int | None, resident: int, replaced: bool
) -> None:
    """In MiB: four times what it held at the start, and at least 1 GiB more, unless a setting says otherwise."""
    worker.resident_at_start, worker.resident = at_start * MEBIBYTE, resident * MEBIBYTE
    settings = Settings(worker_bytes=None if limit is None else limit * MEBIBYTE)
    assert pool(settings)._memory_reason(worker).startswith("memory: ") is replaced

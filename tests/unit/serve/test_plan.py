"""How a model shares a machine."""

from __future__ import annotations

import pytest

from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.serve.pool import PlanOptions, WorkerPlan
from plimsoll.system import host

FLOAT, INT8, GPU = Target("onnxruntime"), Target("openvino", "cpu", "int8"), Target("onnxruntime", "gpu", "float16")


def shape(plan: WorkerPlan) -> tuple[int, int, int]:
    return plan.workers, plan.threads, plan.max_batch


@pytest.fixture(autouse=True)
def _plenty_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "memory_bytes", lambda: 64_000_000_000)


def test_each_core_gets_a_worker_or_all_work_on_one_picture() -> None:
    assert shape(WorkerPlan.of(FLOAT, 20_000_000, PlanOptions(), 8)) == (8, 1, 1)
    assert shape(WorkerPlan.of(INT8, 20_000_000, PlanOptions(), 8)) == (8, 1, 4)
    assert shape(WorkerPlan.of(FLOAT, 20_000_000, PlanOptions(objective="latency"), 8)) == (1, 8, 1)


def test_what_is_asked_for_is_done_and_the_rest_follows() -> None:
    assert shape(WorkerPlan.of(FLOAT, 0, PlanOptions(workers=2), 8)) == (2, 4, 1)
    assert shape(WorkerPlan.of(FLOAT, 0, PlanOptions(threads=2), 8)) == (4, 2, 1)
    assert shape(WorkerPlan.of(FLOAT, 0, PlanOptions(workers=16, threads=2, max_batch=8), 8)) == (16, 2, 8)
    with pytest.raises(InputError, match="--workers 0"):
        WorkerPlan.of(FLOAT, 0, PlanOptions(workers=0), 8)


def test_a_device_has_one_owner_and_batches_for_which_pictures_wait() -> None:
    plan = WorkerPlan.of(GPU, 0, PlanOptions(), 8)
    assert (plan.workers, plan.decoders, plan.max_batch) == (1, 8, 32)
    assert 0 < plan.max_delay < 0.01
    assert WorkerPlan.of(GPU, 0, PlanOptions(max_delay=0.0), 8).max_delay == 0


def test_workers_fit_into_the_memory_and_the_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "memory_bytes", lambda: 8_000_000_000)
    plan = WorkerPlan.of(FLOAT, 500_000_000, PlanOptions(), 8)
    assert shape(plan) == (2, 4, 1)
    assert any("reduced to 2 workers" in reason for reason in plan.why)
    assert WorkerPlan.of(FLOAT, 500_000_000, PlanOptions(workers=8), 8).workers == 8, "who asks for it gets it"

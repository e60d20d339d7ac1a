"""Nothing that the service does beside its requests ends silently."""

from __future__ import annotations

import ast
import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import plimsoll.serve
from helpers.oip_service import patient, serving, write_mixed
from helpers.service_process import children, until
from plimsoll.serve.background import in_background, lasting
from plimsoll.serve.pool import Pool
from plimsoll.serve.worker_handle import WorkerHandle

SOURCES = Path(plimsoll.serve.__file__).parent


def test_lasting_work_begins_again_whatever_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    faults: list[Exception] = [OSError(24, "too many files"), RuntimeError("can't start new thread"), KeyError("x")]

    async def work() -> None:
        if faults:
            raise faults.pop()

    asyncio.run(asyncio.wait_for(lasting("watching", work), 10))
    assert not faults
    assert [record.exc_info is not None for record in caplog.records] == [True] * 3


def test_work_in_the_background_says_what_ended_it(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise KeyError("x")

    async def run() -> None:
        tasks: set[asyncio.Task[None]] = set()
        in_background("comparing", fail(), tasks)
        while tasks:
            await asyncio.sleep(0)

    asyncio.run(run())
    [record] = caplog.records
    assert (record.levelno, "comparing" in record.getMessage()) == (logging.ERROR, True)


def test_a_worker_is_replaced_though_its_end_and_the_watch_over_it_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the system has no room for a thread: what sees to the workers must not end of that."""
    end, look = WorkerHandle.end, Pool._hang_reason
    faults = {"end": 2, "watch": 1}

    async def failing_end(worker: WorkerHandle) -> str:
        reason = await end(worker)
        if faults["end"]:
            faults["end"] -= 1
            raise RuntimeError("can't start new thread")
        return reason

    def failing_look(pool: Pool, worker: WorkerHandle, now: float) -> str:
        if faults["watch"]:
            faults["watch"] -= 1
            raise OSError(24, "too many open files")
        return look(pool, worker, now)

    monkeypatch.setattr(WorkerHandle, "end", failing_end)
    monkeypatch.setattr(Pool, "_hang_reason", failing_look)
    others = set(children())
    with serving(patient().model_copy(update={"heartbeat_timeout": 3}), write_mixed(tmp_path)) as service:
        for number in (signal.SIGKILL, signal.SIGSTOP):  # the second is noticed by the watch alone
            (worker,) = set(children()) - others
            os.kill(worker, number)
            until(lambda gone=worker: set(children()) - others - {gone}, "another worker")  # type: ignore[misc]
            until(lambda: service.get("/readyz").status_code == 200, "it to be ready")
            until(lambda gone=worker: gone not in children(), "the worker to be gone")  # type: ignore[misc]
    assert faults == {"end": 0, "watch": 0}


def test_each_task_is_waited_for_or_sees_to_itself() -> None:
    """Each `create_task` and `ensure_future` is of lasting work, or whoever makes it waits for it, or looks at what
    came of it."""
    unseen = [
        f"{file.relative_to(SOURCES)}:{call.lineno}"
        for file in sorted(SOURCES.rglob("*.py"))
        for call, owner in _tasks(ast.parse(file.read_text()))
        if not _is_seen(call, owner)
    ]
    assert unseen == []


def _tasks(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.AST]]:
    """Yield each call that makes a task, with the outermost class or function that it stands in."""
    for owner in tree.body:
        for node in ast.walk(owner):
            match node:
                case ast.Call(func=ast.Attribute(attr="create_task" | "ensure_future")):
                    yield node, owner


def _is_seen(call: ast.Call, owner: ast.AST) -> bool:
    argument = call.args[0]
    if isinstance(argument, ast.Call) and isinstance(argument.func, ast.Name) and argument.func.id == "lasting":
        return True
    names = {
        ast.unparse(target)
        for node in ast.walk(owner)
        if isinstance(node, ast.Assign) and any(part is call for part in ast.walk(node.value))
        for target in node.targets
    }
    text = [ast.unparse(node) for node in ast.walk(owner) if isinstance(node, ast.Await | ast.Call)]
    looks = (".result()", ".exception()", ".add_done_callback(", "gather(", "asyncio.wait(", "shield(")
    return any(
        name.partition("[")[0] in part and (part == f"await {name}" or any(look in part for look in looks))
        for name in names
        for part in text
    ) or "waiting.append" in ast.unparse(owner)

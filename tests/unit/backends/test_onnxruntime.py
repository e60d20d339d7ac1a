"""ONNX Runtime's own options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.contract_networks import expected, network
from plimsoll.backends.base import ThreadPlan
from plimsoll.backends.onnxruntime import backend
from plimsoll.backends.runner import Runner
from plimsoll.core.target import Target
from plimsoll.errors import TargetError
from plimsoll.system import host

TARGET = Target("onnxruntime")
PICTURES = np.random.default_rng(3).random((2, 5, 6, 3), np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {"graph_optimization": "off"},
        {"graph_optimization": "basic"},
        {"graph_optimization": "extended"},
        {"arena": "no"},
        {"spinning": "yes"},
        {"threads": "2"},
        {"exact_int8": "yes"},
    ],
    ids=str,
)
def test_no_option_changes_the_answers(tmp_path: Path, options: dict[str, str]) -> None:
    with Runner.open(network(tmp_path / "net.onnx"), TARGET, options=options) as runner:
        np.testing.assert_allclose(runner.infer(PICTURES)["scores"], expected(PICTURES), atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"threads": "0"}, {"threads": "many"}, {"arena": "perhaps"}, {"graph_optimization": "most"}], ids=str
)
def test_a_value_that_is_invalid_is_named(options: dict[str, str]) -> None:
    (name,) = options
    with pytest.raises(TargetError, match=name):
        backend.BACKEND.read_options(options)


def settings(plan: ThreadPlan, **options: Any) -> Any:
    return backend._settings(backend._runtime(), backend.OnnxRuntimeOptions(**options), plan)


def test_the_plan_says_the_threads_unless_an_option_does() -> None:
    assert settings(ThreadPlan(3, 2)).intra_op_num_threads == 2
    assert settings(ThreadPlan(3, 2), threads=5).intra_op_num_threads == 5


def test_waiting_threads_spin_only_where_there_are_several_or_it_is_asked() -> None:
    def spins(plan: ThreadPlan, **options: Any) -> str:
        return str(settings(plan, **options).get_session_config_entry("session.intra_op.allow_spinning"))

    assert (
        spins(ThreadPlan(4, 1)),
        spins(ThreadPlan(1, 4)),
        spins(ThreadPlan(1, 4), spinning=False),
        spins(ThreadPlan(4, 1), spinning=True),
    ) == tuple("0101")


@pytest.mark.parametrize(
    ("machine", "sets", "exact"),
    [
        ("x86_64", ("avx2", "sse4_1"), "1"),
        ("x86_64", ("avx512f", "sse4_1"), "1"),
        ("x86_64", ("avx512_vnni", "sse4_1"), "0"),
        ("x86_64", ("avx_vnni", "sse4_1"), "0"),
        ("aarch64", ("asimddp",), "0"),
        ("x86_64", (), "0"),
    ],
    ids=str,
)
def test_int8_is_kept_from_saturating_where_the_processor_would(
    monkeypatch: pytest.MonkeyPatch, machine: str, sets: tuple[str, ...], exact: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(host, "instruction_sets", lambda: sets)
    entry = "session.x64quantprecision"
    assert settings(ThreadPlan(1, 1)).get_session_config_entry(entry) == exact
    assert settings(ThreadPlan(1, 1), exact_int8=True).get_session_config_entry(entry) == "1"
    assert settings(ThreadPlan(1, 1), exact_int8=False).get_session_config_entry(entry) == "0"


def test_a_stream_of_one_thread_starts_no_thread_of_its_own(tmp_path: Path) -> None:
    """Threads beyond the streams would fight with the decoders for the cores."""
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        pytest.skip("threads can only be counted on Linux")
    with Runner.open(network(tmp_path / "net.onnx"), TARGET) as first:
        first.infer(PICTURES)
        before = {task.name for task in tasks.iterdir()}
        with Runner.open(network(tmp_path / "net.onnx"), TARGET, plan=ThreadPlan(4, 1)) as runner:
            runner.infer(PICTURES)
            assert not {task.name for task in tasks.iterdir()} - before
        with Runner.open(network(tmp_path / "net.onnx"), TARGET, plan=ThreadPlan(1, 4)) as runner:
            runner.infer(PICTURES)
            assert len({task.name for task in tasks.iterdir()} - before) == 3


def test_what_is_not_installed_is_reported_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for offer in backend.BACKEND.targets():
        assert ("pip install onnxruntime" if offer.target.device == "cpu" else "onnxruntime-gpu") in offer.missing

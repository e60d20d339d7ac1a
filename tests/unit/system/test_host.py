"""The machine's real share of cores, with cgroup trees as a container shows them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from plimsoll.system import host


def tree(root: Path, files: dict[str, str], membership: str) -> tuple[Path, Path]:
    for name, content in files.items():
        file = root / "fs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (root / "membership").write_text(membership)
    return root / "fs", root / "membership"


@pytest.mark.parametrize(
    ("files", "membership", "quota"),
    [
        ({"cpu.max": "max 100000"}, "0::/", None),
        ({"cpu.max": "250000 100000"}, "0::/", 2.5),
        ({"a/cpu.max": "max 100000", "a/b/cpu.max": "50000 100000"}, "0::/a/b", 0.5),
        ({"a/cpu.max": "150000 100000", "a/b/cpu.max": "400000 100000"}, "0::/a/b", 1.5),
        ({"other/cpu.max": "50000 100000"}, "0::/a", None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/", None),
        ({"cpu/pod/cpu.cfs_quota_us": "300000", "cpu/pod/cpu.cfs_period_us": "100000"}, "4:cpu:/pod", 3.0),
        (
            {"cpu,cpuacct/pod/cpu.cfs_quota_us": "200000", "cpu,cpuacct/pod/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/pod",
            2.0,
        ),
        ({"cpu.max": "nonsense"}, "0::/", None),
        ({}, "", None),
    ],
    ids=[
        "unlimited",
        "v2",
        "v2 child",
        "v2 parent is tighter",
        "v2 elsewhere",
        "v1 unlimited",
        "v1",
        "v1 joined controllers",
        "unreadable",
        "nothing",
    ],
)
def test_the_tightest_quota_counts(tmp_path: Path, files: dict[str, str], membership: str, quota: float | None) -> None:
    assert host.cpu_quota(*tree(tmp_path, files, membership)) == quota


@pytest.mark.parametrize(
    ("quota", "affinity", "cores"), [(None, 4, 4), (2.5, 4, 2), (0.5, 4, 1), (8.0, 4, 4), (3.0, 4, 3)]
)
def test_cores_are_the_affinity_cut_by_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, affinity: int, cores: int
) -> None:
    monkeypatch.setattr(host, "cpu_quota", lambda: quota)
    monkeypatch.setattr(host, "_affinity", lambda: affinity)
    assert host.cores() == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity masks")
def test_the_affinity_mask_of_this_process_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert host.cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_it_describes_this_machine() -> None:
    facts = host.describe()
    assert facts["cores"] == host.cores() >= 1
    assert facts["processor"]
    assert isinstance(facts["instruction_sets"], list)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the kernel lists no processes")
def test_children_that_end_while_they_are_counted_are_no_error() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    assert list(host._descendants(ended.pid)) == []
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            assert child.pid in list(host._descendants(os.getpid()))
            assert (host.tree_bytes(os.getpid()) or 0) > (host.resident_bytes(os.getpid()) or 0) / 2
        finally:
            child.kill()


def test_memory() -> None:
    held, allowed = host.resident_bytes(os.getpid()), host.memory_bytes()
    if held is None or allowed is None:
        pytest.skip("the system doesn't tell")
    assert 10_000_000 < held < allowed
    assert host.resident_bytes(2**22 + 1) is None


@pytest.mark.parametrize(
    ("machine", "sets", "capable"),
    [
        ("x86_64", (), "x86"),
        ("x86_64", ("avx2", "sse4_1"), "x86 int8_saturates"),
        ("AMD64", ("avx2", "avx512f"), "x86 int8_saturates"),
        ("x86_64", ("avx2", "avx512_vnni"), "x86 vnni"),
        ("x86_64", ("avx2", "avx_vnni"), "x86 vnni"),
        ("x86_64", ("amx_int8", "amx_tile", "avx512f"), "x86 amx_int8 int8_saturates"),
        ("x86_64", ("amx_int8", "avx512_vnni"), "x86 amx_int8 vnni"),
        ("x86_64", ("avx512_bf16", "avx512_vnni"), "x86 vnni bfloat16"),
        ("x86_64", ("amx_bf16", "avx512_fp16", "avx512_vnni"), "x86 vnni bfloat16 float16"),
        ("aarch64", ("asimd",), ""),
        ("aarch64", ("asimd", "asimddp", "asimdhp", "bf16"), "bfloat16 float16"),
        ("arm64", (), ""),
    ],
    ids=str,
)
def test_what_the_processor_computes_natively_follows_from_its_flags(
    monkeypatch: pytest.MonkeyPatch, machine: str, sets: tuple[str, ...], capable: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(host, "instruction_sets", lambda: sets)
    assert {name for name, value in vars(host.capabilities()).items() if value} == set(capable.split())


def test_apples_processors_compute_in_float16_without_saying_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr(host, "instruction_sets", tuple)
    assert host.capabilities().float16

"""What this process may use of the machine: cores, memory, and what the processor computes natively.

A container or a batch system often grants less than the hardware has. Sizing thread pools by the core
count then makes threads fight for a quota, which is slower than using fewer.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

TELEMETRY_OFF: Mapping[str, str] = MappingProxyType({"ORT_DISABLE_TELEMETRY": "1"})
"""Environment variables that keep libraries from reporting their use, for every process that imports one.

ONNX Runtime 1.32 writes a device id and an event database below the home folder, and looks up its collector, as soon as
it is imported. A runtime without such a variable is imported by its backend in a way that keeps it silent.
"""
_CGROUP = Path("/sys/fs/cgroup")
_PROC_SELF_CGROUP = Path("/proc/self/cgroup")


def cores() -> int:
    """Return how many threads can run at once: the affinity mask, limited by the cgroup's CPU quota.

    A quota of 2.5 cores counts as 2 (at least 1), since a third thread would be throttled.
    """
    allowed = _affinity()
    quota = cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.floor(quota + 1e-6)))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = _CGROUP, membership: Path = _PROC_SELF_CGROUP) -> float | None:
    """Return the tightest CPU quota, in cores, of this process's cgroup and its parents (v2, then v1); None if
    unlimited."""
    quotas = [quota for folder in _cgroup_folders(root, membership) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _cgroup_folders(root: Path, membership: Path) -> list[Path]:
    """List the cgroup folders that bind this process: its own, every parent's, and the v1 `cpu` controller's."""
    folders = [root, root / "cpu"]
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0":
            base = root
        elif "cpu" in controllers.split(","):
            base = root / controllers
        else:
            continue
        own = base / path.strip().lstrip("/")
        folders += [folder for folder in (own, *own.parents) if folder.is_relative_to(base)]
    return folders


def _quota_of(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        period_us = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None


def processor() -> str:
    """Return the processor's name as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets that affect how networks are computed, sorted; empty if unknown.

    Two machines with the same sets round alike in most kernels, so a proof carries over between them.
    """
    known = {
        "sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni",
        "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
        "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
    }  # fmt: skip
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in {"flags", "features"}:
            return tuple(sorted(known.intersection(value.split())))
    return ()


@dataclass(frozen=True)
class Capabilities:
    """What this processor computes natively, as far as the system reports it; the one place that detects it."""

    x86: bool
    """Whether it is an x86 processor."""
    vnni: bool
    """On x86, whether products of 8-bit numbers are added in 32 bits at once (AVX512-VNNI, AVX-VNNI)."""
    amx_int8: bool
    """On x86, whether matrices of 8-bit numbers are multiplied in tiles, whose sums have 32 bits too."""
    bfloat16: bool
    """Whether it computes in bfloat16 (AVX512-BF16, AMX-BF16, Arm's BF16)."""
    float16: bool
    """Whether it computes in float16 (AVX512-FP16, Arm's FP16, Apple's processors)."""
    int8_saturates: bool
    """Whether sums of uint8 × int8 products may be cut off: x86 without VNNI adds pairs of them in 16 bits.

    AMX alone doesn't help: only products of matrices use its tiles, other kernels (depthwise convolutions) still add in
    16 bits. False if the instruction sets are unknown.
    """


def capabilities() -> Capabilities:
    """Return what this processor computes natively."""
    sets = set(instruction_sets())
    machine = platform.machine().lower()
    x86 = machine in ("x86_64", "amd64", "i386", "i686")
    vnni = bool(sets & {"avx512_vnni", "avx_vnni"})
    apple = platform.system() == "Darwin" and machine == "arm64"
    return Capabilities(
        x86=x86,
        vnni=vnni,
        amx_int8="amx_int8" in sets,
        bfloat16=bool(sets & {"avx512_bf16", "amx_bf16", "bf16"}),
        float16=apple or bool(sets & {"avx512_fp16", "asimdhp"}),
        int8_saturates=x86 and bool(sets) and not vnni,
    )


def describe() -> dict[str, object]:
    """Return the facts about this machine for a report."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processor": processor(),
        "instruction_sets": list(instruction_sets()),
        "cores": cores(),
        "python": platform.python_version(),
    }


def resident_bytes(pid: int) -> int | None:
    """Return a process's resident memory, without its children's; None if unknown."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def tree_bytes(pid: int) -> int | None:
    """Return the resident memory of a process and its descendants, shared memory counted once; None if unknown."""
    own = resident_bytes(pid)
    return None if own is None else own + sum(_own_bytes(child) for child in _descendants(pid))


def _descendants(pid: int) -> Iterator[int]:
    """Yield a process's descendants, as far as the kernel lists them: any may end meanwhile."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for task in tasks:
        try:
            children = [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from _descendants(child)


def _own_bytes(pid: int) -> int:
    try:
        _, resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def memory_bytes() -> int | None:
    """Return how much memory this process may use: the machine's, or less by the cgroup's limit; None if unknown."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for folder in _cgroup_folders(_CGROUP, _PROC_SELF_CGROUP):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limits.append(int((folder / name).read_text()))
            except (OSError, ValueError):
                continue
    return min(limits)


def peak_bytes() -> int | None:
    """Return this process's peak resident memory; None if unknown.

    On Linux from VmHWM: `ru_maxrss` there starts from the parent's memory.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def keep_memory_level() -> None:
    """Tune glibc's allocator for a process that answers pictures without end; does nothing elsewhere.

    Blocks from 4 MB on are mapped, and given back when they are freed. By itself glibc raises that size, up to 32 MB,
    and the freed pictures of many threads then fragment its arenas: 5,000 pictures held 1.4 times the memory of 250;
    with the size held at 4 MB, 1.07 times. (At 256 kB equally much, but every tensor is then mapped and cleared anew:
    subtracting a mean took twice as long.)

    What is freed at the end of a heap is kept, up to 64 MB, and not given back at once to be cleared and handed out
    again for the next picture: that took 1.5 of 19.7 ms a photo (open_nsfw in int8, batches of four, four processes on
    four cores), and with 16 MB still a tenth of the time of a mix of uploads.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 4 * 1024 * 1024)
        libc.mallopt(m_trim_threshold, 64 * 1024 * 1024)
    except (AttributeError, OSError, TypeError):
        return

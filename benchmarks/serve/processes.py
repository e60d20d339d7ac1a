"""What Linux tells of processes: who descends from whom, the processor time they used, their memory, descriptors and
shared memory."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

PROC, SHARED = Path("/proc"), Path("/dev/shm")
TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the name: state, parent, … (see proc(5)); None where there is no such
    process."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def tree(root: int) -> list[int]:
    """Return a process and all that descend from it, itself first; zombies are left out."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) and fields[0] not in "ZX":
            children[int(fields[1])].append(int(entry.name))
    pids = [root]
    for pid in pids:
        pids += children[pid]
    return pids


def processor_seconds(root: int) -> float:
    """Return what a tree has used: its processes, and the ended children that they have waited for."""
    spent = 0
    for pid in tree(root):
        if fields := _stat(pid):
            spent += sum(int(value) for value in fields[11:15])
    return spent / TICKS


def own_seconds(pid: int) -> float:
    """Return the processor time that a process has used itself."""
    fields = _stat(pid)
    return sum(int(value) for value in fields[11:13]) / TICKS if fields else 0.0


def command_line(pid: int) -> str:
    """Return a process's arguments, joined with spaces; empty where it has ended."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@dataclass(frozen=True)
class ProcessUsage:
    """What one process holds."""

    pid: int
    command: str
    resident_mb: float
    """Its share of memory (Pss): pages that it shares count in part."""
    private_mb: float
    """Memory that is its own (Pss_Anon): where a leak shows. Files and shared memory are not in it."""
    descriptors: int
    threads: int


def process_usage(pid: int) -> ProcessUsage | None:
    """Return what a process holds; None where it has ended."""
    folder = PROC / str(pid)
    try:
        lines = (folder / "smaps_rollup").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
        return ProcessUsage(
            pid,
            command_line(pid),
            sizes["Pss"],
            sizes["Pss_Anon"],
            len(list((folder / "fd").iterdir())),
            len(list((folder / "task").iterdir())),
        )
    except (FileNotFoundError, ProcessLookupError):
        return None


def memory_mb(root: int) -> float:
    """Return the memory of a tree, shared pages counted once."""
    return sum(usage.resident_mb for pid in tree(root) if (usage := process_usage(pid)))


def shared_memory(root: int) -> list[str]:
    """Return the named shared memory of the machine, but for what processes outside of a tree have mapped: that is
    theirs."""
    elsewhere = _mapped_outside(set(tree(root)))
    return sorted(name for entry in SHARED.rglob("*") if (name := str(entry)) not in elsewhere)


def _mapped_outside(own: set[int]) -> set[str]:
    mapped = set()
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) in own:
            continue
        try:
            lines = (entry / "maps").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        mapped |= {line[line.index("/") :] for line in lines if str(SHARED) in line}
    return mapped

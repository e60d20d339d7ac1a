"""Shared memory, and who may write where in it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.serve.ipc import Arena, Blocks


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 7)), max_size=60))
def test_blocks_never_overlap_and_all_of_it_is_free_again_in_the_end(steps: list[tuple[int, int]]) -> None:
    blocks = Blocks(1024)
    held: list[tuple[int, int]] = []
    for size, choice in steps:
        if held and choice < 3:
            blocks.free(held.pop(choice % len(held))[0])
        elif (at := blocks.allocate(size)) is not None:
            assert at >= 0
            assert at + max(size, 1) <= 1024
            assert at % 64 == 0
            assert all(at + size <= other or other + length <= at for other, length in held)
            held.append((at, max(size, 1)))
    for at, _ in held:
        blocks.free(at)
    assert blocks.used == 0
    assert blocks.allocate(1024) == 0, "the gaps have grown together again"


def test_the_first_gap_that_is_large_enough_is_taken() -> None:
    blocks = Blocks(1024)
    first, second = blocks.allocate(128), blocks.allocate(64)
    assert (first, second) == (0, 128)
    blocks.free(0)
    assert blocks.allocate(256) == 192
    assert blocks.allocate(100) == 0
    assert blocks.allocate(2000) is None
    with pytest.raises(KeyError):
        blocks.free(64)


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are inherited on POSIX")
def test_another_process_reads_and_writes_the_same_memory_and_no_name_is_left() -> None:
    arena = Arena.create(4096)
    arena.view[:5] = b"hello"
    script = (
        "import sys; from plimsoll.serve.ipc import Arena; a = Arena.attach(sys.argv[1]); a.view[5:11] ="
        " bytes(a.view[:5]) + b'!'; a.close()"
    )
    subprocess.run([sys.executable, "-c", script, arena.handle], pass_fds=arena.descriptors, check=True)
    assert bytes(arena.view[:11]) == b"hellohello!"
    if sys.platform == "linux":
        assert all("(deleted)" in os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in arena.descriptors)  # noqa: PTH115 - no path
    arena.close()
    arena.close()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc lists descriptors")
def test_memory_that_cant_be_had_keeps_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - numbers, no paths
    for size in (0, -1, 2**62):
        with pytest.raises((OSError, ValueError, OverflowError)):
            Arena.create(size)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208

"""Run a program of PyTorch, on the CPU or on a GPU. Imported only where PyTorch is."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from plimsoll.backends.torch.compilation import Program
from plimsoll.core.foreign import translate
from plimsoll.core.model import Tensors
from plimsoll.errors import RunError

_WARM_UP = 3
"""Calls before a CUDA graph is recorded, as PyTorch's manual wants: libraries set themselves up in the first."""
_log = logging.getLogger("plimsoll")

Given = Sequence[NDArray[Any]]


class _TorchSession(ABC):
    concurrent = True

    def __init__(self, program: Program) -> None:
        self._program: Program | None = program
        self.inputs, self.outputs = program.inputs, program.outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        program = self._program
        if program is None:
            raise RunError("the session is closed")
        given = [feeds[info.name] for info in self.inputs]
        count = len(given[0]) if given and given[0].shape else 1
        with translate(RunError, "PyTorch failed"), torch.inference_mode():
            if program.most is None or count <= program.most:
                answers = self._compute(program, given)
            else:
                if any(info.shape[:1] != (None,) for info in self.outputs):
                    raise RunError(
                        f"a batch of {count}; the program takes {program.most} at once, and an output can't be cut by"
                        " pictures"
                    )
                parts = [
                    self._compute(program, [info[at : at + program.most] for info in given])
                    for at in range(0, count, program.most)
                ]
                answers = [np.concatenate(part) for part in zip(*parts, strict=True)]
        return {info.name: answer for info, answer in zip(self.outputs, answers, strict=True)}

    @abstractmethod
    def _compute(self, program: Program, given: Given) -> list[NDArray[Any]]: ...

    def close(self) -> None:
        self._program = None


class CpuSession(_TorchSession):
    """A program on the CPU. Threads may call at once: a compiled one is there several times, PyTorch's own kernels
    allow it."""

    def _compute(self, program: Program, given: Given) -> list[NDArray[Any]]:
        return [
            np.array(array.numpy()) for array in program.run(*(torch.from_numpy(np.array(array)) for array in given))
        ]


class GpuSession(_TorchSession):
    """A program on a GPU: one call at a time, each batch size with buffers and, for the first few, a CUDA graph of its
    own."""

    def __init__(self, program: Program, graphs: int) -> None:
        super().__init__(program)
        self._graphs = graphs
        self._replays: dict[tuple[Any, ...], _Replay] = {}
        self._turn = threading.Lock()

    def _compute(self, program: Program, given: Given) -> list[NDArray[Any]]:
        shapes = tuple((array.shape, str(array.dtype)) for array in given)
        with self._turn, torch.cuda.device(program.where):
            replay = self._replays.get(shapes)
            if replay is None and len(self._replays) < self._graphs:
                replay = self._replays[shapes] = _Replay.recorded(program, given)
            if replay is not None:
                return replay.run(given)
            uploaded = [torch.from_numpy(np.array(array)).to(program.where) for array in given]
            return [np.array(array.cpu().numpy()) for array in program.run(*uploaded)]

    def close(self) -> None:
        with self._turn:
            self._replays.clear()
        super().close()


@dataclass
class _Replay:
    """One batch size: page-locked memory on this side, memory on the GPU, and what computes between."""

    here: list[Any]
    there: list[Any]
    compute: Callable[[], None]
    answers: list[Any]
    """On the GPU."""
    taken: list[Any]
    """On this side, page-locked."""

    @classmethod
    def recorded(cls, program: Program, given: Given) -> _Replay:
        """Record a CUDA graph; where that isn't possible, the kernels are started one by one, and the log says so."""
        here = [torch.empty(array.shape, dtype=getattr(torch, str(array.dtype)), pin_memory=True) for array in given]
        for buffer, value in zip(here, given, strict=True):
            np.copyto(buffer.numpy(), value)
        there = [array.to(program.where) for array in here]
        answers: list[Any] = []
        graph = torch.cuda.CUDAGraph()
        try:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    program.run(*there)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                answers = list(program.run(*there))
            compute = graph.replay
        except RuntimeError as error:
            _log.warning(
                "no CUDA graph could be recorded, each kernel is started by itself: %s", str(error).partition("\n")[0]
            )
            torch.cuda.synchronize()
            answers = list(program.run(*there))

            def compute() -> None:
                for old, new in zip(answers, program.run(*there), strict=True):
                    old.copy_(new)

        taken = [torch.empty(array.shape, dtype=array.dtype, pin_memory=True) for array in answers]
        return cls(here, there, compute, answers, taken)

    def run(self, given: Given) -> list[NDArray[Any]]:
        """Compute once."""
        for buffer, device, value in zip(self.here, self.there, given, strict=True):
            np.copyto(buffer.numpy(), value)
            device.copy_(buffer, non_blocking=True)
        self.compute()
        for answer, buffer in zip(self.answers, self.taken, strict=True):
            buffer.copy_(answer, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return [np.array(buffer.numpy()) for buffer in self.taken]

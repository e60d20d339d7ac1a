"""The options of TensorRT, for building an engine and for running it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from plimsoll.backends.base import Options
from plimsoll.errors import BuildError
from plimsoll.system import files

_RUNNING = {"contexts"}
"""The options that change nothing in the engine."""


class TensorRtOptions(Options):
    """Options of TensorRT. All but `contexts` belong to the engine: another value builds another one."""

    min_batch: int = Field(1, ge=1, le=4096)
    """The smallest batch, for networks whose batch is free."""
    best_batch: int = Field(8, ge=1, le=4096)
    """The batch that the engine is made fastest for."""
    max_batch: int = Field(32, ge=1, le=4096)
    """The largest batch of one call; larger ones are cut. It decides how much memory of the GPU the engine holds."""
    workspace_mb: int | None = Field(None, ge=1)
    """Memory of the GPU, in MiB, that a layer may use while it computes; TensorRT's own default is all that there is.
    """
    effort: int | None = Field(None, ge=0, le=5)
    """How long to search for the fastest kernels, from 0 to 5 (TensorRT's builder_optimization_level; its default is
    3)."""
    tf32: bool = False
    """Let float32 convolutions and products round what they read to 10 bits (TensorFloat-32): faster, and not float32
    any more."""
    float16_beside: bool = True
    """For int8 and fp8 in TensorRT 10: compute what isn't quantized in float16. (TensorRT 11 computes it as the network
    says.)"""
    hardware: Literal["this", "same_capability", "ampere_plus"] = "this"
    """Where the engine may run: on this GPU, on all of its compute capability, or on all from Ampere on; the wider, the
    slower."""
    plugins: str = ""
    """Libraries of TensorRT plugins that the network needs, as paths with the system's path separator between them.
    Their code is run: trust it."""
    device: int = Field(0, ge=0)
    """Which of the GPUs that CUDA sees."""
    build_minutes: float = Field(30.0, gt=0)
    """How long building may take."""
    contexts: int | None = Field(None, ge=1, le=64)
    """Calls computed at once, each with its own memory on the GPU; by default 2 where there are several streams, so
    that one copies while one computes."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min_batch <= self.best_batch <= self.max_batch:
            raise ValueError(
                f"min_batch {self.min_batch}, best_batch {self.best_batch}, max_batch {self.max_batch}: they have to"
                " grow in this order"
            )
        return self

    @property
    def libraries(self) -> tuple[Path, ...]:
        """The plugin libraries."""
        return tuple(Path(part).absolute() for part in self.plugins.split(os.pathsep) if part)

    def of_engine(self) -> dict[str, Any]:
        """Return the options that the engine depends on."""
        return self.model_dump(exclude=_RUNNING)

    def library_digests(self) -> dict[str, str]:
        """Return the plugin libraries' SHA-256 by their file names; raises BuildError where one can't be read."""
        digests = {}
        for library in self.libraries:
            try:
                digests[library.name] = files.sha256(library)
            except OSError as error:
                raise BuildError(
                    f"{library}: can't read the plugin library: {error.strerror}", "Correct the path in --set plugins=…"
                ) from error
        return digests

"""The choices of a Triton model repository."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plimsoll.core.wording import explain
from plimsoll.errors import InputError


class TritonOptions(BaseModel):
    """How Triton is told to run a model. On the command line: `--set name=value`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(1, ge=1)
    """The number of the version folders. Beside what another export left, a new number is added where the
    configurations are the same."""
    max_batch: int = Field(32, ge=1, le=4096)
    """The most pictures in one request, and in one call of the network. A TensorRT engine's own largest batch must not
    be smaller."""
    delay_us: int = Field(1000, ge=0, le=1_000_000)
    """Microseconds that a request waits for others to be computed together with."""
    queue: int = Field(256, ge=1)
    """Requests that wait for the network; further ones are refused at once."""
    instances: int | None = Field(None, ge=1, le=256)
    """Calls of the network computed at once, on each device; by default 1, and 4 by OpenVINO, which Triton doesn't let
    batch."""
    threads: int | None = Field(None, ge=1, le=1024)
    """Threads that compute one call on the CPU; by default all cores share in each."""
    decoders: int = Field(4, ge=1, le=256)
    """Processes that turn pictures into tensors; as many as cores keep up with a fast network."""
    network: Literal["native", "python"] = "native"
    """Who runs the network: Triton's own backend for its runtime, where there is one, or Plimsoll inside Triton's
    Python backend, with the very settings it was proven with."""

    @classmethod
    def read(cls, values: Mapping[str, str]) -> Self:
        """Check options given as text; raises InputError that names the option, the value and what is allowed."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InputError(
                f"triton: {explain(error, values=True)}", f"Options of triton: {', '.join(cls.model_fields)}."
            ) from error

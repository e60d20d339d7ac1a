"""Which model a name means: pictures go to a model's own name, the bare network stands beside it as `<name>.tensor`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from plimsoll.core.model import TensorInfo
from plimsoll.serve.messages import ModelMetadata, Problem, RequestError
from plimsoll.serve.served_model import ServedModel
from plimsoll.serve.service import Service

SUFFIX = ".tensor"

PICTURES = TensorInfo("image", (None,), "object")
"""What a model takes under its own name: files of pictures."""


@dataclass(frozen=True)
class Served:
    """A deployment by one of its two names."""

    deployment: ServedModel
    bare: bool
    """Whether it takes the network's own inputs, in place of pictures."""

    @property
    def name(self) -> str:
        """As callers write it."""
        return self.deployment.name + (SUFFIX if self.bare else "")

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.deployment.state == "ready"

    @property
    def metadata(self) -> ModelMetadata:
        """What the model is; raises RequestError (503) where it never was ready."""
        if self.deployment.metadata is None:
            raise self.unavailable()
        return self.deployment.metadata

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What it takes; the first axis counts pictures or rows, whatever batch size the network was made for."""
        return tuple(map(_free, self.metadata.inputs)) if self.bare else (PICTURES,)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What it gives: the network's outputs."""
        return tuple(map(_free, self.metadata.outputs))

    def unavailable(self) -> RequestError:
        """Return the refusal of a model that doesn't answer.

        503 as in KServe, not Triton's 400: the caller did nothing wrong, and proxies and clients know that it may be
        tried again.
        """
        reason = self.deployment.reason or self.deployment.state
        return RequestError(
            Problem(
                "unavailable", f"the model '{self.name}' does not answer now: {reason}", "Ask for its readiness.", 503
            )
        )


def served(service: Service, name: str, version: str | None = None) -> Served:
    """Return what the name means; raises RequestError (404) for none, or another version."""
    if name not in service.models and name.endswith(SUFFIX) and name != SUFFIX:
        return Served(service.find(name.removesuffix(SUFFIX), version or None), bare=True)
    return Served(service.find(name, version or None), bare=False)


def all_served(service: Service) -> Iterator[Served]:
    """Yield every model by both of its names; where another model has the second one, that one is meant."""
    for name, deployment in service.models.items():
        yield Served(deployment, bare=False)
        if name + SUFFIX not in service.models:
            yield Served(deployment, bare=True)


def _free(fact: TensorInfo) -> TensorInfo:
    return TensorInfo(fact.name, (None, *fact.shape[1:]), fact.dtype)

"""Models as the protocol knows them: by two names, with metadata, configuration, statistics, loading and unloading.

Pictures go to a model's own name; the bare network stands beside it as `<name>.tensor`. Triton's extensions:
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/README.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic_core import to_json

from plimsoll.core.model import TensorInfo
from plimsoll.core.version import __version__
from plimsoll.serve.messages import ModelMetadata, Problem, RequestError
from plimsoll.serve.metrics import DurationStatistics
from plimsoll.serve.oip.datatypes import bad_request, datatype_of
from plimsoll.serve.oip.schema import (
    BatchDurations,
    Duration,
    IndexEntry,
    InferDurations,
    ModelConfiguration,
    ModelDescription,
    OneModelStatistics,
    ParameterText,
    RepositoryIndex,
    ServerMetadata,
    Statistics,
    TensorConfiguration,
    TensorMetadata,
)
from plimsoll.serve.service import ServedModel, Service

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
)
"""What the server has beyond the protocol; shared memory, sequences, tracing and logging are not among it."""
SUFFIX = ".tensor"

PICTURES = TensorInfo("image", (None,), "object")
"""What a model takes under its own name: files of pictures."""


@dataclass(frozen=True)
class NamedModel:
    """A served model by one of its two names."""

    model: ServedModel
    bare: bool
    """Whether it takes the network's own inputs, in place of pictures."""

    @property
    def name(self) -> str:
        """As callers write it."""
        return self.model.name + (SUFFIX if self.bare else "")

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.model.state == "ready"

    @property
    def metadata(self) -> ModelMetadata:
        """What the model is; raises RequestError (503) where it never was ready."""
        if self.model.metadata is None:
            raise self.unavailable()
        return self.model.metadata

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
        reason = self.model.reason or self.model.state
        return RequestError(
            Problem(
                "unavailable", f"the model '{self.name}' does not answer now: {reason}", "Ask for its readiness.", 503
            )
        )


def find_model(service: Service, name: str, version: str | None = None) -> NamedModel:
    """Return what the name means; raises RequestError (404) for none, or another version."""
    if name not in service.models and name.endswith(SUFFIX) and name != SUFFIX:
        return NamedModel(service.find(name.removesuffix(SUFFIX), version or None), bare=True)
    return NamedModel(service.find(name, version or None), bare=False)


def choose_model(service: Service, name: str, version: str | None = None) -> NamedModel:
    """Return what answers a request to infer, as `find_model`: for a share of them the model's candidate, where they
    send pictures and name no version, and where the candidate's outputs are called the same."""
    named = find_model(service, name, version)
    candidate = named.model.candidate
    if named.bare or version or candidate is None or not candidate.takes():
        return named
    chosen = NamedModel(candidate.model, bare=False)
    return chosen if [output.name for output in chosen.outputs] == [output.name for output in named.outputs] else named


def all_models(service: Service) -> Iterator[NamedModel]:
    """Yield every model by both of its names; where another model has the second one, that one is meant."""
    for name, model in service.models.items():
        yield NamedModel(model, bare=False)
        if name + SUFFIX not in service.models:
            yield NamedModel(model, bare=True)


def _free(fact: TensorInfo) -> TensorInfo:
    return TensorInfo(fact.name, (None, *fact.shape[1:]), fact.dtype)


def server_metadata() -> ServerMetadata:
    """Return what the server is."""
    return ServerMetadata(name="plimsoll", version=__version__, extensions=list(EXTENSIONS))


def describe(named: NamedModel) -> ModelDescription:
    """Return a model's metadata; -1 stands for a size that is free. Raises RequestError where it never was ready."""
    return ModelDescription(
        name=named.name,
        versions=[named.model.version],
        platform=_platform(named.metadata),
        inputs=[_tensor(info) for info in named.inputs],
        outputs=[_tensor(info) for info in named.outputs],
    )


def configuration(named: NamedModel, limit: int) -> ModelConfiguration:
    """Return a model's configuration as Triton writes it (`ModelConfig`): as much of it as has a meaning here.

    For the bare network `max_batch_size` is how many rows one request may have (`limit`), and `dims` leave out the
    first axis. For pictures it is 0, which means that `dims` are the whole shape: Triton's clients have no form for a
    batch of elements without axes.
    """
    metadata = named.metadata
    first_axis = 1 if named.bare else 0
    parameters = {
        "task": metadata.task,
        "target": metadata.target,
        "preprocessing": metadata.preprocessing,
        "labels": to_json(metadata.labels).decode(),
    }
    return ModelConfiguration(
        name=named.name,
        platform=_platform(metadata),
        backend="plimsoll",
        version_policy={"latest": {"num_versions": 1}},
        max_batch_size=limit if named.bare else 0,
        input=[_tensor_configuration(info, first_axis) for info in named.inputs],
        output=[_tensor_configuration(info, first_axis) for info in named.outputs],
        dynamic_batching={"priority_levels": 3, "default_priority_level": 2},
        model_transaction_policy={"decoupled": False},
        parameters={key: ParameterText(string_value=value) for key, value in parameters.items()},
    )


def statistics(models: Iterable[NamedModel]) -> Statistics:
    """Return what these models did. A model's two names lead to the same workers, and have the same figures."""
    return Statistics(model_stats=[_statistics_of(named) for named in models])


def _statistics_of(named: NamedModel) -> OneModelStatistics:
    counted = named.model.statistics
    none = Duration(count=0, ns=0)
    return OneModelStatistics(
        name=named.name,
        version=named.model.version,
        last_inference=counted.last_inference,
        inference_count=counted.inferences,
        execution_count=counted.executions,
        inference_stats=InferDurations(
            success=_duration(counted.success),
            fail=_duration(counted.fail),
            queue=_duration(counted.queue),
            compute_input=_duration(counted.input),
            compute_infer=_duration(counted.infer),
            compute_output=_duration(counted.output),
            cache_hit=none,
            cache_miss=none,
        ),
        batch_stats=[
            BatchDurations(
                batch_size=size,
                compute_input=_duration(batch.input),
                compute_infer=_duration(batch.infer),
                compute_output=_duration(batch.output),
            )
            for size, batch in sorted(counted.batches.items())
        ],
    )


def index(service: Service, *, ready: bool) -> RepositoryIndex:
    """Return every model by each of its names with its state; only those that are ready where `ready` says so."""
    return RepositoryIndex(
        [
            IndexEntry(
                name=named.name,
                version=named.model.version,
                state="READY" if named.ready else "LOADING" if named.model.state == "loading" else "UNAVAILABLE",
                reason=named.model.reason,
            )
            for named in all_models(service)
            if named.ready or not ready
        ]
    )


async def load(service: Service, name: str, parameters: Iterable[str]) -> None:
    """Load a model again from where it came from; the old version answers until the new one has passed its golden
    vectors. Raises RequestError."""
    if names := sorted(map(str, parameters)):
        raise bad_request(
            f"loading takes no parameters, found {', '.join(names[:10])[:200]}",
            "A model's files and configuration are the server's own; they are not taken from callers.",
        )
    await find_model(service, name).model.load()


async def unload(service: Service, name: str) -> None:
    """Unload a model, by whichever of its names. Raises RequestError."""
    await find_model(service, name).model.unload()


def _platform(metadata: ModelMetadata) -> str:
    return "plimsoll_" + metadata.target.partition(":")[0]


def _tensor(info: TensorInfo) -> TensorMetadata:
    return TensorMetadata(name=info.name, datatype=datatype_of(info.dtype), shape=_sizes(info.shape))


def _tensor_configuration(info: TensorInfo, first_axis: int) -> TensorConfiguration:
    datatype = datatype_of(info.dtype)
    data_type = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    return TensorConfiguration(name=info.name, data_type=data_type, dims=_sizes(info.shape[first_axis:]))


def _sizes(shape: tuple[int | None, ...]) -> list[int]:
    return [-1 if size is None else size for size in shape]


def _duration(duration: DurationStatistics) -> Duration:
    return Duration(count=duration.count, ns=duration.nanoseconds)

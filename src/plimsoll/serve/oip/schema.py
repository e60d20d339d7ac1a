"""The Open Inference Protocol's requests and answers as models, whether they travel as JSON or as gRPC's messages.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, with Triton's
extensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PrivateAttr, RootModel, model_validator

from plimsoll.serve.messages import DescribedAs, ReplyModel, RequestOptions
from plimsoll.serve.oip.datatypes import DTYPES, quoted

MAX_AXES = 32
MAX_TENSORS = 1024
"""Inputs or outputs of a request; networks have far fewer."""
MAX_TIMEOUT_US = 86_400_000_000
"""A day; a longer timeout means none, and the service's own holds."""

Datatype = Annotated[str, Field(json_schema_extra={"enum": [*DTYPES, "BYTES"]})]
Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
Shape = Annotated[list[NonNegativeInt], Field(max_length=MAX_AXES, fail_fast=True)]
FreeShape = Annotated[list[Annotated[int, Field(ge=-1)]], Field(description="-1 stands for a size that is free.")]


class _RequestModel(BaseModel):
    """What a caller sends: keys that are not known here are ignored, and no value is taken for one of another type."""

    model_config = ConfigDict(extra="allow", strict=True)


class _TensorParameters(_RequestModel):
    @model_validator(mode="after")
    def _not_shared(self) -> Self:
        if self.model_extra and "shared_memory_region" in self.model_extra:
            raise ValueError("shared memory is not supported; send tensors in the request")
        return self


class InputParameters(_TensorParameters):
    """Parameters of an input."""

    binary_data_size: NonNegativeInt | None = Field(
        None, description="So many bytes behind the JSON are this tensor; there is no `data` then."
    )


class OutputParameters(_TensorParameters):
    """Parameters of a requested output."""

    binary_data: bool | None = Field(None, description="Whether it goes as bytes behind the JSON.")
    classification: NonNegativeInt = Field(
        0, description="The best so many values as BYTES `value:index:label`, in place of the tensor."
    )


class RequestParameters(_RequestModel):
    """Parameters of the request."""

    priority: NonNegativeInt | None = Field(None, description="1 goes first, 0 and 2 are normal, more goes last.")
    timeout: NonNegativeInt | None = Field(
        None, description="Microseconds; what isn't begun by then is answered with 504. 0: as the service is set."
    )
    binary_data_output: bool | None = Field(
        None, description="Whether outputs that say nothing themselves go as bytes behind the JSON."
    )


class InferInput(_RequestModel):
    """A tensor."""

    name: str = Field(description="The network's own name; `image` for pictures.")
    datatype: Datatype
    shape: Shape = Field(description="The first axis counts pictures or rows.")
    data: list[Any] | None = Field(
        None,
        description=(
            'The elements, flat or nested as the shape says; a picture\'s file is text in base64, or `{"b64": text}`.'
        ),
    )
    parameters: InputParameters | None = None
    _raw: memoryview | bytes | None = PrivateAttr(None)

    @property
    def raw(self) -> memoryview | bytes | None:
        """Its bytes, where it was sent as bytes: row-major and little-endian; before an element of BYTES stands its
        length in four bytes."""
        return self._raw

    @property
    def binary_data_size(self) -> int | None:
        """How many bytes behind the JSON are this tensor."""
        return self.parameters.binary_data_size if self.parameters is not None else None

    def with_raw(self, raw: memoryview | bytes) -> Self:
        """Give it the bytes that were sent for it, and return it."""
        self._raw = raw
        return self


class RequestedOutput(_RequestModel):
    """An output that is asked for."""

    name: str
    parameters: OutputParameters = Field(default_factory=OutputParameters)


class _InferRequest(_RequestModel):
    id: str | None = Field(None, max_length=4096, description="Comes back with the answer.")
    outputs: Annotated[list[RequestedOutput], Field(max_length=MAX_TENSORS, fail_fast=True)] | None = Field(
        None, description="Without any: all of them."
    )
    parameters: RequestParameters | None = None


class InferRequest(_InferRequest):
    """A request for inference."""

    inputs: list[InferInput] = Field(min_length=1, max_length=MAX_TENSORS, fail_fast=True)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for what, tensors in (("input", self.inputs), ("output", self.outputs or ())):
            names: set[str] = set()
            for tensor in tensors:
                if tensor.name in names:
                    raise ValueError(f"duplicate {what} {quoted(tensor.name)}")
                names.add(tensor.name)
        return self

    @property
    def binary(self) -> bool:
        """Whether outputs that say nothing themselves go as bytes behind the JSON."""
        return bool(self.parameters is not None and self.parameters.binary_data_output)

    def rows(self, limit: int) -> int:
        """Return how many pictures or rows it says it has, at most `limit`: what it is charged for where pictures are
        counted."""
        first = self.inputs[0]
        rows = math.prod(first.shape) if first.datatype == "BYTES" else first.shape[0] if first.shape else 1
        return min(limit, rows)

    @property
    def size(self) -> int:
        """About how many bytes have to be read for its tensors."""
        return sum(len(tensor.raw) if tensor.raw is not None else _size_of(tensor.data or ()) for tensor in self.inputs)

    def options(self, remaining: float | None = None) -> RequestOptions:
        """Return priority and timeout; `remaining` is how many seconds the transport leaves.

        Triton's `priority`: 1 is the highest, larger is lower, 0 means the default; here 1 is high, 2 normal and 3 or
        more low. Triton's `timeout` is in microseconds, 0 meaning none.
        """
        parameters = self.parameters or RequestParameters()
        priority, microseconds = parameters.priority or 0, parameters.timeout or 0
        timeout = microseconds / 1e6 if 0 < microseconds <= MAX_TIMEOUT_US else None
        if remaining is not None:
            timeout = max(remaining, 1e-3) if timeout is None else min(timeout, max(remaining, 1e-3))
        return RequestOptions(priority=1 if priority == 1 else 0 if priority in (0, 2) else -1, timeout=timeout)


def _size_of(data: Sequence[Any]) -> int:
    """About how many bytes elements have: texts their length, anything else as in a list."""
    if len(data) <= 1024:
        return sum(len(value) if isinstance(value, (str, bytes)) else 8 for value in data)
    return 8 * len(data)


class EncodedFile(_RequestModel):
    """A file in base64."""

    model_config = ConfigDict(extra="forbid")

    b64: Base64


class PictureInput(_RequestModel):
    """Pictures, which the server decodes."""

    name: Literal["image"]
    datatype: Literal["BYTES"]
    shape: Shape = Field(description="How many pictures.")
    data: list[Base64 | EncodedFile] = Field(min_length=1, description="Files of pictures: JPEG, PNG, WebP …")


class PictureRequest(_InferRequest):
    """A request for inference with pictures, to a model under its own name: what an InferRequest is there."""

    inputs: list[PictureInput] = Field(min_length=1, max_length=1)


class IndexRequest(_RequestModel):
    """A request for the index of models."""

    ready: bool = Field(False, description="Only models that are ready.")


class LoadRequest(_RequestModel):
    """A request to load a model, which takes no parameters: files and configuration are the server's own."""

    parameters: Annotated[dict[str, Any], Field(json_schema_extra={"maxProperties": 0})] | None = None


class UnloadRequest(_RequestModel):
    """A request to unload a model, which needs nothing said."""


class BinarySize(ReplyModel):
    """How much of what follows the JSON is this tensor."""

    binary_data_size: NonNegativeInt


class InferOutput(ReplyModel):
    """A tensor: its elements in `data`, or as bytes behind the JSON."""

    name: str
    datatype: Datatype
    shape: list[NonNegativeInt]
    data: Annotated[Any, DescribedAs(list[float | bool | str | None])] = Field(
        default_factory=list, description="Row-major; NaN and infinity are null."
    )
    parameters: BinarySize | None = None


class InferResponse(ReplyModel):
    """The answer to a request for inference."""

    model_name: str
    model_version: str
    outputs: list[InferOutput]
    id: str | None = None


class ServerMetadata(ReplyModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(ReplyModel):
    """Whether the server is alive."""

    live: Literal[True]


class ServerReady(ReplyModel):
    """Whether the server is ready: twice, as clients read one or the other."""

    live: bool
    ready: bool


class ModelReady(ReplyModel):
    """A model that is ready."""

    name: str
    ready: Literal[True]


class TensorMetadata(ReplyModel):
    """An input or output."""

    name: str
    datatype: str
    shape: FreeShape


class ModelDescription(ReplyModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class TensorConfiguration(ReplyModel):
    """An input or output as Triton writes it."""

    name: str
    data_type: str = Field(pattern="^TYPE_")
    dims: FreeShape


class ParameterText(ReplyModel):
    """A parameter's value."""

    string_value: str


class ModelConfiguration(ReplyModel):
    """A model's configuration as Triton writes it (`ModelConfig`): as much of it as has a meaning here."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, Any]
    max_batch_size: NonNegativeInt = Field(
        description="Rows of a request for the bare network; 0 for pictures: their `dims` are the whole shape."
    )
    input: list[TensorConfiguration]
    output: list[TensorConfiguration]
    dynamic_batching: dict[str, int]
    model_transaction_policy: dict[str, bool]
    parameters: dict[str, ParameterText]


class Duration(ReplyModel):
    """How often something happened, and how long it took in all."""

    count: NonNegativeInt
    ns: NonNegativeInt


class InferDurations(ReplyModel):
    """Where the time went."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchDurations(ReplyModel):
    """The same of batches of one size."""

    batch_size: NonNegativeInt
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class OneModelStatistics(ReplyModel):
    """What a model did."""

    name: str
    version: str
    last_inference: NonNegativeInt = Field(description="Milliseconds since 1970; 0 before the first.")
    inference_count: NonNegativeInt
    execution_count: NonNegativeInt
    inference_stats: InferDurations
    batch_stats: list[BatchDurations]


class Statistics(ReplyModel):
    """What models did since they were loaded."""

    model_stats: list[OneModelStatistics]


class IndexEntry(ReplyModel):
    """A model in the repository."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str


class RepositoryIndex(RootModel[list[IndexEntry]]):
    """Every model by each of its names."""


class Empty(ReplyModel):
    """It is done."""

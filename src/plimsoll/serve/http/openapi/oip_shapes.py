"""The shapes of the Open Inference Protocol's JSON, for its description; `plimsoll.serve.oip` reads and writes it
without the detour over these classes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, RootModel

from plimsoll.serve.oip.datatypes import DTYPES
from plimsoll.serve.oip.tensors import MOST_AXES

Datatype = Annotated[str, Field(json_schema_extra={"enum": [*DTYPES, "BYTES"]})]
Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
Sizes = Annotated[list[Annotated[int, Field(ge=-1)]], Field(description="-1 stands for a size that is free.")]


class _Taken(BaseModel):
    """What a caller sends: what is not known here is left alone."""

    model_config = ConfigDict(extra="allow")


class _Given(BaseModel):
    """What the service answers."""

    model_config = ConfigDict(extra="forbid")


class Fault(_Given):
    """Why there is no answer."""

    error: str


class InputParameters(_Taken):
    """What is said of an input."""

    binary_data_size: NonNegativeInt | None = Field(
        None, description="So many bytes behind the JSON are this tensor; there is no `data` then."
    )


class OutputParameters(_Taken):
    """What is asked of an output."""

    binary_data: bool | None = Field(None, description="Whether it goes as bytes behind the JSON.")
    classification: NonNegativeInt = Field(
        0, description="The best so many values as BYTES `value:index:label`, in place of the tensor."
    )


class RequestParameters(_Taken):
    """What is asked of the request."""

    priority: NonNegativeInt = Field(0, description="1 goes first, 0 and 2 are normal, more goes last.")
    timeout: NonNegativeInt = Field(
        0, description="Microseconds; what isn't begun by then is answered with 504. 0: as the service's settings say."
    )
    binary_data_output: bool | None = Field(
        None, description="Whether outputs that say nothing themselves go as bytes behind the JSON."
    )


class InferInput(_Taken):
    """A tensor."""

    name: str = Field(description="The network's own name; `image` for pictures.")
    datatype: Datatype
    shape: list[NonNegativeInt] = Field(max_length=MOST_AXES, description="The first axis counts pictures or rows.")
    data: list[Any] = Field(
        default_factory=list,
        description=(
            'The elements, flat or nested as the shape says; a picture\'s file is text in base64, or `{"b64": text}`.'
        ),
    )
    parameters: InputParameters | None = None


class InferOutputWanted(_Taken):
    """An output that is wanted."""

    name: str
    parameters: OutputParameters | None = None


class _Request(_Taken):
    id: str | None = Field(None, description="Comes back with the answer.")
    outputs: list[InferOutputWanted] | None = Field(None, description="None named: all of them.")
    parameters: RequestParameters | None = None


class InferRequest(_Request):
    """A request for inference."""

    inputs: list[InferInput] = Field(min_length=1)


class EncodedFile(_Given):
    """A file in base64."""

    b64: Base64


class PicturesInput(_Taken):
    """Pictures, which the server decodes."""

    name: Literal["image"]
    datatype: Literal["BYTES"]
    shape: list[NonNegativeInt] = Field(max_length=MOST_AXES, description="How many pictures.")
    data: list[Base64 | EncodedFile] = Field(min_length=1, description="Files of pictures: JPEG, PNG, WebP …")


class PicturesRequest(_Request):
    """A request for inference with pictures, to a model under its own name."""

    inputs: list[PicturesInput] = Field(min_length=1, max_length=1)


class BinarySize(_Given):
    """How much of what follows the JSON is this tensor."""

    binary_data_size: NonNegativeInt


class InferOutput(_Given):
    """A tensor: its elements in `data`, or as bytes behind the JSON."""

    name: str
    datatype: Datatype
    shape: list[NonNegativeInt]
    data: list[float | bool | str | None] = Field(
        default_factory=list, description="Row-major; NaN and infinity are null."
    )
    parameters: BinarySize | None = None


class InferAnswer(_Given):
    """The answer to a request for inference."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferOutput]


class ServerMetadata(_Given):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class Live(_Given):
    """Whether the server is alive."""

    live: Literal[True]


class Ready(_Given):
    """Whether the server is ready: twice, as clients read one or the other."""

    live: bool
    ready: bool


class ModelReady(_Given):
    """A model that is ready."""

    name: str
    ready: Literal[True]


class TensorMetadata(_Given):
    """An input or output."""

    name: str
    datatype: str
    shape: Sizes


class ModelMetadata(_Given):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class TensorConfig(_Given):
    """An input or output as Triton writes it."""

    name: str
    data_type: str = Field(pattern="^TYPE_")
    dims: Sizes


class ParameterText(_Given):
    """A parameter's value."""

    string_value: str


class ModelConfiguration(_Given):
    """A model's configuration as Triton writes it (`ModelConfig`): as much of it as has a meaning here."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, Any]
    max_batch_size: NonNegativeInt = Field(
        description="Rows of a request for the bare network; 0 for pictures: their `dims` are the whole shape."
    )
    input: list[TensorConfig]
    output: list[TensorConfig]
    dynamic_batching: dict[str, int]
    model_transaction_policy: dict[str, bool]
    parameters: dict[str, ParameterText]


class Tally(_Given):
    """How often something happened, and how long it took in all."""

    count: NonNegativeInt
    ns: NonNegativeInt


class Stages(_Given):
    """Where the time went."""

    success: Tally
    fail: Tally
    queue: Tally
    compute_input: Tally
    compute_infer: Tally
    compute_output: Tally
    cache_hit: Tally
    cache_miss: Tally


class BatchStages(_Given):
    """The same of batches of one size."""

    batch_size: NonNegativeInt
    compute_input: Tally
    compute_infer: Tally
    compute_output: Tally


class ModelStatistics(_Given):
    """What a model did."""

    name: str
    version: str
    last_inference: NonNegativeInt = Field(description="Milliseconds since 1970; 0 before the first.")
    inference_count: NonNegativeInt
    execution_count: NonNegativeInt
    inference_stats: Stages
    batch_stats: list[BatchStages]


class Statistics(_Given):
    """What models did since they were loaded."""

    model_stats: list[ModelStatistics]


class IndexRequest(_Taken):
    """What is asked of the index."""

    ready: bool = Field(False, description="Only models that are ready.")


class IndexEntry(_Given):
    """A model in the repository."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str


class Index(RootModel[list[IndexEntry]]):
    """Every model by each of its names."""


class LoadRequest(_Taken):
    """A load takes no parameters: files and configuration are the server's own."""

    parameters: Annotated[dict[str, Any], Field(max_length=0)] | None = None


class UnloadRequest(_Taken):
    """An unload needs nothing said."""


class Done(_Given):
    """It is done."""

"""What runs inside Triton's Python backend: the input steps, and networks that Triton has no backend of its own for.

Triton starts a process for each instance, with the Python that Plimsoll is installed in, and calls `initialize` once
and `execute` with the requests of a batch. `model.py` in the repository names one of these classes; the code stays in
the package. The interface: https://github.com/triton-inference-server/python_backend
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll import importers
from plimsoll.backends.base import ThreadPlan
from plimsoll.backends.runner import Runner
from plimsoll.core.target import Target
from plimsoll.errors import ImageError, InputError, PlimsollError
from plimsoll.preprocessing import Preprocessing, Preprocessor
from plimsoll.spec import files as spec_files
from plimsoll.system import host

Array = NDArray[Any]


class _InTriton:
    """What both have in common: where they lie, and what their configuration says."""

    def _open(self, args: dict[str, str]) -> None:
        # Triton puts this module into the processes that it starts; it is nowhere else.
        self._triton: Any = importlib.import_module("triton_python_backend_utils")
        self.folder = Path(args["model_repository"], args["model_version"])
        config = json.loads(args["model_config"])
        self.parameters = {key: str(value["string_value"]) for key, value in config["parameters"].items()}
        self.spec = spec_files.read(self.folder / "spec.toml")
        self.input = str(config["input"][0]["name"])
        self.outputs = [str(output["name"]) for output in config["output"]]

    def _taken(self, request: Any) -> Array:
        taken: Array = self._triton.get_input_tensor_by_name(request, self.input).as_numpy()
        return taken

    def _given(self, values: Sequence[Array]) -> Any:
        tensors = [self._triton.Tensor(name, value) for name, value in zip(self.outputs, values, strict=True)]
        return self._triton.InferenceResponse(output_tensors=tensors)

    def _refused(self, error: PlimsollError) -> Any:
        """Answer with the error: what is wrong with the request is the caller's to mend, the rest is the server's."""
        kinds = self._triton.TritonError
        code = kinds.INVALID_ARG if isinstance(error, InputError) else kinds.INTERNAL
        return self._triton.InferenceResponse(error=kinds(str(error), code))


class PreprocessingModel(_InTriton):
    """Turns picture files into what the network takes: `image` (BYTES `[N]`) to a tensor `[N, …]`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the Spec beside this file; raises SpecError, or BackendMissingError where fast preprocessing's packages
        aren't there."""
        self._open(args)
        preprocessing: Preprocessing = "fast" if self.parameters["preprocessing"] == "fast" else "reference"
        self.preprocessor = Preprocessor(self.spec.input, preprocessing)
        self.most = int(self.parameters["max_pictures"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request with its tensor, or with what is wrong with its pictures; one bad request leaves the
        others alone."""
        answers = []
        for request in requests:
            try:
                answers.append(self._given([self.tensors(list(self._taken(request).ravel()))]))
            except PlimsollError as error:
                answers.append(self._refused(error))
        return answers

    def tensors(self, pictures: Sequence[bytes]) -> Array:
        """Return the tensors of pictures, `[N, …]`; raises InputError, or ImageError that says which picture it is
        about."""
        if not 1 <= len(pictures) <= self.most:
            raise InputError(
                f"{len(pictures)} pictures in a request; 1 to {self.most} are taken", "Send them in several requests."
            )
        batch: list[Array] = []
        for index, picture in enumerate(pictures):
            try:
                batch.append(self.preprocessor(bytes(picture)))
            except ImageError as error:
                raise ImageError(f"picture {index}: {error.message}", error.hint) from error
        if len({tensor.shape for tensor in batch}) > 1:
            raise InputError("the pictures of this request become tensors of different sizes", "Send them one by one.")
        return np.stack(batch)


class NetworkModel(_InTriton):
    """Runs a network with Plimsoll's own session for its target."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the network; raises what `Runner.open` raises."""
        self._open(args)
        model = importers.read(self.folder / self.parameters["model"], self.spec)
        threads = int(self.parameters.get("threads") or host.cores())
        self.runner = Runner.open(model, Target.parse(self.parameters["target"]), plan=ThreadPlan(1, threads))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Compute the requests of a batch together; where that fails, each by itself, so that one bad request fails
        alone."""
        taken = [self._taken(request) for request in requests]
        if len(taken) > 1 and len({batch.shape[1:] for batch in taken}) == 1:
            with contextlib.suppress(PlimsollError):
                return self._together(taken)
        return [self._alone(batch) for batch in taken]

    def _together(self, taken: Sequence[Array]) -> list[Any]:
        computed = self.runner.infer(np.concatenate(taken))
        ends = np.cumsum([len(batch) for batch in taken])[:-1]
        parts = [np.split(computed[name], ends) for name in self.outputs]
        return [self._given(values) for values in zip(*parts, strict=True)]

    def _alone(self, batch: Array) -> Any:
        try:
            computed = self.runner.infer(batch)
        except PlimsollError as error:
            return self._refused(error)
        return self._given([computed[name] for name in self.outputs])

    def finalize(self) -> None:
        """Give the session back."""
        self.runner.close()

"""Answer pictures: one at a time, or as a stream of any length in which decoding and inference overlap."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.base import Objective
from plimsoll.backends.runner import Runner
from plimsoll.core.target import Target
from plimsoll.errors import PlimsollError
from plimsoll.inference.resolve import ResolvedModel, open_model
from plimsoll.inference.stream import Observer, Picture, Prediction, Stream, source
from plimsoll.preprocessing import ImageGeometry, ImageSource, Preprocessing, Preprocessor
from plimsoll.spec import Spec
from plimsoll.system import host
from plimsoll.tasks import Answer, decoder


class Predictor:
    """A model that answers pictures. `plimsoll.load` makes one; use it in a `with` block or close it.

    Sessions are opened on first use: one that gives a single answer soonest for `predict`, one that gives the most
    answers a second for `predict_many`.
    """

    def __init__(
        self, opened: ResolvedModel, *, options: Mapping[str, str] | None = None, cores: int | None = None
    ) -> None:
        self._opened = opened
        self.options = dict(options or {})
        self.cores = cores or host.cores()
        self._runners: dict[Objective, Runner] = {}
        self._lock = threading.Lock()
        self.spec: Spec = opened.model.contract()
        self.model = opened.model
        self.target = opened.target
        self.preprocessor = Preprocessor(self.spec.input, opened.preprocessing)
        self.task = decoder(self.spec)

    def runner(self, objective: Objective) -> Runner:
        """Return the runner for an objective, opened on its first use."""
        with self._lock:
            if objective not in self._runners:
                self._runners[objective] = Runner.open(
                    self._opened.model, self.target, objective=objective, options=self.options, cores=self.cores
                )
            return self._runners[objective]

    def predict(self, picture: Picture, *, threshold: float | None = None, objective: Objective = "latency") -> Answer:
        """Answer one picture; raises ImageError where it can't be read and RunError where the runtime fails.

        Where several threads call at once, `objective="throughput"` lets each compute on a core of its own.
        """
        tensor, geometry = self.prepare(source(picture))
        return self.task.decode(self.runner(objective).infer(tensor[np.newaxis]), threshold, [geometry])[0]

    def prepare(self, source: ImageSource) -> tuple[NDArray[Any], ImageGeometry | None]:
        """Return a picture's tensor, without its batch axis, and where its pixels lie in the picture if the task needs
        that.

        `task.decode(outputs, threshold, geometries)` takes those of a batch's pictures. Any thread may call. Raises
        ImageError.
        """
        return (
            self.preprocessor.with_geometry(source) if self.task.needs_geometry else (self.preprocessor(source), None)
        )

    def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        threshold: float | None = None,
        batch: int | None = None,
        observe: Observer | None = None,
    ) -> Iterator[Prediction]:
        """Answer pictures in their order, as soon as they are known; memory stays bounded however many there are.

        A picture that can't be read, or that the runtime fails on, is a Prediction with an error. `batch` is how many
        pictures go into one call (default: 1, or 4 of an 8-bit network, where the runtime computes on several streams,
        else 8). `observe` is told how long each stage takes; `queue` is the waiting for a core and for the other
        pictures of a batch.
        """
        return Stream(self, self.cores, batch, threshold, observe).run(pictures)

    def close(self) -> None:
        """Give sessions back and remove what was unpacked."""
        for runner in self._runners.values():
            runner.close()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(
    model: str | os.PathLike[str],
    *,
    spec: str | os.PathLike[str] | None = None,
    target: Target | str | None = None,
    preprocessing: Preprocessing | None = None,
    options: Mapping[str, str] | None = None,
) -> Predictor:
    """Open a zoo name, a bundle or a model file for answering pictures.

    `spec` is a Spec file for a bare model file; `target` and `preprocessing` replace what a bundle says (default
    onnxruntime:cpu:float32 and the reference preprocessing).

    >>> with load("open_nsfw") as model:  # doctest: +SKIP
    ...     model.predict("photo.jpg").score
    """
    opened = open_model(
        os.fspath(model),
        Path(spec) if spec is not None else None,
        target=Target.parse(target) if isinstance(target, str) else target,
        preprocessing=preprocessing,
    )
    try:
        return Predictor(opened, options=options)
    except PlimsollError:
        opened.close()
        raise


__all__ = ["Observer", "Picture", "Prediction", "Predictor", "load"]

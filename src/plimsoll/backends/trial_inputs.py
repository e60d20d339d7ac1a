"""What an original and a converted network are tried on: pictures, each through the network's own input steps; random
tensors where there is no Spec."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.base import Session
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model, Tensors
from plimsoll.core.target import Target
from plimsoll.errors import ImageError
from plimsoll.onnx.answers import RANDOM_KINDS, random_feeds
from plimsoll.onnx.signature import Signature
from plimsoll.preprocessing import Preprocessor
from plimsoll.preprocessing.decode import sample_pictures

_log = logging.getLogger(__name__)

Feeds = Mapping[str, NDArray[Any]]


class TriedNetwork:
    """A loaded network that answers pictures as a `Runner` does, or tensors as they come where it has no Spec."""

    def __init__(self, model: Model, session: Session, target: Target) -> None:
        self.model = model
        self._session = session
        self._runner = Runner.around(session, model, target) if model.spec is not None else None
        self._preprocessor = Preprocessor(model.spec.input) if model.spec is not None else None

    @property
    def takes_batches(self) -> bool:
        """Whether a call takes as many pictures as it is given."""
        free = all(info.shape and info.shape[0] is None for info in self._session.inputs)
        return free if self._runner is None else self._runner.batches and free

    def feeds(self, picture: bytes) -> Feeds:
        """Return what the network reads for a picture; raises ImageError."""
        if self._preprocessor is None or self._runner is None:
            raise ImageError(f"{self.model.path.name} has no Spec")
        return {self._runner.picture_input: self._preprocessor(picture)[np.newaxis]}

    def random(self, kind: str) -> Feeds | None:
        """Return random tensors for one picture; None where a size isn't known."""
        inputs = self._session.inputs if self._runner is None else self._runner.inputs
        return random_feeds(self.model, Signature(tuple(inputs), ()), kind)

    def answer(self, *feeds: Feeds) -> Tensors:
        """Return the outputs for one picture, or for several as one batch; raises RunError, or InputError or ModelError
        for what doesn't fit."""
        batch = {
            name: np.concatenate([part[name] for part in feeds]) if len(feeds) > 1 else feeds[0][name]
            for name in feeds[0]
        }
        return self._session.run(batch) if self._runner is None else self._runner.run(batch)


@dataclass(frozen=True)
class FeedsPair:
    """What both networks read for the same picture."""

    source: Feeds
    other: Feeds
    random: bool = False
    unlike: bool = False
    """Whether the picture may be unlike those that calibrated the other network."""


def feeds_of(
    source: TriedNetwork, other: TriedNetwork, pictures: Sequence[Path], *, calibrated: bool
) -> Iterator[FeedsPair]:
    """Yield what both networks read: for the pictures that come with Plimsoll and for the given ones; random tensors
    where no picture can be used. What can't be read is left out.

    A `calibrated` network has ranges for pictures like the given ones: these come first, and others are unlike them.
    Where none is given, those that come with Plimsoll stand in; random tensors don't.
    """
    samples, given = _samples(source.model), _read(pictures)
    own = usable = False
    for some in (given, samples) if calibrated else (samples, given):
        for picture in some:
            try:
                pair = FeedsPair(source.feeds(picture), other.feeds(picture), unlike=calibrated and own)
            except ImageError:
                continue
            usable = True
            yield pair
        own = usable
    if usable or calibrated:
        return
    for kind in RANDOM_KINDS:
        first, second = source.random(kind), other.random(kind)
        if first is None or second is None or not _alike(first, second):
            _log.info("%s: its inputs have sizes that aren't known, so it is not checked", source.model.path.name)
            return
        yield FeedsPair(first, second, random=True)


def _samples(model: Model) -> Iterator[bytes]:
    if model.spec is not None:
        yield from (data for _, data in sample_pictures(model.spec.input.decode))


def _read(pictures: Sequence[Path]) -> Iterator[bytes]:
    for path in pictures:
        with contextlib.suppress(OSError):
            yield path.read_bytes()


def sample_tensors(model: Model) -> list[NDArray[Any]]:
    """Return what a network reads for the pictures that come with Plimsoll, by its Spec's input steps, without the
    batch axis; empty without a Spec."""
    tensors = []
    for picture in _samples(model):
        with contextlib.suppress(ImageError):
            tensors.append(Preprocessor(model.require_spec().input)(picture))
    return tensors


def _alike(first: Feeds, second: Feeds) -> bool:
    """Tell whether two networks read the same random tensors."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and first[name].shape == second[name].shape for name in first
    )

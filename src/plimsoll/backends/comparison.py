"""Compare what a built network and its original answer: picture by picture, some again, and two as one batch."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from plimsoll import backends
from plimsoll.backends import agreement
from plimsoll.backends.agreement import Agreement
from plimsoll.backends.base import Backend, CalibrationData, Options, Session
from plimsoll.backends.trial_inputs import FeedsPair, TriedNetwork, feeds_of
from plimsoll.core.model import Model, Tensors
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.core.wording import printable
from plimsoll.errors import BuildError, ModelError, PlimsollError, RunError
from plimsoll.onnx import eight_bits
from plimsoll.onnx.answers import ReferenceNetwork, unrepeatable
from plimsoll.tasks import decoder

_log = logging.getLogger(__name__)

_PICTURE_SECONDS = 20.0
"""After so long, no further picture is answered."""
REPEATED = 3
"""So many pictures are answered again, in the reverse order."""


@dataclass(frozen=True)
class Conversion:
    """A network as a runtime loads it, with what it was built from."""

    built: Model
    """Its ancestors lead to the original."""
    target: Target
    options: Options
    given: Model | None = None
    """What `Backend.build` was given; with it, the first layer that goes wrong can be looked for."""
    calibration: CalibrationData | None = None
    pictures: tuple[Path, ...] = ()
    """The user's. They alone judge a quantized network, where there are any; others are judged by Plimsoll's, too."""

    @property
    def sources(self) -> tuple[Model, ...]:
        """The ONNX networks that it may be compared with, the original first; none that its Spec isn't for."""
        networks = (model for model in reversed(chain(self.built)) if model.format == "onnx")
        return tuple(model for model in networks if model.spec is not None or self.built.spec is None)

    @property
    def backend(self) -> Backend:
        return backends.get(self.target.runtime)

    @property
    def path(self) -> Path:
        """The user's file."""
        return self.built.source


@dataclass(frozen=True)
class Outcome:
    """What a check found."""

    figures: tuple[agreement.Figure, ...] = ()
    """Each output, and each quantity in it, against its limit."""
    state: tuple[agreement.Figure, ...] = ()
    """What differs where the same picture comes again."""
    unrepeatable: str = ""
    """Why the original itself answers otherwise each time."""
    pictures: int = 0


def compare(conversion: Conversion, session: Session) -> Outcome:
    """Compare a loaded network with the first of its sources that ONNX Runtime runs; raises BuildError, also where the
    runtime refuses a picture."""
    try:
        return _compared(conversion, session)
    except RunError as error:
        raise BuildError(
            f"{conversion.path}: {conversion.target} can't run the network: {error.message}",
            "Choose another target; `plimsoll targets` lists them.",
        ) from error


def _compared(conversion: Conversion, session: Session) -> Outcome:
    loaded = _reference(conversion.sources)
    if loaded is None:
        _log.warning("%s: ONNX Runtime can't run it, so that nothing checks how it is answered", conversion.path)
        return Outcome()
    model, reference = loaded
    source = TriedNetwork(model, reference, REFERENCE_TARGET)
    other = TriedNetwork(conversion.built, session, conversion.target)
    limits = agreement.limits_of(conversion.backend.computes_in(conversion.target, conversion.options))
    agreed = Agreement(limits, decoder(model.spec) if model.spec is not None else None)
    rounding = _rounding(model, agreed) if limits.calibrated else None
    answers = list(answers_of(source, other, agreed, conversion.pictures, rounding))
    state, repeated = Agreement(agreement.STATE), Agreement(agreement.STATE)
    first = [answer for answer in answers if answer.expected]
    for answer in reversed(first):
        state.add(answer.answered, other.answer(answer.feeds.other))
    for answer in first[:1]:
        repeated.add(answer.expected, source.answer(answer.feeds.source))
    if len(first) > 1 and source.takes_batches and other.takes_batches:
        _compare_batch(first[:2], source, other, agreed, repeated)
    figures = agreed.figures(rounding.agreed if rounding is not None else None)
    return Outcome(figures, state.figures(), _why_unrepeatable(model, repeated.figures()), len(answers))


@dataclass(frozen=True)
class _Answer:
    """What both networks answered to a picture; empty where that isn't needed any more."""

    feeds: FeedsPair
    expected: Tensors
    answered: Tensors


@dataclass(frozen=True)
class _Rounding:
    """The original rounded to 8 bits, and how near its answers are to the original's."""

    network: TriedNetwork
    agreed: Agreement


def _rounding(model: Model, agreed: Agreement) -> _Rounding | None:
    """Return the original, rounded; None where that can't be done."""
    with contextlib.suppress(BuildError, ModelError):
        network = ReferenceNetwork(model, eight_bits.rounded(model))
        return _Rounding(TriedNetwork(model, network, REFERENCE_TARGET), Agreement(agreed.limits, agreed.task))
    return None


def answers_of(
    source: TriedNetwork,
    other: TriedNetwork,
    agreed: Agreement,
    pictures: Sequence[Path],
    rounding: _Rounding | None = None,
) -> Iterator[_Answer]:
    """Have both networks answer picture by picture, and compare."""
    started, count = time.monotonic(), 0
    for feeds in feeds_of(source, other, pictures, calibrated=agreed.limits.calibrated):
        if count > 1 and time.monotonic() - started > _PICTURE_SECONDS:
            return
        try:
            expected = source.answer(feeds.source)
        except RunError as error:
            if feeds.random:
                continue  # A random whole number may be no index that the network has.
            raise BuildError(
                f"{source.model.source}: {error.message}", "Check the file with `plimsoll inspect`."
            ) from error
        answered = other.answer(feeds.other)
        agreed.add(expected, answered, unlike=feeds.unlike)
        if rounding is not None and not feeds.unlike:
            with contextlib.suppress(RunError):
                rounding.agreed.add(expected, rounding.network.answer(feeds.source))
        yield _Answer(feeds, expected, answered) if count < REPEATED else _Answer(feeds, {}, {})
        count += 1


def _compare_batch(
    answers: Sequence[_Answer], source: TriedNetwork, other: TriedNetwork, agreed: Agreement, repeated: Agreement
) -> None:
    """Compare two pictures as one batch, and the original's answer to the first of them with the one it got alone."""
    try:
        both = source.answer(*[answer.feeds.source for answer in answers])
    except (PlimsollError, ValueError):
        return  # Many a network says that it takes any batch, and takes one. Pictures may differ in size.
    unlike = any(answer.feeds.unlike for answer in answers)
    agreed.add(both, other.answer(*[answer.feeds.other for answer in answers]), unlike=unlike)
    alone = {name: value for name, value in answers[0].expected.items() if value.ndim and len(value) == 1}
    repeated.add(
        {name: value for name, value in alone.items() if len(both[name]) == len(answers)},
        {name: value[:1] for name, value in both.items() if value.ndim},
    )


def _reference(sources: Sequence[Model]) -> tuple[Model, ReferenceNetwork] | None:
    """Load the first of the sources that ONNX Runtime takes; None where it takes none."""
    for source in sources:
        with contextlib.suppress(BuildError):
            return source, ReferenceNetwork(source)
    return None


def _why_unrepeatable(model: Model, figures: Sequence[agreement.Figure]) -> str:
    """Return why the original answers otherwise each time; empty where it doesn't."""
    if reason := unrepeatable(model):
        return reason
    changed = next((figure for figure in figures if figure.fault), None)
    return "" if changed is None else f"its {named(changed)} depends on chance, or on other pictures"


def chain(model: Model) -> list[Model]:
    """Return a model and its ancestors."""
    return [model, *(chain(model.parent) if model.parent is not None else [])]


def named(figure: agreement.Figure) -> str:
    """Return what a figure is about, for a message."""
    output, _, quantity = figure.name.partition(", ")
    return printable(f"output '{output}'{f', {quantity},' if quantity else ''}", 200)

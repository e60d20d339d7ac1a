"""`open_model`: what MODEL means on the command line: a zoo name, a bundle, or a model file; `load`: a `Predictor` of
it, which answers pictures one at a time or as a stream."""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll import backends, importers, zoo
from plimsoll.backends.base import Objective, ThreadPlan
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import HoldsCascadeError, InputError, ModelError, PlimsollError, SpecError
from plimsoll.importers.base import Converter
from plimsoll.inference.frames import Frame, answer_worst
from plimsoll.inference.pictures import Picture, source
from plimsoll.inference.stream import Observer, Prediction, Stream
from plimsoll.preprocessing import ArrayColour, ImageGeometry, PictureSource, PixelArray, Preprocessing, Preprocessor
from plimsoll.spec import Spec
from plimsoll.spec import files as spec_files
from plimsoll.spec.policy import Policy
from plimsoll.system import host
from plimsoll.tasks import Answer, decoder
from plimsoll.zoo import catalog

if TYPE_CHECKING:
    from plimsoll.bundle import Bundle


@dataclass
class ResolvedModel:
    """A model and how to run it. Use it in a `with` block: a zipped bundle stays unpacked until its end."""

    model: Model
    target: Target = REFERENCE_TARGET
    preprocessing: Preprocessing = "reference"
    scaled_sides: tuple[int, int] | None = None
    """Which pictures scaled preprocessing shrinks while it decodes them, by their shorter sides; None: all that are
    large."""
    origin: Mapping[str, Any] | None = None
    """Licence, authors and source, where known."""
    bundle: Bundle | None = None

    def close(self) -> None:
        """Remove the unpacked files of a zipped bundle."""
        if self.bundle is not None:
            self.bundle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_model(
    reference: str,
    spec: Path | None = None,
    *,
    target: Target | None = None,
    preprocessing: Preprocessing | None = None,
    import_folder: Path | None = None,
    policy: Path | None = None,
) -> ResolvedModel:
    """Open a zoo name (its weights are fetched if they are missing), a bundle (folder or .zip) or a model file.

    `spec` is the Spec of a model file; `target` and `preprocessing` override the bundle's, the bands of `policy` the
    Spec's. A model of another framework is converted in `import_folder`, and refused without one. Raises ModelError,
    BundleError, SpecError, and InputError for a cascade, and for a file that is no policy.
    """
    given = spec_files.read(spec) if spec is not None else None
    bands = Policy.read(policy) if policy is not None else None
    resolved = _resolve(reference, given, import_folder)
    if bands is not None:
        try:
            resolved.model = replace(resolved.model, spec=bands.apply(resolved.model.require_spec()))
        except PlimsollError:
            resolved.close()
            raise
    resolved.target = target or resolved.target
    resolved.preprocessing = preprocessing or resolved.preprocessing
    return resolved


def _resolve(reference: str, given: Spec | None, import_folder: Path | None) -> ResolvedModel:
    if reference in zoo.names():
        card, file = zoo.card(reference), catalog.fetch(reference)
        # The card pins the file by its hash, and card and file were checked together: only another Spec needs the
        # reader's checks.
        model = importers.read(file, given) if given is not None else Model(file, card.source.format, card.spec)
        target = REFERENCE_TARGET if model.format == "onnx" else backends.default_target(model)
        return ResolvedModel(model, target, origin=card.origin)
    if reference in catalog.cascades():
        raise InputError(
            f"{reference} is a cascade of networks, and this takes a single network",
            "`plimsoll predict` and `plimsoll.load` answer with cascades; give one of its networks here.",
        )
    path = Path(reference)
    if is_bundle(path):
        return _open_bundle(path, given)
    if import_folder is not None and _has_converter(path):
        from plimsoll.importers.conversion import import_model  # needed by few calls

        try:
            return ResolvedModel(import_model(path, import_folder, spec=given).model)
        except PlimsollError as error:
            if "--" not in error.hint:
                raise
            where = f"These are options of `plimsoll import {reference} --out {path.stem}.onnx`; then give its result."
            raise type(error)(error.message, f"{error.hint}\n  {where}") from error
    if not path.exists() and not _has_converter(path):
        raise ModelError(
            f"'{reference}' is neither a file or folder nor a network of the zoo{_near(reference)}",
            f"The zoo has: {', '.join((*zoo.names(), *catalog.cascades()))}.",
        )
    model = importers.read(path, given)
    return ResolvedModel(model, backends.default_target(model))


def is_bundle(path: Path) -> bool:
    """Tell whether a path is a .zip, or a folder with a manifest or that no importer knows."""
    if path.suffix.lower() == ".zip":
        return path.exists()
    if not path.is_dir():
        return False
    from plimsoll.bundle import manifest  # only bundles need it: most starts are quicker without

    return (path / manifest.FILE).is_file() or not _has_converter(path)


def _has_converter(path: Path) -> bool:
    """Tell whether a path, which may be a checkpoint's prefix, is a model that has to be converted to ONNX
    first."""
    try:
        return isinstance(importers.format_of(path), Converter)
    except ModelError:
        return False


def _open_bundle(path: Path, given: Spec | None) -> ResolvedModel:
    from plimsoll.bundle import Bundle  # Most calls open no bundle and start faster without this import.

    bundle = Bundle.open(path)
    if given is not None:
        bundle.close()
        raise SpecError(
            f"{path}: a bundle has its own Spec",
            "Omit --spec; to use its model with another Spec, unpack the bundle.",
        )
    try:
        # The hashes prove that this is the file that was packed, not that it is harmless: its reader checks that.
        model = importers.reread(bundle.model, bundle.target.runtime)
    except PlimsollError:
        bundle.close()
        raise
    return ResolvedModel(
        model, bundle.target, bundle.preprocessing, bundle.scaled_sides, bundle.manifest.origin, bundle
    )


def imported(model: Model, folder: Path) -> Model:
    """Return a model of another format converted to ONNX in `folder`; raises what `import_model` raises."""
    from plimsoll.importers.conversion import import_model  # needed by few calls

    return import_model(model.path, folder, spec=model.require_spec()).model


def _near(reference: str) -> str:
    near = difflib.get_close_matches(reference, zoo.names(), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


class Predictor:
    """A model that answers pictures, made by `plimsoll.load`. Use it in a `with` block or close it.

    Sessions are opened on first use: one with the lowest latency for `predict`, one with the highest throughput for
    `predict_many`.
    """

    def __init__(
        self, opened: ResolvedModel, *, options: Mapping[str, str] | None = None, cores: int | None = None
    ) -> None:
        self.opened = opened
        self.options = dict(options or {})
        self.cores = cores or host.cores()
        self._runners: dict[Objective, Runner] = {}
        self._lock = threading.Lock()
        self.spec: Spec = opened.model.require_spec()
        self.model = opened.model
        self.target = opened.target
        self.preprocessor = Preprocessor(self.spec.input, opened.preprocessing, opened.scaled_sides)
        self.task = decoder(self.spec)

    @property
    def size(self) -> int:
        """Bytes of the files of all networks."""
        return sum(network.model.size for network in self.networks)

    @property
    def networks(self) -> tuple[Predictor, ...]:
        """Itself; of a cascade, its networks."""
        return (self,)

    def threads(self, objective: Objective) -> ThreadPlan:
        """Return how a session for an objective shares the cores."""
        return ThreadPlan.of(objective, self.cores)

    def runner(self, objective: Objective) -> Runner:
        """Return the runner for an objective, opened on its first use."""
        with self._lock:
            if objective not in self._runners:
                self._runners[objective] = Runner.open(
                    self.opened.model, self.target, objective=objective, options=self.options, cores=self.cores
                )
            return self._runners[objective]

    def predict(
        self,
        picture: Picture,
        *,
        colour: ArrayColour | None = None,
        threshold: float | None = None,
        objective: Objective = "latency",
    ) -> Answer:
        """Answer one picture; raises ImageError if it can't be read and RunError if the runtime fails.

        `colour` is the channel order of an array: "RGB", "BGR" (what OpenCV reads), "RGBA", "BGRA" or "grey"; without
        it only a grey array is answered. With `objective="throughput"`, several threads that call at once each compute
        on a core of their own. Where the Spec answers several frames of a file, the answer is that of the worst.
        """
        if self.task.answers_frames:
            runner = self.runner(objective)
            frames = self.frames(source(picture, colour))
            return answer_worst(frames, runner.infer, self.task, threshold, batches=runner.batches).answer
        tensor, geometry = self.prepare(source(picture, colour))
        return self.task.decode(self.runner(objective).infer(tensor[np.newaxis]), threshold, [geometry])[0]

    def prepare(self, source: PictureSource) -> tuple[NDArray[Any], ImageGeometry | None]:
        """Return a picture's tensor, without its batch axis, and its geometry if the task needs it.

        `task.decode(outputs, threshold, geometries)` takes the geometries of a batch. Thread-safe. Raises ImageError.
        """
        return (
            self.preprocessor.with_geometry(source) if self.task.needs_geometry else (self.preprocessor(source), None)
        )

    def frames(self, source: PictureSource) -> Iterator[Frame]:
        """Yield the number, tensor and geometry of each frame that the Spec selects; thread-safe. Raises ImageError."""
        return self.preprocessor.frames(source)

    def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        colour: ArrayColour | None = None,
        threshold: float | None = None,
        batch: int | None = None,
        observe: Observer | None = None,
    ) -> Iterator[Prediction]:
        """Answer pictures in order, as soon as answers are ready, in bounded memory.

        A picture that can't be read, or that the runtime fails on, yields a Prediction with an error. `batch` is how
        many pictures go into one call (default: 1, or 4 of an 8-bit network, where the runtime computes on several
        streams, else 8). `observe` is called with the duration of each stage; `queue` is the wait for a core and for
        the rest of a batch. `colour` is the channel order of arrays. The `path` of a picture
        that has none says what was given.
        """
        given = (PixelArray(each, colour) if isinstance(each, np.ndarray) else each for each in pictures)
        return Stream(self, self.cores, batch, threshold, observe).run(given)

    def close(self) -> None:
        """Close the sessions and remove unpacked files."""
        for runner in self._runners.values():
            runner.close()
        self.opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def cascade_file(reference: str) -> Path | None:
    """Return the file of a cascade, of the zoo or the user's own; None for anything else."""
    if reference in catalog.cascades():
        return catalog.cascade_file(reference)
    path = Path(reference)
    return path if path.suffix.lower() == ".toml" and path.is_file() else None


def _require_no_settings(model: object, *settings: object) -> None:
    if any(settings):
        raise InputError(
            f"{model}: a cascade's networks have their own Specs, targets and settings",
            "Give none; `plimsoll ship` chooses targets for all networks together.",
        )


def load(
    model: str | os.PathLike[str],
    *,
    spec: str | os.PathLike[str] | None = None,
    target: Target | str | None = None,
    preprocessing: Preprocessing | None = None,
    options: Mapping[str, str] | None = None,
    policy: str | os.PathLike[str] | None = None,
) -> Predictor:
    """Open a zoo name, a bundle, a model file or a cascade's file for answering pictures.

    `spec` is a Spec file for a bare model file; `target` and `preprocessing` override a bundle's (default
    onnxruntime:cpu:float32 and reference preprocessing). `policy` is a file of `plimsoll threshold`, whose bands and
    threshold replace the Spec's.

    >>> with load("open_nsfw") as model:  # doctest: +SKIP
    ...     model.predict("photo.jpg").score
    """
    if (cascade := cascade_file(os.fspath(model))) is not None:
        from plimsoll.inference.cascade import CascadePredictor  # It imports this module, and few calls need it.

        _require_no_settings(model, spec, target, options, policy)
        return CascadePredictor.open(cascade, preprocessing)
    try:
        opened = open_model(
            os.fspath(model),
            Path(spec) if spec is not None else None,
            target=Target.parse(target) if isinstance(target, str) else target,
            preprocessing=preprocessing,
            policy=Path(policy) if policy is not None else None,
        )
    except HoldsCascadeError:
        from plimsoll.inference.cascade_bundle import open_cascade  # As above.

        _require_no_settings(model, spec, target, options, policy)
        return open_cascade(Path(model), preprocessing)
    try:
        return Predictor(opened, options=options)
    except PlimsollError:
        opened.close()
        raise


__all__ = ["Observer", "Picture", "Prediction", "Predictor", "load"]

"""Cascades: networks that feed each other. The first finds objects in the picture; each is turned upright by points
inside its box, cut out, and given to the next, whose points are brought back into the picture.

Its answer is a detector's, with the last stage's points in each box.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plimsoll.backends.base import Objective
from plimsoll.backends.runner import Runner
from plimsoll.errors import InputError, ModelError, PlimsollError, SpecError
from plimsoll.inference.cascade_spec import CascadeSpec, Crop, Stage, check_points, read_cascade
from plimsoll.inference.crops import Positions, Square, square_of
from plimsoll.inference.gestures import GESTURES, POINTS, gestures_of
from plimsoll.inference.pictures import Entry, Picture, name_of, source
from plimsoll.inference.predictor import Predictor, ResolvedModel, open_model
from plimsoll.inference.stream import Observer, Prediction, Stream
from plimsoll.inference.walk import UnreadablePath
from plimsoll.preprocessing import ArrayColour, ImageGeometry, PixelArray, Preprocessing, fast_decode
from plimsoll.preprocessing.decode import as_array, decode, orientation, read
from plimsoll.preprocessing.decoded import decoded_pixels
from plimsoll.spec import Spec
from plimsoll.spec.spec import Detect, Landmarks
from plimsoll.tasks import Answer, decoder
from plimsoll.tasks.detect import Box, Detection, DetectTask
from plimsoll.tasks.landmarks import Points

_MOST_INPUTS = 32


Watch = Callable[[int, PixelArray, dict[str, float]], None]
"""Is told of each call of a network: the stage's index, the picture that it read, and the seconds of `prepare`,
`inference` and `output`. May be called from several threads at once."""


class CascadeStages:
    """The opened networks of a cascade."""

    def __init__(self, spec: CascadeSpec, predictors: Sequence[Predictor]) -> None:
        """Raises SpecError for networks whose tasks don't fit together."""
        self.spec, self.predictors = spec, tuple(predictors)
        outputs = [predictor.spec.output for predictor in predictors]
        if not isinstance(outputs[0], Detect):
            raise SpecError(f"{spec.name}: the first stage's task is '{outputs[0].task}'; it has to detect boxes")
        known = outputs[0].points
        for index, (stage, output) in enumerate(zip(spec.stages[1:], outputs[1:], strict=True), 2):
            if not isinstance(output, Landmarks):
                raise SpecError(f"{spec.name}: stage {index}: its task is '{output.task}'; it has to give landmarks")
            check_points(f"{spec.name}: stage {index}", stage, output, known)
            known = known if stage.points else output.points
        if spec.labels == "gestures" and known != POINTS:
            raise SpecError(f"{spec.name}: gestures need the {POINTS} points of a hand, not {known}")
        sizes = [
            (predictor.spec.input.tensor_spec.width, predictor.spec.input.tensor_spec.height)
            for predictor in predictors
        ]
        if any(width is None or height is None for width, height in sizes):
            raise SpecError(
                f"{spec.name}: the size of a stage's input is not known", "Give its input steps a fixed size."
            )
        self._sizes = [(width or 0, height or 0) for width, height in sizes]

    def answer(
        self, picture: Picture, colour: ArrayColour | None, threshold: float | None, watch: Watch | None = None
    ) -> Detection:
        """Answer one picture; raises ImageError or RunError."""
        pixels, whole = self._decoded(picture, colour)
        boxes = []
        for box in self._objects(pixels, threshold, watch):
            points = self._points(pixels, box, watch)
            if points is not None:
                boxes.append(replace(box, box=_around(points), points=tuple(map(tuple, points.tolist()))))
        if self.spec.labels == "gestures":
            names = gestures_of([np.array(box.points) for box in boxes])
            boxes = [replace(box, label=name) for box, name in zip(boxes, names, strict=True)]
        sent = (_as_sent(box, whole) for box in boxes)
        return Detection(tuple(box for box in sent if box.box[0] < box.box[2] and box.box[1] < box.box[3]))

    def _decoded(self, picture: Picture, colour: ArrayColour | None) -> tuple[NDArray[np.uint8], ImageGeometry]:
        """Return the upright picture, RGB, and the way back to how it was sent."""
        step, given = self.predictors[0].spec.input.decode, source(picture, colour)
        if isinstance(given, bytes | Path):
            data = read(given)
            # The same pixels, sooner.
            pixels = fast_decode.decode(data, step) if self._is_fast(0) else as_array(decode(data, step))
            followed = orientation(data, fill=step.truncated == "fill") if step.exif_orientation else 1
        else:
            decoded, followed = decoded_pixels(given, step)
            pixels = as_array(decoded)
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        height, width = pixels.shape[:2]
        sent = (height, width) if followed > 4 else (width, height)
        whole = ImageGeometry(*sent, width, height, (1.0, 1.0), (0.0, 0.0), (0.0, 0.0, width, height), followed)
        return np.asarray(pixels, np.uint8), whole

    def _is_fast(self, index: int) -> bool:
        return self.predictors[index].preprocessor.preprocessing != "reference"

    def _cut(self, index: int, square: Square, pixels: NDArray[np.uint8], *, black: bool = False) -> PixelArray:
        """Return what a stage reads of the picture, as its preprocessing makes it."""
        cut = square.cut_fast if self._is_fast(index) else square.cut
        return PixelArray(cut(pixels, *self._sizes[index], black=black), "RGB")

    def _run(
        self, index: int, pixels: PixelArray, threshold: float | None, watch: Watch | None, *, placed: bool
    ) -> tuple[Answer, ImageGeometry | None]:
        """Return a stage's answer, in the pixels of what it read where it is `placed`, else of its network's input."""
        predictor, started = self.predictors[index], time.perf_counter()
        tensor, geometry = predictor.prepare(pixels)
        prepared = time.perf_counter()
        outputs = predictor.runner("throughput").infer(tensor[np.newaxis])
        computed = time.perf_counter()
        try:
            answer = predictor.task.decode(outputs, threshold, [geometry] if placed else None)[0]
        except ModelError as error:
            raise ModelError(f"stage {index + 1}, {predictor.spec.name}: {error.message}", error.hint) from error
        if watch is not None:
            seconds = {"prepare": prepared - started, "inference": computed - prepared}
            watch(index, pixels, {**seconds, "output": time.perf_counter() - computed})
        return answer, geometry

    def _objects(self, pixels: NDArray[np.uint8], threshold: float | None, watch: Watch | None) -> list[Box]:
        """Return the first stage's boxes in the upright picture's pixels; unlike those that are shown, not clipped to
        it."""
        height, width = pixels.shape[:2]
        whole = Square(width / 2, height / 2, max(width, height), 0.0)
        corners = self.spec.stages[0].sampling == "corners"
        given = self._cut(0, whole, pixels, black=True) if corners else PixelArray(pixels, "RGB")
        detection, geometry = self._run(0, given, threshold, watch, placed=False)
        if geometry is None or not isinstance(detection, Detection):
            raise InputError(f"{self.spec.name}: the first stage gives no boxes")
        task = self.predictors[0].task
        fractions = isinstance(task, DetectTask) and task.fractions
        size = (1, 1) if fractions else (geometry.input_width, geometry.input_height)
        way_back = geometry

        def placed(positions: Sequence[Sequence[float]]) -> Positions:
            shares = np.array(positions, np.float64)[:, :2] / size
            if corners:
                return whole.to_picture(shares)
            return way_back.points(shares * (way_back.input_width, way_back.input_height))

        boxes = []
        for box in detection.boxes:
            x0, y0, x1, y1 = placed([box.box[:2], box.box[2:]]).ravel().tolist()
            points = placed(box.points).tolist() if box.points else []
            boxes.append(replace(box, box=(x0, y0, x1, y1), points=tuple(map(tuple, points))))
        return boxes

    def _points(self, pixels: NDArray[np.uint8], box: Box, watch: Watch | None) -> Positions | None:
        """Return an object's points `[N, 2 or 3]` after all stages; None where it isn't there."""
        points, around = np.array(box.points, np.float64).reshape(-1, 2), box.box
        for index, stage in enumerate(self.spec.stages[1:], 1):
            square = square_of(stage.crop or Crop(), around, points[:, :2])
            if stage.points:
                centre = points[list(stage.points), :2].mean(axis=0) - points[:, :2].min(axis=0) / 2
                centre -= points[:, :2].max(axis=0) / 2
                square = replace(square, x=square.x + centre[0], y=square.y + centre[1])
            placed = self._placed(index, pixels, square, watch)
            if placed is None:
                return None
            if stage.points:
                points[list(stage.points), :2] = placed[:, :2]
            else:
                points = placed
            around = _around(points)
        return points

    def _placed(self, index: int, pixels: NDArray[np.uint8], square: Square, watch: Watch | None) -> Positions | None:
        """Return the points `[N, 2 or 3]` that a stage gives for what is in a square; None where nothing is there."""
        width, height = self._sizes[index]
        answer, _ = self._run(index, self._cut(index, square, pixels), None, watch, placed=True)
        presence = answer.presence if isinstance(answer, Points) else 0.0
        if not isinstance(answer, Points) or (presence is not None and presence < self.spec.stages[index].presence):
            return None
        points = np.array(answer.points, np.float64)
        placed = square.to_picture(points[:, :2] / (width, height))
        return np.concatenate([placed, points[:, 2:] * (square.side / width)], axis=1)


class _CascadeStream(Stream):
    """Answers each picture with all stages before the thread takes the next."""

    def __init__(self, predictor: CascadePredictor, threshold: float | None) -> None:
        super().__init__(predictor, predictor.cores, 1, threshold, None)
        self._stages = predictor.stages

    def _prepare(self, index: int, picture: Picture) -> None:
        name = name_of(picture)
        try:
            if isinstance(picture, UnreadablePath):
                prediction = Prediction(name, None, picture.reason)
            else:
                loaded = picture.load() if isinstance(picture, Entry) else picture
                answer = None if loaded is None else self._stages.answer(loaded, None, self._threshold)
                prediction = Prediction(name, answer)
        except PlimsollError as error:
            prediction = Prediction(name, None, error.message, error_kind=type(error).__name__)
        self._done.put({index: prediction})


class CascadePredictor(Predictor):
    """A cascade that answers pictures. Its Spec and task are its first stage's, the detector's, with the last stage's
    points."""

    def __init__(self, spec: CascadeSpec, opened: Sequence[ResolvedModel], *, cores: int | None = None) -> None:
        """Take the networks of all stages; raises SpecError where they don't fit together."""
        super().__init__(opened[0], cores=cores)
        self.stages = CascadeStages(spec, [Predictor(stage, cores=cores) for stage in opened])
        self.spec = whole_spec(spec, [network.spec for network in self.networks])
        self.task = decoder(self.spec)
        self.task.labels_stay = spec.labels != "gestures"
        self.folder: Path | None = None
        """The bundle's (unpacked), where it came from one."""
        self.at_close = ExitStack()
        """What else ends with it."""

    @classmethod
    def open(cls, file: Path, preprocessing: Preprocessing | None = None, cores: int | None = None) -> Self:
        """Open all networks that a cascade's file names; `preprocessing` overrides that of bundles. Raises SpecError,
        ModelError or BundleError."""
        spec = read_cascade(file)
        with ExitStack() as stack:
            opened = [stack.enter_context(_opened(stage, file.parent, preprocessing)) for stage in spec.stages]
            cascade = cls(spec, opened, cores=cores)
            stack.pop_all()
        return cascade

    @property
    def networks(self) -> tuple[Predictor, ...]:
        """The network of each stage."""
        return self.stages.predictors

    @property
    def origin(self) -> dict[str, Any]:
        """What is known of the networks' origins together; empty where nothing is."""
        origins = [dict(network.opened.origin or {}) for network in self.networks]
        spec, several = self.stages.spec, ("authors", "known_limits")
        together = {key: [*dict.fromkeys(text for own in origins for text in own.get(key, ()))] for key in several}
        single = ("intended_use", "licence", "licence_notice")
        words = {key: [*dict.fromkeys(str(own[key]) for own in origins if own.get(key))] for key in single}
        joined = {key: (" AND " if key == "licence" else " ").join(texts) for key, texts in words.items()}
        known = {key: value for key, value in (together | joined).items() if value}
        return {"title": spec.description or spec.name, **known} if known else {}

    def runner(self, objective: Objective) -> Runner:
        """Return the runner of the first network; those of the others are opened with it."""
        first, *_ = [network.runner(objective) for network in self.networks]
        return first

    def predict(
        self,
        picture: Picture,
        *,
        colour: ArrayColour | None = None,
        threshold: float | None = None,
        objective: Objective = "latency",
    ) -> Detection:
        """Answer one picture; raises ImageError if it can't be read and RunError if a runtime fails."""
        del objective
        return self.stages.answer(picture, colour, threshold)

    def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        colour: ArrayColour | None = None,
        threshold: float | None = None,
        batch: int | None = None,
        observe: Observer | None = None,
    ) -> Iterator[Prediction]:
        """Answer pictures in order; what can't be read or run yields a Prediction with an error. Each core answers one
        picture at a time: `batch` is not used, and `observe` not called."""
        del batch, observe
        given = (PixelArray(each, colour) if isinstance(each, np.ndarray) else each for each in pictures)
        return _CascadeStream(self, threshold).run(given)

    def answer_from(self, picture: Picture, threshold: float) -> Detection:
        """Answer one picture, with boxes from another score on than the Spec's."""
        return self.stages.answer(picture, None, threshold)

    def write_inputs(self, picture: Picture, folder: Path, name: str) -> tuple[list[list[str]], list[float]]:
        """Write what each network reads of a picture, as PNG files; return them, at most 32 for each network, and the
        seconds that each network took. Raises as `predict` does."""
        inputs: list[list[str]] = [[] for _ in self.networks]
        spent = [0.0] * len(inputs)

        def watch(stage: int, pixels: PixelArray, seconds: dict[str, float]) -> None:
            spent[stage] += sum(seconds.values())
            if len(inputs[stage]) < _MOST_INPUTS:
                file = folder / f"{stage + 1}" / f"{name}-{len(inputs[stage]) + 1}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.samples).save(file, compress_level=1)
                inputs[stage].append(str(file))

        self.stages.answer(picture, None, None, watch)
        return inputs, spent

    def close(self) -> None:
        """Close all networks."""
        for network in self.networks:
            network.close()
        self.at_close.close()


def whole_spec(cascade: CascadeSpec, stages: Sequence[Spec]) -> Spec:
    """Return the Spec of a cascade's answers: its own name and description, its first stage's input, and boxes with the
    last stage's points."""
    first = stages[0].output
    assert isinstance(first, Detect)  # noqa: S101 - checked by CascadeStages
    labels = GESTURES if cascade.labels == "gestures" else first.labels
    points = [
        getattr(spec.output, "points", 0)
        for stage, spec in zip(cascade.stages, stages, strict=True)
        if not stage.points
    ]
    # No network has this head: it is one that may have points.
    whole = Detect(head="yolov8", labels=labels, confidence=first.confidence, points=points[-1])
    described = {"name": cascade.name, "description": cascade.description, "output": whole}
    return stages[0].model_copy(update=described)


def _opened(stage: Stage, folder: Path, preprocessing: Preprocessing | None) -> ResolvedModel:
    beside, spec = folder / stage.model, folder / stage.spec if stage.spec else None
    return open_model(str(beside) if beside.exists() else stage.model, spec, preprocessing=preprocessing)


def _around(points: Positions) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _as_sent(box: Box, whole: ImageGeometry) -> Box:
    """Bring a box and its points from the upright picture to the picture as it was sent; the box is clipped to it, and
    empty beyond it."""
    x0, y0, x1, y1 = whole.boxes(np.array([box.box]))[0]
    places = np.array(box.points, np.float64)
    points = np.concatenate([whole.points(places[:, :2]), places[:, 2:]], axis=1)
    corners = (float(x0), float(y0), float(x1), float(y1))
    return replace(box, box=corners, points=tuple(map(tuple, points.tolist())))

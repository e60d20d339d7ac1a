"""What is done to the networks of `answer_networks`, their Specs and their sessions: faults that a proof has to name,
and harmless changes that it must not call wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helpers import network_changes as changes
from helpers.answer_networks import ANSWER, OUTPUTS
from plimsoll.backends.runner import Runner
from plimsoll.core.target import REFERENCE_TARGET, Target

Change = changes.Change


@dataclass(frozen=True)
class Case:
    """A change to a task's network, to its Spec, or to what its session does; and how the proof names it."""

    task: str
    name: str
    network: tuple[Change, ...] = ()
    words: str = ""
    """A regular expression; empty for a harmless change."""
    output: dict[str, Any] = field(default_factory=dict)
    """What the Spec's output says otherwise."""
    steps: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None
    reference: tuple[Change, ...] = ()
    """Changes to both networks."""
    reference_output: dict[str, Any] = field(default_factory=dict)
    session: type[Runner] | None = None
    preprocessing: Any = "reference"
    target: Target = REFERENCE_TARGET

    def __str__(self) -> str:
        return f"{self.task}: {self.name}"


class Faulty(Runner):
    """A runner whose second model's session has a fault."""

    count = 0

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = dict(super().run(feeds))
        return self.spoil(outputs) if self._name.startswith("other") else outputs

    def spoil(self, outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        raise NotImplementedError


class Late(Faulty):
    """Answers with the picture before."""

    last: dict[str, NDArray[Any]] | None = None

    def spoil(self, outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        before, self.last = self.last, outputs
        return before or outputs


class Remembering(Faulty):
    """Keeps a part of its last answer, as a network with a state that is never reset."""

    last: dict[str, NDArray[Any]] | None = None

    def spoil(self, outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        before, self.last = self.last or outputs, outputs
        first = {name: value[: len(outputs[name])] for name, value in before.items()}
        return {name: np.asarray(0.9 * value + 0.1 * first[name], np.float32) for name, value in outputs.items()}


def with_step(index: int, *steps: dict[str, Any]) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda listed: [*listed[:index], *steps, *listed[index:]]


def instead(index: int, *steps: dict[str, Any]) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda listed: [*listed[:index], *steps, *listed[index + 1 :]]


CROP = ({"step": "resize", "width": 96, "height": 80}, {"step": "crop", "width": 48, "height": 48})
INT8 = Target("onnxruntime", "cpu", "int8")
AREA = ["N", 2]
SESSIONS = [("answers late", Late), ("keeps state", Remembering)]


def boxes(values: list[float]) -> NDArray[np.float32]:
    """Return six rows of a head: x, y, w, h, red, blue."""
    return np.array(values, np.float32).reshape(1, 6, 1)


FAULTS = [
    # classify
    Case("classify", "scores times 0", (changes.times("scores", 0.0),), "all its scores are 0"),
    Case(
        "classify", "two labels exchanged", (changes.taken("scores", 1, [1, 0, 2]),), "'red' has the scores .* 'blue'"
    ),
    Case("classify", "a bias on one label", (changes.plus("scores", [[0.0, 0.2, 0.0]]),), "mean deviation"),
    Case(
        "classify",
        "a bias on a label that nobody decides by",
        (changes.plus("scores", [[0.0, 0.0, 0.1]]),),
        "mean deviation of 'neither'",
        output={"positive": "red"},
        reference_output={"positive": "red"},
    ),
    Case("classify", "logits too flat", (changes.times("logits", 0.3),), "mean deviation"),
    Case(
        "classify",
        "one layer's scale times 2",
        (changes.weights("blur_weights", lambda w: 2 * w),),
        r"'blurred' \(Conv\)",
    ),
    Case(
        "classify", "colours exchanged inside", (changes.weights("stem_weights", lambda w: w[::-1]),), "channels|'stem'"
    ),
    Case("classify", "NaN in one picture", (changes.nan_where_darkest("scores"),), "NaN|non-finite"),
    Case(
        "classify",
        "a constant answer",
        (changes.behind("scores", ("Mul", (0.0,), {}), ("Add", ([[0.2, 0.7, 0.1]],), {})),),
        "same for every picture",
    ),
    Case(
        "classify",
        "pictures mixed in a batch",
        (changes.mixed_over_the_batch("scores"),),
        "mixes the pictures of a batch",
    ),
    Case("classify", "softmax twice", (changes.behind("scores", ("Softmax", (), {"axis": 1})),), "mean deviation"),
    Case("classify", "BGR for RGB", steps=with_step(2, {"step": "channels", "order": "BGR"}), words="'channels'"),
    Case("classify", "another mean", steps=with_step(3, {"step": "mean", "values": [0.3, 0.3, 0.3]}), words="'mean'"),
    Case("classify", "another scale", steps=instead(2, {"step": "scale", "divisor": 128}), words="'scale'"),
    Case("classify", "cropped, not resized", steps=instead(1, *CROP), words="'crop'|'resize'"),
    Case(
        "classify",
        "another threshold",
        output={"positive": "red", "threshold": 0.95},
        reference_output={"positive": "red", "threshold": 0.3},
        words="flips of the label",
    ),
    Case("classify", "the labels' order", output={"labels": ["blue", "red", "neither"]}, words="'red' has the scores"),
    *(Case("classify", name, session=session, words="asked again") for name, session in SESSIONS),
    Case("detect", "scores times 0", (changes.times("head", boxes([1, 1, 1, 1, 0, 0])),), "it finds no box"),
    Case(
        "detect", "scores halved", (changes.times("head", boxes([1, 1, 1, 1, 0.5, 0.5])),), "score deviation of boxes"
    ),
    Case("detect", "one label's scores times 0", (changes.times("head", boxes([1, 1, 1, 1, 1, 0])),), "recall"),
    Case(
        "detect",
        "two labels exchanged",
        (changes.taken("head", 1, [0, 1, 2, 3, 5, 4]),),
        "label 'blue' where the reference has 'red'",
    ),
    Case(
        "detect", "boxes shifted", (changes.plus("head", boxes([5, 0, 0, 0, 0, 0])),), "pixels right of the reference's"
    ),
    Case("detect", "boxes a little too far right", (changes.plus("head", boxes([1, 0, 0, 0, 0, 0])),), "shift of all"),
    Case("detect", "x and y exchanged", (changes.taken("head", 1, [1, 0, 3, 2, 4, 5]),), "exchanged|positions|recall"),
    Case(
        "detect",
        "an anchor's size times 2",
        (changes.times("head", boxes([1, 1, 1.5, 1.5, 1, 1])),),
        "1.[45] times as wide and 1.[45] times as high",
    ),
    Case(
        "detect",
        "another stride",
        (changes.times("head", boxes([1.25, 1.25, 1.25, 1.25, 1, 1])),),
        "positions are 1.2|recall",
    ),
    Case("detect", "transposed", (changes.turned("head", 0, 2, 1), changes.shape("head", "N", 2, 6)), r"\[.*2, 6\]"),
    Case(
        "detect",
        "a bias on one label that stays silent",
        (changes.plus("head", boxes([0, 0, 0, 0, 0, 0.15])),),
        "raw scores",
    ),
    Case("detect", "NaN in one picture", (changes.nan_where_darkest("head"),), "NaN|non-finite"),
    Case(
        "detect",
        "one layer's scale times 2",
        (changes.weights("blur_weights", lambda w: 2 * w),),
        r"'blurred' \(Conv\)",
    ),
    Case(
        "detect",
        "a constant answer",
        (
            changes.behind(
                "head",
                ("Mul", (0.0,), {}),
                ("Add", (np.array([[[24, 24], [24, 24], [20, 20], [20, 20], [0.9, 0], [0, 0.9]]], np.float32),), {}),
            ),
        ),
        "same for every picture",
    ),
    Case(
        "detect",
        "another threshold",
        output={"confidence": 0.9},
        words="output.confidence = 0.9, the reference has 0.25",
    ),
    Case(
        "detect",
        "an output is missing",
        reference=(changes.further_output("area", *AREA),),
        output={"tensors": ["head"]},
        reference_output={"tensors": ["head"]},
        network=(changes.output_removed("area_copy"),),
        words="'area_copy' is missing",
    ),
    Case(
        "detect",
        "NaN in what nobody reads",
        reference=(changes.further_output("area", *AREA),),
        output={"tensors": ["head"]},
        reference_output={"tensors": ["head"]},
        network=(changes.behind("area_copy", ("Sub", (2.0,), {}), ("Sqrt", (), {})),),
        words="'area_copy' has NaN",
    ),
    Case("detect", "another scale", steps=instead(2, {"step": "scale", "divisor": 128}), words="'scale'"),
    *(Case("detect", name, session=session, words="asked again") for name, session in SESSIONS),
    # landmarks
    Case(
        "landmarks",
        "points in another order",
        (changes.taken("points", 1, [1, 0, 3, 2]),),
        "another order: point 1 for 0",
    ),
    Case("landmarks", "x and y exchanged", (changes.taken("points", 2, [1, 0]),), "x and y are exchanged"),
    Case(
        "landmarks",
        "mirrored",
        (changes.behind("points", ("Mul", ([[[-1.0, 1.0]]],), {}), ("Add", ([[[48.0, 0.0]]],), {})),),
        "mirrored left to right|another order",
    ),
    Case("landmarks", "shifted", (changes.plus("points", 3.0),), "points are shifted by"),
    Case("landmarks", "scaled", (changes.times("points", 0.5),), "points are scaled"),
    Case(
        "landmarks", "transposed", (changes.turned("points", 0, 2, 1), changes.shape("points", "N", 2, 4)), "transposed"
    ),
    Case(
        "landmarks",
        "a presence too low",
        (changes.times("presence", 0.3),),
        "presence",
    ),
    Case("landmarks", "NaN in one picture", (changes.nan_where_darkest("points"),), "NaN|non-finite"),
    Case(
        "landmarks",
        "a constant answer",
        (changes.behind("points", ("Mul", (0.0,), {}), ("Add", (20.0,), {})),),
        "same for every picture",
    ),
    Case(
        "landmarks",
        "one layer's scale times 2",
        (changes.weights("colour_weights", lambda w: 0.3 * w),),
        r"'colours' \(Conv\)",
    ),
    Case(
        "landmarks",
        "pictures mixed in a batch",
        (changes.mixed_over_the_batch("points"),),
        "mixes the pictures of a batch",
    ),
    *(Case("landmarks", name, session=session, words="asked again") for name, session in SESSIONS),
    # segment
    Case("segment", "upside down", (changes.taken("masks", 2, list(range(48))[::-1]),), "masks are upside down"),
    Case("segment", "mirrored", (changes.taken("masks", 3, list(range(48))[::-1]),), "masks are mirrored"),
    Case(
        "segment",
        "shifted",
        (changes.taken("masks", 3, [*range(45, 48), *range(45)]),),
        "masks are shifted to the right",
    ),
    Case("segment", "transposed", (changes.turned("masks", 0, 1, 3, 2),), "mean IoU of masks"),
    Case(
        "segment",
        "two labels exchanged",
        (changes.taken("masks", 1, [0, 2, 1]),),
        "label 'blue' where the reference has label 'red'",
    ),
    Case(
        "segment",
        "one label's plane times 0",
        (changes.times("masks", [[[[1.0]], [[0.0]], [[1.0]]]]),),
        "label 'ground' where the reference has label 'red'",
    ),
    Case(
        "segment",
        "a bias on one label",
        (changes.plus("masks", [[[[0.0]], [[0.6]], [[0.0]]]]),),
        "mean IoU of boundaries|change their label",
    ),
    Case(
        "segment",
        "a constant answer",
        (changes.behind("masks", ("Mul", (0.0,), {}), ("Add", ([[[[0.9]], [[0.1]], [[0.1]]]],), {})),),
        "same for every picture",
    ),
    Case("segment", "NaN in one picture", (changes.nan_where_darkest("masks"),), "NaN|non-finite"),
    Case(
        "segment",
        "one layer's scale times 2",
        (changes.weights("blur_weights", lambda w: 2 * w),),
        r"'blurred' \(Conv\)",
    ),
    Case("segment", "BGR for RGB", steps=with_step(2, {"step": "channels", "order": "BGR"}), words="'channels'"),
    *(Case("segment", name, session=session, words="asked again") for name, session in SESSIONS),
]


def harmless(task: str) -> list[Case]:
    answer = ANSWER[task]
    named: dict[str, Any] = {"tensors": ["renamed"]} if task == "detect" else {"tensor": "renamed"}
    pixels = [("stem", 1.0), ("smooth", 1.0)]
    return [
        Case(task, "nothing"),
        Case(task, "weights in float16", (changes.every_weight(changes.in_float16),)),
        Case(task, "values in float16", tuple(map(changes.cast_to_float16, ("stem", "smooth", "colours")))),
        Case(task, "weights in int8", (changes.weights("blur_weights", changes.in_int8),)),
        Case(
            task,
            "weights and values in int8",
            (changes.every_weight(changes.in_int8), changes.quantized(*pixels)),
            target=INT8,
        ),
        Case(task, "an identity inside", (changes.inserted("smooth", "Identity"),)),
        Case(
            task,
            "a scale moved between layers",
            (changes.weights("stem_weights", lambda w: 4 * w), changes.weights("blur_weights", lambda w: w / 4)),
        ),
        Case(task, "a later opset", (changes.opset(21),)),
        Case(task, "other names inside", (changes.inner_names_changed,)),
        Case(task, "another name of the output", (changes.output_renamed({answer: "renamed"}),), output=named),
        Case(task, "a batch of one", (changes.batch_of(1),)),
        Case(task, "a batch of three", (changes.batch_of(3),)),
        Case(task, "fast preprocessing", preprocessing="fast"),
    ]


HARMLESS = [
    *(case for task in OUTPUTS for case in harmless(task)),
    Case(
        "classify",
        "the labels' order, with the output's",
        (changes.taken("scores", 1, [1, 0, 2]),),
        output={"labels": ["blue", "red", "neither"]},
    ),
    Case(
        "classify",
        "logits, with a softmax in the Spec",
        (changes.behind("scores", ("Log", (), {})),),
        output={"activation": "softmax"},
    ),
    Case(
        "classify",
        "axes of size 1",
        (
            changes.behind("scores", ("Unsqueeze", (np.array([2, 3], np.int64),), {})),
            changes.shape("scores", "N", 3, 1, 1),
        ),
    ),
    Case("classify", "a further output", (changes.further_output("area", *AREA),), output={"tensor": "scores"}),
    Case("detect", "boxes in another order", (changes.taken("head", 2, [1, 0]),)),
    Case(
        "detect",
        "the labels' order, with the output's",
        (changes.taken("head", 1, [0, 1, 2, 3, 5, 4]),),
        output={"labels": ["blue", "red"]},
    ),
    Case("detect", "a further output", (changes.further_output("area", *AREA),), output={"tensors": ["head"]}),
    Case("landmarks", "the outputs' order", (changes.outputs_reversed,)),
    Case(
        "landmarks",
        "points without an axis of their own",
        (changes.behind("points", ("Flatten", (), {"axis": 1})), changes.shape("points", "N", 8)),
    ),
    Case(
        "segment",
        "planes last, as the Spec says",
        (changes.turned("masks", 0, 2, 3, 1), changes.shape("masks", "N", 48, 48, 3)),
        output={"layout": "NHWC"},
    ),
    Case(
        "segment",
        "the labels' order, with the planes'",
        (changes.taken("masks", 1, [2, 0, 1]),),
        output={"labels": ["blue", "ground", "red"]},
    ),
    Case("segment", "planes times 2", (changes.times("masks", 2.0),)),
]

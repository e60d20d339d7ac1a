"""`Spec`: the contract of a model, from the bytes of a picture to the meaning of the answer.

A Spec is a TOML file:

```toml
name = "open_nsfw"

[[input.steps]]
step = "decode"

[[input.steps]]
step = "resize"
width = 256
height = 256

[output]
task = "classify"
labels = ["sfw", "nsfw"]
```
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    model_validator,
)

from plimsoll.spec.inputs import BatchAxes, Extra, Input, no_repeats

MAX_ANCHORS = 40_000
"""As many as fit into a Spec file."""

MAX_SYMBOLS = 30_000

Anchor = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
CoderScale = Annotated[FiniteFloat, Field(gt=0.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Labels = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(lambda labels: no_repeats(labels))]


class _Output(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_axis: BatchAxes = None
    """Which axis of the outputs holds the pictures: 0, the first, where nothing is said; 1 for `[T, N, C]`; `"none"`
    where an output has no such axis, so that the network gets one picture a call. As a table by the outputs' names
    where they differ: `{ boxes = "none", mask = 0 }`."""

    @property
    def pictures_first(self) -> bool:
        """Whether the first axis of every output holds the pictures, as far as the Spec says."""
        axes = self.batch_axis.values() if isinstance(self.batch_axis, dict) else (self.batch_axis,)
        return all(axis in (None, 0) for axis in axes)


class Band(BaseModel):
    """A reading of the score: `label` for scores from the previous band's end up to, not including, `below`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    below: Annotated[FiniteFloat, Field(gt=0.0)] | None = None
    """The band's upper end; the last band has none."""


class Classify(_Output):
    """One score a label; the network's output is `[N, labels]` (or `[N, 1]` for a lone sigmoid)."""

    task: Literal["classify"] = "classify"
    tensor: str | None = None
    """The output's name; needed only if the network has several."""
    labels: Labels
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    """What turns the output into scores; `none` if the network has applied it already."""
    positive: str | None = None
    """The label whose score is *the* score of a picture (moderation, defect …). Without one, the best label's."""
    threshold: Probability | None = None
    """With `positive`: its label from this score on (default 0.5). Without: a best score below this gives no label."""
    bands: tuple[Band, ...] = ()
    """How people read the positive score, in rising order."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.positive is not None and self.positive not in self.labels:
            raise ValueError(f"positive: unknown label '{self.positive}'; choose from {', '.join(self.labels)}")
        if self.bands and self.positive is None:
            raise ValueError("bands: they need a 'positive' label, whose score they read")
        edges = [band.below for band in self.bands[:-1] if band.below is not None]
        rising = edges == sorted(set(edges)) and len(edges) == len(self.bands[:-1])
        if self.bands and (not rising or self.bands[-1].below is not None):
            raise ValueError("bands: 'below' must rise from band to band, and only the last band has none")
        return self


Column = Literal["x", "y", "w", "h", "x0", "y0", "x1", "y1", "score", "label", "objectness", "scores", "picture", "-"]
_CORNERS, _CENTRE = {"x0", "y0", "x1", "y1"}, {"x", "y", "w", "h"}
_END_TO_END: tuple[Column, ...] = ("x0", "y0", "x1", "y1", "score", "label")


class Detect(_Output):
    """Boxes with a label and a score."""

    task: Literal["detect"] = "detect"
    head: Literal[
        "yolov5", "yolov8", "yolox", "nanodet", "yunet", "ssd", "boxes", "rows", "selected", "tflite_postprocess"
    ]
    """How the output tensors hold boxes: see docs/tasks.md."""
    tensors: tuple[str, ...] = ()
    """The outputs that the head reads, in its order; all of the network's if none is named."""
    labels: Labels
    confidence: Probability = 0.25
    iou: Probability = 0.45
    """Boxes of one class that overlap more than this are one object. At 1 nothing is suppressed."""
    class_agnostic_iou: Probability | None = None
    """A second suppression across classes."""
    suppression: Literal["greedy", "blend"] = "greedy"
    """What becomes of boxes that overlap a better one: they are removed, or, as in MediaPipe, each group becomes one
    box, the mean of their positions and points weighted by their scores."""
    several_labels: bool = False
    """Whether a box counts once for each label that reaches `confidence`, not for its best alone."""
    points: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many points the network gives in each box: yolov5, yolov8 (pose), yunet, ssd (MediaPipe)."""
    prototypes: str | None = None
    """YOLO heads: the output `[N, coefficients, height, width]` whose planes, each times a box's coefficient, add up to
    the box's mask."""
    coefficients: Annotated[int, Field(ge=1, le=1024)] = 32
    """With `prototypes`: how many planes there are."""
    masks: str | None = None
    """Boxes with labels, `tflite_postprocess`: the output `[N, boxes, height, width]`, or with an axis of 1 or of
    labels after the boxes, that holds the mask of each box as probabilities: over the box, or over the input where it
    is as large as that (Mask R-CNN)."""
    oriented: bool = False
    """YOLO heads: whether an angle follows the scores, in radians, by which a box is turned clockwise about its centre
    (YOLOv8-obb). Overlap is then the probabilistic IoU."""
    max_boxes: Annotated[int, Field(ge=1)] = 300
    normalized: bool = False
    """Whether coordinates are fractions of the network's input size (always so for `tflite_postprocess`)."""
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    """SSD, boxes: what turns the network's scores into probabilities; `none` if the network has applied it already."""
    box_format: Literal["xywh", "yxhw", "xyxy", "yxyx"] | None = None
    """The order of a box's four numbers: its centre and size, or two corners. Default: `yxhw` for `ssd`, `xyxy` for
    `boxes`, `xywh` for the YOLO heads."""
    background: Literal["first", "last", "none"] | None = None
    """SSD, boxes, rows: where the scores have a column for "no object". Default: first, if there is a column more than
    labels. A network that gives labels counts it too: with `first`, its label 1 is the Spec's first."""
    label_axis: Literal[1, 2] | None = None
    """SSD, boxes: the axis of the scores that counts labels, 2 for `[N, boxes, labels]`, 1 for `[N, labels, boxes]`.
    Default: the one that fits; it has to be given where there are as many boxes as labels."""
    columns: tuple[Column, ...] = _END_TO_END
    """Rows: what stands in a row. `scores` is one column a label, `picture` the picture's index in the batch, `-` is
    not read."""
    strides: tuple[Annotated[int, Field(ge=1)], ...] = (8, 16, 32)
    """YOLOX, NanoDet, YuNet: the pixels between the cells of each grid, in the order of the outputs."""
    cell_offset: Annotated[FiniteFloat, Field(ge=0.0, le=1.0)] = 0.5
    """NanoDet: where in its cell a box's centre lies, in strides; 0 for NanoDet-Plus."""
    anchor_grid: tuple[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1, le=100)]], ...] = ()
    """SSD, in place of anchors of its own: grids of anchors as large as the input, each as [pixels between the cells,
    anchors a cell]. MediaPipe's detectors have such."""
    box_coder: Literal["exponential", "linear"] = "exponential"
    """SSD: whether a box's size is the anchor's times the exponential of what the network gives, or times that itself.
    """
    anchors_file: str | None = None
    """SSD: a file of anchors `[N, 4]` (in the order of `anchor_format`) beside the Spec, .npy or text. It becomes
    `anchors` when the Spec's file is read."""
    anchors: Annotated[tuple[Anchor, ...], Field(max_length=MAX_ANCHORS)] = ()
    """SSD: the anchors themselves, so that a Spec travels in one piece. Fractions of the input where `normalized`, else
    its pixels."""
    anchor_format: Literal["xywh", "yxhw", "xyxy", "yxyx"] | None = None
    """SSD: the order of an anchor's four numbers; as `box_format` where nothing is said. Caffe's PriorBox gives
    `xyxy`."""
    variances: tuple[CoderScale, CoderScale, CoderScale, CoderScale] = (10.0, 10.0, 5.0, 5.0)
    """SSD: the box coder's variances in the order of `box_format`: 0.1, 0.1, 0.2, 0.2 as Caffe and PyTorch write them,
    which multiply the network's values. Numbers of 1 and above are TensorFlow's scales, which divide them (10 is the
    same as 0.1)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for keys, heads in _ONLY_WITH.items():
            changed = [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]
            if changed and self.head not in heads:
                allowed = " or ".join(f"'{head}'" for head in heads)
                raise ValueError(f"{', '.join(changed)}: allowed only with head = {allowed}, but head is '{self.head}'")
        if sum((bool(self.anchors), self.anchors_file is not None, bool(self.anchor_grid))) > 1:
            raise ValueError("give either anchors, anchors_file or anchor_grid")
        if self.anchor_grid and not self.normalized:
            raise ValueError("anchor_grid: its anchors are fractions of the input; write normalized = true")
        if self.head == "ssd" and self.box_format in ("xyxy", "yxyx"):
            raise ValueError(
                f"box_format = '{self.box_format}': an SSD's locations are offsets of centre and size, 'xywh' or 'yxhw'"
            )
        if sum((self.masks is not None, self.prototypes is not None, self.oriented)) > 1 or (
            self.oriented and (self.points or self.suppression == "blend")
        ):
            raise ValueError("give one of masks, prototypes and oriented; oriented goes without points and 'blend'")
        self._check_columns()
        return self

    @property
    def has_masks(self) -> bool:
        """Whether boxes have masks."""
        return self.masks is not None or self.prototypes is not None

    @property
    def has_outlines(self) -> bool:
        """Whether more is known of an object's shape than the upright box around it."""
        return self.has_masks or self.oriented

    def _check_columns(self) -> None:
        columns = [column for column in self.columns if column != "-"]
        if len(set(columns)) < len(columns):
            raise ValueError("columns: each may stand there once")
        if {*columns} & (_CORNERS | _CENTRE) not in (_CORNERS, _CENTRE):
            raise ValueError("columns: give x0, y0, x1 and y1, or x, y, w and h")
        scores, label = "scores" in columns, {"score", "label"} & {*columns}
        if scores == bool(label) or (label and label != {"score", "label"} and len(self.labels) > 1):
            raise ValueError("columns: give scores, or score and label (score alone where there is one label)")
        if "objectness" in columns and not scores:
            raise ValueError("columns: objectness goes with scores")


_ONLY_WITH: dict[tuple[str, ...], tuple[str, ...]] = {
    ("anchors", "anchors_file", "anchor_format"): ("ssd",),
    ("anchor_grid", "box_coder"): ("ssd",),
    ("activation",): ("ssd", "boxes", "selected", "nanodet"),
    ("points",): ("yolov5", "yolov8", "yunet", "ssd"),
    ("prototypes", "coefficients", "oriented"): ("yolov5", "yolov8"),
    ("masks",): ("boxes", "tflite_postprocess"),
    ("several_labels",): ("yolov5", "yolov8", "yolox", "nanodet", "ssd", "boxes", "rows"),
    ("cell_offset",): ("nanodet",),
    ("label_axis",): ("ssd", "boxes"),
    ("background",): ("ssd", "boxes", "rows", "tflite_postprocess"),
    ("columns",): ("rows",),
    ("strides",): ("yolox", "nanodet", "yunet"),
    ("box_format",): ("yolov5", "yolov8", "yolox", "ssd", "boxes", "selected"),
}


PointColumn = Literal["x", "y", "z", "visibility", "-"]


class Landmarks(_Output):
    """Named points."""

    task: Literal["landmarks"] = "landmarks"
    tensor: str | None = None
    """The output's name; needed only if the network has several."""
    points: Annotated[int, Field(ge=1)]
    dimensions: Literal[2, 3] = 2
    """x, y; or x, y, z, with z on the scale of x."""
    columns: tuple[PointColumn, ...] = ()
    """What stands in a point's values where it is not x, y (and z) in this order: `visibility` is how sure the network
    is of the point, `-` is not read. They replace `dimensions`."""
    normalized: bool = False
    """Whether coordinates are fractions of the network's input size."""
    presence: str | None = None
    """The output that says how sure the network is that the object is there at all."""
    activation: Literal["none", "sigmoid"] = "none"
    """What turns presence and visibility into probabilities; `none` if the network has applied it already."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        columns = [column for column in self.columns if column != "-"]
        if self.columns and (len(set(columns)) < len(columns) or not {"x", "y"} <= set(columns)):
            raise ValueError("columns: give x and y, each column once")
        if self.columns and self.dimensions != 2:
            raise ValueError("columns: they replace dimensions; leave it out")
        return self

    @property
    def value_columns(self) -> tuple[PointColumn, ...]:
        """What stands in each of a point's values."""
        return self.columns or ("x", "y", "z")[: self.dimensions]


class Segment(_Output):
    """A class for every pixel."""

    task: Literal["segment"] = "segment"
    tensor: str | None = None
    """The output's name; needed only if the network has several."""
    labels: Labels
    """One a plane, in their order. A single plane goes with one label (what reaches the threshold) or two (below it,
    and from it on)."""
    layout: Literal["NHWC", "NCHW"] = "NCHW"
    """Where the planes are in the output."""
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    """What turns the output into probabilities; `none` if the network has applied it already. It matters for a
    single plane alone."""
    threshold: Probability = 0.5
    """For a single sigmoid plane: foreground from this value on."""


def _symbols(value: Any) -> Any:
    return tuple(value) if isinstance(value, str) else value


class Text(_Output):
    """A line of text, read by connectionist temporal classification (CTC): for each of T steps one score a symbol, and
    one of the blank. The network's output is `[N, T, symbols + 1]`, `[N, symbols + 1, T]`, with `batch_axis = 1`
    `[T, N, symbols + 1]`, or whole numbers `[N, T]`."""

    task: Literal["text"] = "text"
    tensor: str | None = None
    """The output's name; needed only if the network has several."""
    alphabet: Annotated[tuple[str, ...], BeforeValidator(_symbols), Field(max_length=MAX_SYMBOLS)] = ()
    """The symbols in the order of the output, without the blank: a text of single characters, or a list."""
    alphabet_file: str | None = None
    """A file of symbols beside the Spec, one a line, in UTF-8. It becomes `alphabet` when the Spec's file is read."""
    space: bool = False
    """Whether a space follows the alphabet (PP-OCR's `use_space_char`)."""
    blank: Literal["first", "last"] = "first"
    """Where the blank stands among the symbols."""
    activation: Literal["none", "softmax"] = "none"
    """What turns the output into probabilities: `softmax` for logits and for the logarithms of probabilities; `none` if
    the network has applied it already."""
    beam_width: Annotated[int, Field(ge=1, le=100)] = 1
    """How many texts are followed at once: 1 takes the best symbol of each step (greedy), more sums up all the ways in
    which the steps can spell a text (prefix beam search)."""
    score: Literal["mean", "probability"] = "mean"
    """A text's score: the mean of its symbols' probabilities, or the probability of the whole text."""
    threshold: Probability | None = None
    """A text with a score below this is not given."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.alphabet) == (self.alphabet_file is not None):
            raise ValueError("give either alphabet or alphabet_file")
        if "" in self.alphabet:
            raise ValueError("alphabet: a symbol is empty; the blank isn't part of it")
        return self


class Tensors(_Output):
    """The raw output tensors."""

    task: Literal["tensor"] = "tensor"
    tensors: tuple[str, ...] = ()
    """Which outputs to give; all if none is named."""


Output = Annotated[Classify | Detect | Landmarks | Segment | Tensors | Text, Field(discriminator="task")]


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Spec(BaseModel):
    """The contract of a model. Frozen; two equal Specs give equal answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    name: Name
    """A short name: letters, digits, dot, dash, underscore."""
    description: str = ""
    input: Input
    output: Output

    @model_validator(mode="after")
    def _frames_can_be_judged(self) -> Self:
        output = self.output
        if self.input.decode.frames != "first" and not (
            isinstance(output, Detect) or (isinstance(output, Classify) and output.positive is not None)
        ):
            raise ValueError(
                f"input.steps[0].frames = '{self.input.decode.frames}': a file's answer is that of its worst frame, and"
                " only task = 'detect', or 'classify' with a 'positive' label, says which that is; use 'first'"
            )
        return self

    def renamed(self, name: str) -> Self:
        return self.model_copy(update={"name": name})


__all__ = ["Extra", "Input", "Spec"]

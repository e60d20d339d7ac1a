"""Whether a Spec fits a network, which input takes the picture, and which axis of an output holds the pictures: by the
inputs and outputs of a network of any format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

from plimsoll.errors import SpecError
from plimsoll.spec import Spec
from plimsoll.spec.spec import Classify, Detect, Landmarks, Tensors, Text

Shape = tuple[int | str | None, ...]
"""A size, the name of a free size, or None for a free one without a name."""

PICTURES = "A Spec is for networks that take pictures: [N, height, width, channels] or [N, channels, height, width]."


class NamedTensor(Protocol):
    """An input or output of a network."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def shape(self) -> Shape | None:
        """None where even the number of axes is free."""


_T = TypeVar("_T", bound=NamedTensor)


def describe(dtype: str, shape: Shape | None) -> str:
    """Write a dtype and a shape as in `float32 [N, 224, 224, 3]`; `?` where a size is free and has no name."""
    if shape is None:
        return f"{dtype} of any shape"
    return f"{dtype} [{', '.join('?' if size is None else str(size) for size in shape)}]"


def takes_picture(spec: Spec | None, name: str, inputs: int) -> bool:
    """Tell whether an input takes the picture: the one that the Spec names, or the only one of `inputs` that is no
    further input of the Spec."""
    if spec is None:
        return False
    extra = {further.tensor for further in spec.input.extra}
    alone = spec.input.tensor is None and name not in extra and inputs == 1 + len(extra)
    return inputs == 1 or name == spec.input.tensor or alone


def picture_input(spec: Spec, inputs: Sequence[_T], network: str) -> _T:
    """Return the input that takes the picture; raises SpecError, which calls the network `network`."""
    extra = {further.tensor for further in spec.input.extra}
    if missing := extra - {tensor.name for tensor in inputs} if len(inputs) > 1 else set():
        names = ", ".join(repr(tensor.name) for tensor in inputs)
        raise SpecError(
            f"{network} and the Spec '{spec.name}': the network has no input {', '.join(map(repr, sorted(missing)))};"
            f" its inputs are: {names}",
            "Correct `tensor` under [[input.extra]] of the Spec.",
        )
    own = [tensor for tensor in inputs if tensor.name not in extra] if len(inputs) > 1 else inputs
    if spec.input.tensor is None and len(own) > 1:
        names = ", ".join(repr(tensor.name) for tensor in own)
        pictures = [tensor for tensor in own if tensor.shape is None or len(tensor.shape) == 4]
        others = [tensor for tensor in own if tensor is not pictures[0]] if len(pictures) == 1 else []
        raise SpecError(
            f"{network} and the Spec '{spec.name}': the network has {len(own)} inputs ({names}), and the Spec doesn't"
            " say which one it means",
            f"Name the picture's: `tensor = {repr(pictures[0].name) if others else '…'}` under [input] of the Spec. Say"
            f" what the others get:\n{_suggested(others)}",
        )
    return _select(spec, spec.input.tensor, own, network, "input")


def lacks_batch_axis(spec: Spec, picture: NamedTensor) -> bool:
    """Tell whether the picture's input takes what the input steps make as it is, without an axis for pictures."""
    shape = picture.shape
    return not spec.input.is_packed and shape is not None and len(shape) == 3 and _agree(spec.input.shape, shape)


def only_input(spec: Spec, inputs: Sequence[_T], network: str) -> _T:
    """Return the input that takes the picture; raises SpecError for a network that needs more than a picture, too."""
    picture = picture_input(spec, inputs, network)
    extra = {further.tensor for further in spec.input.extra}
    needed = [tensor for tensor in inputs if tensor is not picture and tensor.name not in extra]
    if needed:
        listed = ", ".join(f"{tensor.name!r} ({describe(tensor.dtype, tensor.shape)})" for tensor in needed)
        raise SpecError(
            f"{network} and the Spec '{spec.name}': the network needs more than a picture: it also takes {listed}",
            f"Say in the Spec what it gets:\n{_suggested(needed)}",
        )
    return picture


def _suggested(inputs: Sequence[NamedTensor]) -> str:
    """Return the lines of a Spec that would feed inputs, as far as their names say what they are for."""
    lines = []
    for tensor in inputs:
        name = tensor.name.lower()
        if "scale" in name:
            value = "value = 1"
        elif "size" in name or "shape" in name:
            value = 'source = "input_size"' + (', order = "wh"' if "orig" in name else "")
        else:
            value = f"value = {'false' if tensor.dtype == 'bool' else '0'}"
        lines.append(f'  [[input.extra]] with tensor = "{tensor.name}", {value}')
    return "\n".join(lines) or '  [[input.extra]] with tensor = "…", value = 0'


def check_fit(spec: Spec, inputs: Sequence[NamedTensor], outputs: Sequence[NamedTensor], network: str) -> None:
    """Raise SpecError if the Spec's tensors, size, dtype or number of labels are not those of `network`."""
    picture = picture_input(spec, inputs, network)
    _check_input(spec, picture, network)
    _check_second_pictures(spec, picture, inputs, network)
    axes = batch_axes(spec, picture, outputs, network)
    output = spec.output
    if isinstance(output, (Detect, Tensors)):
        for name in output.tensors:
            _select(spec, name, outputs, network, "output")
        return
    answer = _select(spec, output.tensor, outputs, network, "output")
    if isinstance(output, Landmarks) and output.presence is not None:
        _select(spec, output.presence, outputs, network, "output")
    if isinstance(output, Classify):
        _check_labels(spec, output, answer, axes[answer.name], network)
    if isinstance(output, Text):
        _check_symbols(spec, output, answer, axes[answer.name], network)


def batch_axes(spec: Spec, picture: NamedTensor, outputs: Sequence[NamedTensor], network: str) -> dict[str, int | None]:
    """Return which axis of each output holds the pictures; None where none does, so that one call takes one picture.

    Where the Spec says nothing it is the first, unless the shapes rule that out: SpecError for an output that the Spec
    reads, None for others. Raises SpecError, too, for an axis that an output doesn't have.
    """
    given = spec.output.batch_axis
    if isinstance(given, dict):
        for name in given:
            _select(spec, name, outputs, network, "output")
    read = outputs_read(spec, outputs)
    axes: dict[str, int | None] = {}
    for tensor in outputs:
        axis = given.get(tensor.name) if isinstance(given, dict) else given
        if axis is None:
            fits = _may_be_batch(picture.shape, tensor.shape)
            if not fits and tensor.name in read:
                raise axis_error(f"{network} and the Spec '{spec.name}'", tensor, picture.shape, len(outputs) > 1)
            axes[tensor.name] = 0 if fits else None
        else:
            if axis != "none" and tensor.shape is not None and axis >= len(tensor.shape):
                raise SpecError(
                    f"{network} and the Spec '{spec.name}': batch_axis is {axis}, the output {tensor.name!r} is"
                    f" {describe(tensor.dtype, tensor.shape)}",
                    "Correct `batch_axis` under [output] of the Spec; a table says it for each output.",
                )
            axes[tensor.name] = None if axis == "none" else axis
    return axes


def axis_error(where: str, tensor: NamedTensor, picture: Shape | None, several: bool) -> SpecError:
    """Return the error for an output whose first axis doesn't hold the pictures, with what to write."""
    shape, batch = tensor.shape or (), picture[0] if picture else None
    matching = [axis for axis, size in enumerate(shape) if size == batch or (batch is None and size is None)]
    axis = str(matching[0]) if len(matching) == 1 and matching[0] else '"none"'
    value = f'{{ "{tensor.name}" = {axis} }}' if several else axis
    return SpecError(
        f"{where}: the first axis of the output {tensor.name!r}, {describe(tensor.dtype, tensor.shape)}, doesn't hold"
        f" the pictures{f', of which one call takes {batch}' if isinstance(batch, int) else ''}",
        f'Write batch_axis = {value} under [output] of the Spec: the axis that holds the pictures, or "none" where the'
        " network answers one picture a call.",
    )


def _may_be_batch(picture: Shape | None, shape: Shape | None) -> bool:
    """Tell whether an output's first axis may hold the pictures, as far as names and sizes say."""
    if not shape or not picture:  # Runtimes write no axes where they don't know them.
        return True
    batch, first = picture[0], shape[0]
    if first == batch:
        return True
    if isinstance(batch, str) and batch in shape[1:]:
        return False
    # Exporters name the same size differently, and write 1 for a batch that is free: that proves nothing.
    return not isinstance(first, int) or (not isinstance(batch, int) and first == 1)


def outputs_read(spec: Spec, outputs: Sequence[NamedTensor]) -> set[str]:
    """Return the names of the outputs that the Spec's task reads."""
    output = spec.output
    named = {*getattr(output, "tensors", ()), getattr(output, "tensor", None), getattr(output, "presence", None)}
    return {name for name in named if name} or {tensor.name for tensor in outputs}


def _select(spec: Spec, name: str | None, tensors: Sequence[_T], network: str, side: str) -> _T:
    where = f"{network} and the Spec '{spec.name}'"
    names = ", ".join(repr(tensor.name) for tensor in tensors) or "none"
    if name is None and len(tensors) != 1:
        raise SpecError(
            f"{where}: the network has {len(tensors)} {side}s ({names}), and the Spec doesn't say which one it means",
            f"Name it: `tensor = …` under [{side}] of the Spec.",
        )
    chosen = next((tensor for tensor in tensors if name in (None, tensor.name)), None)
    if chosen is None:
        raise SpecError(
            f"{where}: the Spec's {side} is {name!r}; the network's {side}s are: {names}",
            f"Correct `tensor` under [{side}] of the Spec.",
        )
    return chosen


def _check_input(spec: Spec, tensor: NamedTensor, network: str) -> None:
    form, shape = spec.input.tensor_spec, tensor.shape
    fits = shape is None or (len(shape) == 4 and _agree(form.shape, shape[1:]))
    packed = shape is not None and len(shape) == 2 and spec.input.is_packed and _agree(spec.input.shape, shape[1:])
    if (fits and tensor.dtype == form.dtype) or (packed and tensor.dtype == spec.input.dtype):
        return
    raise SpecError(
        f"{network} and the Spec '{spec.name}': the input steps make {describe(form.dtype, form.shape)}, the network's"
        f" input {tensor.name!r} takes {describe(tensor.dtype, shape)}",
        f"Make the last input step a dtype step with to = '{tensor.dtype}'."
        if fits
        else _remedy(form.shape, form.layout, shape),
    )


def _check_second_pictures(spec: Spec, picture: NamedTensor, inputs: Sequence[NamedTensor], network: str) -> None:
    """Refuse a further input that is to get the picture's tensor, and takes another form of it."""
    given = {further.tensor: further for further in spec.input.extra if further.source == "picture"}
    for tensor in inputs:
        if tensor.name not in given or tensor is picture:
            continue
        if given[tensor.name].steps:
            _check_input(spec.model_copy(update={"input": given[tensor.name].view}), tensor, network)
            continue
        known = picture.shape is not None and tensor.shape is not None
        fits = not known or (len(picture.shape or ()) == len(tensor.shape or ()) and _agree_both(picture, tensor))
        if tensor.dtype != picture.dtype or not fits:
            raise SpecError(
                f"{network} and the Spec '{spec.name}': source = 'picture' gives the input {tensor.name!r} the tensor"
                f" of {picture.name!r}, {describe(picture.dtype, picture.shape)}; it takes"
                f" {describe(tensor.dtype, tensor.shape)}",
                "Where it takes the picture in another form, give it input steps of its own: [[input.extra.steps]].",
            )


def _agree_both(first: NamedTensor, second: NamedTensor) -> bool:
    pairs = zip(first.shape or (), second.shape or (), strict=True)
    return all(size == other or not (isinstance(size, int) and isinstance(other, int)) for size, other in pairs)


def _remedy(produced: tuple[int | None, ...], layout: str, shape: Shape | None) -> str:
    """Name the step that would make the Spec fit, if there is one."""
    if shape is None or len(shape) != 4:
        return PICTURES
    height_first = layout == "NHWC"
    other = tuple(produced[axis] for axis in ((2, 0, 1) if height_first else (1, 2, 0)))
    if _agree(other, shape[1:]):
        return f"Add a layout step with order = '{'NCHW' if height_first else 'NHWC'}' to the input steps."
    return "Set the sizes of the resize and crop steps to what the network takes."


def _agree(produced: tuple[int | None, ...], expected: Shape) -> bool:
    """Tell whether all sizes known on both sides are equal."""
    return all(
        size is None or not isinstance(needed, int) or size == needed
        for size, needed in zip(produced, expected, strict=True)
    )


def _check_labels(spec: Spec, output: Classify, tensor: NamedTensor, axis: int | None, network: str) -> None:
    if not tensor.shape:
        return
    own = [size for position, size in enumerate(tensor.shape) if position != axis]
    sizes = [size for size in own if isinstance(size, int)]
    count = math.prod(sizes)
    if not sizes or len(sizes) < len(own) or count == len(output.labels):
        return
    raise SpecError(
        f"{network} and the Spec '{spec.name}': the Spec has {len(output.labels)} labels, the network's output"
        f" {tensor.name!r} gives {describe(tensor.dtype, tensor.shape)}",
        f"Give {count} labels in the order of the network's output, or name another output.",
    )


def _check_symbols(spec: Spec, output: Text, tensor: NamedTensor, axis: int | None, network: str) -> None:
    """Refuse an alphabet that is a few symbols longer or shorter than the output: a space, or the blank, was counted
    twice or not at all."""
    own = [size for position, size in enumerate(tensor.shape or ()) if position != axis]
    count = len(output.alphabet) + output.space + 1
    near = [size for size in own if isinstance(size, int) and 0 < abs(size - count) <= 2]
    known = all(isinstance(size, int) for size in own)
    if len(own) != 2 or count in own or not output.alphabet or not (known or near):
        return
    raise SpecError(
        f"{network} and the Spec '{spec.name}': the alphabet has {count - 1:,} symbols, with the blank {count:,}; the"
        f" network's output {tensor.name!r} gives {describe(tensor.dtype, tensor.shape)}",
        "Correct `alphabet` under [output] of the Spec: without the blank; `space = true` adds a space at its end.",
    )

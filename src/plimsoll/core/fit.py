"""Whether a Spec fits a network, and which input takes the picture: by the inputs and outputs of a network of any
format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

from plimsoll.errors import SpecError
from plimsoll.spec import Spec
from plimsoll.spec.spec import Classify, Detect, Landmarks, Tensors

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
    """Tell whether an input takes the picture: the one that the Spec names, or the only one of `inputs`."""
    return spec is not None and (inputs == 1 or name == spec.input.tensor)


def picture_input(spec: Spec, inputs: Sequence[_T], network: str) -> _T:
    """Return the input that takes the picture; raises SpecError, which calls the network `network`."""
    return _select(spec, spec.input.tensor, inputs, network, "input")


def only_input(spec: Spec, inputs: Sequence[_T], network: str) -> _T:
    """Return the input that takes the picture; raises SpecError for a network that needs more than a picture, too."""
    picture = picture_input(spec, inputs, network)
    if len(inputs) > 1:
        others = ", ".join(repr(tensor.name) for tensor in inputs if tensor is not picture)
        raise SpecError(
            f"{network} and the Spec '{spec.name}': the network needs more than a picture: it also takes {others}",
            "Export it with these inputs fixed to constants.",
        )
    return picture


def check_fit(spec: Spec, inputs: Sequence[NamedTensor], outputs: Sequence[NamedTensor], network: str) -> None:
    """Raise SpecError if the Spec's tensors, size, dtype or number of labels are not those of `network`."""
    _check_input(spec, picture_input(spec, inputs, network), network)
    output = spec.output
    if isinstance(output, (Detect, Tensors)):
        for name in output.tensors:
            _select(spec, name, outputs, network, "output")
        return
    answer = _select(spec, output.tensor, outputs, network, "output")
    if isinstance(output, Landmarks) and output.presence is not None:
        _select(spec, output.presence, outputs, network, "output")
    if isinstance(output, Classify):
        _check_labels(spec, output, answer, network)


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
    if fits and tensor.dtype == form.dtype:
        return
    raise SpecError(
        f"{network} and the Spec '{spec.name}': the input steps make {describe(form.dtype, form.shape)}, the network's"
        f" input {tensor.name!r} takes {describe(tensor.dtype, shape)}",
        f"Make the last input step a dtype step with to = '{tensor.dtype}'."
        if fits
        else _remedy(form.shape, form.layout, shape),
    )


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


def _check_labels(spec: Spec, output: Classify, tensor: NamedTensor, network: str) -> None:
    if not tensor.shape:
        return
    sizes = [size for size in tensor.shape[1:] if isinstance(size, int)]
    count = math.prod(sizes)
    if not sizes or len(sizes) < len(tensor.shape) - 1 or count == len(output.labels):
        return
    raise SpecError(
        f"{network} and the Spec '{spec.name}': the Spec has {len(output.labels)} labels, the network's output"
        f" {tensor.name!r} gives {describe(tensor.dtype, tensor.shape)}",
        f"Give {count} labels in the order of the network's output, or name another output.",
    )

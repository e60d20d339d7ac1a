"""What outputs mean: every module but `base` decodes one task, found by its name.

base        `Task` and `Answer`; finds the decoder of a Spec
classify    one score per label
detect      boxes: heads (how networks write them), suppression
landmarks   named points
segment     a label for every pixel
tensor      the raw outputs
text        a line of text
"""

from __future__ import annotations

from plimsoll.tasks.base import Answer, Task, decoder, names

__all__ = ["Answer", "Task", "decoder", "names"]

"""Raw outputs as answers, compared: networks whose task is `tensor`, where nothing is decoded."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import JsonValue

from plimsoll.core.budget import Evidence
from plimsoll.prove.comparison import Change, Comparer, Comparison
from plimsoll.prove.labels import Truth
from plimsoll.prove.outputs import Power, decibels, power_of, signal_to_noise
from plimsoll.report import figures
from plimsoll.tasks import Answer
from plimsoll.tasks.tensor import RawTensors


class TensorComparer(Comparer):
    """Compares every output as a whole."""

    answer_type: ClassVar[type[Answer]] = RawTensors

    def dump(self, answer: RawTensors) -> JsonValue:
        """Return each output as float32 in base64, with its shape."""
        return {
            name: {
                "shape": list(value.shape),
                "float32": base64.b64encode(value.astype("<f4").tobytes()).decode(),
            }
            for name, value in answer.tensors.items()
        }

    def load(self, data: JsonValue) -> RawTensors:
        stored: Any = data
        return RawTensors(
            {
                name: np.frombuffer(base64.b64decode(value["float32"]), "<f4").reshape(value["shape"])
                for name, value in stored.items()
            }
        )

    def measure(self, reference: RawTensors, other: RawTensors, scale: tuple[float, float] = (1.0, 1.0)) -> Power:
        del scale
        return {
            name: power_of(value, other.tensors[name])
            for name, value in reference.tensors.items()
            if name in other.tensors and other.tensors[name].size == value.size
        }

    def change(self, measured: Power) -> Change:
        ratios = [decibels(signal, noise) for signal, noise in measured.values()]
        worst = min(ratios, default=-np.inf)
        return Change(float(10 ** (-worst / 20)), f"signal to noise {figures.decibels(worst)}")

    def comparison(
        self, measured: Sequence[Power], failed: int, truths: Sequence[Truth | None] | None = None
    ) -> TensorComparison:
        del truths
        return TensorComparison(len(measured) + failed, failed, tuple(measured))


@dataclass(frozen=True)
class TensorComparison(Comparison):
    """How the other network's outputs differ from the reference's."""

    pictures: int
    failed: int
    measured: tuple[Power, ...]

    @property
    def headline(self) -> str:
        (snr,) = self.evidence()["snr"]
        return f"{snr.name} {figures.decibels(snr.value)}, with 95 % confidence at least {figures.decibels(snr.bound)}"

    def evidence(self) -> Evidence:
        names = dict.fromkeys(name for power in self.measured for name in power)
        return {"snr": [signal_to_noise(list(names), self.measured)]}

    def details(self) -> dict[str, JsonValue]:
        return {"task": "tensor", "count": self.pictures, "failed": self.failed}

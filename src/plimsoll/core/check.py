"""`Check`: a measured figure against its limit."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, WithJsonSchema, computed_field, model_validator

_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def parse_nonfinite(value: Any) -> Any:
    """Return the number that `NaN`, `Infinity` or `-Infinity` stands for, and anything else as it is."""
    return _NONFINITE.get(value, value) if isinstance(value, str) else value


Figure = Annotated[float, WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": list(_NONFINITE)}]})]


class Check(BaseModel):
    """A measured figure against its limit.

    Whether it passed follows from the figures and can't be claimed otherwise: NaN never passes, nor does any figure
    against a limit that is itself not finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    name: str
    measured: Figure
    limit: Figure
    bound: Literal["at_most", "at_least"] = "at_most"
    """Whether the limit is the most or the least that passes; the limit itself passes."""
    unit: str = ""
    detail: str = ""
    """What a reader needs beside the figure: where the worst case was, or why there is no figure."""

    @model_validator(mode="wrap")
    @classmethod
    def _as_stated(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Accept the `passed` of a written report only where it is what the figures say."""
        if not isinstance(data, dict) or "passed" not in data:
            return handler(data)
        check = handler({key: value for key, value in data.items() if key != "passed"})
        if data["passed"] is not check.passed:
            raise ValueError(
                f"passed: it says {data['passed']}, but measured {check.measured} and limit {check.limit} say"
                f" {check.passed}"
            )
        return check

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def passed(self) -> bool:
        """Whether the measured figure keeps the limit."""
        if not math.isfinite(self.measured) or not math.isfinite(self.limit):
            return False
        return self.measured <= self.limit if self.bound == "at_most" else self.measured >= self.limit

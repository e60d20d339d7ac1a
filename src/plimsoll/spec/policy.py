"""`Policy`: bands of scores that were chosen from reviewed pictures, to be used in place of a Spec's.

`plimsoll threshold` writes it, as TOML:

```toml
positive = "nsfw"
threshold = 0.81

[[bands]]
label = "safe"
below = 0.27

[[bands]]
label = "review"
below = 0.81

[[bands]]
label = "unsafe"

[origin]  # the table, the decisions, and what was measured
```
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plimsoll.core.wording import explain
from plimsoll.errors import InputError, SpecError
from plimsoll.spec.spec import Band, Classify, Probability, Spec
from plimsoll.system import files

MAX_BYTES = 1_000_000
_HINT = "A policy is a TOML file with [[bands]]; `plimsoll threshold --out` writes one."


class Policy(BaseModel):
    """How people read the positive score, and from which score on the positive label is given. Frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    positive: str | None = None
    """The label whose score was reviewed; a Spec with another one is refused."""
    threshold: Probability | None = None
    """The label is given from this score on. Without one, the Spec's threshold stays."""
    bands: Annotated[tuple[Band, ...], Field(min_length=1)]
    """In rising order; the last has no `below`."""
    origin: dict[str, Any] = {}
    """Where it comes from: table, counts, figures with their bounds, date."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a policy; raises InputError."""
        try:
            return cls.model_validate(tomllib.loads(files.read_text(path, MAX_BYTES)))
        except OSError as error:
            raise InputError(f"{path}: can't read the policy: {error.strerror}", _HINT) from error
        except ValidationError as error:
            raise InputError(f"{path}: not a policy: {explain(error, values=True)}", _HINT) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not valid TOML: {error}", _HINT) from error

    def dumps(self) -> str:
        """Return the policy as TOML."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))

    def apply(self, spec: Spec) -> Spec:
        """Return the Spec with these bands, and this threshold, in place of its own.

        Raises SpecError where it has no positive label, or another one, and where the bands don't rise.
        """
        output = spec.output
        if not isinstance(output, Classify) or output.positive is None:
            raise SpecError(
                f"{spec.name}: a policy reads the score of a positive label, and its Spec has none",
                "Give a classifier whose Spec has output.positive.",
            )
        if self.positive is not None and self.positive != output.positive:
            raise SpecError(
                f"{spec.name}: its positive label is '{output.positive}', the policy is for '{self.positive}'",
                "Give the policy that was made from this model's scores.",
            )
        threshold = output.threshold if self.threshold is None else self.threshold
        changed = {**output.model_dump(), "bands": self.model_dump()["bands"], "threshold": threshold}
        try:
            return spec.model_copy(update={"output": Classify.model_validate(changed)})
        except ValidationError as error:
            raise SpecError(f"the policy doesn't fit {spec.name}: {explain(error)}", _HINT) from error

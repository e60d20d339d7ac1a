"""Every error that Plimsoll raises.

```
PlimsollError(message, hint)                exit   HTTP
├─ InputError                                  2   400
│  ├─ SpecError                                2   422
│  ├─ TargetError                              2   422
│  ├─ ModelError                               2   422
│  ├─ ImageError                               2   415
│  └─ BundleError                              2   422
│     └─ HoldsCascadeError                     2   422
├─ BackendError                                3   503
│  ├─ BackendMissingError                      3   503
│  ├─ BuildError                               3   503
│  └─ RunError                                 3   503
└─ CheckError   a proof or a budget not met    1   409
```

A foreign exception never reaches a user bare: `plimsoll.core.foreign.translate` (runtimes) and the readers of images,
models and bundles turn it into one of these once, with its cause kept.
"""

from __future__ import annotations

from typing import ClassVar


class PlimsollError(Exception):
    """Something went wrong that the user should hear about.

    `message` says what is wrong and what was expected; `hint` says what to do about it.
    """

    exit_code: ClassVar[int] = 3
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type[PlimsollError], tuple[str, str]]:
        # Exception's own reduction would drop `hint` on the way between processes.
        return type(self), (self.message, self.hint)


class InputError(PlimsollError):
    """The user's input can't be used."""

    exit_code = 2
    http_status = 400


class SpecError(InputError):
    """A Spec is not valid, or does not fit its model."""

    http_status = 422


class TargetError(InputError):
    """A target is not `runtime:device:precision`, or not available here."""

    http_status = 422


class ModelError(InputError):
    """A model file is damaged, unsafe, or of a kind that can't be read."""

    http_status = 422


class ImageError(InputError):
    """An image is damaged, too large, or of a format that is not allowed."""

    http_status = 415


class BundleError(InputError):
    """A bundle is damaged, unsafe, or not what its manifest says."""

    http_status = 422


class HoldsCascadeError(BundleError):
    """A bundle holds a cascade where one with a single network is needed."""


class BackendError(PlimsollError):
    """A runtime is missing or failed."""

    exit_code = 3
    http_status = 503


class BackendMissingError(BackendError):
    """A runtime is not installed; `hint` carries the command that installs it."""


class BuildError(BackendError):
    """A runtime could not build or load a model."""


class RunError(BackendError):
    """A runtime failed while running a model."""


class CheckError(PlimsollError):
    """A proof, a golden vector or a budget was not met."""

    exit_code = 1
    http_status = 409

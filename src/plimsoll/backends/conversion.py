"""Build a network for a target, and check that it answers as the original does: on pictures through each one's own
input steps, each twice in one session and in another order, and two as one batch.

Converters and runtimes mix up layouts, ranges and padding without an error, keep state from picture to picture, and
crash. What passed is noted in the cache, by the hashes of both networks, of the pictures and of this code, and by the
installed runtimes, so that it is checked once.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import itertools
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from plimsoll import backends
from plimsoll.backends import agreement, first_layer
from plimsoll.backends.agreement import Agreement
from plimsoll.backends.base import Backend, CalibrationData, Options, Session, ThreadPlan
from plimsoll.backends.comparison import REPEATED, Conversion, Outcome, answers_of, compare, named
from plimsoll.backends.trial_inputs import TriedNetwork
from plimsoll.core.model import Model, ModelRecord, TensorInfo, Tensors
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import BuildError
from plimsoll.onnx.answers import ReferenceNetwork
from plimsoll.onnx.signature import Signature
from plimsoll.system import cache, files, host, subprocesses
from plimsoll.system.subprocesses import JobError, ProcessDiedError, ProcessLimits
from plimsoll.tasks import decoder

_SECONDS = 900
_NOTED = "checked"


def build(
    model: Model,
    target: Target,
    folder: Path,
    calibration: CalibrationData | None = None,
    *,
    options: Options | None = None,
    pictures: Sequence[Path] = (),
) -> Model:
    """Return the model as `Backend.build` makes it, checked in a process of its own.

    Where the runtime crashes there, what `Backend.after_crash` offers is tried. Raises BuildError.
    """
    backend = backends.for_target(target)
    chosen = options or backend.options()
    conversion = Conversion(
        build_unchecked(model, target, folder, calibration, chosen), target, chosen, model, calibration, tuple(pictures)
    )
    try:
        check(conversion)
    except CrashError as crash:
        for other in backend.after_crash(conversion.built, target, folder):
            with contextlib.suppress(CrashError):
                check(replace(conversion, built=other))
                return other
        raise BuildError(crash.message, crash.hint) from crash
    return conversion.built


def build_unchecked(
    model: Model, target: Target, folder: Path, calibration: CalibrationData | None, options: Options
) -> Model:
    """Return the model as `Backend.build` makes it. Where its converter changes what the network computes, the first
    such layer is named. Raises BuildError."""
    backend = backends.get(target.runtime).configured(options)
    try:
        return backend.build(model, target, folder, calibration)
    except StageError as error:

        def agrees(source: Model, prefix: Model, part: Path) -> bool:
            try:
                backend.build(replace(prefix, parent=source), target, part, calibration)
            except StageError:
                return False
            return True

        layer = first_layer.find(model, model, error.output, agrees) if model.format == "onnx" else ""
        raise BuildError(error.message + _at_layer(layer), error.hint) from error


class StageError(BuildError):
    """A converter's float32 network answers otherwise than the original: what is quantized from it would, too."""

    output: str = ""
    """The output that is wrong."""


@dataclass(frozen=True)
class _Stage:
    """A network that a converter is still working on, as a session."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    run: Callable[[Mapping[str, NDArray[Any]]], Tensors]
    concurrent: bool = False

    def close(self) -> None:
        """Nothing is to be released."""


def check_stage(
    model: Model,
    signature: Signature,
    answer: Callable[[Mapping[str, NDArray[Any]]], Tensors],
    converter: str,
    precision: str = "float32",
) -> None:
    """Raise StageError where `answer`, the network as a converter made it in a precision, answers otherwise than the
    model in ONNX Runtime. For converters that go on to quantize it, whose result is held to coarser limits."""
    source = TriedNetwork(model, ReferenceNetwork(model), REFERENCE_TARGET)
    other = TriedNetwork(model, _Stage(signature.inputs, signature.outputs, answer), REFERENCE_TARGET)
    agreed = Agreement(agreement.limits_of(precision), decoder(model.spec) if model.spec is not None else None)
    list(itertools.islice(answers_of(source, other, agreed, ()), REPEATED))
    wrong = _worst(agreed.figures())
    if wrong is not None:
        error = StageError(
            f"{model.source}: {converter} changes what the network computes: its {named(wrong)}"
            f" {wrong.fault}{_limit(wrong, precision)}",
            _FLOAT_HINT,
        )
        error.output = wrong.name.partition(", ")[0]
        raise error


def check(conversion: Conversion, session: Session | None = None) -> None:
    """Raise BuildError where a built network answers otherwise than the original, keeps state, or where the original
    itself doesn't answer twice alike.

    With a loaded `session` the work is done in this process and the session is left open; without, in a process of its
    own. What passed before is not checked again.
    """
    if not _can_be_checked(conversion):
        return
    note = cache.build_folder(_NOTED, _identity(conversion))
    if note.exists():
        return
    without_pictures = cache.build_folder(_NOTED, _identity(replace(conversion, pictures=())))
    outcome = compare(conversion, session) if session is not None else _in_own_process(conversion)
    _require(conversion, outcome)
    with contextlib.suppress(OSError):  # A cache that can't be written to only costs time.
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
        without_pictures.touch()


def _can_be_checked(conversion: Conversion) -> bool:
    backend = conversion.backend
    return bool(conversion.sources) and (backend.deployable or backend.in_browser)


def _identity(conversion: Conversion) -> dict[str, Any]:
    """Return all that a check depends on: bytes, not where they lie or which version they call themselves."""
    modules = {conversion.backend.module, "onnxruntime"} - {""}
    return {
        "built": conversion.built.sha256,
        "source": conversion.sources[0].sha256,
        "specs": [ModelRecord.of(model).spec for model in (conversion.sources[0], conversion.built)],
        "target": str(conversion.target),
        "options": conversion.options.model_dump(mode="json"),
        "pictures": [files.sha256(picture) for picture in conversion.pictures if picture.is_file()],
        "code": [_code_of_checks(), _code_of(conversion.backend)],
        "runtimes": {module: _installed(module) for module in sorted(modules)},
        "processor": host.instruction_sets(),
    }


@lru_cache(maxsize=1)
def _code_of_checks() -> str:
    """Return a digest of the code that a picture goes through in a check, and that judges the answers."""
    here = Path(__file__).parent
    rooms = (here.parent / name for name in ("preprocessing", "tasks", "metrics", "onnx"))
    return _digest([*here.glob("*.py"), *(file for room in rooms for file in room.rglob("*.py"))])


@lru_cache(maxsize=16)
def _code_of(backend: Backend) -> str:
    """Return a digest of the code that loads and runs a network; of another package's backend, of its module alone."""
    file = Path(inspect.getfile(type(backend)))
    return _digest(file.parent.rglob("*.py") if file.is_relative_to(Path(__file__).parent) else [file])


def _digest(code: Iterable[Path]) -> str:
    return hashlib.sha256("".join(map(files.sha256, sorted(code))).encode()).hexdigest()


def _installed(module: str) -> list[Any]:
    """Return what changes when a package is installed anew."""
    spec = importlib.util.find_spec(module)
    origin = spec.origin if spec is not None else None
    file = Path(origin) if origin else None
    return [origin, file.stat().st_mtime_ns if file is not None and file.is_file() else 0]


def _require(conversion: Conversion, outcome: Outcome) -> None:
    """Raise BuildError for what a check found wrong."""
    target = conversion.target
    if outcome.unrepeatable:
        raise BuildError(
            f"{conversion.path}: the network itself doesn't answer a picture twice alike, so that nothing about it can"
            f" be proven: {outcome.unrepeatable}",
            "Export it in evaluation mode (in PyTorch: `model.eval()`), without operators that draw random numbers.",
        )
    changed = next((figure for figure in outcome.state if figure.fault), None)
    if changed is not None:
        raise BuildError(
            f"{conversion.path}: on {target}, the answer to a picture depends on those before it: the second time, its"
            f" {named(changed)} {changed.fault}",
            "The runtime keeps state between pictures. Choose another target; `plimsoll targets` lists them.",
        )
    worst = _worst(outcome.figures)
    if worst is None:
        return
    count = sum(bool(figure.fault) for figure in outcome.figures)
    more = f" ({count} of {len(outcome.figures)} quantities are wrong)" if count > 1 else ""
    raise BuildError(
        f"{conversion.path}: {target} answers otherwise than the network does in ONNX Runtime: its {named(worst)}"
        f" {worst.fault}{_limit(worst, target.precision)}{more}{_at_layer(_first_layer(conversion, worst))}",
        _hint(conversion, worst),
    )


_FLOAT_HINT = "The fault lies in the converter or the runtime. Choose another target; `plimsoll targets` lists them."
_QUANTIZED_HINT = "Choose another calibrator, more calibration pictures, or a target of another precision or runtime."
_ROUNDING_HINT = (
    "8 bits are hardly enough for this network. Choose float16 or float32, or try `plimsoll ship`, which keeps some"
    " layers in float32."
)
_HARDLY_ENOUGH_DB = 15.0
_SAMPLES_HINT = (
    " It was tried on pictures that come with Plimsoll. Where they show nothing that the network looks for, give some"
    " of your own with --images."
)


def _hint(conversion: Conversion, worst: agreement.Figure) -> str:
    limits = agreement.limits_of(conversion.target.precision)
    if not limits.calibrated:
        return _FLOAT_HINT
    hint = _ROUNDING_HINT if worst.rounding_db < _HARDLY_ENOUGH_DB else _QUANTIZED_HINT
    return hint + ("" if conversion.pictures else _SAMPLES_HINT)


def _worst(figures: Sequence[agreement.Figure]) -> agreement.Figure | None:
    return min((figure for figure in figures if figure.fault), key=lambda figure: figure.snr_db, default=None)


def _limit(figure: agreement.Figure, precision: str) -> str:
    if figure.snr_db == -math.inf:
        return ""
    if figure.whole:
        return f"; the limit at {precision} is {figure.limit:.1%}"
    rounding = f", and rounding to 8 bits alone leaves {figure.rounding_db:.0f} dB" if figure.rounding_db < 99 else ""
    return f"; the limit at {precision} is {math.ceil(figure.limit)} dB{rounding}"


def _at_layer(layer: str) -> str:
    return (
        f"; first wrong at layer {layer}"
        if layer and not layer.startswith("after")
        else (f"; it goes wrong {layer}" if layer else "")
    )


def _first_layer(conversion: Conversion, worst: agreement.Figure) -> str:
    """Name the layer where it first goes wrong, where that can be found out."""
    if conversion.given is None or conversion.given.format != "onnx":
        return ""
    backend = conversion.backend.configured(conversion.options)

    def agrees(source: Model, prefix: Model, folder: Path) -> bool:
        given = replace(prefix, parent=source)
        built = backend.build(given, conversion.target, folder, conversion.calibration)
        return _worst(_in_own_process(replace(conversion, built=built, given=given)).figures) is None

    return first_layer.find(conversion.sources[0], conversion.given, worst.name.partition(", ")[0], agrees)


class CrashError(BuildError):
    """A runtime ended the process in which it was tried."""


def _in_own_process(conversion: Conversion) -> Outcome:
    """Load and compare in a process of its own; raises BuildError, CrashError where that process dies."""
    payload = {
        "model": ModelRecord.of(conversion.built).model_dump(mode="json"),
        "target": str(conversion.target),
        "options": conversion.options.model_dump(mode="json"),
        "pictures": [str(picture.resolve()) for picture in conversion.pictures],
    }
    memory = host.memory_bytes()
    limits = ProcessLimits(_SECONDS, int(memory * 0.75) if memory else None)
    with tempfile.TemporaryDirectory(prefix="plimsoll-check-") as folder:
        try:
            answer = subprocesses.run_job(__name__, payload, Path(folder), limits)
        except ProcessDiedError as error:
            raise CrashError(
                f"{conversion.path}: {conversion.backend.title} crashed while it loaded or ran the network for"
                f" {conversion.target}: {error.message}",
                "Choose another target; `plimsoll targets` lists them.",
            ) from error
        except JobError as error:
            # The log goes with the folder: what is worth knowing of it is in the message.
            hint = _FLOAT_HINT if error.hint.startswith("Its log: ") else error.hint
            about = "" if str(conversion.path) in error.message else f"{conversion.path}: "
            raise BuildError(f"{about}{error.message}", hint) from error
    figures, state = (tuple(agreement.Figure(**figure) for figure in answer[key]) for key in ("figures", "state"))
    return Outcome(figures, state, answer["unrepeatable"], answer["pictures"])


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Load a built network and compare it, in the process of `_in_own_process`."""
    model = ModelRecord.model_validate(payload["model"]).model
    target = Target.parse(payload["target"])
    backend = backends.for_target(target)
    options = backend.options.model_validate(payload["options"])
    session = backend.load(model, target, options, ThreadPlan.of("latency"))
    pictures = tuple(map(Path, payload["pictures"]))
    return asdict(compare(Conversion(model, target, options, pictures=pictures), session))

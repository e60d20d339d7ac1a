"""What an engine was built for, in a small JSON file beside it.

An engine is machine code for one GPU and one version of TensorRT. Elsewhere it is refused before TensorRT reads it, in
words.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plimsoll.core.model import Model, Reader
from plimsoll.errors import BuildError, ModelError
from plimsoll.spec import Spec
from plimsoll.system import cache
from plimsoll.system.gpu import Gpu

FORMAT = "tensorrt"
ENGINE, CALIBRATION = "network.engine", "network.calibration"
"""What the files of a kept engine are called."""
_AMPERE = (8, 0)
_ANEW = (
    "An engine runs only where it was built: build it here from the network it was made from (`plimsoll convert MODEL"
    " --target tensorrt:gpu:…`)."
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class TensorRtEngine(Reader):
    """TensorRT engine.

    What is in it only TensorRT can read, and only on the GPU it was built for. It is code for the GPU: load only what
    you trust.
    """

    name = FORMAT
    suffixes = (".engine", ".plan")

    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Return the Model, with the JSON beside it that says what it was built for, where there is one; raises
        ModelError."""
        if not path.is_file() or not path.stat().st_size:
            raise ModelError(
                f"{path}: not an engine: {'the file is empty' if path.is_file() else 'no such file'}",
                "Build it again.",
            )
        facts = facts_file(path)
        return Model(path, self.name, spec, files=(facts,) if facts.is_file() else ())


class EngineFacts(BaseModel):
    """What an engine was built for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["tensorrt-engine"] = "tensorrt-engine"
    schema_version: Literal[1] = 1
    tensorrt: str
    """TensorRT's version."""
    gpu: str
    """The GPU's name."""
    capability: tuple[int, int]
    """The GPU's compute capability."""
    hardware: Literal["this", "same_capability", "ampere_plus"] = "this"
    precision: str
    network: Sha256
    """SHA-256 of the network that it was built from."""
    engine: Sha256
    """SHA-256 of the engine itself."""
    plugins: dict[str, Sha256] = {}
    """The plugin libraries that it needs, by file name."""

    @classmethod
    def beside(cls, engine: Path) -> Self | None:
        """Read the JSON beside an engine; None where there is none, as beside one that `trtexec` built. Raises
        BuildError."""
        file = facts_file(engine)
        try:
            return cls.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise BuildError(
                f"{file}: can't read what the engine was built for: {str(error).splitlines()[0]}", _ANEW
            ) from error

    def write(self, engine: Path) -> Path:
        """Write the JSON beside an engine and return its path."""
        file = facts_file(engine)
        file.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return file

    def require(self, engine: Path, content: bytes, gpu: Gpu, version: str, plugins: dict[str, str]) -> None:
        """Raise BuildError, in words, where the engine can't run on this GPU with this TensorRT and these plugins, or
        isn't the one described."""
        if version != self.tensorrt:
            raise BuildError(f"{engine.name} was built by TensorRT {self.tensorrt}; here is TensorRT {version}", _ANEW)
        if not self._fits(gpu):
            raise BuildError(f"{engine.name} was built on {self._home()}; here is {gpu}", _ANEW)
        if hashlib.sha256(content).hexdigest() != self.engine:
            raise BuildError(
                f"{engine.name} is not the engine that {facts_file(engine).name} describes: it is damaged, or was"
                " replaced",
                _ANEW,
            )
        if missing := [name for name, digest in self.plugins.items() if plugins.get(name) != digest]:
            raise BuildError(
                f"{engine.name} needs the plugin libraries it was built with: {', '.join(missing)}",
                "Give their paths: --set plugins=…",
            )

    def _fits(self, gpu: Gpu) -> bool:
        if self.hardware == "ampere_plus":
            return gpu.capability >= _AMPERE
        return gpu.capability == self.capability and (self.hardware == "same_capability" or gpu.name == self.gpu)

    def _home(self) -> str:
        here = str(Gpu(self.gpu, self.capability))
        return (
            here
            if self.hardware == "this"
            else f"{here}, for {'all from Ampere on' if self.hardware == 'ampere_plus' else 'all of this capability'}"
        )


def facts_file(engine: Path) -> Path:
    """Return where the JSON lies that belongs to an engine."""
    return engine.with_name(f"{engine.name}.json")


def timing_file(gpu: Gpu, version: str) -> Path:
    """Return where the timings of kernels on this GPU are kept, with which a second engine is built faster."""
    name = cache.build_key({"gpu": gpu.name, "capability": gpu.capability, "tensorrt": version})
    return cache.runtime_folder(FORMAT) / "timings" / f"{name}.cache"


def take(cached: Path, folder: Path, stem: str) -> list[Path]:
    """Copy a kept engine and what belongs to it into `folder` under a name; returns the engine first. Says that it was
    used now."""
    cache.mark_used(cached)
    names = [name for name in (ENGINE, facts_file(cached / ENGINE).name, CALIBRATION) if (cached / name).is_file()]
    return [Path(shutil.copyfile(cached / name, folder / name.replace("network", stem, 1))) for name in names]

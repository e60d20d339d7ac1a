"""Which model answers other products, and what its labels mean in their words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Class = Literal["Drawing", "Hentai", "Neutral", "Porn", "Sexy"]
"""The five classes of nsfwjs (Infinite Red, 2019), which Misskey and PhotoPrism took over."""
CLASSES: tuple[Class, ...] = ("Drawing", "Hentai", "Neutral", "Porn", "Sexy")
UNSAFE: tuple[Class, ...] = ("Hentai", "Porn", "Sexy")
"""What PhotoPrism and Misskey count as not safe."""

KNOWN: Mapping[str, Class] = {
    **{name.lower(): name for name in CLASSES},
    **dict.fromkeys(("drawings",), "Drawing"),
    **dict.fromkeys(("sfw", "safe", "safe_for_work", "normal"), "Neutral"),
    **dict.fromkeys(("nsfw", "not_safe_for_work", "unsafe", "pornography", "explicit", "nude", "nudity"), "Porn"),
    **dict.fromkeys(("suggestive", "racy"), "Sexy"),
}  # fmt: skip
"""What a label means where no setting says it: open_nsfw's two, nsfwjs's five, and what other networks call the same.
Lower case, spaces and dashes as _."""

MISSKEY_PATH = "/v1/detect-images"
_PATH = r"^(/[A-Za-z0-9._~-]+)+$"
_Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class _ProductSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    model: str = ""
    """The model that answers; by default that of `[compat]`."""


class MisskeySettings(_ProductSettings):
    """Misskey's sensitive-media detector. It decides itself, by its own threshold."""


class PhotoPrismSettings(_ProductSettings):
    """PhotoPrism's vision service."""

    threshold: _Probability | None = None
    """From this score on a picture is `unsafe`; by default that of `[compat]`."""
    prefixes: tuple[Annotated[str, Field(pattern=_PATH)], ...] = ("/v1/vision",)
    """`…/nsfw` below each of these is the endpoint; what PhotoPrism's `vision.yml` has as `Uri`."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the endpoints."""
        return tuple(f"{prefix}/nsfw" for prefix in self.prefixes)


class PictrsSettings(_ProductSettings):
    """pict-rs's external validation (`media.external_validation`)."""

    threshold: _Probability | None = None
    """From this score on a picture is rejected; by default that of `[compat]`."""
    path: Annotated[str, Field(pattern=_PATH)] = "/v1/validate"
    error_status: Annotated[int, Field(ge=400, le=599)] = 503
    """The status for a picture that has no answer. pict-rs refuses an upload at whatever is not 2xx."""

    @field_validator("error_status")
    @classmethod
    def _is_no_verdict(cls, value: int) -> int:
        if value == 406:
            raise ValueError("406 says that the picture was looked at and rejected; choose another")
        return value


class CompatSettings(BaseModel):
    """The section `[compat]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = ""
    """The model that answers; may be left out where only one is served."""
    threshold: _Probability | None = None
    """From this score on a picture is not safe; by default the model's own, or 0.5."""
    classes: Mapping[str, Class] = {}
    """A label of the model → what it is here. Labels that are named like the classes, sfw and nsfw need none."""
    misskey: MisskeySettings = MisskeySettings()
    photoprism: PhotoPrismSettings = PhotoPrismSettings()
    pictrs: PictrsSettings = PictrsSettings()

"""Who may ask, and how often: what can be set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from plimsoll.serve.access.rate import Limit, RateText


class AccessSettings(BaseModel):
    """Keys, and limits for callers without one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: Path | None = None
    """The file of API keys (`plimsoll keys`). Without one everybody who reaches the port may ask."""
    control: Literal["local", "anybody", "nobody"] = "local"
    """Who may load, unload and reload models where there are no keys: by default programs on this machine (not web
    pages, not what a proxy passes on). With keys, those of the role `admin` may, and nobody else."""
    open_metrics: bool = False
    """Whether /metrics needs no key."""
    open_paths: tuple[Annotated[str, Field(pattern="^/")], ...] = ()
    """Further paths that need no key, whatever the method; one that ends in `/*` means all below it."""
    address_rate: RateText | None = None
    """How often one address may ask without a key, for example `5/s`. An IPv6 address counts by its /64 network, since
    a household has one."""
    address_burst: int | None = Field(None, ge=1, le=1_000_000)
    """How many requests of an address may come at once after a quiet time; by default as many as in a second."""

    @property
    def address_limit(self) -> Limit | None:
        """Return the limit of an address, if there is one."""
        return Limit.of(self.address_rate, self.address_burst) if self.address_rate is not None else None

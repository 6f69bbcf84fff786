"""What stations and coordinator put into the place that they share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_contracts.manifests import BankManifest, Manifest, UploadManifest

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
PublicationKind = Literal["uploads", "banks", "figures"]

COORDINATOR = "coordinator"


class Slot(BaseModel):
    """Where a publication belongs; a reader states it and refuses whatever says otherwise, such as a replay."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: Name = Field(description="one for each run of the federation")
    round: int = Field(1, ge=1)
    kind: PublicationKind
    sender: Name = Field(description="the station, or `coordinator`")
    config_hash: str = Field(description="of all that an upload depends on; the same for every station")


class FiguresManifest(Manifest):
    """What a station's test images add to the pooled figures of one category."""

    category: str


class Publication(BaseModel):
    """The manifest of one sender's publication. It is written after its artifacts and names each by SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    slot: Slot
    uploads: tuple[UploadManifest, ...] = ()
    banks: tuple[BankManifest, ...] = ()
    figures: tuple[FiguresManifest, ...] = ()

    @property
    def artifacts(self) -> tuple[Manifest, ...]:
        """All of them."""
        return (*self.uploads, *self.banks, *self.figures)

    @model_validator(mode="after")
    def _only_its_kind(self) -> Publication:
        there = {name for name in ("uploads", "banks", "figures") if getattr(self, name)}
        if there - {self.slot.kind}:
            raise ValueError(f"a publication of {self.slot.kind} holds {', '.join(sorted(there - {self.slot.kind}))}")
        kinds = {"uploads": "client_upload", "banks": "memory_bank", "figures": "station_figures"}
        if wrong := {one.kind for one in self.artifacts} - {kinds[self.slot.kind]}:
            raise ValueError(f"a publication of {self.slot.kind} names artifacts of kind {', '.join(sorted(wrong))}")
        return self

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


class StationResults(BaseModel):
    """What the coordinator has of one station's figures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    figures: tuple[FiguresManifest, ...]
    calibration: Manifest | None = None
    manifest_bytes: int = Field(0, ge=0, description="of the file that names them")


class Publication(BaseModel):
    """The manifest of one sender's publication. It is written after its artifacts and names each by SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    slot: Slot
    uploads: tuple[UploadManifest, ...] = ()
    banks: tuple[BankManifest, ...] = ()
    accepted: tuple[str, ...] = Field((), description="with banks: the SHA-256 of every upload that is in them")
    figures: tuple[FiguresManifest, ...] = ()
    calibration: Manifest | None = Field(None, description="with figures: scores of the station's normal images")

    def file_content(self) -> bytes:
        """What is written into the shared place."""
        return self.model_dump_json(indent=1).encode()

    @property
    def artifacts(self) -> tuple[Manifest, ...]:
        """All of them."""
        return (*self.uploads, *self.banks, *self.figures, *([self.calibration] if self.calibration else []))

    @model_validator(mode="after")
    def _only_its_kind(self) -> Publication:
        belongs = {"uploads": {"uploads"}, "banks": {"banks", "accepted"}, "figures": {"figures", "calibration"}}
        there = {name for names in belongs.values() for name in names if getattr(self, name)}
        if there - belongs[self.slot.kind]:
            other = ", ".join(sorted(there - belongs[self.slot.kind]))
            raise ValueError(f"a publication of {self.slot.kind} holds {other}")
        kinds = {"uploads": "client_upload", "banks": "memory_bank", "figures": "station_figures"}
        wrong = {one.kind for one in (*self.uploads, *self.banks, *self.figures)} - {kinds[self.slot.kind]}
        if self.calibration and self.calibration.kind != "station_calibration":
            wrong.add(self.calibration.kind)
        if wrong:
            raise ValueError(f"a publication of {self.slot.kind} names artifacts of kind {', '.join(sorted(wrong))}")
        return self

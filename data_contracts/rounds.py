"""What passes between the steps of a federation's rounds."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from data_contracts.manifests import GLOBAL_BANK, BankManifest, ClientUploads


class FederationRound(BaseModel):
    """The state after one round, by manifests: what was accepted, what was not, and the banks so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int = Field(ge=1)
    uploads: tuple[ClientUploads, ...] = Field(description="accepted ones alone; empty for a client with nothing new")
    failed: dict[str, str] = Field({}, description="client -> cause")
    refused: dict[str, str] = Field({}, description="client -> reason, over its banks")
    banks: tuple[BankManifest, ...]
    upload_rows: int = Field(ge=0, description="of all uploads, refused ones too: they were sent")
    upload_bytes: int = Field(ge=0)
    download_bytes: int = Field(ge=0, description="the banks, float32, sent to each client that has a part in them")
    covering_radius: dict[str, float] = Field(
        description="client -> largest distance of an own patch to what it sent and what the banks covered before"
    )


def download_bytes(banks: Iterable[BankManifest], categories: Iterable[str]) -> int:
    """Bytes of the banks that a client with these categories gets back: its own, or the global one; float32."""
    wanted = {*categories, GLOBAL_BANK}
    return sum(4 * bank.rows * bank.dim for bank in banks if bank.bank in wanted)

"""What a client comes to without the others (`federated.mode: local_only`)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from data_contracts.manifests import BankManifest, Manifest, MeasuredCategory, ScoredCategory


class LocalClient(BaseModel):
    """One client's own banks, and what they score on the test images of its categories."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client_id: str
    banks: tuple[BankManifest, ...]
    scored: tuple[ScoredCategory, ...]
    measured: tuple[MeasuredCategory, ...]
    calibration: tuple[Manifest, ...] = ()  # CALIBRATION_SCORES of its own normal images by its own banks

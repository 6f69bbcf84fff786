"""What a client comes to without the others (`federated.mode: local_only`)."""

from __future__ import annotations

from data_contracts.manifests import BankManifest, Manifest, MeasuredBanks


class LocalClient(MeasuredBanks):
    """One client's own banks, and what they score on the test images of its categories."""

    client_id: str
    banks: tuple[BankManifest, ...]
    calibration: tuple[Manifest, ...] = ()  # CALIBRATION_SCORES of its own normal images by its own banks

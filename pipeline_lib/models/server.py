"""The server of the federation in library form: it takes uploads, refuses what cannot be right, and merges the rest.

Uploads are all that it sees. Nothing here says who sent an upload: a client is whom its manifest names, and telling
stations apart is the transport's business.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

from data_contracts.config import ExperimentConfig
from data_contracts.errors import UploadError
from data_contracts.manifests import RegionalMerge, UploadManifest
from data_contracts.settings import AggregationSettings, BackboneSettings, client_config_hashes
from pipeline_lib.server.aggregation import MergedBank
from pipeline_lib.server.regions import PendingUpload, aggregate_pending
from pipeline_lib.upload.acceptance import Upload, accept_uploads, join_rounds
from pipeline_lib.upload.package import ClientUpload, open_upload

logger = logging.getLogger(__name__)


class FederatedServer:
    """Collects the uploads of all rounds and merges them into one memory bank a category, or one for all.

    `dim` are the dimensions that rows must have; what most uploads of a bank name unless given. `banks` holds the
    merged banks after `aggregate`, `regional` what their merge in regions came to where there are any, `refused` the
    reasons of all refusals so far, by (round, client, bank).
    """

    def __init__(self, config: ExperimentConfig, backbone: BackboneSettings, *, dim: int | None = None) -> None:
        self.settings = AggregationSettings.of(config)
        self.config_hash, *self._earlier_hashes = client_config_hashes(config, backbone)
        self.dim = dim
        self.with_counts = config.model.rows != "picks"
        self.banks: dict[str, MergedBank] = {}
        self.regional: dict[str, RegionalMerge] = {}
        self.refused: dict[tuple[int, str, str], str] = {}
        self._uploads: dict[str, dict[str, dict[int, Upload]]] = {}  # bank -> client -> round

    def receive_client_coresets(
        self, uploads: Iterable[ClientUpload], *, round_number: int = 1, expected_clients: Iterable[str] = ()
    ) -> dict[str, str]:
        """Check and keep the uploads of one round; returns client id -> why it was refused, over its banks.

        A refused upload and an expected client that sent nothing are logged as warnings, and the others go on. An
        upload that comes again, as after a retry, replaces the first. Checked are the SHA-256 and everything that
        `aggregation.check_upload` checks.
        """
        by_bank: dict[str, list[tuple[UploadManifest, dict[str, np.ndarray]]]] = {}
        refused: dict[str, str] = {}
        seen: set[str] = set()
        for upload in uploads:
            manifest = upload.manifest
            seen.add(manifest.client_id)
            if manifest.config_hash in self._earlier_hashes:
                manifest = manifest.model_copy(update={"config_hash": self.config_hash})
            try:
                by_bank.setdefault(manifest.category, []).append((manifest, open_upload(upload)))
            except UploadError as error:
                logger.warning("%s; going on with the others", error)
                self._refuse(refused, round_number, manifest.client_id, manifest.category, str(error))
        for bank, received in by_bank.items():
            latest = {manifest.client_id: (manifest, arrays) for manifest, arrays in received}
            accepted, reasons = accept_uploads(
                latest.values(),
                dim=self.dim,
                config_hash=self.config_hash,
                round_number=round_number,
                with_counts=self.with_counts,
            )
            for client_id, reason in reasons.items():
                self._refuse(refused, round_number, client_id, bank, reason)
            for one in accepted:
                self._uploads.setdefault(bank, {}).setdefault(one.client_id, {})[round_number] = one
        if missing := sorted(set(expected_clients) - seen):
            logger.warning("round %d: no coreset from %s; going on with the others", round_number, ", ".join(missing))
        return refused

    def aggregate(self) -> dict[str, MergedBank]:
        """Merge all that was accepted so far into the banks, bank -> rows with their clients.

        Raises UploadError when nothing was accepted.
        """
        if not self._uploads:
            raise UploadError("the server has no upload to merge: every client failed or was refused")
        found = {
            bank: aggregate_pending([_all_rounds(sent) for sent in by_client.values()], self.settings, bank=bank)
            for bank, by_client in sorted(self._uploads.items())
        }
        self.banks = {bank: merged for bank, (merged, _) in found.items()}
        self.regional = {bank: regional for bank, (_, regional) in found.items() if regional is not None}
        return self.banks

    def broadcast(self, banks: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """What clients get back: bank -> rows float32 (row, dim), of these banks or of all."""
        wanted = self.banks if banks is None else [bank for bank in banks if bank in self.banks]
        return {bank: self.banks[bank].rows for bank in wanted}

    def _refuse(self, refused: dict[str, str], round_number: int, client_id: str, bank: str, reason: str) -> None:
        self.refused[round_number, client_id, bank] = reason
        refused[client_id] = f"{refused[client_id]}; {reason}" if client_id in refused else reason


def _all_rounds(by_round: dict[int, Upload]) -> PendingUpload:
    return PendingUpload.of(join_rounds([by_round[number] for number in sorted(by_round)]))

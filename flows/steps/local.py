"""Local-only: every client alone, with a bank of its own images, scored on all test images of its categories."""

from __future__ import annotations

from dataclasses import replace

from data_contracts.config import UploadConfig
from data_contracts.federation import Federation
from data_contracts.manifests import BankManifest, IndexedDataset, LocalClient
from data_contracts.settings import AggregationSettings, BackboneSettings, client_config_hash
from flows.steps.calibration import calibrate
from flows.steps.measuring import measure_banks
from flows.steps.run import Run
from flows.steps.running import submit
from tasks.server import aggregate_memory_bank
from tasks.stage import on_store


def without_upload(run: Run) -> Run:
    """The same run with rows as they are: nothing is sent, so nothing is encoded or noised."""
    return replace(run, config=run.config.model_copy(update={"upload": UploadConfig()}))


def measure_alone(
    run: Run, indexed: IndexedDataset, federation: Federation, backbone: BackboneSettings
) -> list[LocalClient]:
    """Each client's banks, what they score, and the scores of its own normal images for its thresholds.

    `federation` holds its one round without banks.
    """
    found = []
    for client in federation.uploads:
        with run.clock.stage("aggregate"):
            futures = [
                submit(
                    run.runner,
                    on_store(aggregate_memory_bank, run.place),
                    uploads=[upload],
                    bank=upload.category,
                    config_hash=client_config_hash(run.config, backbone),
                    settings=AggregationSettings.of(run.config),
                    round_number=1,
                    place=run.place,
                )
                for upload in client.uploads
            ]
            banks: list[BankManifest] = [future.result() for future in futures]
        with run.clock.stage("calibrate"):
            calibration = calibrate(
                run.runner, run.config, [client], federation.features, banks, indexed.groups, run.place
            )
        measured = measure_banks(run, indexed, banks, backbone)
        run.done(f"{client.client_id} alone: {len(banks)} categories")
        found.append(
            LocalClient(
                client_id=client.client_id,
                banks=tuple(banks),
                calibration=tuple(calibration),
                **dict(measured),
            )
        )
    return found

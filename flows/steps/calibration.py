"""The calibration step: every client scores its own normal images out of fold, in parallel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import get_run_logger
from prefect.task_runners import TaskRunner

from data_contracts.config import ExperimentConfig
from data_contracts.manifests import BankManifest, ClientUploads, Manifest
from data_contracts.settings import CalibrationSettings, Place
from flows.steps.running import failure_of, submit
from tasks.clients import calibrate_client
from tasks.stage import on_store


def calibrate(
    runner: TaskRunner[Any],
    config: ExperimentConfig,
    uploads: Sequence[ClientUploads],
    features: Mapping[str, Manifest],
    banks: Sequence[BankManifest],
    groups: Manifest | None,
    place: Place,
) -> list[Manifest]:
    """Calibration scores of the clients that delivered; `features`: client -> its patch features, `groups` of images.

    A client that fails here costs its scores, not the run: the log names it.
    """
    if config.decision.blocks == 0:
        return []
    futures = [
        submit(
            runner,
            on_store(calibrate_client, place),
            patch_features=features[upload.client_id],
            uploads=upload,
            banks=[bank for bank in banks if bank.bank in {sent.category for sent in upload.uploads}],
            settings=CalibrationSettings.of(config),
            groups=groups,
            place=place,
        )
        for upload in uploads
    ]
    scores = []
    for upload, future in zip(uploads, futures, strict=True):
        if cause := failure_of(future):
            get_run_logger().warning("client %s gives no calibration scores: %s", upload.client_id, cause)
        else:
            scores.append(future.result())
    return scores

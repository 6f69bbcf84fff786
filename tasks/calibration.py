"""Task that runs at a client: out-of-fold scores of its own normal images, for thresholds."""

from __future__ import annotations

import numpy as np

from data_contracts.manifests import GLOBAL_BANK, BankManifest, ClientUploads, Manifest
from data_contracts.settings import CalibrationSettings, Place
from data_contracts.tables import CALIBRATION_SCORES
from pipeline_lib.metrics import thresholds
from pipeline_lib.upload import codec
from tasks.stage import open_store, stage


@stage("calibrate-client", run_name="calibrate-{uploads.client_id}")
def calibrate_client(
    patch_features: Manifest,
    uploads: ClientUploads,
    banks: list[BankManifest],
    settings: CalibrationSettings,
    place: Place,
) -> Manifest:
    """Scores of the client's training images by the banks without the image's own block; no image identity."""
    store = open_store(place)
    table = store.read_table(patch_features)
    by_category = {}
    for bank in banks:
        rows = store.read_arrays(bank)["features"]
        sent, image = [], []
        for upload, provenance in zip(uploads.uploads, uploads.provenance, strict=True):
            if upload.category == bank.bank:
                origin = store.read_arrays(provenance)
                sent.append(codec.decode_rows(store.read_arrays(upload)))
                image.append(origin["image_ids"][origin["patch_image"]])
        if not sent:
            continue
        origins = thresholds.rows_in_bank(rows, np.concatenate(sent), np.concatenate(image))
        for category, own in table.groupby("category", sort=True):
            if bank.bank in (category, GLOBAL_BANK):
                by_category[str(category)] = thresholds.out_of_fold_scores(
                    own, store, rows, origins, settings.scoring, n_blocks=settings.blocks
                )
    scores = thresholds.calibration_table(uploads.client_id, by_category)
    return store.write_table("calibration_scores", scores, CALIBRATION_SCORES)

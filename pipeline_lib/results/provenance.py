"""Where the rows of a bank came from, kept beside it where all images lie at one place anyway (not of stations)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_contracts.manifests import BankManifest, ClientUploads, Manifest, UploadManifest
from data_contracts.tables import BANK_PROVENANCE
from pipeline_lib.client.calibration import rows_in_bank
from pipeline_lib.client.provenance import Provenance
from pipeline_lib.coreset.moved_rows import MovedRows
from pipeline_lib.models.model_file import PROVENANCE_DIRECTORY
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.files import safe_name, write_table_file
from pipeline_lib.upload.counts import rows_of


def write_bank_provenance(
    out: Path, store: ArtifactStore, uploads: Sequence[ClientUploads], banks: Sequence[BankManifest]
) -> dict[str, pd.DataFrame]:
    """Write provenance/<bank>.parquet of each bank, and return them by bank name, without those that have no rows.

    Only for runs whose clients are all at this place. No upload says it: rows are found again by their bytes, and what
    they came from is read from what stayed with each client.
    """
    written = {}
    for bank in banks:
        arrays = store.read_arrays(bank)
        sent_before: Counter[str] = Counter()  # client -> its rows of earlier rounds
        frames = []
        for upload, manifest in sorted(_of_bank(uploads, bank.bank), key=lambda one: one[0].round):
            origin = Provenance.from_arrays(store.read_arrays(manifest))
            rows = rows_of(store.read_arrays(upload))
            found = _found_again(arrays, rows, upload.client_id, sent_before[upload.client_id])
            sent_before[upload.client_id] += len(rows)
            chosen = found.image.to_numpy(np.int64)
            ids = np.array(origin.image_ids, dtype=object)
            frames.append(
                pd.DataFrame(
                    {
                        "bank_row": found.bank_row,
                        "image_id": ids[origin.patch_image[chosen]],
                        "patch_index": origin.patch_index[chosen],
                    }
                )
            )
        write_table_file(out / PROVENANCE_DIRECTORY / f"{safe_name(bank.bank)}.parquet", frames, BANK_PROVENANCE)
        if frames:
            written[bank.bank] = pd.concat(frames, ignore_index=True)
    return written


def _of_bank(uploads: Sequence[ClientUploads], bank: str) -> Iterator[tuple[UploadManifest, Manifest]]:
    for client in uploads:
        for upload, origin in zip(client.uploads, client.provenance, strict=True):
            if upload.category == bank:
                yield upload, origin


def _found_again(bank: Mapping[str, np.ndarray], sent: np.ndarray, client_id: str, sent_before: int) -> pd.DataFrame:
    """Columns bank_row, and as image the sent row (row, dim) that it is; of a mean, the one whose pick was kept.

    sent_before: rows that the client had sent before these.
    """
    if (moved := MovedRows.from_arrays(bank)) is None:
        return rows_in_bank(bank["features"], sent, np.arange(len(sent)))
    first = bank["upload_starts"][bank["client_ids"].tolist().index(client_id)] + sent_before
    own = moved.representative - first
    is_own = (own >= 0) & (own < len(sent))
    return pd.DataFrame({"bank_row": np.flatnonzero(is_own), "image": own[is_own]})

"""A client in a federation of several rounds: what it selects given what the server's banks cover already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from data_contracts.stages import CoresetSettings
from pipeline_lib.artifact_store import ArtifactStore
from pipeline_lib.client_coreset import ClientCoreset, Progress, coreset_of_patches, rows_by_bank
from pipeline_lib.features import read_patches
from pipeline_lib.provenance import Provenance


def select_round_coreset(
    table: pd.DataFrame,
    store: ArtifactStore,
    client_id: str,
    settings: CoresetSettings,
    *,
    num_rounds: int,
    banks: Mapping[str, np.ndarray],
    sent: Mapping[str, Sequence[Provenance]],
    progress: Progress | None = None,
) -> list[ClientCoreset]:
    """The client's share of round `settings.round` for every bank that has something new.

    table: its PATCH_FEATURES; `banks` are the server's rows (row, dim) after the round before, `sent` the origins of
    the rows that the server accepted from this client, both by bank. From the second round on, the patches farthest
    from both are selected; own rows count as they are here, not as a codec or noise left them, so that no row is sent
    twice. All rounds together send as many rows as one round would. Raises DatasetError when the client has no images.
    """
    coresets = []
    for bank, rows in rows_by_bank(table, client_id, settings):
        patches = read_patches(rows, store, dtype=np.float16, scratch=store.root / "scratch")
        image_ids = [str(i) for i in rows.image_id]
        counts = (rows.grid_height * rows.grid_width).to_numpy()
        covered = [origin.rows(patches, image_ids, counts) for origin in sent.get(bank, ())]
        covered += [banks[bank].astype(np.float32)] if bank in banks else []
        coresets.append(
            coreset_of_patches(
                patches,
                image_ids,
                counts,
                settings,
                bank=bank,
                client_id=client_id,
                raw_image_bytes=int(rows.image_bytes.sum()),
                num_rounds=num_rounds,
                covered=np.concatenate(covered) if covered else None,
                progress=progress,
                scratch=store.root / "scratch",
            )
        )
    return [coreset for coreset in coresets if coreset is not None]

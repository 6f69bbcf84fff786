"""A client in a federation of several rounds: what it selects given what the server's banks cover already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_contracts.manifests import ClientUploads
from data_contracts.stages import CoresetSettings
from pipeline_lib.artifact_store import ArtifactStore
from pipeline_lib.client_coreset import ClientCoreset, Progress, coreset_of_patches, rows_by_bank
from pipeline_lib.features import read_patches
from pipeline_lib.provenance import Provenance


@dataclass(frozen=True)
class BankPatches:
    """The client's patches for one bank, and what is covered of them already."""

    bank: str
    patches: np.ndarray  # float16 (patch, dim)
    image_ids: list[str]
    counts: np.ndarray  # (image,) patches of each
    raw_image_bytes: int
    covered: np.ndarray | None  # float32 (row, dim)


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
    the rows that the server accepted from this client, both by bank. What is covered by any of them is left out,
    farthest first; own rows count as they are here, not as a codec or noise left them, so that no row is sent twice.
    All rounds together send as many rows as one round would. Raises DatasetError when the client has no images.
    """
    coresets = []
    for own in _bank_patches(table, store, client_id, settings, banks=banks, sent=sent):
        coresets.append(
            coreset_of_patches(
                own.patches,
                own.image_ids,
                own.counts,
                settings,
                bank=own.bank,
                client_id=client_id,
                raw_image_bytes=own.raw_image_bytes,
                num_rounds=num_rounds,
                covered=own.covered,
                progress=progress,
                scratch=store.root / "scratch",
            )
        )
    return [coreset for coreset in coresets if coreset is not None]


def origins_by_bank(store: ArtifactStore, sent: Sequence[ClientUploads]) -> dict[str, list[Provenance]]:
    """bank -> where the rows that a client sent before came from."""
    origins: dict[str, list[Provenance]] = {}
    for earlier in sent:
        for upload, origin in zip(earlier.uploads, earlier.provenance, strict=True):
            origins.setdefault(upload.category, []).append(Provenance.from_arrays(store.read_arrays(origin)))
    return origins


def _bank_patches(
    table: pd.DataFrame,
    store: ArtifactStore,
    client_id: str,
    settings: CoresetSettings,
    *,
    banks: Mapping[str, np.ndarray],
    sent: Mapping[str, Sequence[Provenance]],
) -> Iterator[BankPatches]:
    """One bank's patches in memory at a time."""
    for bank, rows in rows_by_bank(table, client_id, settings):
        patches = read_patches(rows, store, dtype=np.float16, scratch=store.root / "scratch")
        image_ids = [str(i) for i in rows.image_id]
        counts = (rows.grid_height * rows.grid_width).to_numpy()
        covered = [origin.rows(patches, image_ids, counts) for origin in sent.get(bank, ())]
        covered += [banks[bank]] if bank in banks else []
        covered = [one.astype(np.float32) for one in covered if len(one)]
        yield BankPatches(
            bank,
            patches,
            image_ids,
            counts,
            int(rows.image_bytes.sum()),
            np.concatenate(covered) if covered else None,
        )

"""What one client does with its patches: select a coreset for each bank and prepare it for upload."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_contracts.errors import DatasetError
from data_contracts.stages import CoresetSettings
from pipeline_lib.artifact_store import ArtifactStore
from pipeline_lib.coreset import CoresetSelection, density_subsampling, greedy_coreset_selection, random_subsampling
from pipeline_lib.features import read_patches
from pipeline_lib.seeding import stage_rng
from pipeline_lib.upload_codec import add_noise, clip_rows, decode_rows, encode_rows

GLOBAL_BANK = "all"


@dataclass(frozen=True)
class ClientCoreset:
    """One client's coreset for one bank, as it is uploaded, and where its rows came from."""

    bank: str  # a category, or "all" for the global bank
    arrays: dict[str, np.ndarray]
    dim: int
    n_rows: int
    n_images: int
    n_patches: int
    raw_image_bytes: int
    covering_radius: float
    reconstruction_error: float
    image_ids: list[str]
    patch_image: np.ndarray  # (row,) index into image_ids
    patch_index: np.ndarray  # (row,) patch of that image, row-major


def coreset_size(ratio: float, n_patches: int, *, round_up: bool = False) -> int:
    """round(ratio x patches), at least 1 and at most all.

    A client rounds up, so that the clients of a federation together have as many rows as the baseline keeps.
    """
    wanted = math.ceil(ratio * n_patches - 1e-9) if round_up else round(ratio * n_patches)
    return min(n_patches, max(1, wanted))


def select_rows(
    patches: np.ndarray,
    size: int,
    settings: CoresetSettings,
    *,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> CoresetSelection:
    """Select `size` of the patches (patch, dim) by the configured rule."""
    match settings.subsampling:
        case "kcenter":
            return greedy_coreset_selection(patches, size, rng=rng, progress=progress)
        case "random":
            return random_subsampling(patches, size, rng=rng)
        case "density":
            return density_subsampling(patches, size, rng=rng)


def select_client_coreset(
    table: pd.DataFrame,
    store: ArtifactStore,
    client_id: str,
    settings: CoresetSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[ClientCoreset]:
    """A coreset for every bank that this client contributes to.

    table: the client's PATCH_FEATURES. Raises DatasetError when it is empty.
    """
    if table.empty:
        raise DatasetError(f"client {client_id} has no images")
    if settings.bank_scope == "global":
        groups = [(GLOBAL_BANK, table)]
    else:
        groups = [(str(category), rows) for category, rows in table.groupby("category", sort=True)]
    return [_coreset_of(bank, rows, store, client_id, settings, progress) for bank, rows in groups]


def _coreset_of(
    bank: str,
    table: pd.DataFrame,
    store: ArtifactStore,
    client_id: str,
    settings: CoresetSettings,
    progress: Callable[[int, int], None] | None,
) -> ClientCoreset:
    patches = read_patches(table, store)
    size = coreset_size(settings.ratio, len(patches), round_up=settings.round_up)
    rng = stage_rng(settings.seed, "coreset", client_id, bank, settings.round)
    selection = select_rows(patches, size, settings, rng=rng, progress=progress)
    rows = patches[selection.indices]
    sent = clip_rows(rows, settings.clip_norm) if settings.clip_norm is not None else rows
    if settings.noise_sigma > 0:
        sent = add_noise(
            sent, settings.noise_sigma, rng=stage_rng(settings.seed, "noise", client_id, bank, settings.round)
        )
    arrays = encode_rows(sent, settings.codec)
    changed = settings.codec != "float32" or sent is not rows
    error = float(np.linalg.norm(decode_rows(arrays) - rows, axis=1).max()) if changed else 0.0
    counts = (table.grid_height * table.grid_width).to_numpy()
    starts = np.concatenate([[0], np.cumsum(counts)])
    image = np.searchsorted(starts, selection.indices, side="right") - 1
    return ClientCoreset(
        bank=bank,
        arrays=arrays,
        dim=patches.shape[1],
        n_rows=len(rows),
        n_images=len(table),
        n_patches=len(patches),
        raw_image_bytes=int(table.image_bytes.sum()),
        covering_radius=float(selection.covering_radius),
        reconstruction_error=error,
        image_ids=[str(i) for i in table.image_id],
        patch_image=image.astype(np.int32),
        patch_index=(selection.indices - starts[image]).astype(np.int32),
    )

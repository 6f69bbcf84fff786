"""What one client does with its patches: select a coreset for each bank and prepare it for upload."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_contracts.errors import ConfigError, DatasetError
from data_contracts.manifests import GLOBAL_BANK, Manifest, UploadManifest
from data_contracts.settings import CoresetSettings, Reading
from pipeline_lib.client.stored_selection import StoredSelection
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.coreset.cell_means import Cells
from pipeline_lib.coreset.on_device import kcenter_selection
from pipeline_lib.coreset.selection import CoresetSelection, coreset_size
from pipeline_lib.coreset.shards import cells_by_shards, image_shards, select_by_shards
from pipeline_lib.coreset.subsampling import covering_radius, density_subsampling, random_subsampling
from pipeline_lib.upload.codec import add_noise, clip_rows, decode_rows, encode_rows
from pipeline_lib.upload.counts import with_counts
from pipeline_lib.when_needed import torch

Progress = Callable[[int, int], None]


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
    covering_radius: float  # largest distance of a local patch to the coreset (and to what was covered before)
    reconstruction_error: float
    image_ids: list[str]
    patch_image: np.ndarray  # (row,) index into image_ids; of a mean, the patch that was picked
    patch_index: np.ndarray  # (row,) patch of that image, row-major
    patch_counts: np.ndarray | None = None  # int64 (image,), with means alone
    cell: np.ndarray | None = None  # int32 (patch,): the row that the patch is in the mean of, or -1


def upload_manifest(
    written: Manifest, coreset: ClientCoreset, *, client_id: str, round_number: int, config_hash: str, reading: Reading
) -> UploadManifest:
    """What the server is told about an upload: `written` says where its arrays lie and their SHA-256."""
    return UploadManifest(
        **written.model_dump(),
        client_id=client_id,
        category=coreset.bank,
        round=round_number,
        config_hash=config_hash,
        dim=coreset.dim,
        n_images=coreset.n_images,
        n_patches=coreset.n_patches,
        raw_image_bytes=coreset.raw_image_bytes,
        covering_radius=coreset.covering_radius,
        reconstruction_error=coreset.reconstruction_error,
        reading=reading if coreset.bank == GLOBAL_BANK else reading.only([coreset.bank]),
    )


def round_size(total: int, round_number: int, num_rounds: int) -> int:
    """Rows that a client may send in one of `num_rounds` rounds, so that all of them add up to `total`.

    Even parts, the larger ones first: a run of several rounds sends no more than a run of one.
    """
    part, left_over = divmod(total, num_rounds)
    return part + (round_number <= left_over)


def select_rows(
    patches: np.ndarray,
    size: int,
    settings: CoresetSettings,
    *,
    rng: np.random.Generator,
    covered: np.ndarray | None = None,
    progress: Progress | None = None,
    scratch: Path | None = None,
    device: torch.device | None = None,
) -> CoresetSelection:
    """Select `size` of the patches (patch, dim) by the configured rule.

    `covered` (row, dim) are places that need no row any more; only k-center knows what to make of them. Raises
    ConfigError for another rule with `covered`.
    """
    if covered is not None and settings.subsampling != "kcenter":
        raise ConfigError(
            f"model.subsampling: {settings.subsampling} cannot select what is not covered yet; "
            "set it to kcenter, or federated.num_rounds to 1"
        )
    match settings.subsampling:
        case "kcenter":
            return kcenter_selection(
                patches, size, device=device, rng=rng, initial_centers=covered, progress=progress, scratch=scratch
            )
        case "random":
            return random_subsampling(patches, size, rng=rng)
        case "density":
            return density_subsampling(patches, size, rng=rng)


def clipped_and_noised(rows: np.ndarray, settings: CoresetSettings, *, rng: np.random.Generator) -> np.ndarray:
    """Rows (row, dim) as they leave the station, before the codec; the same array where nothing is asked for."""
    clipped = rows if settings.clip_norm is None else clip_rows(rows, settings.clip_norm)
    return add_noise(clipped, settings.noise_sigma, rng=rng) if settings.noise_sigma > 0 else clipped


def rows_by_bank(table: pd.DataFrame, client_id: str, settings: CoresetSettings) -> list[tuple[str, pd.DataFrame]]:
    """(bank, rows) of a client's PATCH_FEATURES for every bank that it contributes to, in order of name.

    Raises DatasetError when the table is empty.
    """
    if table.empty:
        raise DatasetError(f"client {client_id} has no images")
    if settings.bank_scope == "global":
        return [(GLOBAL_BANK, table)]
    return [(str(category), rows) for category, rows in table.groupby("category", sort=True)]


def coreset_of_patches(
    patches: np.ndarray,
    image_ids: Sequence[str],
    patch_counts: Sequence[int] | np.ndarray,
    settings: CoresetSettings,
    *,
    bank: str,
    client_id: str,
    raw_image_bytes: int,
    num_rounds: int = 1,
    sent: np.ndarray | None = None,
    covered: np.ndarray | None = None,
    stored: StoredSelection | None = None,
    progress: Progress | None = None,
    scratch: Path | None = None,
    device: torch.device | None = None,
) -> ClientCoreset | None:
    """What a client uploads for one bank, from its own patches: selected, averaged, clipped, noised and encoded.

    patches: (patch, dim), of all images in the order of `image_ids`, `patch_counts` of each. From the second round on,
    `sent` (row, dim) holds the client's own rows that were sent before and `covered` (row, dim) the server's bank; what
    is selected then is farthest from both, and None is returned when every patch lies on a covered place or the round's
    share is 0. `stored` is where the selection is kept, or was before. `scratch` is a directory for working arrays of
    more than 64 MiB.
    """
    before = [one.astype(np.float32, copy=False) for one in (sent, covered) if one is not None and len(one)]
    fixed = np.concatenate(before) if before else None
    total = coreset_size(settings.ratio, len(patches), round_up=settings.round_up)
    size = round_size(total, settings.round, num_rounds) if num_rounds > 1 else total
    if size == 0:
        return None
    shards = image_shards(patch_counts, size, settings.shard_patches)
    selection = stored.recall() if stored else None
    if selection is None:
        rng = stage_rng(settings.seed, "coreset", client_id, bank, settings.round)

        def select(own: np.ndarray, count: int, reached: Progress | None) -> CoresetSelection:
            return select_rows(
                own, count, settings, rng=rng, covered=fixed, progress=reached, scratch=scratch, device=device
            )

        selection = select_by_shards(patches, shards, size, select, progress=progress)
        if stored:
            stored.remember(selection)
    elif progress:
        progress(len(selection), len(selection))
    indices = selection.indices
    if fixed is not None:
        indices = indices[selection.pick_distances > 0]
    if len(indices) == 0:
        return None
    rows, radius = patches[indices].astype(np.float32), float(selection.covering_radius)
    cells: Cells | None = None
    if settings.rows == "cell_means":
        cells = cells_by_shards(patches, shards, indices, fixed=fixed, steps=settings.lloyd_steps)
        rows, radius = cells.means, cells.covering_radius
        if covered is not None and len(covered):  # the server's rows are none that clients sent, and move on
            radius = covering_radius(patches, rows if sent is None else np.concatenate([sent, rows]))
    disturbed = clipped_and_noised(
        rows, settings, rng=stage_rng(settings.seed, "noise", client_id, bank, settings.round)
    )
    arrays = encode_rows(disturbed, settings.codec)
    changed = settings.codec != "float32" or disturbed is not rows
    error = float(np.linalg.norm(decode_rows(arrays) - rows, axis=1).max()) if changed else 0.0
    starts = np.concatenate([[0], np.cumsum(patch_counts)])
    image = np.searchsorted(starts, indices, side="right") - 1
    return ClientCoreset(
        bank=bank,
        arrays=arrays if cells is None else with_counts(arrays, cells.counts),
        dim=patches.shape[1],
        n_rows=len(rows),
        n_images=len(image_ids),
        n_patches=len(patches),
        raw_image_bytes=raw_image_bytes,
        covering_radius=radius,
        reconstruction_error=error,
        image_ids=list(image_ids),
        patch_image=image.astype(np.int32),
        patch_index=(indices - starts[image]).astype(np.int32),
        patch_counts=None if cells is None else np.asarray(patch_counts, np.int64),
        cell=None if cells is None else cells.cell,
    )

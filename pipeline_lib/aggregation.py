"""The server's side: check what clients send, and merge it into a memory bank.

Nothing here reads an image or a client's patch features; uploads are all that the server sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_contracts.errors import UploadError
from data_contracts.manifests import UploadManifest
from data_contracts.stages import AggregationSettings
from pipeline_lib.coreset import greedy_coreset_selection
from pipeline_lib.seeding import stage_rng
from pipeline_lib.upload_codec import decode_rows

MAX_UPLOAD_ROWS = 20_000_000


@dataclass(frozen=True)
class Upload:
    """One client's rows for one bank, decoded and checked."""

    client_id: str
    rows: np.ndarray  # float32 (row, dim)
    n_images: int
    n_patches: int


@dataclass(frozen=True)
class MergedBank:
    """A memory bank: rows, and which client each came from (an index into `client_ids`). No image identity."""

    rows: np.ndarray  # float32 (row, dim)
    client_ids: list[str]
    row_client: np.ndarray  # int32 (row,)


def check_upload(
    manifest: UploadManifest, arrays: Mapping[str, np.ndarray], *, dim: int | None, config_hash: str, round_number: int
) -> Upload:
    """Decode an upload and refuse what cannot be right.

    Raises UploadError, naming the client and the reason: another configuration or round, an unknown encoding, a wrong
    dimension, an empty or oversized upload, values that are not finite, more rows than patches.
    """

    def refuse(reason: str) -> UploadError:
        return UploadError(f"upload of client {manifest.client_id} for {manifest.category} refused: {reason}")

    if manifest.config_hash != config_hash:
        raise refuse(f"it was made with configuration {manifest.config_hash}, this run has {config_hash}")
    if manifest.round != round_number:
        raise refuse(f"it belongs to round {manifest.round}, this is round {round_number}")
    try:
        rows = decode_rows(arrays)
    except (UploadError, IndexError, ValueError) as error:
        raise refuse(str(error)) from error
    if rows.ndim != 2 or len(rows) == 0:
        raise refuse("it is empty" if rows.size == 0 else f"rows have shape {rows.shape}, expected (row, dim)")
    if len(rows) > MAX_UPLOAD_ROWS:
        raise refuse(f"it has {len(rows)} rows, at most {MAX_UPLOAD_ROWS} are accepted")
    if len(rows) > manifest.n_patches:
        raise refuse(f"it has {len(rows)} rows, but the client names only {manifest.n_patches} patches")
    if len(rows) != manifest.rows:
        raise refuse(f"it has {len(rows)} rows, its manifest says {manifest.rows}")
    if rows.shape[1] != (dim or manifest.dim):
        raise refuse(f"its rows have {rows.shape[1]} dimensions, expected {dim or manifest.dim}")
    if not np.isfinite(rows).all():
        raise refuse("it contains values that are not finite (NaN or infinity)")
    return Upload(manifest.client_id, rows, manifest.n_images, manifest.n_patches)


def client_quotas(uploads: Sequence[Upload], target: int, *, weight_by_samples: bool) -> np.ndarray:
    """Rows of the bank for each client, (client,), summing to `target` where the uploads have that many.

    In proportion to the clients' images, or equal; a client that sent fewer rows than its share leaves the rest to
    the others. Rounded by largest remainder.
    """
    available = np.array([len(upload.rows) for upload in uploads])
    weights = np.array([upload.n_images if weight_by_samples else 1 for upload in uploads], dtype=np.float64)
    quotas = np.zeros(len(uploads), dtype=np.int64)
    while (left := min(target, int(available.sum())) - int(quotas.sum())) > 0:
        open_weights = np.where(quotas < available, weights, 0.0)
        if open_weights.sum() == 0:
            open_weights = (quotas < available).astype(np.float64)
        share = open_weights / open_weights.sum() * left
        extra = np.floor(share).astype(np.int64)
        remainder_order = np.lexsort((np.arange(len(share)), -(share - extra)))
        extra[remainder_order[: left - int(extra.sum())]] += 1
        quotas = np.minimum(quotas + extra, available)
    return quotas


def aggregate_uploads(uploads: Sequence[Upload], settings: AggregationSettings, *, bank: str) -> MergedBank:
    """Merge the uploads of one bank, in the order of client ids. Rows of an upload are in the order of selection.

    federated_coreset: farthest-first over all uploaded rows, at most its quota from each client;
    diversity_preserving: farthest-first without quotas; simple_concatenate: all rows, a uniform draw where that is
    more than the bank may hold. Where there are no more rows than wanted, all are kept.
    Raises UploadError when there is no upload or dimensions differ.
    """
    if not uploads:
        raise UploadError(f"there is no upload for the bank {bank}")
    uploads = sorted(uploads, key=lambda upload: upload.client_id)
    if len({upload.rows.shape[1] for upload in uploads}) > 1:
        dims = ", ".join(f"{upload.client_id}: {upload.rows.shape[1]}" for upload in uploads)
        raise UploadError(f"the uploads for the bank {bank} have different dimensions ({dims})")
    rows = np.concatenate([upload.rows for upload in uploads])
    row_client = np.repeat(np.arange(len(uploads), dtype=np.int32), [len(upload.rows) for upload in uploads])
    target = settings.target_rows
    if target is None and settings.strategy != "simple_concatenate":
        n_patches = sum(upload.n_patches for upload in uploads)
        target = min(n_patches, max(1, round(settings.coreset_percentage * n_patches)))
    if target is not None and len(rows) > target:
        rng = stage_rng(settings.seed, "aggregate", bank)
        match settings.strategy:
            case "simple_concatenate":
                kept = np.sort(rng.choice(len(rows), target, replace=False))
            case "diversity_preserving":
                kept = greedy_coreset_selection(rows, target, rng=rng).indices
            case "federated_coreset" if len(rows) - target <= len(uploads):  # rounding: the last picks matter least
                quotas = client_quotas(uploads, target, weight_by_samples=settings.weight_by_samples)
                starts = np.cumsum([0] + [len(upload.rows) for upload in uploads[:-1]])
                kept = np.concatenate([start + np.arange(q) for start, q in zip(starts, quotas, strict=True)])
            case "federated_coreset":
                quotas = client_quotas(uploads, target, weight_by_samples=settings.weight_by_samples)
                kept = greedy_coreset_selection(
                    rows,
                    target,
                    rng=rng,
                    groups=row_client,
                    group_quotas={client: int(quota) for client, quota in enumerate(quotas)},
                ).indices
        rows, row_client = rows[kept], row_client[kept]
    return MergedBank(rows, [upload.client_id for upload in uploads], row_client)

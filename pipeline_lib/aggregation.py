"""The server's side: check what clients send, and merge it into a memory bank.

Nothing here reads an image or a client's patch features; uploads are all that the server sees.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_contracts.errors import UploadError
from data_contracts.manifests import UploadManifest
from data_contracts.stages import AggregationSettings
from pipeline_lib.coreset import greedy_coreset_selection
from pipeline_lib.extensions import checked_indices, load_extension
from pipeline_lib.seeding import stage_rng
from pipeline_lib.upload_codec import decode_rows, encoded_rows

MAX_UPLOAD_ROWS = 20_000_000
logger = logging.getLogger(__name__)


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

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As a bank is stored (DESIGN artifact 5)."""
        return {
            "features": self.rows,
            "client_ids": np.array(self.client_ids, dtype=np.str_),
            "row_client": self.row_client,
        }


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
    n_rows = encoded_rows(arrays)  # an oversized upload is refused before it is decoded
    if n_rows > MAX_UPLOAD_ROWS:
        raise refuse(f"it has {n_rows} rows, at most {MAX_UPLOAD_ROWS} are accepted")
    if n_rows > manifest.n_patches:
        raise refuse(f"it has {n_rows} rows, but the client names only {manifest.n_patches} patches")
    try:
        rows = decode_rows(arrays)
    except UploadError as error:
        raise refuse(str(error)) from error
    if rows.size == 0:
        raise refuse("it is empty")
    if len(rows) != manifest.rows:
        raise refuse(f"it has {len(rows)} rows, its manifest says {manifest.rows}")
    if rows.shape[1] != (dim or manifest.dim):
        raise refuse(f"its rows have {rows.shape[1]} dimensions, expected {dim or manifest.dim}")
    if not np.isfinite(rows).all():
        raise refuse("it contains values that are not finite (NaN or infinity)")
    return Upload(manifest.client_id, rows, manifest.n_images, manifest.n_patches)


def accept_uploads(
    received: Iterable[tuple[UploadManifest, Mapping[str, np.ndarray]]],
    *,
    dim: int | None,
    config_hash: str,
    round_number: int,
) -> tuple[list[Upload], dict[str, str]]:
    """`check_upload` for the uploads of one bank: (those that pass, client id -> why it was refused).

    A refusal is logged as a warning and the others go on. Without `dim` the one that most clients name counts, so that
    a single wrong upload cannot shut out the rest.
    """
    received = list(received)
    if dim is None and received:
        counts = Counter(manifest.dim for manifest, _ in received)
        dim = min(counts, key=lambda value: (-counts[value], value))
    accepted: list[Upload] = []
    refused: dict[str, str] = {}
    for manifest, arrays in received:
        try:
            accepted.append(check_upload(manifest, arrays, dim=dim, config_hash=config_hash, round_number=round_number))
        except UploadError as error:
            refused[manifest.client_id] = str(error)
            logger.warning("%s; going on with the others", error)
    return accepted, refused


def join_rounds(uploads: Sequence[Upload]) -> Upload:
    """What one client sent over several rounds, as one upload with its rows in the order of sending."""
    return replace(uploads[-1], rows=np.concatenate([upload.rows for upload in uploads]))


def client_quotas(uploads: Sequence[Upload], target: int, *, weight_by_samples: bool) -> np.ndarray:
    """Rows of the bank for each client, (client,), summing to `target` where the uploads have that many.

    In proportion to the clients' images, or equal. A client that sent fewer rows than its share gives all of them and
    leaves the rest to the others, in their proportions. Rounded once, by largest remainder.
    """
    available = np.array([len(upload.rows) for upload in uploads])
    weights = np.array([upload.n_images if weight_by_samples else 1 for upload in uploads], dtype=np.float64)
    quotas = np.zeros(len(uploads), dtype=np.int64)
    is_open = available > 0
    while (left := target - int(quotas.sum())) > 0 and is_open.any():
        open_weights = np.where(is_open, weights, 0.0)
        if open_weights.sum() == 0:
            open_weights = is_open.astype(np.float64)
        share = open_weights / open_weights.sum() * left
        filled = is_open & (share >= available)
        if not filled.any():
            quotas += np.floor(share).astype(np.int64)
            remainders = np.where(open_weights > 0, share - np.floor(share), -1.0)
            order = np.argsort(-remainders, kind="stable")
            quotas[order[: target - int(quotas.sum())]] += 1
            break
        quotas[filled] = available[filled]
        is_open &= ~filled
    return quotas


def bank_size(settings: AggregationSettings, n_patches: int) -> int:
    """Rows of a bank for clients with so many patches: as configured, or as many as the centralized baseline keeps."""
    if settings.target_rows is not None:
        return settings.target_rows
    return min(n_patches, max(1, round(settings.coreset_percentage * n_patches)))


def aggregate_uploads(uploads: Sequence[Upload], settings: AggregationSettings, *, bank: str) -> MergedBank:
    """Merge the uploads of one bank, in the order of client ids. Rows of an upload are in the order of selection.

    federated_coreset: farthest-first over all uploaded rows, at most its quota from each client;
    diversity_preserving: farthest-first without quotas; simple_concatenate: all rows, a uniform draw where that is
    more than the bank may hold; `module:function`: the rows that it names (`pipeline_lib.extensions`).
    Where there are no more rows than wanted, all are kept.
    Raises UploadError when there is no upload, a client has two (see `join_rounds`), or dimensions differ.
    """
    if not uploads:
        raise UploadError(f"there is no upload for the bank {bank}")
    uploads = sorted(uploads, key=lambda upload: upload.client_id)
    counts = Counter(upload.client_id for upload in uploads)
    if twice := sorted(client for client, count in counts.items() if count > 1):
        raise UploadError(f"the bank {bank} got more than one upload of {', '.join(twice)}; join or drop them first")
    if len({upload.rows.shape[1] for upload in uploads}) > 1:
        dims = ", ".join(f"{upload.client_id}: {upload.rows.shape[1]}" for upload in uploads)
        raise UploadError(f"the uploads for the bank {bank} have different dimensions ({dims})")
    rows = np.concatenate([upload.rows for upload in uploads])
    row_client = np.repeat(np.arange(len(uploads), dtype=np.int32), [len(upload.rows) for upload in uploads])
    target = settings.target_rows
    if settings.strategy != "simple_concatenate":
        target = bank_size(settings, sum(upload.n_patches for upload in uploads))
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
            case name:
                select = load_extension(name, "aggregation_strategy", key="aggregation.strategy")
                kept = checked_indices(name, select(rows, row_client, target, rng=rng), len(rows), target)
        rows, row_client = rows[kept], row_client[kept]
    return MergedBank(rows, [upload.client_id for upload in uploads], row_client)

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
from data_contracts.settings import AggregationSettings
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.selection import coreset_size
from pipeline_lib.coreset.subsampling import covering_radius
from pipeline_lib.extensions import checked_indices, load_extension
from pipeline_lib.upload.codec import decode_rows, encoded_rows

MAX_UPLOAD_ROWS = 20_000_000
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """One client's rows for one bank, decoded and checked."""

    client_id: str
    rows: np.ndarray  # float32 (row, dim)
    n_images: int
    n_patches: int
    covering_radius: float = 0.0  # as the client says: the largest distance of a patch of its own to these rows
    reconstruction_error: float = 0.0  # and the largest of a row to the one that it stands for

    @property
    def radius(self) -> float:
        """No patch of the client lies further than this from the rows as they came."""
        return self.covering_radius + self.reconstruction_error


@dataclass(frozen=True)
class MergedBank:
    """A memory bank: rows, and which client each came from (an index into `client_ids`). No image identity."""

    rows: np.ndarray  # float32 (row, dim)
    client_ids: list[str]
    row_client: np.ndarray  # int32 (row,)
    covering_radius: float | None = None  # largest distance of an uploaded row; None where no k-center selected

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
    return Upload(
        manifest.client_id,
        rows,
        manifest.n_images,
        manifest.n_patches,
        manifest.covering_radius,
        manifest.reconstruction_error,
    )


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
    if dim is None:
        dim = common_dim(manifest for manifest, _ in received)
    accepted: list[Upload] = []
    refused: dict[str, str] = {}
    for manifest, arrays in received:
        try:
            accepted.append(check_upload(manifest, arrays, dim=dim, config_hash=config_hash, round_number=round_number))
        except UploadError as error:
            refused[manifest.client_id] = str(error)
            logger.warning("%s; going on with the others", error)
    return accepted, refused


def common_dim(manifests: Iterable[UploadManifest]) -> int | None:
    """The dimensions that most clients name, the smaller of equals; None without any client."""
    counts = Counter(manifest.dim for manifest in manifests)
    return min(counts, key=lambda value: (-counts[value], value), default=None)


def join_rounds(uploads: Sequence[Upload]) -> Upload:
    """What one client sent over several rounds, as one upload with its rows in the order of sending."""
    return replace(
        uploads[-1],
        rows=np.concatenate([upload.rows for upload in uploads]),
        reconstruction_error=max(upload.reconstruction_error for upload in uploads),
    )


def client_quotas(sent: Sequence[int], weights: Sequence[float], target: int) -> np.ndarray:
    """Rows of the bank for each client, int64 (client,), summing to `target` where they `sent` that many.

    In proportion to their weights, such as their images. A client that sent fewer rows than its share gives all of
    them and leaves the rest to the others, in their proportions. Rounded once, by largest remainder.
    """
    available = np.array(sent)
    wanted = np.array(weights, dtype=np.float64)
    quotas = np.zeros(len(available), dtype=np.int64)
    is_open = available > 0
    while (left := target - int(quotas.sum())) > 0 and is_open.any():
        open_weights = np.where(is_open, wanted, 0.0)
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
    return coreset_size(settings.coreset_percentage, n_patches)


def aggregate_uploads(uploads: Sequence[Upload], settings: AggregationSettings, *, bank: str) -> MergedBank:
    """Merge the uploads of one bank, in the order of client ids. Rows of an upload are in the order of selection.

    federated_coreset: farthest-first over all uploaded rows, at most its quota from each client;
    diversity_preserving: farthest-first without quotas; simple_concatenate: all rows, a uniform draw where that is
    more than the bank may hold; `module:function`: the rows that it names (`pipeline_lib.extensions`).
    Where there are no more rows than wanted, all are kept. All are merged at once, whatever `settings.regions` says.
    Raises UploadError when there is no upload, a client has two (see `join_rounds`), or dimensions differ.
    """
    uploads = sorted(uploads, key=lambda upload: upload.client_id)
    names = [upload.client_id for upload in uploads]
    refuse_what_cannot_be_merged([(upload.client_id, upload.rows.shape[1]) for upload in uploads], bank=bank)
    rows = np.concatenate([upload.rows for upload in uploads])
    row_client = np.repeat(np.arange(len(uploads), dtype=np.int32), [len(upload.rows) for upload in uploads])
    target = settings.target_rows
    if settings.strategy != "simple_concatenate":
        target = bank_size(settings, sum(upload.n_patches for upload in uploads))
    if target is None:
        return MergedBank(rows, names, row_client)
    rng = stage_rng(settings.seed, "aggregate", bank)
    kept, radius = select_rows(rows, row_client, [upload.n_images for upload in uploads], target, settings, rng=rng)
    return MergedBank(rows[kept], names, row_client[kept], radius)


def refuse_what_cannot_be_merged(dims: Sequence[tuple[str, int]], *, bank: str) -> None:
    """Raise UploadError unless there is one upload a client, all of one dimension; `dims`: (client id, dimensions)."""
    if not dims:
        raise UploadError(f"there is no upload for the bank {bank}")
    counts = Counter(client for client, _ in dims)
    if twice := sorted(client for client, count in counts.items() if count > 1):
        raise UploadError(f"the bank {bank} got more than one upload of {', '.join(twice)}; join or drop them first")
    if len({dim for _, dim in dims}) > 1:
        listed = ", ".join(f"{client}: {dim}" for client, dim in dims)
        raise UploadError(f"the uploads for the bank {bank} have different dimensions ({listed})")


def select_rows(
    rows: np.ndarray,
    row_client: np.ndarray,
    n_images: Sequence[int],
    target: int,
    settings: AggregationSettings,
    *,
    rng: np.random.Generator,
) -> tuple[np.ndarray | slice, float | None]:
    """(which of the rows (row, dim) are kept, largest distance of a row to those): `target`, or all that there are.

    Rows are in order of their client, a number for each row (row,), and each client's in the order of selection;
    `n_images`: of each client. The distance is None where no k-center selected.
    """
    if len(rows) <= target:
        return slice(None), 0.0
    sent = np.bincount(row_client, minlength=len(n_images))
    weights = [n if settings.weight_by_samples else 1 for n in n_images]
    match settings.strategy:
        case "simple_concatenate":
            return np.sort(rng.choice(len(rows), target, replace=False)), None
        case "diversity_preserving":
            selection = greedy_coreset_selection(rows, target, rng=rng)
        case "federated_coreset" if len(rows) - target <= len(sent):  # rounding: the last picks matter least
            quotas = client_quotas(sent.tolist(), weights, target)
            is_kept = np.arange(len(rows)) - (np.cumsum(sent) - sent)[row_client] < quotas[row_client]
            return np.flatnonzero(is_kept), covering_radius(rows[~is_kept], rows[is_kept])
        case "federated_coreset":
            shares = dict(enumerate(client_quotas(sent.tolist(), weights, target).tolist()))
            selection = greedy_coreset_selection(rows, target, rng=rng, groups=row_client, group_quotas=shares)
        case name:
            select = load_extension(name, "aggregation_strategy", key="aggregation.strategy")
            return checked_indices(name, select(rows, row_client, target, rng=rng), len(rows), target), None
    return selection.indices, selection.covering_radius

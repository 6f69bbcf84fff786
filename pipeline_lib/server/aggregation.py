"""The server's merge: accepted uploads of all clients become a memory bank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_contracts.errors import UploadError
from data_contracts.settings import AggregationSettings
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.moved_rows import MovedRows, keep_rows
from pipeline_lib.coreset.subsampling import covering_radius
from pipeline_lib.extensions import checked_indices, load_extension
from pipeline_lib.server.quotas import bank_size, client_quotas
from pipeline_lib.upload.acceptance import Upload


@dataclass(frozen=True)
class MergedBank:
    """A memory bank: rows, and which client each came from (an index into `client_ids`). No image identity.

    Where rows are means, the client is that of the row that was kept; `moved` counts uploaded rows client after client
    in the order of `client_ids`, each client's in the order of sending, from `upload_starts` on.
    """

    rows: np.ndarray  # float32 (row, dim)
    client_ids: list[str]
    row_client: np.ndarray  # int32 (row,)
    covering_radius: float | None = None  # largest distance of an uploaded row; None where none was measured
    moved: MovedRows | None = None  # of rows that are means
    upload_starts: np.ndarray | None = None  # int64 (client + 1,), with `moved`

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As a bank is stored (DESIGN artifact 5)."""
        arrays = {
            "features": self.rows,
            "client_ids": np.array(self.client_ids, dtype=np.str_),
            "row_client": self.row_client,
        }
        if self.moved is not None and self.upload_starts is not None:
            arrays |= {**self.moved.to_arrays(), "upload_starts": self.upload_starts}
        return arrays


def aggregate_uploads(uploads: Sequence[Upload], settings: AggregationSettings, *, bank: str) -> MergedBank:
    """Merge the uploads of one bank, in the order of client ids. Rows of an upload are in the order of selection.

    federated_coreset: farthest-first over all uploaded rows, at most its quota from each client;
    diversity_preserving: farthest-first without quotas; simple_concatenate: all rows, a uniform draw where that is
    more than the bank may hold; `module:function`: the rows that it names (`pipeline_lib.extensions`).
    Where there are no more rows than wanted, all are kept as they are. Where fewer are kept and rows are means, those
    kept are moved, whatever the strategy (`cell_means.move_rows`). All are merged at once, whatever `settings.regions`
    says. Raises UploadError when there is no upload, a client has two (see `join_rounds`), dimensions differ, or some
    have counts and others none.
    """
    uploads = sorted(uploads, key=lambda upload: upload.client_id)
    names = [upload.client_id for upload in uploads]
    refuse_what_cannot_be_merged([(upload.client_id, upload.rows.shape[1]) for upload in uploads], bank=bank)
    rows = np.concatenate([upload.rows for upload in uploads])
    row_client = np.repeat(np.arange(len(uploads), dtype=np.int32), [len(upload.rows) for upload in uploads])
    moved = moved_uploads(uploads, bank=bank)
    starts = None if moved is None else np.searchsorted(row_client, np.arange(len(uploads) + 1)).astype(np.int64)
    target = settings.target_rows
    if settings.strategy != "simple_concatenate":
        target = bank_size(settings, sum(upload.n_patches for upload in uploads))
    if target is None:
        return MergedBank(rows, names, row_client, None, moved, starts)
    rng = stage_rng(settings.seed, "aggregate", bank)
    n_images = [upload.n_images for upload in uploads]
    kept, radius = select_rows(rows, row_client, n_images, target, settings, rng=rng)
    rows, moved, radius = keep_rows(rows, kept, radius, moved)
    return MergedBank(rows, names, row_client[kept], radius, moved, starts)


def moved_uploads(uploads: Sequence[Upload], *, bank: str) -> MovedRows | None:
    """The uploads' rows, one upload after the other, before any was moved; None where they carry no counts.

    Raises UploadError where some do and others do not.
    """
    counts = [upload.counts for upload in uploads if upload.counts is not None]
    if 0 < len(counts) < len(uploads):
        without = ", ".join(upload.client_id for upload in uploads if upload.counts is None)
        raise UploadError(f"the uploads of {without} for the bank {bank} carry no counts, others do; drop either")
    return MovedRows.of(np.concatenate(counts)) if counts else None


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

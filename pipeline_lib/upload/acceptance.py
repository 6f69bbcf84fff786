"""What the server takes: an upload is checked against its manifest, or refused with the reason.

Nothing here reads an image or a client's patch features; uploads are all that the server sees.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_contracts.errors import UploadError
from data_contracts.manifests import GLOBAL_BANK, UploadManifest
from data_contracts.settings import ImageReading
from pipeline_lib.upload.codec import decode_rows, encoded_rows
from pipeline_lib.upload.counts import checked_counts, split_counts

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
    counts: np.ndarray | None = None  # int64 (row,): patches that each row is the mean of; None: rows are patches

    @property
    def radius(self) -> float:
        """No patch of the client lies further than this from the rows as they came."""
        return self.covering_radius + self.reconstruction_error


def check_upload(
    manifest: UploadManifest,
    arrays: Mapping[str, np.ndarray],
    *,
    dim: int | None,
    config_hash: str,
    round_number: int,
    with_counts: bool | None = None,
) -> Upload:
    """Decode an upload and refuse what cannot be right.

    `with_counts`: whether rows are means, which come with their counts; None: as it says itself. Raises UploadError,
    naming the client and the reason: another configuration or round, an unknown encoding, a wrong dimension, an empty
    or oversized upload, values that are not finite, more rows than patches, counts that cannot be such.
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
    encoded, counts = split_counts(arrays)
    try:
        rows = decode_rows(encoded)
        if counts is not None:
            counts = checked_counts(counts, n_rows=n_rows, n_patches=manifest.n_patches)
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
    if with_counts not in (None, counts is not None):
        there = "has no counts" if with_counts else "has counts"
        raise refuse(f"it {there}, which uploads have with model.rows: cell_means alone; give all the same")
    return Upload(
        manifest.client_id,
        rows,
        manifest.n_images,
        manifest.n_patches,
        manifest.covering_radius,
        manifest.reconstruction_error,
        counts,
    )


def accept_uploads(
    received: Iterable[tuple[UploadManifest, Mapping[str, np.ndarray]]],
    *,
    dim: int | None,
    config_hash: str,
    round_number: int,
    with_counts: bool | None = None,
) -> tuple[list[Upload], dict[str, str]]:
    """`check_upload` for the uploads of one bank: (those that pass, client id -> why it was refused).

    A refusal is logged as a warning and the others go on. Without `dim` the one that most clients name counts, so that
    a single wrong upload cannot shut out the rest.
    """
    received = list(received)
    if dim is None:
        dim = common_dim(manifest for manifest, _ in received)
    accepted: list[Upload] = []
    refused = refuse_other_readings(manifest for manifest, _ in received)
    for reason in refused.values():
        logger.warning("%s; going on with the others", reason)
    for manifest, arrays in received:
        if manifest.client_id in refused:
            continue
        try:
            accepted.append(
                check_upload(
                    manifest,
                    arrays,
                    dim=dim,
                    config_hash=config_hash,
                    round_number=round_number,
                    with_counts=with_counts,
                )
            )
        except UploadError as error:
            refused[manifest.client_id] = str(error)
            logger.warning("%s; going on with the others", error)
    return accepted, refused


def refuse_other_readings(manifests: Iterable[UploadManifest]) -> dict[str, str]:
    """client id -> why its upload for a bank is refused: its images became pixels by another rule than most clients'.

    What was read by another rule has other features. Of rules that are as frequent that with the higher range counts.
    """
    manifests = list(manifests)
    categories = {category for manifest in manifests for category in manifest.reading.value_ranges}
    refused: dict[str, str] = {}
    for category in sorted(categories | {manifest.category for manifest in manifests} - {GLOBAL_BANK}):
        concerned = [
            one
            for one in manifests
            if one.category == category or category in one.reading.value_ranges or not one.reading.value_ranges
        ]
        rules = {one.client_id: one.reading.of(category) for one in concerned}
        counts = Counter(rules.values())
        common = max(counts, key=lambda rule: (counts[rule], rule.value_range or 0, rule.orientation))
        others = ", ".join(client for client, rule in rules.items() if rule == common)
        for client, rule in rules.items():
            if rule != common:
                refused[client] = (
                    f"upload of client {client} for {category} refused: its images were read with {_told(rule)}, those "
                    f"of {others} with {_told(common)}; give preprocessing.value_range one number for all"
                )
    return refused


def _told(rule: ImageReading) -> str:
    value_range = "the range of their files' type (container)" if rule.value_range is None else rule.value_range
    return f"value range {value_range} and orientation {rule.orientation}"


def common_dim(manifests: Iterable[UploadManifest]) -> int | None:
    """The dimensions that most clients name, the smaller of equals; None without any client."""
    counts = Counter(manifest.dim for manifest in manifests)
    return min(counts, key=lambda value: (-counts[value], value), default=None)


def join_rounds(uploads: Sequence[Upload]) -> Upload:
    """What one client sent over several rounds, as one upload with its rows in the order of sending."""
    counts = [upload.counts for upload in uploads if upload.counts is not None]
    return replace(
        uploads[-1],
        rows=np.concatenate([upload.rows for upload in uploads]),
        counts=np.concatenate(counts) if len(counts) == len(uploads) else None,
        reconstruction_error=max(upload.reconstruction_error for upload in uploads),
    )

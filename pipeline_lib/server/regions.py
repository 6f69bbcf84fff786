"""The server's merge in two levels: a region's uploads are read and reduced before the next region's are read.

A region keeps REGION_OVERSAMPLING times its clients' share of the bank, at least a row, chosen as the server chooses
(`aggregation.select_rows`), and the server merges what the regions kept. So the bank is as large as without regions,
and the same wherever all clients together send no more than REGION_OVERSAMPLING times the bank. Held at a time are one
region's uploads and REGION_OVERSAMPLING times the bank. `coreset.composition` has the bound on the radius.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_contracts.errors import ConfigError, UploadError
from data_contracts.manifests import RegionalMerge, UploadManifest
from data_contracts.settings import AggregationSettings
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.coreset.composition import Kept, ReducedRegions, StationRows, reduce_regions
from pipeline_lib.coreset.moved_rows import keep_rows
from pipeline_lib.server.aggregation import MergedBank, aggregate_uploads, refuse_what_cannot_be_merged, select_rows
from pipeline_lib.server.quotas import bank_size, client_quotas
from pipeline_lib.upload.acceptance import Upload, check_upload, join_rounds

REGION_OVERSAMPLING = 2


@dataclass(frozen=True)
class PendingUpload:
    """What is known of a client's upload before its rows are read."""

    client_id: str
    n_rows: int
    n_images: int
    n_patches: int
    dim: int
    read: Callable[[], Upload]

    @classmethod
    def of(cls, upload: Upload) -> PendingUpload:
        """One that is in memory already."""
        n_rows, dim = upload.rows.shape
        return cls(upload.client_id, n_rows, upload.n_images, upload.n_patches, dim, lambda: upload)


def pending_uploads(
    manifests: Sequence[UploadManifest],
    read_arrays: Callable[[UploadManifest], Mapping[str, np.ndarray]],
    *,
    config_hash: str,
    round_number: int,
) -> list[PendingUpload]:
    """Each client's uploads for one bank, of all rounds up to `round_number`, as one; checked when they are read.

    Raises UploadError for two uploads of one client and round; reading raises it as `aggregation.check_upload`.
    """
    by_client: dict[str, list[UploadManifest]] = {}
    for manifest in sorted(manifests, key=lambda one: (one.client_id, one.round)):
        by_client.setdefault(manifest.client_id, []).append(manifest)
    dim = manifests[0].dim if manifests else 0

    def pending(sent: list[UploadManifest]) -> PendingUpload:
        def read() -> Upload:
            return join_rounds(
                [
                    check_upload(
                        one,
                        read_arrays(one),
                        dim=dim,
                        config_hash=config_hash,
                        round_number=min(one.round, round_number),
                    )
                    for one in sent
                ]
            )

        last = sent[-1]
        n_rows = sum(one.rows for one in sent)
        return PendingUpload(last.client_id, n_rows, last.n_images, last.n_patches, dim, read)

    for client, sent in by_client.items():
        if len({one.round for one in sent}) < len(sent):
            raise UploadError(f"client {client} has more than one upload of a round for {sent[0].category}; drop one")
    return [pending(sent) for sent in by_client.values()]


def aggregate_pending(
    uploads: Sequence[PendingUpload], settings: AggregationSettings, *, bank: str
) -> tuple[MergedBank, RegionalMerge | None]:
    """The bank of one category, or of all; merged in two levels where `settings.regions` says so.

    Raises UploadError as `aggregation.aggregate_uploads`, ConfigError for a client without a region.
    """
    if settings.regions is None:
        return aggregate_uploads([upload.read() for upload in uploads], settings, bank=bank), None
    refuse_what_cannot_be_merged([(upload.client_id, upload.dim) for upload in uploads], bank=bank)
    by_name = {upload.client_id: upload for upload in sorted(uploads, key=lambda upload: upload.client_id)}
    regions = [[by_name[name] for name in region] for region in region_members(by_name, settings.regions)]
    target = bank_size(settings, sum(upload.n_patches for upload in uploads))
    reduced = _reduce(regions, target, settings, bank=bank)
    rank = {name: number for number, name in enumerate(by_name)}
    row_client = np.array([rank[one.client_id] for own in regions for one in own], np.int32)[reduced.row_station]
    rows, moved, copied = reduced.rows, reduced.moved, 0
    if (row_client[1:] < row_client[:-1]).any():  # regions that are not consecutive in order of name
        order = np.argsort(row_client, kind="stable")
        rows, row_client, copied = rows[order], row_client[order], len(rows)
        moved = None if moved is None else moved.with_rows_in(order)
    n_images = [upload.n_images for upload in by_name.values()]
    rng = stage_rng(settings.seed, "aggregate", bank)
    kept, radius = _select(rows, row_client, n_images, target, settings, rng)
    bank_rows, moved, measured = keep_rows(rows, kept, radius, moved)
    server_radius = measured or 0.0
    starts = None
    if moved is not None:
        n_sent = np.array([one.n_rows for own in regions for one in own])
        sender = np.repeat([rank[one.client_id] for own in regions for one in own], n_sent)
        moved = moved.with_uploads_in(np.argsort(sender, kind="stable"))
        starts = np.searchsorted(np.sort(sender), np.arange(len(by_name) + 1)).astype(np.int64)
    merged = MergedBank(bank_rows, list(by_name), row_client[kept], server_radius, moved, starts)
    return merged, RegionalMerge(
        regions=reduced.regions,
        rows_sent=reduced.rows_sent,
        rows_of_regions=len(rows),
        peak_rows=max(reduced.peak_rows, len(rows) + copied + len(merged.rows)),
        client_radius=reduced.station_radius,
        region_radius=reduced.region_radius,
        server_radius=server_radius,
        radius_bound=reduced.station_radius + reduced.region_radius + server_radius,
    )


def _reduce(
    regions: Sequence[Sequence[PendingUpload]], target: int, settings: AggregationSettings, *, bank: str
) -> ReducedRegions:
    """What each region keeps for a bank of `target` rows, in order of its clients."""
    members = [upload for region in regions for upload in region]
    starts = np.cumsum([0, *map(len, regions)])
    n_images = [upload.n_images for upload in members]
    weights = [n if settings.weight_by_samples else 1 for n in n_images]
    allowed = client_quotas([upload.n_rows for upload in members], weights, REGION_OVERSAMPLING * target)

    def reduce(number: int, rows: np.ndarray, row_client: np.ndarray) -> tuple[Kept, float]:
        own = slice(starts[number], starts[number + 1])
        rng = stage_rng(settings.seed, "aggregate", bank, "region", number)
        client = row_client - starts[number]
        share = max(1, int(allowed[own].sum()))  # 0 only where there are more regions than rows wanted
        kept, radius = _select(rows, client, n_images[own], share, settings, rng)
        return (kept if isinstance(kept, slice) else _by_client(kept, client)), radius

    return reduce_regions((_read(region) for region in regions), reduce)


def region_members(clients: Iterable[str], regions: int | Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The clients of each region, in order of their names; regions without any are left out.

    regions: clients a region, or region -> its clients. Raises ConfigError, naming the clients without a region.
    """
    names = sorted(clients)
    if isinstance(regions, int):
        return [names[start : start + regions] for start in range(0, len(names), regions)]
    region_of = {client: region for region, own in regions.items() for client in own}
    if missing := [name for name in names if name not in region_of]:
        raise ConfigError(f"aggregation.regions gives no region to {', '.join(missing)}; every client needs one")
    members = [[name for name in names if region_of[name] == region] for region in sorted(regions)]
    return [own for own in members if own]


def _read(region: Sequence[PendingUpload]) -> Iterator[StationRows]:
    for pending in region:
        upload = pending.read()
        yield StationRows(upload.rows, upload.radius, upload.counts)


def _by_client(kept: np.ndarray, row_client: np.ndarray) -> np.ndarray:
    """Rows in order of their client, each client's in the order in which they were selected."""
    ordered: np.ndarray = kept[np.argsort(row_client[kept], kind="stable")]
    return ordered


def _select(
    rows: np.ndarray,
    row_client: np.ndarray,
    n_images: Sequence[int],
    target: int,
    settings: AggregationSettings,
    rng: np.random.Generator,
) -> tuple[Kept, float]:
    kept, radius = select_rows(rows, row_client, n_images, target, settings, rng=rng)
    if radius is None:
        raise ConfigError(f"aggregation.regions needs a strategy that selects by k-center, not {settings.strategy}")
    return kept, radius

"""The merge in regions: the bank of a flat merge where nothing is reduced, the bound, what is held at a time."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from data_contracts.errors import ConfigError, UploadError
from data_contracts.manifests import UploadManifest
from data_contracts.settings import AggregationSettings
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.server.aggregation import aggregate_uploads
from pipeline_lib.server.quotas import client_quotas
from pipeline_lib.server.regions import (
    REGION_OVERSAMPLING,
    PendingUpload,
    aggregate_pending,
    pending_uploads,
    region_members,
)
from pipeline_lib.upload.acceptance import Upload

HASH = "0123456789abcdef"
SITES = {"south": ("a", "d"), "north": ("e", "b", "c"), "closed": ("z",)}


def merge_settings(**values: Any) -> AggregationSettings:
    defaults: dict[str, Any] = {
        "seed": 3, "strategy": "federated_coreset", "target_rows": 20, "coreset_percentage": 0.1,
        "weight_by_samples": True, "regions": 2,
    }  # fmt: skip
    return AggregationSettings(**{**defaults, **values})


def clients(rng: np.random.Generator, *, n: int = 5, patches: int = 60) -> dict[str, np.ndarray]:
    """Client -> its patches (patch, dim), around a centre of its own."""
    return {name: rng.normal(rng.normal(size=3) * 3, 1.0, (patches, 3)).astype(np.float32) for name in "abcdefgh"[:n]}


def upload_of(name: str, patches: np.ndarray, rows: int, *, n_images: int) -> Upload:
    chosen = greedy_coreset_selection(patches, rows, rng=np.random.default_rng(0))
    return Upload(name, patches[chosen.indices], n_images, len(patches), chosen.covering_radius)


def uploads_of(patches: Mapping[str, np.ndarray], rows: int = 30) -> list[Upload]:
    return [upload_of(name, own, rows, n_images=10 + 3 * i) for i, (name, own) in enumerate(patches.items())]


@pytest.mark.parametrize("regions", [1, 2, 5, SITES])
@pytest.mark.parametrize("strategy", ["federated_coreset", "diversity_preserving"])
@pytest.mark.parametrize("target", [75, 149, 200])
def test_where_regions_need_not_reduce_the_bank_is_that_of_a_flat_merge(
    regions: Any, strategy: str, target: int
) -> None:
    uploads = uploads_of(clients(np.random.default_rng(0)))
    chosen = merge_settings(regions=regions, strategy=strategy, target_rows=target)
    merged, regional = aggregate_pending([PendingUpload.of(one) for one in uploads[::-1]], chosen, bank="clip")
    flat = aggregate_uploads(uploads, chosen, bank="clip")
    np.testing.assert_array_equal(merged.rows, flat.rows)
    np.testing.assert_array_equal(merged.row_client, flat.row_client)
    assert merged.client_ids == flat.client_ids
    assert regional is not None
    assert (regional.region_radius, regional.rows_sent, regional.rows_of_regions) == (0.0, 150, 150)
    everything = np.concatenate([one.rows for one in uploads])
    assert regional.server_radius == pytest.approx(cdist(everything, merged.rows).min(axis=1).max(), rel=1e-5)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    regions=st.one_of(st.integers(1, 4), st.just(SITES)),
    strategy=st.sampled_from(["federated_coreset", "diversity_preserving"]),
    target=st.integers(1, 40),
)
def test_no_patch_of_any_client_lies_outside_the_bound(seed: int, regions: Any, strategy: str, target: int) -> None:
    patches = clients(np.random.default_rng(seed))
    uploads = uploads_of(patches)
    chosen = merge_settings(seed=seed, regions=regions, strategy=strategy, target_rows=target)
    merged, regional = aggregate_pending([PendingUpload.of(one) for one in uploads], chosen, bank="clip")
    assert regional is not None
    assert len(merged.rows) == target
    asked = min(150, REGION_OVERSAMPLING * target)
    assert asked <= regional.rows_of_regions <= asked + regional.regions
    assert regional.client_radius == max(one.radius for one in uploads)
    sent = np.concatenate([one.rows for one in uploads])
    to_bank = cdist(sent, merged.rows).min(axis=1).max()
    assert to_bank <= (regional.region_radius + regional.server_radius) * (1 + 1e-6) + 1e-6
    exact = cdist(np.concatenate(list(patches.values())), merged.rows).min(axis=1).max()
    assert exact <= regional.radius_bound * (1 + 1e-6) + 1e-6
    for client, name in enumerate(merged.client_ids):  # every row is one that its client sent
        own = merged.rows[merged.row_client == client]
        assert {row.tobytes() for row in own} <= {row.tobytes() for row in uploads["abcde".index(name)].rows}


def test_clients_keep_their_quotas_through_the_regions() -> None:
    uploads = uploads_of(clients(np.random.default_rng(1)))
    chosen = merge_settings(regions=SITES, target_rows=40)
    merged, _ = aggregate_pending([PendingUpload.of(one) for one in uploads], chosen, bank="clip")
    expected = client_quotas([30] * 5, [one.n_images for one in uploads], 40)
    assert np.bincount(merged.row_client).tolist() == expected.tolist()


def test_a_region_is_read_when_it_is_its_turn_and_let_go_before_the_next() -> None:
    patches = clients(np.random.default_rng(2), n=8)
    alive: list[weakref.ref[np.ndarray]] = []
    at_a_time: list[int] = []

    def pending(upload: Upload) -> PendingUpload:
        def read() -> Upload:
            rows = upload.rows.copy()
            alive.append(weakref.ref(rows))
            at_a_time.append(sum(one() is not None for one in alive))
            return Upload(upload.client_id, rows, upload.n_images, upload.n_patches, upload.covering_radius)

        return PendingUpload(upload.client_id, len(upload.rows), upload.n_images, upload.n_patches, 3, read)

    chosen = merge_settings(regions=3, target_rows=10)
    _, regional = aggregate_pending([pending(one) for one in uploads_of(patches)], chosen, bank="clip")
    assert at_a_time == [1, 2, 3, 1, 2, 3, 1, 2]
    assert regional is not None
    assert regional.regions == 3
    kept = REGION_OVERSAMPLING * 10
    assert 90 <= regional.peak_rows <= 90 + kept  # three clients of 30 rows, and what regions before kept


@pytest.mark.parametrize(("regions", "peak"), [(1, 60 + 30), (SITES, 60 + 60 + 30)])
def test_rows_are_put_in_order_of_clients_only_where_regions_mix_them(regions: Any, peak: int) -> None:
    uploads = [PendingUpload.of(one) for one in uploads_of(clients(np.random.default_rng(0)))]
    merged, regional = aggregate_pending(uploads, merge_settings(regions=regions, target_rows=30), bank="clip")
    assert regional is not None
    assert (regional.rows_of_regions, len(merged.rows), regional.peak_rows) == (60, 30, peak)


def test_regions_are_clients_in_order_of_their_names_or_those_that_are_named() -> None:
    assert region_members(["c", "a", "b"], 2) == [["a", "b"], ["c"]]
    assert region_members("ecdab", SITES) == [["b", "c", "e"], ["a", "d"]]
    with pytest.raises(ConfigError, match=r"aggregation.regions gives no region to f, g; every client needs one"):
        region_members("gabf", SITES)


def test_a_strategy_that_does_not_cover_is_refused() -> None:
    uploads = [PendingUpload.of(one) for one in uploads_of(clients(np.random.default_rng(0)))]
    with pytest.raises(ConfigError, match="selects by k-center, not simple_concatenate"):
        aggregate_pending(uploads, merge_settings(strategy="simple_concatenate"), bank="clip")


def test_uploads_that_do_not_fit_together_are_refused_before_they_are_read() -> None:
    def unread() -> Upload:
        pytest.fail("was read")

    flat = PendingUpload("a", 30, 10, 60, 3, unread)
    for uploads, reason in (
        ([flat, PendingUpload("b", 30, 10, 60, 4, unread)], "different dimensions .a: 3, b: 4."),
        ([flat, flat], "more than one upload of a"),
        ([], "there is no upload"),
    ):
        with pytest.raises(UploadError, match=reason):
            aggregate_pending(uploads, merge_settings(), bank="clip")


# --- from the store --------------------------------------------------------------------------------------------------


def manifest(client: str, number: int, rows: int, **values: Any) -> UploadManifest:
    given: dict[str, Any] = {
        "kind": "client_upload", "path": f"{client}-{number}", "sha256": "0" * 64, "size_bytes": 1, "rows": rows,
        "client_id": client, "category": "clip", "round": number, "config_hash": HASH, "dim": 3, "n_images": 5,
        "n_patches": 100, "raw_image_bytes": 1, "covering_radius": 4.0 / number, **values,
    }  # fmt: skip
    return UploadManifest(**given)


def test_all_rounds_of_a_client_are_one_upload_in_the_order_of_sending() -> None:
    arrays = {f"a-{n}": {"rows": np.full((n, 3), n, np.float32)} for n in (1, 2)}
    sent = [manifest("a", 2, 2, reconstruction_error=0.1), manifest("a", 1, 1, reconstruction_error=0.25)]
    (pending,) = pending_uploads(sent, lambda one: arrays[one.path], config_hash=HASH, round_number=2)
    upload = pending.read()
    assert (pending.n_rows, pending.n_images, pending.n_patches) == (3, 5, 100)
    assert upload.rows[:, 0].tolist() == [1, 2, 2]
    assert upload.radius == 2.25  # what the last round left uncovered, and the largest error of any
    with pytest.raises(UploadError, match="belongs to round 2, this is round 1"):
        pending_uploads(sent[:1], lambda one: arrays[one.path], config_hash=HASH, round_number=1)[0].read()
    with pytest.raises(UploadError, match="client a has more than one upload of a round for clip"):
        pending_uploads([sent[0], sent[0]], lambda one: arrays[one.path], config_hash=HASH, round_number=2)

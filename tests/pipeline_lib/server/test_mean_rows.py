"""Banks of means: what is kept is moved by counts, through regions too, and every patch stays within the bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from data_contracts.errors import UploadError
from data_contracts.settings import AggregationSettings
from pipeline_lib.coreset.cell_means import cell_means
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.server.aggregation import MergedBank, aggregate_uploads
from pipeline_lib.server.regions import PendingUpload, aggregate_pending
from pipeline_lib.upload.acceptance import Upload

SITES = {"south": ("a", "d"), "north": ("e", "b", "c")}
STRATEGIES = ["federated_coreset", "diversity_preserving", "simple_concatenate"]
MEANS = {"counts", "upload_cell", "representative", "upload_starts"}


def merge_settings(**values: Any) -> AggregationSettings:
    defaults: dict[str, Any] = {
        "seed": 3, "strategy": "federated_coreset", "target_rows": 20, "coreset_percentage": 0.1,
        "weight_by_samples": True,
    }  # fmt: skip
    return AggregationSettings(**{**defaults, **values})


def clients(seed: int, *, patches: int = 60, dim: int = 32) -> dict[str, np.ndarray]:
    """Client -> patches (patch, dim) as a backbone's: few directions hold most of the variance, none is negative."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(4, dim))

    def own() -> np.ndarray:
        places = rng.normal(rng.normal(size=4) * 3, 1.0, (patches, 4)) @ directions
        return np.abs(places + rng.normal(size=(patches, dim))).astype(np.float32)

    return {name: own() for name in "abcde"}


def upload_of(name: str, patches: np.ndarray, rows: int, *, n_images: int) -> Upload:
    chosen = greedy_coreset_selection(patches, rows, rng=np.random.default_rng(0))
    cells = cell_means(patches, patches[chosen.indices])
    return Upload(name, cells.means, n_images, len(patches), cells.covering_radius, counts=cells.counts)


def uploads_of(patches: dict[str, np.ndarray], rows: int = 30) -> list[Upload]:
    return [upload_of(name, own, rows, n_images=10 + 3 * i) for i, (name, own) in enumerate(patches.items())]


def check_moves(bank: MergedBank, uploads: list[Upload], kept: np.ndarray) -> None:
    """A bank of one merge against loops: `kept` are the uploaded rows that were selected."""
    assert bank.moved is not None
    rows = np.concatenate([one.rows for one in uploads]).astype(np.float64)
    counts = np.concatenate([one.counts for one in uploads if one.counts is not None])
    np.testing.assert_array_equal(bank.moved.representative, kept)
    sums, totals = np.zeros((len(kept), rows.shape[1])), np.zeros(len(kept), int)
    for number, row in enumerate(rows):
        place = int(((rows[kept] - row) ** 2).sum(axis=1).argmin())
        assert bank.moved.upload_cell[number] == place
        sums[place] += counts[number] * row
        totals[place] += counts[number]
    assert bank.moved.counts.tolist() == totals.tolist()
    np.testing.assert_allclose(bank.rows, sums / totals[:, None], rtol=1e-6)
    radius = np.linalg.norm(rows - bank.rows[bank.moved.upload_cell], axis=1).max()
    assert bank.covering_radius == pytest.approx(radius, rel=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_kept_rows_are_those_of_picks_moved_by_what_went_into_them(strategy: str) -> None:
    uploads = uploads_of(clients(0))
    chosen = merge_settings(strategy=strategy, target_rows=40)
    bank = aggregate_uploads(uploads[::-1], chosen, bank="clip")
    without = [Upload(one.client_id, one.rows, one.n_images, one.n_patches) for one in uploads]
    picks = aggregate_uploads(without, chosen, bank="clip")
    everything = np.concatenate([one.rows for one in uploads])
    kept = np.array([int((everything == row).all(axis=1).argmax()) for row in picks.rows])
    check_moves(bank, uploads, kept)
    np.testing.assert_array_equal(bank.row_client, picks.row_client)
    assert bank.to_arrays().keys() == picks.to_arrays().keys() | MEANS
    assert bank.upload_starts is not None
    assert bank.upload_starts.tolist() == [0, 30, 60, 90, 120, 150]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("target", [150, 200, None])
def test_with_room_for_all_rows_stay_as_they_came(strategy: str, target: int | None) -> None:
    uploads = uploads_of(clients(1))
    bank = aggregate_uploads(uploads, merge_settings(strategy=strategy, target_rows=target or 150), bank="clip")
    assert bank.rows.tobytes() == np.concatenate([one.rows for one in uploads]).tobytes()
    assert bank.moved is not None
    assert bank.moved.upload_cell.tolist() == bank.moved.representative.tolist() == list(range(150))
    assert bank.moved.counts.sum() == 5 * 60


def test_some_with_counts_and_some_without_are_refused() -> None:
    uploads = uploads_of(clients(2))
    plain = Upload("e", uploads[4].rows, uploads[4].n_images, uploads[4].n_patches)
    with pytest.raises(UploadError, match="the uploads of e for the bank clip carry no counts, others do"):
        aggregate_uploads([*uploads[:4], plain], merge_settings(), bank="clip")


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    regions=st.one_of(st.none(), st.integers(1, 4), st.just(SITES)),
    strategy=st.sampled_from(STRATEGIES[:2]),
    target=st.integers(1, 60),
)
def test_no_patch_of_any_client_lies_outside_the_bound(seed: int, regions: Any, strategy: str, target: int) -> None:
    patches = clients(seed)
    uploads = uploads_of(patches)
    chosen = merge_settings(seed=seed, regions=regions, strategy=strategy, target_rows=target)
    merged, regional = aggregate_pending([PendingUpload.of(one) for one in uploads], chosen, bank="clip")
    assert (len(merged.rows), merged.moved is None) == (target, False)
    assert merged.covering_radius is not None
    bound = max(one.radius for one in uploads) + merged.covering_radius
    if regional is not None:
        assert regional.server_radius == merged.covering_radius
        bound = regional.radius_bound
    exact = cdist(np.concatenate(list(patches.values())), merged.rows).min(axis=1).max()
    assert exact <= bound * (1 + 1e-6)


@pytest.mark.parametrize("regions", [1, 2, 5, SITES])
def test_through_regions_every_uploaded_row_is_counted_where_it_went(regions: Any) -> None:
    uploads = uploads_of(clients(3))
    chosen = merge_settings(regions=regions, target_rows=12)
    merged, _ = aggregate_pending([PendingUpload.of(one) for one in uploads[::-1]], chosen, bank="clip")
    assert merged.moved is not None
    assert merged.upload_starts is not None
    assert merged.upload_starts.tolist() == [0, 30, 60, 90, 120, 150]
    rows = np.concatenate([one.rows for one in uploads]).astype(np.float64)
    counts = np.concatenate([one.counts for one in uploads if one.counts is not None])
    for place, row in enumerate(merged.rows):
        own = merged.moved.upload_cell == place
        assert merged.moved.counts[place] == counts[own].sum()
        np.testing.assert_allclose(row, np.average(rows[own], axis=0, weights=counts[own]), rtol=1e-5)
    client = np.searchsorted(merged.upload_starts, merged.moved.representative, side="right") - 1
    np.testing.assert_array_equal(client, merged.row_client)
    own_row = merged.moved.upload_cell[merged.moved.representative]
    assert (own_row == np.arange(12)).mean() > 0.5  # a row may go to another's mean after its region moved it


@pytest.mark.parametrize("regions", [2, SITES])
def test_where_regions_need_not_reduce_the_bank_is_that_of_a_flat_merge(regions: Any) -> None:
    uploads = uploads_of(clients(4))
    chosen = merge_settings(regions=regions, target_rows=80)
    merged, _ = aggregate_pending([PendingUpload.of(one) for one in uploads], chosen, bank="clip")
    flat = aggregate_uploads(uploads, chosen, bank="clip")
    for name, array in merged.to_arrays().items():
        np.testing.assert_array_equal(array, flat.to_arrays()[name], err_msg=name)

"""Greedy k-center against the slow reference, and its replay on hard data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset import kcenter, upper_bounds
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.selection import coreset_size
from pipeline_lib.coreset.subsampling import covering_radius, density_subsampling, random_subsampling
from tests.feature_fixtures import any_rows
from tests.reference_coreset import replay, slow_k_center

TOLERANCE = 1e-5  # a pick's distance may be this much below the true maximum, relative


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def clustered(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    generator = rng(seed)
    centers = generator.normal(size=(12, dim)) * 4
    return (centers[generator.integers(12, size=rows)] + generator.normal(size=(rows, dim))).astype(np.float32)


def assert_exact(features: np.ndarray, size: int, **settings: object) -> None:
    selection = greedy_coreset_selection(features, size, rng=rng(1), threads=1, **settings)  # type: ignore[arg-type]
    assert selection.indices.dtype == np.int64
    assert len(np.unique(selection.indices)) == size
    own, largest, radius = replay(
        features,
        selection.indices,
        initial_centers=settings.get("initial_centers"),  # type: ignore[arg-type]
        groups=settings.get("groups"),  # type: ignore[arg-type]
        quotas=settings.get("group_quotas"),  # type: ignore[arg-type]
    )
    first = 0 if "initial_centers" in settings else 1
    assert (own[first:] >= (1 - TOLERANCE) * largest[first:]).all()
    np.testing.assert_allclose(selection.pick_distances[first:], own[first:], rtol=1e-6, atol=1e-30)
    assert selection.covering_radius == pytest.approx(radius, rel=1e-6, abs=1e-30)


@pytest.mark.parametrize(("rows", "dim", "size"), [(1, 1, 1), (2, 3, 2), (60, 1, 30), (700, 8, 700), (5000, 40, 900)])
def test_selects_what_the_slow_reference_selects(rows: int, dim: int, size: int) -> None:
    features = clustered(rows, dim)
    selection = greedy_coreset_selection(features, size, rng=rng(3), threads=1)
    assert selection.indices[0] == rng(3).integers(rows)
    assert selection.indices.tolist() == slow_k_center(features, size, start=int(selection.indices[0]))


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e5, -3e7])
@pytest.mark.parametrize("spread", [1.0, 1e-4, 1e-20, 1e12])
def test_is_exact_under_offset_and_scale(offset: float, spread: float) -> None:
    assert_exact(clustered(1500, 24) * np.float32(spread) + np.float32(offset), 120)


def test_is_exact_among_near_duplicates_beside_far_outliers() -> None:
    generator = rng()
    base = generator.normal(size=(5, 152)).astype(np.float32)
    near = base[generator.integers(5, size=3000)] * (1 + 1e-6 * generator.normal(size=(3000, 152)))
    features = np.concatenate([near, 1e4 * generator.normal(size=(20, 152))]).astype(np.float32)
    assert_exact(features, 400)


def test_is_exact_for_values_that_round_hardest_in_bfloat16() -> None:
    """Nine significant bits, of which bfloat16 keeps eight: all are half a last place off, and all upwards."""
    half = (259 + 4 * rng().integers(0, 8, size=(2048, 8))) / 256
    features = np.concatenate([half, -half]).astype(np.float32)
    selection = greedy_coreset_selection(features, 400, rng=rng(1), threads=1)
    assert selection.indices.tolist() == slow_k_center(features, 400, start=int(selection.indices[0]))
    assert selection.covering_radius == replay(features, selection.indices)[2] == pytest.approx(0.078125)


@pytest.mark.parametrize("pool_bytes", [1, 32 << 20])
def test_is_exact_on_a_grid_full_of_ties(pool_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kcenter, "POOL_BYTES", pool_bytes)
    grid = np.stack(np.meshgrid(*[np.arange(9)] * 3), axis=-1).reshape(-1, 3).astype(np.float32)
    features = grid[rng().permutation(len(grid))]
    selection = greedy_coreset_selection(features, 500, rng=rng(), threads=1)
    assert selection.indices.tolist() == slow_k_center(features, 500, start=int(selection.indices[0]))


@pytest.mark.parametrize(("candidates", "centers"), [(3, 2), (50, 7), (3_000, 3_000)])
def test_block_sizes_change_nothing(candidates: int, centers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features = clustered(2500, 16)
    expected = greedy_coreset_selection(features, 200, rng=rng(), threads=1)
    monkeypatch.setattr(kcenter, "CANDIDATES_PER_ROUND", candidates)
    monkeypatch.setattr(kcenter, "CENTERS_PER_PRODUCT", centers)
    monkeypatch.setattr(kcenter, "ROWS_PER_PRODUCT", candidates)
    monkeypatch.setattr(upper_bounds, "CENTERS_PER_PRODUCT", centers)
    monkeypatch.setattr(upper_bounds, "ROWS_PER_PRODUCT", candidates)
    np.testing.assert_array_equal(
        greedy_coreset_selection(features, 200, rng=rng(), threads=1).indices, expected.indices
    )


def test_a_round_takes_a_part_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pick costs a direct difference with each row of its round: half of them a pick was the time of a selection."""
    pools: list[int] = []
    pick = kcenter._LazyFarthestFirst._pick_in_pool

    def counted(self: kcenter._LazyFarthestFirst, pool: np.ndarray, threshold: float) -> None:
        pools.append(len(pool))
        pick(self, pool, threshold)

    monkeypatch.setattr(kcenter._LazyFarthestFirst, "_pick_in_pool", counted)
    greedy_coreset_selection(clustered(8000, 16), 4000, rng=rng(), threads=1)
    assert max(pools) <= 8000 / 4


def test_threads_and_repetition_change_nothing() -> None:
    features = clustered(12_000, 32)
    one, two, again = (greedy_coreset_selection(features, 600, rng=rng(5), threads=t) for t in (1, 2, 2))
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_array_equal(two.pick_distances, again.pick_distances)
    assert one.covering_radius == two.covering_radius


def test_duplicates_of_selected_rows_follow_in_order() -> None:
    features = np.repeat(np.array([[0.0], [5.0], [1.0]], np.float32), 4, axis=0)
    selection = greedy_coreset_selection(features, 9, rng=rng(0), threads=1)
    distinct = selection.indices[:3]
    assert sorted(features[distinct, 0]) == [0.0, 1.0, 5.0]
    assert selection.indices[3:].tolist() == [i for i in range(12) if i not in distinct][:6]
    assert selection.covering_radius == 0
    assert (selection.pick_distances[3:] == 0).all()


def test_constant_data() -> None:
    selection = greedy_coreset_selection(np.full((50, 3), 7.1, np.float32), 4, rng=rng(0), threads=1)
    start = int(selection.indices[0])
    assert selection.indices.tolist() == [start, *[i for i in range(50) if i != start][:3]]
    assert selection.covering_radius == 0


@settings(max_examples=60)
@given(
    features=any_rows(),
    share=st.floats(0.01, 1),
)
def test_any_finite_data(features: np.ndarray, share: float) -> None:
    assert_exact(features, coreset_size(share, len(features)))


def test_float16_and_read_only_memory_map(tmp_path) -> None:  # type: ignore[no-untyped-def]
    features = clustered(3000, 20).astype(np.float16)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    expected = greedy_coreset_selection(features.astype(np.float32), 150, rng=rng(), threads=1)
    np.testing.assert_array_equal(greedy_coreset_selection(mapped, 150, rng=rng(), threads=1).indices, expected.indices)


def test_goes_on_from_initial_centers() -> None:
    features = clustered(2000, 12)
    whole = greedy_coreset_selection(features, 100, rng=rng(), threads=1)
    rest = greedy_coreset_selection(features, 60, rng=rng(9), initial_centers=features[whole.indices[:40]], threads=1)
    np.testing.assert_array_equal(rest.indices, whole.indices[40:])
    assert rest.covering_radius == pytest.approx(whole.covering_radius, rel=1e-12)
    assert_exact(features, 50, initial_centers=clustered(300, 12, seed=8))


@pytest.mark.parametrize("quotas", [{0: 100, 1: 100, 2: 100}, {0: 3, 1: 90, 2: 7}, {0: 0, 1: 50, 2: 50}, {1: 1, 2: 99}])
def test_group_quotas_cap_each_group(quotas: dict[int, int]) -> None:
    features = clustered(1800, 10)
    groups = rng(2).integers(3, size=1800)
    selection = greedy_coreset_selection(features, 100, rng=rng(), groups=groups, group_quotas=quotas, threads=1)
    counts = np.bincount(groups[selection.indices], minlength=3)
    assert all(counts[g] <= quotas.get(g, 0) for g in range(3))
    assert_exact(features, 100, groups=groups, group_quotas=quotas)


def test_group_quotas_with_duplicates() -> None:
    features = np.zeros((20, 2), np.float32)
    groups = np.arange(20) % 2
    selection = greedy_coreset_selection(features, 8, rng=rng(), groups=groups, group_quotas={0: 2, 1: 6}, threads=1)
    assert np.bincount(groups[selection.indices]).tolist() == [2, 6]


def test_progress_is_reported_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    greedy_coreset_selection(clustered(900, 6), 80, rng=rng(), progress=lambda *at: seen.append(at), threads=1)
    assert seen[-1] == (80, 80)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("features", "size", "message"),
    [
        (np.array([[0.0], [np.nan]], np.float32), 1, "NaN or infinity, first in row 1"),
        (np.array([[np.inf], [1.0]], np.float16), 1, "NaN or infinity, first in row 0"),
        (np.zeros((3, 2), np.int64), 1, "float16, float32"),
        (np.zeros(3, np.float32), 1, "float16, float32"),
        (np.zeros((3, 2), np.float32), 4, "from 1 to 3"),
        (np.zeros((3, 2), np.float32), 0, "from 1 to 3"),
    ],
)
def test_refuses_bad_input(features: np.ndarray, size: int, message: str) -> None:
    for select in (greedy_coreset_selection, random_subsampling, density_subsampling):
        with pytest.raises(FedpatchError, match=message):
            select(features, size, rng=rng(), threads=1)


def test_refuses_bad_centers_quotas_and_threads() -> None:
    features = clustered(30, 2)
    with pytest.raises(FedpatchError, match=r"floats \(centers, 2\)"):
        greedy_coreset_selection(features, 3, rng=rng(), initial_centers=np.zeros((1, 3), np.float32))
    with pytest.raises(FedpatchError, match="NaN"):
        greedy_coreset_selection(features, 3, rng=rng(), initial_centers=np.full((1, 2), np.nan, np.float32))
    with pytest.raises(FedpatchError, match="allow 2 rows"):
        greedy_coreset_selection(features, 3, rng=rng(), groups=np.zeros(30, int), group_quotas={0: 2})
    with pytest.raises(FedpatchError, match="go together"):
        greedy_coreset_selection(features, 3, rng=rng(), group_quotas={0: 2})
    with pytest.raises(FedpatchError, match="one integer a row"):
        greedy_coreset_selection(features, 3, rng=rng(), groups=np.zeros(29, int), group_quotas={0: 3})
    with pytest.raises(FedpatchError, match="threads is 0"):
        greedy_coreset_selection(features, 3, rng=rng(), threads=0)


@pytest.mark.parametrize("select", [random_subsampling, density_subsampling])
def test_controls_draw_different_rows_and_measure_the_radius(select) -> None:  # type: ignore[no-untyped-def]
    features = clustered(1200, 9)
    selection = select(features, 100, rng=rng(4), threads=1)
    assert len(np.unique(selection.indices)) == 100
    np.testing.assert_array_equal(selection.indices, select(features, 100, rng=rng(4), threads=2).indices)
    points = features.astype(np.float64)
    nearest = ((points[:, None] - points[selection.indices]) ** 2).sum(axis=2).min(axis=1)
    assert selection.covering_radius == pytest.approx(np.sqrt(nearest.max()), rel=1e-6)
    assert covering_radius(features, features[selection.indices], threads=1) == selection.covering_radius


def test_density_prefers_crowded_places_and_random_does_not() -> None:
    generator = rng()
    features = np.concatenate([generator.normal(size=(2000, 4)) * 0.05, generator.normal(size=(2000, 4)) * 5])
    crowded = [
        np.mean(select(features.astype(np.float32), 400, rng=rng(1), threads=1).indices < 2000)
        for select in (random_subsampling, density_subsampling)
    ]
    assert 0.4 < crowded[0] < 0.6
    assert crowded[1] > 0.9

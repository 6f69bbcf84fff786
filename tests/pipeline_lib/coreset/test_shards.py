"""Selection in shards of whole images: what it selects, what it covers, and that one shard is no shard."""

import numpy as np
import pytest

from pipeline_lib.coreset.cell_means import cell_means
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.selection import CoresetSelection
from pipeline_lib.coreset.shards import cells_by_shards, image_shards, select_by_shards, shard_count

COUNTS = [40, 0, 25, 40, 40, 10, 40, 40]


@pytest.fixture
def patches() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(sum(COUNTS), 6)).astype(np.float16)


def select(own: np.ndarray, count: int, progress: object) -> CoresetSelection:
    return greedy_coreset_selection(own, count, rng=np.random.default_rng(len(own)))


def test_images_are_dealt_out_whole_and_every_patch_is_in_one_shard() -> None:
    shards = image_shards(COUNTS, 50, 100)
    image = np.repeat(np.arange(len(COUNTS)), COUNTS)
    assert [sorted(set(image[shard].tolist())) for shard in shards] == [[0, 4, 7], [2, 5], [3, 6]]
    assert np.array_equal(np.sort(np.concatenate(shards)), np.arange(sum(COUNTS)))


@pytest.mark.parametrize(
    ("size", "shard_patches", "expected"), [(50, None, 1), (50, 1000, 1), (50, 100, 3), (2, 100, 2), (50, 1, 7)]
)
def test_as_many_shards_as_patches_rows_and_images_allow(size: int, shard_patches: int | None, expected: int) -> None:
    assert len(image_shards(COUNTS, size, shard_patches)) == expected


@pytest.mark.parametrize("size", [3, 4, 17, 60, sum(COUNTS)])
def test_each_shard_selects_its_share_as_if_alone(patches: np.ndarray, size: int) -> None:
    shards = image_shards(COUNTS, size, 100)
    found = select_by_shards(patches, shards, size, select)
    assert len(found) == size
    own = [np.isin(found.indices, shard).sum() for shard in shards]
    assert all(abs(n - size * len(shard) / len(patches)) < 2 for n, shard in zip(own, shards, strict=True))
    alone = [select(patches[shard], int(n), None) for shard, n in zip(shards, own, strict=True)]
    assert np.array_equal(found.indices, np.concatenate([s[one.indices] for s, one in zip(shards, alone, strict=True)]))
    assert found.covering_radius == max(one.covering_radius for one in alone)


def test_every_patch_lies_within_the_radius_of_picks_and_of_means(patches: np.ndarray) -> None:
    shards = image_shards(COUNTS, 20, 100)
    found = select_by_shards(patches, shards, 20, select)
    cells = cells_by_shards(patches, shards, found.indices, fixed=None, steps=1)
    for rows, radius in ((patches[found.indices], found.covering_radius), (cells.means, cells.covering_radius)):
        distances = np.linalg.norm(patches[:, None].astype(np.float64) - rows[None].astype(np.float64), axis=2)
        assert distances.min(axis=1).max() <= radius * (1 + 1e-6)
    assert cells.counts.sum() == len(patches)
    for shard in shards:  # a patch went to the nearest row of its own shard
        own = np.flatnonzero(np.isin(found.indices, shard))
        alone = cell_means(patches[shard], patches[found.indices[own]])
        assert np.array_equal(cells.means[own], alone.means)
        assert np.array_equal(cells.cell[shard], own[alone.cell])


def test_patches_that_a_fixed_center_covers_are_in_no_cell(patches: np.ndarray) -> None:
    shards = image_shards(COUNTS, 12, 100)
    found = select_by_shards(patches, shards, 12, select)
    fixed = patches[5:6].astype(np.float32)
    cells = cells_by_shards(patches, shards, found.indices, fixed=fixed, steps=1)
    assert cells.cell[5] == -1
    assert cells.counts.sum() == (cells.cell >= 0).sum() < len(patches)


def test_progress_counts_over_all_shards(patches: np.ndarray) -> None:
    seen: list[tuple[int, int]] = []

    def reports(own: np.ndarray, count: int, progress: object) -> CoresetSelection:
        return greedy_coreset_selection(own, count, rng=np.random.default_rng(0), progress=progress)  # type: ignore[arg-type]

    select_by_shards(patches, image_shards(COUNTS, 30, 100), 30, reports, progress=lambda n, of: seen.append((n, of)))
    assert seen == sorted(seen)
    assert seen[-1] == (30, 30)


def test_without_a_limit_there_is_one_shard() -> None:
    assert (shard_count(10**9, None), shard_count(0, 1000), shard_count(1001, 1000)) == (1, 1, 2)

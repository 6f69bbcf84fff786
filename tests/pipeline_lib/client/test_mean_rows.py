"""A client whose rows are means: what it sends, how far its patches lie from that, and the means found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from data_contracts.settings import CoresetSettings
from pipeline_lib.client import selection
from pipeline_lib.client.provenance import Provenance
from pipeline_lib.client.selection import ClientCoreset, coreset_of_patches
from pipeline_lib.client.stored_selection import StoredSelection
from pipeline_lib.coreset.cell_means import cell_means
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.upload.counts import rows_of

IMAGES = ["one", "two", "three"]


def coreset(patches: np.ndarray, rows: str = "cell_means", **values: Any) -> ClientCoreset:
    settings: dict[str, Any] = {
        "seed": 1, "subsampling": "kcenter", "ratio": 0.1, "bank_scope": "per_category", "codec": "float32",
        "clip_norm": None, "noise_sigma": 0.0, "rows": rows,
    }  # fmt: skip
    aside = {name: values.pop(name) for name in ("sent", "covered", "num_rounds", "stored") if name in values}
    found = coreset_of_patches(
        patches, IMAGES, sizes(patches), CoresetSettings(**{**settings, **values}), bank="clip", client_id="c",
        raw_image_bytes=0, **aside,
    )  # fmt: skip
    assert found is not None
    return found


def sizes(patches: np.ndarray) -> list[int]:
    return [len(patches) // 2, 7, len(patches) - len(patches) // 2 - 7]


def of_places(seed: int, n: int = 200, dim: int = 5) -> np.ndarray:
    """Patches around a few places, some of them far out."""
    rng = np.random.default_rng(seed)
    return (3 * rng.normal(size=(12, dim))[rng.integers(12, size=n)] + rng.normal(size=(n, dim))).astype(np.float16)


def test_means_are_sent_with_their_counts_and_the_picks_stay_as_their_places() -> None:
    patches = of_places(0)
    picks, means = coreset(patches, "picks"), coreset(patches)
    expected = cell_means(patches, rows_of(picks.arrays))
    assert rows_of(means.arrays).tobytes() == expected.means.tobytes()
    assert (means.arrays["counts"].dtype, means.arrays["counts"].tolist()) == (np.int32, expected.counts.tolist())
    assert set(picks.arrays) == {"rows"}
    assert (picks.cell, picks.patch_counts) == (None, None)
    assert means.reconstruction_error == 0
    for name in ("patch_image", "patch_index"):
        np.testing.assert_array_equal(getattr(means, name), getattr(picks, name))
    assert Provenance.of(picks).to_arrays().keys() == {"image_ids", "patch_image", "patch_index"}
    cells = Provenance.from_arrays(Provenance.of(means).to_arrays()).cells()
    assert [len(cells[image]) for image in IMAGES] == sizes(patches)
    np.testing.assert_array_equal(np.concatenate([cells[image] for image in IMAGES]), expected.cell)


@budget(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), steps=st.integers(1, 3), subsampling=st.sampled_from(["kcenter", "random"]))
def test_no_patch_lies_outside_the_radius_which_is_at_most_twice_the_picks(
    seed: int, steps: int, subsampling: Any
) -> None:
    patches = of_places(seed)
    picks = coreset(patches, "picks", subsampling=subsampling)
    means = coreset(patches, lloyd_steps=steps, subsampling=subsampling)
    exact = cdist(patches.astype(np.float64), rows_of(means.arrays)).min(axis=1).max()
    assert exact <= means.covering_radius * (1 + 1e-6)
    assert means.covering_radius <= 2**steps * picks.covering_radius * (1 + 1e-6)


@pytest.mark.parametrize("rows", ["picks", "cell_means"])
def test_a_client_in_shards_sends_as_many_rows_and_every_patch_lies_within_the_radius(rows: str) -> None:
    patches = of_places(3)
    whole, in_shards = coreset(patches, rows), coreset(patches, rows, shard_patches=110)
    assert (in_shards.n_rows, in_shards.n_patches) == (whole.n_rows, len(patches))
    exact = cdist(patches.astype(np.float64), rows_of(in_shards.arrays)).min(axis=1).max()
    assert exact <= in_shards.covering_radius * (1 + 1e-6)
    starts = np.cumsum([0, *sizes(patches)])
    picked = patches[starts[in_shards.patch_image] + in_shards.patch_index]
    shard = in_shards.patch_image % 2  # the first and the third image, and the second
    assert [len(set(map(tuple, picked[shard == one].tolist()))) for one in (0, 1)] == [18, 2]
    assert coreset(patches, rows, shard_patches=200).arrays["rows"].tobytes() == whole.arrays["rows"].tobytes()


def test_clipping_noise_and_codec_act_on_the_means_and_the_error_is_theirs() -> None:
    patches = of_places(1)
    plain = rows_of(coreset(patches).arrays)
    changed = coreset(patches, codec="float16", clip_norm=4.0, noise_sigma=0.1)
    sent = rows_of(changed.arrays)
    assert changed.arrays["rows"].dtype == np.float16
    assert np.linalg.norm(plain, axis=1).max() > 6
    assert np.linalg.norm(sent, axis=1).max() < 5
    assert changed.reconstruction_error == pytest.approx(np.linalg.norm(sent - plain, axis=1).max())
    np.testing.assert_array_equal(changed.arrays["counts"], coreset(patches).arrays["counts"])


def test_a_selection_is_kept_for_picks_and_means_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patches, store = of_places(2), ArtifactStore(tmp_path)
    base = CoresetSettings(
        seed=1, subsampling="kcenter", ratio=0.1, bank_scope="per_category", codec="float32", clip_norm=None,
        noise_sigma=0.0,
    )  # fmt: skip
    places = [
        StoredSelection.of(store, ["f"], base.model_copy(update=values), client_id="c", bank="clip", version="1")
        for values in ({}, {"rows": "cell_means"}, {"rows": "cell_means", "lloyd_steps": 3})
    ]
    assert len({place.key for place in places}) == 1
    picks = coreset(patches, "picks", stored=places[0])
    monkeypatch.setattr(selection, "select_rows", lambda *_args, **_values: pytest.fail("selected again"))
    means = coreset(patches, stored=places[1])
    np.testing.assert_array_equal(means.patch_index, picks.patch_index)
    assert rows_of(means.arrays).tobytes() == cell_means(patches, rows_of(picks.arrays)).means.tobytes()


def test_means_are_found_again_byte_by_byte_and_without_an_image_that_is_gone() -> None:
    patches = of_places(3)
    found = coreset(patches)
    origin, counts = Provenance.of(found), sizes(patches)
    assert origin.rows(patches, IMAGES, counts).tobytes() == rows_of(found.arrays).tobytes()
    assert found.cell is not None
    two = slice(counts[0], counts[0] + counts[1])
    left, cell = patches[two], found.cell[two]
    fewer = origin.rows(np.concatenate([patches[:3], left]), ["new", "two"], [3, counts[1]])
    there = [row for row in range(found.n_rows) if (cell == row).any()]
    assert 0 < len(there) < found.n_rows
    np.testing.assert_allclose(fewer, [left[cell == row].mean(axis=0, dtype=np.float64) for row in there], rtol=1e-6)


def test_in_a_later_round_covered_places_keep_their_patches_and_the_radius_is_to_own_rows() -> None:
    patches = of_places(4, n=400)
    first = coreset(patches, num_rounds=2)
    own = rows_of(first.arrays)
    bank = np.concatenate([own[:10] + np.float32(0.1), of_places(5, n=8).astype(np.float32)])
    second = coreset(patches, round=2, num_rounds=2, sent=own, covered=bank)
    picks = coreset(patches, "picks", round=2, num_rounds=2, sent=own, covered=bank)
    np.testing.assert_array_equal(second.patch_index, picks.patch_index)
    expected = cell_means(patches, rows_of(picks.arrays), fixed=np.concatenate([own, bank]))
    assert rows_of(second.arrays).tobytes() == expected.means.tobytes()
    assert second.cell is not None
    assert 0 < (second.cell >= 0).sum() < len(patches)
    assert second.arrays["counts"].sum() == (second.cell >= 0).sum()
    to_own = cdist(patches.astype(np.float64), np.concatenate([own, rows_of(second.arrays)])).min(axis=1).max()
    assert second.covering_radius == pytest.approx(to_own, rel=1e-5)
    to_all = cdist(patches.astype(np.float64), np.concatenate([own, bank, rows_of(second.arrays)])).min(axis=1).max()
    assert to_all < to_own  # the server's rows are moved by what others sent: nothing may rest on them

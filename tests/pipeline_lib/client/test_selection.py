"""A client's coreset: its size, where its rows came from, what leaves the station, and what a later round adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import ConfigError, DatasetError, FedpatchError
from data_contracts.settings import CoresetSettings
from pipeline_lib.client import selection
from pipeline_lib.client.rounds import select_client_coreset
from pipeline_lib.client.selection import ClientCoreset, coreset_of_patches, round_size, select_rows
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.coreset.selection import coreset_size
from pipeline_lib.coreset.subsampling import covering_radius
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.upload.codec import decode_rows

GRIDS = {"pipe_clip": (4, 5), "tank_screw": (3, 7)}
DIM = 6


def settings(**values: Any) -> CoresetSettings:
    defaults: dict[str, Any] = {
        "seed": 1,
        "subsampling": "kcenter",
        "ratio": 0.1,
        "bank_scope": "per_category",
        "codec": "float32",
        "clip_norm": None,
        "noise_sigma": 0.0,
    }
    return CoresetSettings(**{**defaults, **values})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def features(store: ArtifactStore) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """A PATCH_FEATURES table of 4 + 3 images in two categories, and each image's patches."""
    rng = np.random.default_rng(0)
    rows, patches = [], {}
    for category, count in (("pipe_clip", 4), ("tank_screw", 3)):
        for number in range(count):
            image_id = f"{category}/train/good/{number}"
            height, width = GRIDS[category]
            patches[image_id] = rng.normal(number, 1, (height * width, DIM)).astype(np.float16)
            written = store.write_array("image_features", patches[image_id])
            rows.append(
                {
                    "image_id": image_id,
                    "category": category,
                    "image_sha256": "0" * 64,
                    "image_bytes": 1000 + number,
                    "grid_height": height,
                    "grid_width": width,
                    "dim": DIM,
                    "path": written.path,
                    "sha256": written.sha256,
                    "size_bytes": written.size_bytes,
                }
            )
    return pd.DataFrame(rows), patches


# --- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "n_patches", "nearest", "rounded_up"),
    [(0.1, 1000, 100, 100), (0.1, 1004, 100, 101), (0.1, 1006, 101, 101), (0.001, 10, 1, 1), (1.0, 7, 7, 7)],
)
def test_size_is_the_share_of_the_patches(ratio: float, n_patches: int, nearest: int, rounded_up: int) -> None:
    assert coreset_size(ratio, n_patches) == nearest
    assert coreset_size(ratio, n_patches, round_up=True) == rounded_up


@given(parts=st.lists(st.integers(1, 5000), min_size=1, max_size=8), ratio=st.floats(0.001, 1.0))
def test_clients_that_round_up_have_the_baselines_rows_between_them(parts: list[int], ratio: float) -> None:
    together = sum(coreset_size(ratio, part, round_up=True) for part in parts)
    assert coreset_size(ratio, sum(parts)) <= together <= coreset_size(ratio, sum(parts)) + len(parts)


@given(total=st.integers(0, 500), num_rounds=st.integers(1, 9))
def test_rounds_share_the_rows_evenly(total: int, num_rounds: int) -> None:
    sizes = [round_size(total, number, num_rounds) for number in range(1, num_rounds + 1)]
    assert sum(sizes) == total
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1


# --- one round -------------------------------------------------------------------------------------------------------


def test_one_coreset_a_category_with_the_clients_counts(
    features: tuple[pd.DataFrame, dict[str, np.ndarray]], store: ArtifactStore
) -> None:
    clip, tank = select_client_coreset(features[0], store, "client_1", settings())
    assert (clip.bank, clip.n_images, clip.n_patches, clip.n_rows) == ("pipe_clip", 4, 80, 8)
    assert (tank.bank, tank.n_images, tank.n_patches, tank.n_rows) == ("tank_screw", 3, 63, 6)
    assert (clip.dim, clip.raw_image_bytes) == (DIM, 4006)


def test_one_coreset_for_the_global_bank(
    features: tuple[pd.DataFrame, dict[str, np.ndarray]], store: ArtifactStore
) -> None:
    (coreset,) = select_client_coreset(features[0], store, "client_1", settings(bank_scope="global"))
    assert (coreset.bank, coreset.n_images, coreset.n_patches, coreset.n_rows) == ("all", 7, 143, 14)


@pytest.mark.parametrize("scope", ["per_category", "global"])
@pytest.mark.parametrize("subsampling", ["kcenter", "random", "density"])
def test_provenance_names_the_image_and_patch_of_every_row(
    features: tuple[pd.DataFrame, dict[str, np.ndarray]], store: ArtifactStore, scope: Any, subsampling: Any
) -> None:
    table, patches = features
    chosen = settings(bank_scope=scope, subsampling=subsampling, ratio=0.3)
    for coreset in select_client_coreset(table, store, "client_1", chosen):
        rows = decode_rows(coreset.arrays)
        assert len(rows) == len(coreset.patch_image) == len(coreset.patch_index) == coreset.n_rows
        for row, image, patch in zip(rows, coreset.patch_image, coreset.patch_index, strict=True):
            assert np.array_equal(row, patches[coreset.image_ids[image]][patch].astype(np.float32))
        everything = np.concatenate([patches[i] for i in coreset.image_ids]).astype(np.float32)
        assert coreset.covering_radius == pytest.approx(covering_radius(everything, rows), rel=1e-5)
        assert coreset.reconstruction_error == 0


def test_the_draw_depends_on_seed_client_and_bank_alone(
    features: tuple[pd.DataFrame, dict[str, np.ndarray]], store: ArtifactStore
) -> None:
    def starts(client_id: str, **values: Any) -> list[bytes]:
        coresets = select_client_coreset(features[0], store, client_id, settings(**values))
        return [decode_rows(coreset.arrays)[0].tobytes() for coreset in coresets]

    assert starts("client_1") == starts("client_1")
    assert starts("client_1") != starts("client_2")
    assert starts("client_1") != starts("client_1", seed=2)
    alone = features[0][features[0].category == "tank_screw"]
    tank = select_client_coreset(alone, store, "client_1", settings())[0]
    assert decode_rows(tank.arrays)[0].tobytes() == starts("client_1")[1]  # other categories do not matter


def test_clipping_noise_and_codec_are_applied_and_the_error_is_told(
    features: tuple[pd.DataFrame, dict[str, np.ndarray]], store: ArtifactStore
) -> None:
    plain = select_client_coreset(features[0], store, "c", settings())[0]
    chosen = settings(codec="float16", clip_norm=2.0, noise_sigma=0.1)
    changed = select_client_coreset(features[0], store, "c", chosen)[0]
    assert changed.arrays["rows"].dtype == np.float16
    before, after = decode_rows(plain.arrays), decode_rows(changed.arrays)
    assert np.array_equal(changed.patch_index, plain.patch_index)  # the selection is made on the true patches
    assert np.linalg.norm(before, axis=1).max() > 4
    assert np.linalg.norm(after, axis=1).max() < 2 + 6 * 0.1 * np.sqrt(DIM)
    assert changed.reconstruction_error == pytest.approx(np.linalg.norm(after - before, axis=1).max())
    assert changed.reconstruction_error > 1


def test_what_selects_the_same_rows_selects_once(
    features: tuple[pd.DataFrame, dict[str, np.ndarray]], store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    selected: list[int] = []

    def counting(patches: np.ndarray, size: int, *args: Any, **keywords: Any) -> Any:
        selected.append(size)
        return select_rows(patches, size, *args, **keywords)

    monkeypatch.setattr(selection, "select_rows", counting)

    def upload(version: str | None = "1", table: pd.DataFrame = features[0], **values: Any) -> list[ClientCoreset]:
        selected.clear()
        return select_client_coreset(table, store, values.pop("client", "c"), settings(**values), version=version)

    plain = upload(version=None)
    assert selected == [8, 6]
    for version, others in (("1", [8, 6]), ("1", []), ("2", [8, 6])):
        kept = upload(version)
        assert selected == others
        for one, other in zip(plain, kept, strict=True):
            assert one.covering_radius == other.covering_radius
            assert np.array_equal(one.arrays["rows"], other.arrays["rows"])
            assert np.array_equal(one.patch_index, other.patch_index)
    coarse = upload(codec="float16", clip_norm=2.0, noise_sigma=0.1)
    assert (selected, coarse[0].arrays["rows"].dtype) == ([], np.float16)
    assert np.array_equal(coarse[0].patch_index, plain[0].patch_index)
    for others in ({"client": "d"}, {"seed": 2}, {"subsampling": "random"}, {"round": 2}):
        upload(**others)
        assert selected == [8, 6], others
    upload(ratio=0.3)
    assert selected == [24, 19]
    upload(bank_scope="global")
    assert selected == [14]
    upload(table=features[0].iloc[1:])
    assert selected == [6]  # the other category's images are the same
    for file in (store.root / "objects" / "client_selection").rglob("*.npz"):
        file.write_bytes(b"damaged")
    upload()
    assert selected == [8, 6]


def test_noise_differs_from_round_to_round(
    features: tuple[pd.DataFrame, dict[str, np.ndarray]], store: ArtifactStore
) -> None:
    first, second = (
        decode_rows(select_client_coreset(features[0], store, "c", settings(noise_sigma=1.0, round=n))[0].arrays)
        for n in (1, 2)
    )
    assert not np.array_equal(first, second)


def test_a_client_without_images_is_an_error(store: ArtifactStore) -> None:
    with pytest.raises(DatasetError, match="client client_7 has no images"):
        select_client_coreset(pd.DataFrame(), store, "client_7", settings())


# --- later rounds ----------------------------------------------------------------------------------------------------


def of_patches(patches: np.ndarray, chosen: CoresetSettings, **values: Any) -> ClientCoreset | None:
    return coreset_of_patches(
        patches, ["one", "two"], [len(patches) // 2, len(patches) - len(patches) // 2], chosen,
        bank="pipe_clip", client_id="c", raw_image_bytes=0, **values,
    )  # fmt: skip


def test_a_later_round_sends_what_is_farthest_from_what_is_covered() -> None:
    rng = np.random.default_rng(2)
    patches = rng.normal(size=(300, 3)).astype(np.float32)
    covered = patches[:40] + np.float32(0.01)
    coreset = of_patches(patches, settings(round=2, ratio=0.1), covered=covered, num_rounds=3)
    assert coreset is not None
    rows = decode_rows(coreset.arrays)
    assert len(rows) == 10  # a third of 30
    nearest = np.linalg.norm(patches[:, None] - covered, axis=2).min(axis=1)
    assert np.array_equal(rows[0], patches[nearest.argmax()])
    both = np.concatenate([covered, rows])
    assert coreset.covering_radius == pytest.approx(covering_radius(patches, both), rel=1e-5)
    assert coreset.covering_radius < nearest.max()


def test_nothing_is_sent_when_everything_is_covered() -> None:
    patches = np.random.default_rng(3).normal(size=(50, 3)).astype(np.float32)
    chosen = settings(round=2, ratio=0.5)
    assert of_patches(patches, chosen, covered=patches, num_rounds=2) is None
    some = of_patches(patches, chosen, covered=patches[:47], num_rounds=2)
    assert some is not None
    assert some.n_rows == 3  # not 12 or 13: the other nine would say nothing new
    assert of_patches(patches, settings(round=2, ratio=0.02), covered=patches[:1], num_rounds=2) is None  # no share


@pytest.mark.parametrize("subsampling", ["random", "density"])
def test_only_k_center_knows_what_is_covered(subsampling: Any) -> None:
    patches = np.zeros((9, 2), dtype=np.float32)
    with pytest.raises(ConfigError, match=rf"subsampling: {subsampling} cannot .* kcenter, or federated.num_rounds"):
        select_rows(patches, 2, settings(subsampling=subsampling), rng=stage_rng(0, "x"), covered=patches[:1])


def test_covered_places_of_another_dimension_are_refused() -> None:
    with pytest.raises(FedpatchError, match="initial_centers"):
        of_patches(np.zeros((9, 2), dtype=np.float32), settings(round=2), covered=np.zeros((1, 3), dtype=np.float32))

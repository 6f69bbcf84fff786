"""A client's share of a round: what nothing covers yet, as many rows as it may send, and nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from data_contracts.errors import DatasetError
from data_contracts.manifests import ClientUploads, UploadManifest
from data_contracts.settings import CoresetSettings
from pipeline_lib.client.provenance import Provenance
from pipeline_lib.client.rounds import origins_by_bank, select_client_coreset
from pipeline_lib.client.selection import ClientCoreset
from pipeline_lib.storage.artifact_store import ArtifactStore

GRIDS = {"clip": (4, 5), "screw": (3, 7)}
DIM = 4


def settings(**values: Any) -> CoresetSettings:
    defaults: dict[str, Any] = {
        "seed": 1, "subsampling": "kcenter", "ratio": 0.1, "bank_scope": "per_category", "codec": "float32",
        "clip_norm": None, "noise_sigma": 0.0,
    }  # fmt: skip
    return CoresetSettings(**{**defaults, **values})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def table(store: ArtifactStore) -> pd.DataFrame:
    """PATCH_FEATURES of three images in each of two categories."""
    rng = np.random.default_rng(0)
    rows = []
    for category, (height, width) in GRIDS.items():
        for number in range(3):
            written = store.write_array("image_features", rng.normal(size=(height * width, DIM)).astype(np.float16))
            rows.append({
                "image_id": f"{category}/{number}", "category": category, "image_sha256": "0" * 64,
                "image_bytes": 1000, "grid_height": height, "grid_width": width, "dim": DIM,
                "path": written.path, "sha256": written.sha256, "size_bytes": written.size_bytes,
            })  # fmt: skip
    return pd.DataFrame(rows)


def patches_of(table: pd.DataFrame, store: ArtifactStore, bank: str) -> np.ndarray:
    files = table.path[(table.category == bank) | (bank == "all")]
    return np.concatenate([np.load(store.root / path) for path in files]).astype(np.float32)


def share(table: pd.DataFrame, store: ArtifactStore, number: int, **values: Any) -> dict[str, ClientCoreset]:
    """bank -> what client c sends in round `number` of two."""
    chosen = settings(round=number, **values.pop("settings", {}))
    arguments: dict[str, Any] = {"num_rounds": 2, "banks": {}, "sent": {}, **values}
    return {made.bank: made for made in select_client_coreset(table, store, "c", chosen, **arguments)}


def origins(coresets: dict[str, ClientCoreset]) -> dict[str, list[Provenance]]:
    return {bank: [Provenance.of(coreset)] for bank, coreset in coresets.items()}


def test_all_rounds_together_send_as_many_rows_as_one_and_each_row_once(
    table: pd.DataFrame, store: ArtifactStore
) -> None:
    once = {made.bank: made for made in select_client_coreset(table, store, "c", settings())}
    first = share(table, store, 1)
    second = share(table, store, 2, sent=origins(first))
    assert list(first) == list(second) == ["clip", "screw"]
    for bank, whole in once.items():
        assert first[bank].n_rows + second[bank].n_rows == whole.n_rows
        rows = np.concatenate([first[bank].arrays["rows"], second[bank].arrays["rows"]])
        assert len(np.unique(rows, axis=0)) == whole.n_rows
        assert second[bank].covering_radius < first[bank].covering_radius


def test_a_later_round_sends_what_is_farthest_from_the_bank(table: pd.DataFrame, store: ArtifactStore) -> None:
    patches = patches_of(table, store, "clip")
    found = share(table, store, 2, banks={"clip": patches[:20]})["clip"]
    nearest = cdist(patches, patches[:20]).min(axis=1)
    np.testing.assert_array_equal(found.arrays["rows"][0], patches[nearest.argmax()])


def test_own_rows_count_as_they_are_here_and_not_as_noise_left_them(table: pd.DataFrame, store: ArtifactStore) -> None:
    noisy = {"noise_sigma": 50.0}
    first = share(table, store, 1, settings=noisy)
    second = share(table, store, 2, settings=noisy, sent=origins(first), banks={})
    for bank in first:
        places = [(c.image_ids[i], p) for c in (first[bank], second[bank])
                  for i, p in zip(c.patch_image, c.patch_index, strict=True)]  # fmt: skip
        assert len(set(places)) == len(places)


def test_nothing_new_is_nothing_sent(table: pd.DataFrame, store: ArtifactStore) -> None:
    covered = {bank: patches_of(table, store, bank) for bank in GRIDS}
    assert share(table, store, 2, banks=covered) == {}
    assert list(share(table, store, 2, banks={"clip": covered["clip"]})) == ["screw"]


def test_the_global_bank_is_one(table: pd.DataFrame, store: ArtifactStore) -> None:
    assert list(share(table, store, 1, settings={"bank_scope": "global"})) == ["all"]


def test_a_client_without_images_is_an_error(store: ArtifactStore) -> None:
    with pytest.raises(DatasetError, match="client c has no images"):
        share(pd.DataFrame(), store, 1)


def test_origins_are_read_by_bank_in_order_of_sending(table: pd.DataFrame, store: ArtifactStore) -> None:
    sent = []
    for number in (1, 2):
        coresets = share(table, store, number)
        uploads = [
            UploadManifest(
                **store.write_arrays("client_upload", made.arrays, rows=made.n_rows).model_dump(), client_id="c",
                category=bank, round=number, config_hash="0", dim=DIM, n_images=3, n_patches=made.n_patches,
                raw_image_bytes=0, covering_radius=made.covering_radius,
            )
            for bank, made in coresets.items()
        ]  # fmt: skip
        kept = [
            store.write_arrays("client_provenance", Provenance.of(made).to_arrays(), rows=made.n_rows)
            for made in coresets.values()
        ]
        sent.append(ClientUploads(client_id="c", uploads=tuple(uploads), provenance=tuple(kept)))
    found = origins_by_bank(store, sent)
    assert {bank: len(each) for bank, each in found.items()} == {"clip": 2, "screw": 2}
    patches = patches_of(table, store, "screw")
    rows = found["screw"][1].rows(patches, [f"screw/{n}" for n in range(3)], [21] * 3)
    np.testing.assert_array_equal(rows, store.read_arrays(sent[1].uploads[1])["rows"])

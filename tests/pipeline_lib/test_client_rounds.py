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
from data_contracts.rounds import RowGrant
from data_contracts.stages import CoresetSettings
from pipeline_lib.artifact_store import ArtifactStore
from pipeline_lib.client_coreset import ClientCoreset, select_client_coreset
from pipeline_lib.client_rounds import coverage_curves, origins_by_bank, select_round_coreset
from pipeline_lib.provenance import Provenance

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
    return {made.bank: made for made in select_round_coreset(table, store, "c", chosen, **arguments)}


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


def test_a_later_round_sends_what_is_farthest_from_bank_and_from_what_others_passed_on(
    table: pd.DataFrame, store: ArtifactStore
) -> None:
    patches = patches_of(table, store, "clip")
    bank, passed = patches[:20], patches[20:30] + np.float32(0.01)
    found = share(table, store, 2, banks={"clip": bank}, passed={"clip": [passed]})["clip"]
    nearest = cdist(patches, np.concatenate([bank, passed])).min(axis=1)
    np.testing.assert_array_equal(found.arrays["rows"][0], patches[nearest.argmax()])


def test_own_rows_count_as_they_are_here_and_not_as_noise_left_them(table: pd.DataFrame, store: ArtifactStore) -> None:
    noisy = {"noise_sigma": 50.0}
    first = share(table, store, 1, settings=noisy)
    second = share(table, store, 2, settings=noisy, sent=origins(first), banks={})
    for bank in first:
        places = [(c.image_ids[i], p) for c in (first[bank], second[bank])
                  for i, p in zip(c.patch_image, c.patch_index, strict=True)]  # fmt: skip
        assert len(set(places)) == len(places)


def test_rows_of_another_dimension_which_the_server_will_refuse_do_not_count(
    table: pd.DataFrame, store: ArtifactStore
) -> None:
    plain, beside = (
        share(table, store, 1, passed={"clip": passed})["clip"] for passed in ([], [np.zeros((2, DIM + 1))])
    )
    np.testing.assert_array_equal(plain.arrays["rows"], beside.arrays["rows"])


def test_nothing_new_is_nothing_sent(table: pd.DataFrame, store: ArtifactStore) -> None:
    covered = {bank: patches_of(table, store, bank) for bank in GRIDS}
    assert share(table, store, 2, banks=covered) == {}
    assert list(share(table, store, 2, banks={"clip": covered["clip"]})) == ["screw"]


def test_what_the_server_grants_is_the_most_that_is_sent_and_how_near(
    table: pd.DataFrame, store: ArtifactStore
) -> None:
    curve, n_patches = coverage_curves(table, store, "c", settings(ratio=0.3), banks={}, sent={})["clip"]
    assert n_patches == 3 * 4 * 5
    assert (np.diff(curve) <= 0).all()
    granted = share(table, store, 1, grants={"clip": RowGrant(rows={"c": 9, "d": 5})})
    assert (list(granted), granted["clip"].n_rows) == (["clip"], 9)  # nothing is granted for the other bank
    down_to = float(curve[4])
    spaced = share(table, store, 1, grants={"clip": RowGrant(rows={"c": 9}, down_to=down_to)})["clip"]
    assert spaced.n_rows == int((curve[:9] >= down_to).sum()) < 9
    assert spaced.covering_radius == pytest.approx(float(curve[spaced.n_rows]))
    assert share(table, store, 1, grants={"clip": RowGrant(rows={"d": 5})}) == {}


def test_a_curve_is_of_the_picks_that_the_client_would_make(table: pd.DataFrame, store: ArtifactStore) -> None:
    first = share(table, store, 1)
    known: dict[str, Any] = {"banks": {}, "sent": origins(first)}
    curves = coverage_curves(table, store, "c", settings(round=2), left=0.5, **known)
    for bank, made in share(table, store, 2, **known).items():
        patches = patches_of(table, store, bank)
        covered = first[bank].arrays["rows"]
        expected = []
        for row in made.arrays["rows"]:
            expected.append(cdist(row[None], covered).min())
            covered = np.concatenate([covered, row[None]])
        assert expected[0] == pytest.approx(cdist(patches, first[bank].arrays["rows"]).min(axis=1).max())
        np.testing.assert_allclose(curves[bank][0][: made.n_rows], expected, rtol=1e-5)


def test_the_global_bank_is_one(table: pd.DataFrame, store: ArtifactStore) -> None:
    assert list(share(table, store, 1, settings={"bank_scope": "global"})) == ["all"]
    assert list(coverage_curves(table, store, "c", settings(bank_scope="global"), banks={}, sent={})) == ["all"]


def test_a_client_without_images_is_an_error(store: ArtifactStore) -> None:
    with pytest.raises(DatasetError, match="client c has no images"):
        share(pd.DataFrame(), store, 1)
    with pytest.raises(DatasetError, match="client c has no images"):
        coverage_curves(pd.DataFrame(), store, "c", settings(), banks={}, sent={})


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

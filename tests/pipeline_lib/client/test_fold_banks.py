"""A fold's bank of means against one that is averaged again from the patches that are left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_contracts.manifests import Cells
from data_contracts.settings import AggregationSettings, CoresetSettings, ScoringSettings
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.client.calibration import bank_without, origins_in_bank, out_of_fold_scores
from pipeline_lib.client.fold_banks import OwnMeans
from pipeline_lib.client.provenance import Provenance
from pipeline_lib.client.rounds import select_client_coreset
from pipeline_lib.client.selection import ClientCoreset
from pipeline_lib.server.aggregation import MergedBank, aggregate_uploads
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.references import image_manifests
from pipeline_lib.upload.acceptance import Upload, join_rounds
from pipeline_lib.upload.counts import rows_of

SCORING = ScoringSettings(seed=0, num_neighbors=1, image_score="max", search="exact", use_faiss=True)
LOSSY: dict[str, Any] = {"codec": "float16", "clip_norm": 6.0, "noise_sigma": 0.05}
DIM = 4


def features_of(store: ArtifactStore, client: str, seed: int, n: int = 6) -> pd.DataFrame:
    """PATCH_FEATURES of a client's images of 5 x 4 patches."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        written = store.write_array("image_features", rng.normal(seed, 2.0, (20, DIM)).astype(np.float16))
        rows.append(
            {"image_id": f"{client}/{number}", "category": "clip", "image_sha256": "", "image_bytes": 1,
             "grid_height": 5, "grid_width": 4, "dim": DIM, "path": written.path, "sha256": written.sha256,
             "size_bytes": written.size_bytes, "cells": Cells.even((5, 4)).for_table()}
        )  # fmt: skip
    return pd.DataFrame(rows)


def settings(number: int, **values: Any) -> CoresetSettings:
    given: dict[str, Any] = {
        "seed": 1, "subsampling": "kcenter", "ratio": 0.2, "bank_scope": "per_category", "codec": "float32",
        "clip_norm": None, "noise_sigma": 0.0, "rows": "cell_means", "round": number,
    }  # fmt: skip
    return CoresetSettings(**{**given, **values})


def federation(
    store: ArtifactStore, tables: dict[str, pd.DataFrame], *, target: int, num_rounds: int, **values: Any
) -> tuple[MergedBank, dict[str, list[ClientCoreset]]]:
    """The bank after all rounds, and what each client sent in each."""
    sent: dict[str, list[ClientCoreset]] = {client: [] for client in tables}
    merge = AggregationSettings(
        seed=1, strategy="federated_coreset", target_rows=target, coreset_percentage=0.1, weight_by_samples=True
    )
    bank: MergedBank | None = None
    for number in range(1, num_rounds + 1):
        for client, table in tables.items():
            (coreset,) = select_client_coreset(
                table, store, client, settings(number, **values), num_rounds=num_rounds,
                banks={"clip": bank.rows} if bank else None,
                sent={"clip": [Provenance.of(one) for one in sent[client]]},
            )  # fmt: skip
            sent[client].append(coreset)
        bank = aggregate_uploads(
            [join_rounds([upload_of(client, one) for one in all_]) for client, all_ in sent.items()], merge, bank="clip"
        )
    assert bank is not None
    return bank, sent


def upload_of(client: str, coreset: ClientCoreset) -> Upload:
    counts = coreset.arrays["counts"].astype(np.int64)
    return Upload(client, rows_of(coreset.arrays), coreset.n_images, coreset.n_patches, counts=counts)


def part_of(bank: MergedBank, sent: list[ClientCoreset], table: pd.DataFrame, store: ArtifactStore) -> OwnMeans:
    uploads = [(rows_of(one.arrays), one.reconstruction_error, Provenance.of(one)) for one in sent]
    found = origins_in_bank(bank.to_arrays(), "b", uploads, table, store)
    assert isinstance(found, OwnMeans)
    return found


def slow_bank_without(
    bank: MergedBank, sent: dict[str, list[ClientCoreset]], store: ArtifactStore, tables: dict[str, pd.DataFrame],
    left_out: set[str],
) -> np.ndarray:  # fmt: skip
    """Each row again from single patches: a patch counts as itself and the error of the row that it was sent in."""
    assert bank.moved is not None
    assert bank.upload_starts is not None
    sums, counts = np.zeros(bank.rows.shape), np.zeros(len(bank.rows), int)
    for place, client in enumerate(bank.client_ids):
        patches = np.concatenate([store.read_array(m) for m in image_manifests(tables[client])]).astype(np.float64)
        image_of = np.repeat(tables[client].image_id.to_numpy(), 20)
        start = int(bank.upload_starts[place])
        for coreset in sent[client]:
            assert coreset.cell is not None
            rows = rows_of(coreset.arrays).astype(np.float64)
            for row in range(coreset.n_rows):
                members = np.flatnonzero(coreset.cell == row)
                if not len(members):
                    continue
                error = rows[row] - patches[members].mean(axis=0)
                for patch in members:
                    if image_of[patch] not in left_out:
                        sums[bank.moved.upload_cell[start + row]] += patches[patch] + error
                        counts[bank.moved.upload_cell[start + row]] += 1
            start += coreset.n_rows
    return sums[counts > 0] / counts[counts > 0, None]


@pytest.mark.parametrize("target", [15, 500], ids=["moved", "as they came"])
@pytest.mark.parametrize("lossy", [{}, LOSSY], ids=["exact", "lossy"])
@pytest.mark.parametrize("num_rounds", [1, 2])
def test_a_folds_bank_is_that_of_the_patches_that_are_left(
    tmp_path: Path, target: int, lossy: dict[str, Any], num_rounds: int
) -> None:
    store = ArtifactStore(tmp_path)
    tables = {client: features_of(store, client, seed) for seed, client in enumerate("abc")}
    bank, sent = federation(store, tables, target=target, num_rounds=num_rounds, **lossy)
    part = part_of(bank, sent["b"], tables["b"], store)
    for images in (tables["b"].iloc[2:4], tables["b"].iloc[:1], tables["b"]):
        found, source = bank_without(bank.rows, part, images, store)
        expected = slow_bank_without(bank, sent, store, tables, set(images.image_id))
        assert found.dtype == np.float32
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=2e-5)
        assert found[source >= 0].tobytes() == bank.rows[source[source >= 0]].tobytes()
    untouched, _ = bank_without(bank.rows, part, tables["a"], store)
    assert untouched.tobytes() == bank.rows.tobytes()  # another client's images are not in its cells


def test_a_row_goes_with_its_last_patch_and_one_that_stands_for_none_is_left_out(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    table = features_of(store, "b", 3)
    bank, sent = federation(store, {"b": table}, target=500, num_rounds=1, ratio=1.0)
    part = part_of(bank, sent["b"], table, store)
    assert len(bank.rows) == 120  # every patch is its own row
    left, _ = bank_without(bank.rows, part, table.iloc[:2], store)
    assert sorted(row.tobytes() for row in left) == sorted(
        row.tobytes()
        for manifest in list(image_manifests(table))[2:]
        for row in store.read_array(manifest).astype("f4")
    )
    assert part.moved.counts.tolist() == [1] * 120
    part.moved.counts[7] = 0
    assert len(bank_without(bank.rows, part, features_of(store, "z", 4), store)[0]) == 119


def test_out_of_fold_scores_are_those_of_banks_that_are_averaged_again(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    tables = {client: features_of(store, client, seed) for seed, client in enumerate("abc")}
    bank, sent = federation(store, tables, target=15, num_rounds=1)
    part = part_of(bank, sent["b"], tables["b"], store)
    found = out_of_fold_scores(tables["b"], store, bank.rows, part, SCORING, n_blocks=3)
    expected = []
    for block in range(3):
        images = tables["b"].iloc[2 * block : 2 * block + 2]
        without = slow_bank_without(bank, sent, store, tables, set(images.image_id))
        for manifest in image_manifests(images):
            distances, _ = MemoryBank(without).query(store.read_array(manifest).astype(np.float32))
            expected.append(float(distances.max()))
    assert found.block.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(found.score, expected, rtol=1e-4)
    inside, _ = MemoryBank(bank.rows).query(
        store.read_array(next(iter(image_manifests(tables["b"])))).astype(np.float32)
    )
    assert found.score.iloc[0] >= float(inside.max())

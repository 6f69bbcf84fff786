"""Explanations in the report: the nearest rows of the bank, what is known of their origin, and the room they take."""

from __future__ import annotations

import html
import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_contracts.manifests import BankManifest, Cells
from pipeline_lib.bank.explanation import Neighbor, PatchExplanation
from pipeline_lib.report.explainer import BankExplainer, bank_explainers
from pipeline_lib.report.gallery import PICTURES_BYTES, encode_webp
from pipeline_lib.report.page import render_report
from pipeline_lib.report.why import WHY_BYTES, draw_why, tile_budget
from pipeline_lib.storage.artifact_store import ArtifactStore
from tests.report_fixtures import made_up_run

GRID = (4, 5)
CELLS = Cells(offset=(0.25, 0.75), across=(4.5, 5.0))


@pytest.fixture
def stored(tmp_path: Path) -> tuple[ArtifactStore, pd.DataFrame, BankManifest]:
    """A store with the features of the image a/test/1, and a bank of 12 rows from two clients."""
    rng = np.random.default_rng(5)
    store = ArtifactStore(tmp_path / "store")
    patches = store.write_array("image_features", rng.random((20, 6)).astype(np.float16))
    row = {"image_id": "a/test/1", "category": "a", "grid_height": 4, "grid_width": 5, "dim": 6}
    row |= {"cells": CELLS.for_table()}
    table = pd.DataFrame([row | {k: getattr(patches, k) for k in ("path", "sha256", "size_bytes")}])
    arrays = {
        "features": rng.random((12, 6)).astype(np.float32),
        "client_ids": np.array(["north", "south"]),
        "row_client": np.repeat(np.arange(2, dtype=np.int32), 6),
    }
    bank = store.write_arrays("memory_bank", arrays, rows=12)
    return store, table, BankManifest(**bank.model_dump(), bank="a", dim=6)


def grid_map_of(store: ArtifactStore, table: pd.DataFrame, bank: BankManifest) -> np.ndarray:
    from pipeline_lib.features.extraction import read_patches

    patches, rows = read_patches(table, store), store.read_arrays(bank)["features"]
    return np.array([min(np.linalg.norm(p - r) for r in rows) for p in patches], np.float32).reshape(GRID)


def test_the_nearest_rows_are_those_of_a_plain_search(stored: tuple[ArtifactStore, pd.DataFrame, BankManifest]) -> None:
    store, table, bank = stored
    grid_map = grid_map_of(store, table, bank)
    found = BankExplainer(store, table, bank).explain("a/test/1", grid_map, 2)
    assert len(found) == 2
    y, x = np.unravel_index(int(grid_map.argmax()), GRID)
    assert found[0].center == ((x + 0.75) / 5, (y + 0.25) / 4.5)
    assert found[0].size == (1 / 5, 1 / 4.5)
    assert found[0].neighbors[0].distance == pytest.approx(grid_map.max(), rel=1e-5)
    for neighbor in found[0].neighbors:
        assert neighbor.client == ("north" if neighbor.bank_row < 6 else "south")
        assert (neighbor.image_id, neighbor.image_path) == (None, None)


def test_images_are_named_where_the_provenance_is_there(
    stored: tuple[ArtifactStore, pd.DataFrame, BankManifest], tmp_path: Path
) -> None:
    store, table, bank = stored
    provenance = pd.DataFrame({"bank_row": range(12), "image_id": "a/train/7", "patch_index": 7})
    index = pd.DataFrame({"image_id": ["a/train/7"], "path": ["a/7.png"]})
    explainers = bank_explainers(store, [bank], table, provenance={"a": provenance}, index=index, data_root=tmp_path)
    nearest = explainers["a"].explain("a/test/1", grid_map_of(store, table, bank), 1)[0].neighbors[0]
    assert (nearest.image_id, nearest.image_path) == ("a/train/7", tmp_path / "a" / "7.png")
    assert nearest.center == (2.75 / 5, 1.25 / 4.5)  # patch 7 of a grid of 4 x 5
    without = bank_explainers(store, [bank], table, provenance={}, index=index, data_root=tmp_path)
    assert without["a"].explain("a/test/1", np.ones(GRID, np.float32), 1)[0].neighbors[0].image_id is None


def test_an_image_whose_features_are_gone_is_not_explained(
    stored: tuple[ArtifactStore, pd.DataFrame, BankManifest], caplog: pytest.LogCaptureFixture
) -> None:
    store, table, bank = stored
    explainer = BankExplainer(store, table, bank)
    assert explainer.explain("another", np.ones(GRID, np.float32), 1) == []
    (store.root / table.path[0]).unlink()
    with caplog.at_level(logging.WARNING):
        assert explainer.explain("a/test/1", np.ones(GRID, np.float32), 1) == []
    assert "a/test/1 is not explained: artifact image_features is missing" in caplog.text


@pytest.mark.parametrize("n_categories", [1, 2, 6, 41, 42, 500])
def test_tiles_stay_within_their_share_of_the_report(n_categories: int) -> None:
    n_patches, max_bytes = tile_budget(n_categories)
    assert n_patches == {1: 3, 2: 3, 6: 3, 41: 1, 42: 0, 500: 0}[n_categories]
    assert n_categories * 2 * n_patches * 4 * max_bytes <= WHY_BYTES
    assert 4 / 3 * (PICTURES_BYTES + WHY_BYTES) < 7_000_000
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    patches = [PatchExplanation((0.1, 0.9), (1 / 8, 1 / 6), 3.0, (Neighbor(1, 2.0, "c"),))] * n_patches
    for why in draw_why(noise, patches, lambda tile: encode_webp(tile, max_bytes)):
        assert 0 < len(why.picture) <= max_bytes
        assert (why.neighbors[0].origin, why.neighbors[0].picture) == ("c", b"")


def test_the_page_shows_pictures_of_local_images_and_names_the_rest(tiny_root: Path) -> None:
    record, galleries = made_up_run(tiny_root)
    page = render_report(record, galleries)
    explained = [e for g in galleries for examples in g.examples.values() for e in examples if e.why]
    assert explained
    assert {e.image_id for e in explained} <= {
        g.examples[k][0].image_id for g in galleries for k in g.examples if g.examples[k]
    }
    assert all(not e.why for g in galleries for e in g.examples["misses"])
    assert page.count('class="card why"') == len(explained)
    for example in explained:
        assert [bool(n.picture) for n in example.why[0].neighbors] == [True, False, False]
    text = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())
    assert f"Why {explained[0].image_id} is flagged" in text
    assert "lost & <gone> (client_0), distance 2.5" in text
    assert "client_7, distance 2.75" in text

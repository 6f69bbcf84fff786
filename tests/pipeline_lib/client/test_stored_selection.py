"""A selection that is kept: the same again, under a key of all that selects, gone when its file is damaged."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.settings import CoresetSettings
from pipeline_lib.client.stored_selection import StoredSelection
from pipeline_lib.coreset.selection import CoresetSelection
from pipeline_lib.storage.artifact_store import ArtifactStore

SELECTION = CoresetSelection(np.array([3, 1, 2]), 0.25, np.array([np.inf, 2.0, 0.5]))
SETTINGS: dict[str, Any] = {
    "seed": 1, "subsampling": "kcenter", "ratio": 0.1, "bank_scope": "per_category", "codec": "float32",
    "clip_norm": None, "noise_sigma": 0.0,
}  # fmt: skip
PLACE: dict[str, Any] = {"client_id": "a", "bank": "clip", "version": "1"}


def place(root: Path, features: tuple[str, ...] = ("f1", "f2"), **changes: Any) -> StoredSelection:
    settings = CoresetSettings(**{name: changes.get(name, value) for name, value in SETTINGS.items()})
    names = {name: changes.get(name, value) for name, value in PLACE.items()}
    return StoredSelection.of(ArtifactStore(root), features, settings, **names)


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    assert place(tmp_path).recall() is None
    place(tmp_path).remember(SELECTION)
    found = place(tmp_path).recall()
    assert found is not None
    np.testing.assert_array_equal(found.indices, SELECTION.indices)
    np.testing.assert_array_equal(found.pick_distances, SELECTION.pick_distances)
    assert found.covering_radius == SELECTION.covering_radius


@pytest.mark.parametrize("changes", [{"codec": "pq"}, {"clip_norm": 1.0}, {"noise_sigma": 0.5}])
def test_what_leaves_the_station_does_not_select(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert place(tmp_path, **changes).key == place(tmp_path).key


@pytest.mark.parametrize(
    "changes",
    [{"seed": 2}, {"subsampling": "random"}, {"ratio": 0.2}, {"bank_scope": "global"}, {"client_id": "b"},
     {"bank": "screw"}, {"version": "2"}, {"features": ("f2", "f1")}, {"features": ("f1",)}],
)  # fmt: skip
def test_what_selects_has_a_place_of_its_own(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert place(tmp_path, **changes).key != place(tmp_path).key


@pytest.mark.parametrize("how", ["deleted", "damaged"])
def test_a_lost_one_is_no_selection(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    place(tmp_path).remember(SELECTION)
    (file,) = (tmp_path / "objects" / "client_selection").rglob("*.npz")
    file.unlink() if how == "deleted" else file.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        assert place(tmp_path).recall() is None
    assert "missing or damaged, selecting again" in caplog.text

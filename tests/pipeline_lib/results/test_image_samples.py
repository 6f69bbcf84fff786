"""Per-image counts in a run directory: written where they belong, read by category and half of the test set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_contracts.errors import ArtifactError
from data_contracts.manifests import LocalClient, MeasuredCategory
from pipeline_lib.metrics.bootstrap import ImageSample
from pipeline_lib.results.image_samples import read_samples, write_samples
from pipeline_lib.storage.artifact_store import ArtifactStore

IDS = ("c", "a", "d", "b")


def measured(store: ArtifactStore, category: str, scores: tuple[float, ...] | None) -> MeasuredCategory:
    """A measured category whose images IDS have these scores; without counts where there are none."""
    other = store.write_json("metrics_document", {})
    sample = None
    if scores is not None:
        arrays = ImageSample(IDS, np.array([0, 1, 0, 1]), np.array(scores), None).to_arrays()
        sample = store.write_arrays("image_sample", arrays, rows=len(IDS))
    return MeasuredCategory(category=category, metrics=other, table=other, curves=other, sample=sample)


def write_scores(directory: Path, sha256: dict[str, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"image_id": list(sha256), "sha256": list(sha256.values())}).to_parquet(directory / "scores.parquet")


def test_a_runs_counts_come_back_in_order_of_image(tmp_path: Path) -> None:
    store, out = ArtifactStore(tmp_path / "store"), tmp_path / "run"
    write_samples(out, store, [measured(store, "screw", (1, 2, 3, 4)), measured(store, "bolt", None),
                               measured(store, "clip/x", (5, 6, 7, 8))])  # fmt: skip
    found = dict(read_samples(out))
    assert [len(samples) for samples in found.values()] == [1, 1]
    assert list(found)[1] == "screw"
    (screw,) = found["screw"]
    assert screw.image_ids == ("a", "b", "c", "d")
    np.testing.assert_array_equal(screw.scores, [2, 4, 1, 3])
    np.testing.assert_array_equal(screw.label_index, [1, 1, 0, 0])


def test_a_half_is_told_by_the_images_hash(tmp_path: Path) -> None:
    store, out = ArtifactStore(tmp_path / "store"), tmp_path / "run"
    write_samples(out, store, [measured(store, "clip", (1, 2, 3, 4))])
    write_scores(out, {"a": "0f", "b": "1f", "c": "e0", "d": "f0"})
    halves = {
        subset: dict(read_samples(out, subset=subset))["clip"][0].image_ids for subset in ("development", "report")
    }
    assert halves == {"development": ("a", "c"), "report": ("b", "d")}


def test_clients_that_train_alone_have_theirs_each(tmp_path: Path) -> None:
    store, out = ArtifactStore(tmp_path / "store"), tmp_path / "run"
    local = [
        LocalClient(client_id=name, banks=(), scored=(), measured=(measured(store, "clip", (n, 0, 0, 0)),))
        for n, name in enumerate(("client_0", "client_1"))
    ]
    write_samples(out, store, [], local)
    for client in local:
        write_scores(out / "clients" / client.client_id, {"a": "1", "b": "1", "c": "0", "d": "1"})
    ((category, samples),) = read_samples(out, subset="development")
    assert (category, [list(s.scores) for s in samples]) == ("clip", [[0], [1]])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "clip.npz").write_bytes(b"no")
    with pytest.raises(ArtifactError, match=r"cannot read .*clip\.npz"):
        list(read_samples(tmp_path))

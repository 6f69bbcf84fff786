"""Coverage of the final bank against distances by brute force, quantiles by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_contracts.results import ClientSummary, Coverage, FederationSummary, MetricsDocument
from pipeline_lib.benchmark.comparison import ExperimentRuns
from pipeline_lib.benchmark.coverage import coverage_rows
from pipeline_lib.client.coverage import client_coverage, coverage_of
from pipeline_lib.results.documents import with_coverage
from pipeline_lib.storage.artifact_store import ArtifactStore
from tests.pipeline_lib.bank.test_scoring import DIM, feature_table


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def rows(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def brute_force(patches: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """float64 (patch,): distance to the nearest row, one by one."""
    return np.array([min(np.sqrt(((p - row) ** 2).sum()) for row in bank) for p in patches.astype(np.float64)])


def test_distances_are_those_of_brute_force_by_category(store: ArtifactStore) -> None:
    own = {"a": rows(1, 36).reshape(3, 12, DIM), "b": 3 * rows(2, 48).reshape(4, 12, DIM)}
    own = {name: patches.astype(np.float16) for name, patches in own.items()}
    table = pd.concat([feature_table(store, patches).assign(category=name) for name, patches in own.items()])
    table = table.iloc[[0, 3, 1, 4, 5, 2, 6]]  # categories mixed
    banks = {"a": rows(3, 20), "b": rows(4, 9)}
    found = client_coverage(table, store, banks)
    together = client_coverage(table, store, {"all": banks["b"]})
    assert set(found) == set(together) == {"a", "b"}
    for name, patches in own.items():
        for coverage, bank in ((found[name], banks[name]), (together[name], banks["b"])):
            expected = np.sort(brute_force(patches.reshape(-1, DIM), bank))
            n = len(expected)
            assert coverage.patches == n
            assert coverage.covering_radius == pytest.approx(expected[-1], rel=1e-5)
            assert coverage.mean == pytest.approx(expected.mean(), rel=1e-5)
            for quantile, share in ((coverage.q50, 0.5), (coverage.q90, 0.9), (coverage.q99, 0.99)):
                low = int(share * (n - 1))
                part = share * (n - 1) - low
                by_hand = expected[low] + part * (expected[low + 1] - expected[low])
                assert quantile == pytest.approx(by_hand, rel=1e-5)


def test_a_category_without_a_bank_is_left_out_and_rows_of_the_bank_are_at_0(store: ArtifactStore) -> None:
    patches = rows(1, 24).astype(np.float16).reshape(2, 12, DIM)
    table = pd.concat([feature_table(store, patches).assign(category=name) for name in ("a", "b")])
    found = client_coverage(table, store, {"a": patches.reshape(-1, DIM).astype(np.float32)})
    assert found == {"a": Coverage(patches=24, mean=0, q50=0, q90=0, q95=0, q99=0, covering_radius=0)}


def document(**clients: dict[str, np.ndarray]) -> MetricsDocument:
    """A run whose clients have these distances by category."""
    summary = ClientSummary(train_images=1, patches=1, coreset_rows=1, upload_bytes=1, raw_image_bytes=1)
    found = {
        name: {category: coverage_of(distances).model_dump() for category, distances in own.items()}
        for name, own in clients.items()
    }
    federation = with_coverage(FederationSummary(clients=dict.fromkeys(clients, summary)), found)
    return MetricsDocument(experiment="x", config_hash="0", seed=0, federation=federation)


def test_the_benchmark_takes_the_client_that_is_covered_least_and_the_mean_over_seeds() -> None:
    near, far = np.linspace(0, 1, 101), np.linspace(0, 3, 301)
    first = document(one={"a": near}, two={"a": far, "b": near})
    second = document(one={"a": near}, two={"a": near})
    (row,) = coverage_rows({"x": ExperimentRuns({0: first, 1: second}), "none": ExperimentRuns({0: document()})})
    assert (row["experiment"], row["category"], row["clients"], row["patches"]) == ("x", "a", 2, 302)
    pooled = np.concatenate([near, far])
    assert row["mean"] == pytest.approx((pooled.mean() + 0.5) / 2)
    assert row["covering_radius"] == pytest.approx((3 + 1) / 2)
    assert row["q90"] == pytest.approx((2.7 + 0.9) / 2)

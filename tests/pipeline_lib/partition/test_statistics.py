"""Statistics of a partition, against hand-counted cases and SciPy's Jensen-Shannon distance."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from data_contracts.errors import DatasetError
from pipeline_lib.partition.statistics import compute_partition_stats, jensen_shannon_divergence

INDEX = pd.DataFrame(
    [("a/0", "a", 0), ("a/1", "a", 0), ("a/2", "a", 0), ("b/0", "b", 0), ("b/1", "b", 1), ("c/0", "c", 0)],
    columns=["image_id", "category", "label_index"],
)
PARTITION = pd.DataFrame({"image_id": ["a/0", "a/1", "a/2", "b/0", "b/1"], "client_id": ["y", "x", "x", "x", "x"]})


def test_counts_by_hand() -> None:
    stats = compute_partition_stats(INDEX, PARTITION, clients=["x", "y"])
    assert stats["n_images"] == 5
    assert stats["n_clients"] == 2
    assert stats["balance"] == 4.0
    assert stats["by_category"] == {"a": 3, "b": 2}
    assert stats["labels"] == {"normal": 4, "defective": 1}
    assert list(stats["clients"]) == ["x", "y"]
    x = dict(stats["clients"]["x"])
    assert x.pop("js_divergence") == pytest.approx(jensenshannon([0.5, 0.5], [0.6, 0.4], base=2) ** 2)
    assert x == {
        "total": 4,
        "share": 0.8,
        "n_categories": 2,
        "by_category": {"a": 2, "b": 2},
        "labels": {"normal": 3, "defective": 1},
    }


def test_an_empty_client_is_listed_and_leaves_balance_undefined() -> None:
    stats = compute_partition_stats(INDEX, PARTITION, clients=["x", "empty"])
    assert list(stats["clients"]) == ["x", "empty", "y"]
    assert stats["balance"] is None
    assert stats["clients"]["empty"] == {
        "total": 0,
        "share": 0.0,
        "n_categories": 0,
        "by_category": {},
        "labels": {"normal": 0, "defective": 0},
        "js_divergence": None,
    }
    assert json.loads(json.dumps(stats, allow_nan=False)) == stats


def test_a_data_set_with_indices_gives_the_same_numbers() -> None:
    samples = [(row.image_id, row.label_index, row.category, "good") for row in INDEX.itertuples()]
    dataset = SimpleNamespace(samples=samples)
    assert compute_partition_stats(dataset, {"x": [1, 2, 3, 4], "y": [0]}) == compute_partition_stats(INDEX, PARTITION)


def test_numpy_labels_become_plain_json() -> None:
    assert json.loads(json.dumps(compute_partition_stats(INDEX, PARTITION)))["n_images"] == 5


def test_unknown_images_are_named() -> None:
    stray = pd.DataFrame({"image_id": ["a/9"], "client_id": ["x"]})
    with pytest.raises(DatasetError, match="'a/9', which is not in the data set index"):
        compute_partition_stats(INDEX, stray)
    dataset = SimpleNamespace(samples=[("p", 0, "a", "good")])
    with pytest.raises(DatasetError, match="names the index 1, but the data set has 1 images"):
        compute_partition_stats(dataset, {"x": [0, 1]})


def test_mixed_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match="got DataFrame with dict"):
        compute_partition_stats(INDEX, {"x": [0]})


counts = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 1000), min_size=1)


@given(p=counts, q=counts)
def test_divergence_agrees_with_scipy(p: dict[str, int], q: dict[str, int]) -> None:
    names = sorted({*p, *q})
    distance = jensenshannon([p.get(n, 0) for n in names], [q.get(n, 0) for n in names], base=2)
    expected = 0.0 if distance != distance else distance**2  # SciPy gives nan where rounding makes it negative
    assert jensen_shannon_divergence(p, q) == pytest.approx(expected, abs=1e-9)
    assert jensen_shannon_divergence(p, q) == jensen_shannon_divergence(q, p)


def test_divergence_ends() -> None:
    assert jensen_shannon_divergence({"a": 3, "b": 1}, {"a": 6, "b": 2}) == 0.0
    assert jensen_shannon_divergence({"a": 3}, {"b": 5}) == 1.0

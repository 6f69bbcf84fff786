"""Partitions: every training image exactly once, and each strategy's own promise."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from data_contracts.config import FederatedConfig
from data_contracts.errors import ArtifactError, ConfigError, DatasetError
from data_contracts.tables import PARTITION
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.partition.assignment import client_ids, parted_groups, partition_images
from pipeline_lib.partition.partitioners import (
    CategoryPartitioner,
    DirichletPartitioner,
    IIDPartitioner,
    TimePartitioner,
)
from pipeline_lib.partition.saved import load_partition, save_partition
from pipeline_lib.partition.shards import category_shards, dirichlet_shards, iid_shards, time_shards
from pipeline_lib.partition.statistics import compute_partition_stats


def make_index(counts: dict[str, int]) -> pd.DataFrame:
    rows = []
    for category, count in counts.items():
        for number in range(count):
            rows.append((f"{category}/train/good/{number:04d}", category, "train", "good", 0, ""))
        rows.append((f"{category}/train/good/broken", category, "train", "good", 0, "cannot be decoded"))
        rows.append((f"{category}/test/good/0000", category, "test", "good", 0, ""))
        rows.append((f"{category}/test/missing/0000", category, "test", "missing", 1, ""))
    return pd.DataFrame(rows, columns=["image_id", "category", "split", "label", "label_index", "problem"])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


FEDERATED = [
    FederatedConfig(mode="centralized"),
    FederatedConfig(mode="federated", partitioning="iid", num_clients=3),
    FederatedConfig(mode="local_only", partitioning="time", num_clients=4),
    FederatedConfig(mode="federated", partitioning="dirichlet", num_clients=5, alpha=0.3),
    FederatedConfig(
        mode="federated",
        partitioning="category",
        client_assignments={"client_0": ("a", "b"), "client_1": ("b", "c", "elsewhere"), "client_2": ("all",)},
    ),
]


@pytest.mark.parametrize("federated", FEDERATED[1:], ids=lambda f: f"{f.mode}-{f.partitioning}")
def test_a_group_goes_to_one_client_as_its_first_image_would(federated: FederatedConfig) -> None:
    index = make_index({"a": 40, "b": 24, "c": 6})
    trained = [image_id for image_id in index.image_id if "/train/" in image_id and "broken" not in image_id]
    group_of = {image_id: f"{image_id[0]}/{int(image_id[-4:]) % 10}" for image_id in trained}
    by_image = partition_images(index, federated, rng=rng(), group_of=group_of)
    pd.testing.assert_frame_equal(by_image, partition_images(index, federated, rng=rng()))
    assert parted_groups(by_image, group_of)
    whole = federated.model_copy(update={"partition_groups": True})
    partition = partition_images(index, whole, rng=rng(), group_of=group_of)
    assert partition.image_id.tolist() == by_image.image_id.tolist()
    assert parted_groups(partition, group_of) == []
    first_of = {group: image_id for image_id, group in reversed(group_of.items())}
    firsts = partition[partition.image_id.isin(first_of.values())]
    of_firsts = partition_images(index[index.image_id.isin(firsts.image_id)], federated, rng=rng())
    assert of_firsts.client_id.tolist() == firsts.client_id.tolist()


def test_a_saved_partition_that_parts_a_group_is_refused(tmp_path: Path) -> None:
    index = make_index({"a": 12})
    save_partition(partition_images(index, FEDERATED[1], rng=rng()), {}, tmp_path)
    saved = FederatedConfig(mode="federated", partitioning="saved", partition_path=tmp_path, partition_groups=True)
    group_of = dict.fromkeys(index.image_id[:6], "a/x")
    with pytest.raises(ConfigError, match=r"parts 1 groups, such as a/x"):
        partition_images(index, saved, rng=rng(), group_of=group_of)
    partition_images(index, saved, rng=rng(), group_of={"a/train/good/0000": "a/x"})


@pytest.mark.parametrize("federated", FEDERATED, ids=lambda f: f"{f.mode}-{f.partitioning}")
def test_every_readable_training_image_once_in_index_order(federated: FederatedConfig) -> None:
    index = make_index({"a": 21, "b": 1, "c": 8})
    partition = partition_images(index, federated, rng=rng())
    expected = [
        row.image_id for row in index.itertuples() if "/train/" in row.image_id and "broken" not in row.image_id
    ]
    assert partition["image_id"].tolist() == expected
    assert list(partition.columns) == PARTITION.names
    assert set(partition["client_id"]) <= set(client_ids(federated))
    pd.testing.assert_frame_equal(partition, partition_images(index, federated, rng=rng()))


def test_centralized_is_one_client() -> None:
    partition = partition_images(make_index({"a": 4, "b": 3}), FederatedConfig(), rng=rng())
    assert set(partition["client_id"]) == {"centralized"}


def test_a_row_label_that_is_not_a_range_does_not_matter() -> None:
    index = make_index({"a": 9, "b": 5})
    moved = index.set_index(pd.Index(np.arange(len(index))[::-1] * 7))
    pd.testing.assert_frame_equal(
        partition_images(index, FEDERATED[1], rng=rng()), partition_images(moved, FEDERATED[1], rng=rng())
    )


def test_no_training_image_is_an_error() -> None:
    index = make_index({"a": 2})
    with pytest.raises(DatasetError, match="no readable training image among the 2 rows"):
        partition_images(index[index["split"] == "test"], FederatedConfig(), rng=rng())


# --- iid ---------------------------------------------------------------------------------------------------------


@given(n_images=st.integers(0, 200), num_clients=st.integers(1, 12), seed=st.integers(0, 5))
def test_iid_parts_are_even_and_complete(n_images: int, num_clients: int, seed: int) -> None:
    shards = iid_shards(n_images, num_clients, rng=rng(seed))
    sizes = [len(positions) for positions in shards.values()]
    assert sorted(i for positions in shards.values() for i in positions) == list(range(n_images))
    assert max(sizes) - min(sizes) <= 1
    assert list(shards) == [f"client_{k}" for k in range(num_clients)]


def test_iid_is_the_shuffle_cut_by_array_split() -> None:
    shuffled = rng(3).permutation(10)
    parts = [sorted(part.tolist()) for part in np.array_split(shuffled, 3)]
    assert list(iid_shards(10, 3, rng=rng(3)).values()) == parts
    assert iid_shards(10, 3, rng=rng(3)) != iid_shards(10, 3, rng=rng(4))


# --- time --------------------------------------------------------------------------------------------------------


def test_time_gives_the_kth_stretch_of_every_category() -> None:
    categories = ["a"] * 6 + ["b"] * 3
    assert time_shards(categories, 3) == {"client_0": [0, 1, 6], "client_1": [2, 3, 7], "client_2": [4, 5, 8]}


def test_time_with_fewer_images_than_clients_leaves_clients_empty() -> None:
    assert time_shards(["a", "a"], 3) == {"client_0": [0], "client_1": [1], "client_2": []}


# --- dirichlet ---------------------------------------------------------------------------------------------------


def test_dirichlet_alpha_sets_the_unevenness() -> None:
    categories = ["a"] * 1000 + ["b"] * 1000

    def largest_share(alpha: float) -> float:
        shares = []
        for seed in range(20):
            sizes = [
                sum(1 for i in p if i < 1000) for p in dirichlet_shards(categories, 5, alpha, rng=rng(seed)).values()
            ]
            shares.append(max(sizes) / 1000)
        return float(np.mean(shares))

    assert largest_share(0.05) > 0.8
    assert largest_share(1000.0) < 0.23


def test_dirichlet_shares_have_the_distributions_mean_and_variance() -> None:
    alpha, num_clients, n_images = 2.0, 4, 500
    first = [
        len(dirichlet_shards(["a"] * n_images, num_clients, alpha, rng=rng(seed))["client_0"]) / n_images
        for seed in range(600)
    ]
    variance = (1 / num_clients) * (1 - 1 / num_clients) / (alpha * num_clients + 1)
    assert np.mean(first) == pytest.approx(1 / num_clients, abs=0.02)
    assert np.var(first) == pytest.approx(variance, rel=0.2)


@given(alpha=st.floats(0.01, 100), num_clients=st.integers(1, 8), n_images=st.integers(1, 60), seed=st.integers(0, 9))
def test_dirichlet_is_complete(alpha: float, num_clients: int, n_images: int, seed: int) -> None:
    shards = dirichlet_shards(["a", "b", "a"] * n_images, num_clients, alpha, rng=rng(seed))
    assert sorted(i for positions in shards.values() for i in positions) == list(range(3 * n_images))


# --- category ----------------------------------------------------------------------------------------------------

COUNTS = {"a": 100, "b": 45, "c": 20}
CATEGORIES = [name for name, count in COUNTS.items() for _ in range(count)]


def counted(shards: dict[str, list[int]]) -> dict[str, dict[str, int]]:
    return {client: dict(Counter(CATEGORIES[i] for i in positions)) for client, positions in shards.items()}


def test_quality_control_draws_first_and_owners_get_the_rest() -> None:
    shards = category_shards(CATEGORIES, {"client_0": ["a"], "client_1": ["b", "c"], "qc": ["all"]}, 0.1, rng=rng())
    assert counted(shards) == {
        "client_0": {"a": 90},
        "client_1": {"b": 41, "c": 18},
        "qc": {"a": 10, "b": round(4.5), "c": 2},
    }
    assert shards["qc"][:10] != list(range(10))  # a sample, not the first ones


def test_several_quality_control_clients_and_shared_categories() -> None:
    shards = category_shards(
        CATEGORIES, {"x": ["a", "b", "c"], "qc_1": ["all"], "y": ["a"], "qc_2": ["all"]}, 0.2, rng=rng()
    )
    assert counted(shards) == {
        "x": {"a": 30, "b": 27, "c": 12},
        "qc_1": {"a": 20, "b": 9, "c": 4},
        "y": {"a": 30},
        "qc_2": {"a": 20, "b": 9, "c": 4},
    }


@pytest.mark.parametrize(("n_images", "drawn"), [(1, 0), (2, 1), (4, 1), (100, 10)])
def test_quality_control_draws_one_of_a_small_category(n_images: int, drawn: int) -> None:
    shards = category_shards(["a"] * n_images, {"x": ["a"], "qc": ["all"]}, 0.1, rng=rng())
    assert (len(shards["qc"]), len(shards["x"])) == (drawn, n_images - drawn)


def test_quality_control_never_takes_the_last_image() -> None:
    shards = category_shards(["a"] * 5, {"x": ["a"], "q1": ["all"], "q2": ["all"], "q3": ["all"]}, 0.9, rng=rng())
    assert {client: len(positions) for client, positions in shards.items()} == {"x": 1, "q1": 4, "q2": 0, "q3": 0}


def test_only_quality_control_clients_share_evenly() -> None:
    shards = category_shards(CATEGORIES, {"q1": ["all"], "q2": ["all"]}, 0.1, rng=rng())
    assert counted(shards)["q1"] == {"a": 50, "b": 23, "c": 10}
    assert counted(shards)["q2"] == {"a": 50, "b": 22, "c": 10}


def test_images_that_nobody_owns_are_an_error_that_names_them() -> None:
    with pytest.raises(ConfigError, match=r"no client the categories \['b', 'c'\].*dataset.categories to \['a'\]"):
        category_shards(CATEGORIES, {"x": ["a"], "qc": ["all"]}, 0.1, rng=rng())


def test_all_beside_other_names_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"client_assignments.x is \['all', 'a'\]: \[all\] stands alone"):
        category_shards(CATEGORIES, {"x": ["all", "a"]}, 0.1, rng=rng())


@pytest.mark.parametrize("federated", [FEDERATED[3], FEDERATED[4]], ids=["dirichlet", "category"])
def test_leaving_a_category_out_does_not_move_the_others(federated: FederatedConfig) -> None:
    whole = partition_images(make_index({"a": 30, "b": 20, "c": 10}), federated, rng=rng())
    part = partition_images(make_index({"b": 20, "c": 10}), federated, rng=rng())
    kept = whole[~whole["image_id"].str.startswith("a/")].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, part)


# --- classes -----------------------------------------------------------------------------------------------------


def make_dataset(counts: dict[str, int]) -> Any:
    """Stands in for the guide's data set class: only `samples` is looked at."""
    samples = [(f"{c}/{i}.png", 0, c, "good") for c, count in counts.items() for i in range(count)]
    return SimpleNamespace(samples=samples)


def test_classes_give_what_the_functions_give() -> None:
    dataset = make_dataset(COUNTS)
    assignments = {0: ["a"], "1": ["b", "c"], "qc": ["all"]}
    assert IIDPartitioner(4, seed=7).partition(dataset) == iid_shards(165, 4, rng=rng(7))
    assert TimePartitioner(2).partition(dataset) == time_shards(CATEGORIES, 2)
    assert DirichletPartitioner(3, alpha=0.2, seed=1).partition(dataset) == dirichlet_shards(
        CATEGORIES, 3, 0.2, rng=rng(1)
    )
    assert CategoryPartitioner(assignments, 0.2, seed=5).partition(dataset) == category_shards(
        CATEGORIES, {"client_0": ["a"], "client_1": ["b", "c"], "qc": ["all"]}, 0.2, rng=rng(5)
    )


def test_subsets_are_views_of_each_clients_images(tmp_path: Path) -> None:
    for category, count in {"a": 5, "b": 4}.items():
        good = tmp_path / category / "train" / "good"
        good.mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (32, 32), (10 * number, 0, 0)).save(good / f"{number:04d}.png")
    dataset = AutoVIDataset(tmp_path, split="train")
    partitioner = CategoryPartitioner({"x": ["a"], "y": ["b"]}, seed=3)
    subsets = partitioner.create_subsets(dataset)
    assert {client: {sample[2] for sample in subset.samples} for client, subset in subsets.items()} == {
        "x": {"a"},
        "y": {"b"},
    }
    assert [len(subset) for subset in subsets.values()] == [5, 4]
    stats = compute_partition_stats(dataset, partitioner.partition(dataset))
    assert stats["by_category"] == {"a": 5, "b": 4}


def test_a_partitioner_gives_the_same_twice() -> None:
    partitioner = IIDPartitioner(3)
    dataset = make_dataset({"a": 20})
    assert partitioner.partition(dataset) == partitioner.partition(dataset)


def test_a_wrong_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"IIDPartitioner: num_clients: .*greater than or equal to 1"):
        IIDPartitioner(0)
    with pytest.raises(ConfigError, match=r"CategoryPartitioner: qc_sample_ratio"):
        CategoryPartitioner({"x": ["a"]}, qc_sample_ratio=1.5)


# --- files -------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_exactly(tmp_path: Path) -> None:
    index = make_index({"a": 7, "ü": 5})
    federated = FederatedConfig(mode="federated", partitioning="iid", num_clients=3)
    partition = partition_images(index, federated, rng=rng())
    stats = compute_partition_stats(index, partition, clients=client_ids(federated))
    save_partition(partition, stats, tmp_path / "deep" / "partition")
    loaded, loaded_stats = load_partition(tmp_path / "deep" / "partition")
    pd.testing.assert_frame_equal(loaded, partition)
    assert loaded_stats == stats
    before = (tmp_path / "deep" / "partition" / "partition.parquet").read_bytes()
    save_partition(loaded, loaded_stats, tmp_path / "deep" / "partition")
    assert (tmp_path / "deep" / "partition" / "partition.parquet").read_bytes() == before


def test_a_missing_or_damaged_partition_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot read a partition in"):
        load_partition(tmp_path)
    (tmp_path / "partition_stats.json").write_text("{}")
    (tmp_path / "partition.parquet").write_bytes(b"not parquet")
    with pytest.raises(ArtifactError, match="cannot read a partition in"):
        load_partition(tmp_path)
    pd.DataFrame({"image_id": ["a"], "owner": ["x"]}).to_parquet(tmp_path / "partition.parquet")
    with pytest.raises(ArtifactError, match=r"has the columns \['image_id', 'owner'\]"):
        load_partition(tmp_path)


def test_a_saved_partition_is_used_as_it_is(tmp_path: Path) -> None:
    index = make_index({"a": 7, "b": 5})
    made = FederatedConfig(mode="federated", partitioning="iid", num_clients=3)
    partition = partition_images(index, made, rng=rng())
    save_partition(partition, compute_partition_stats(index, partition, clients=[*client_ids(made), "late"]), tmp_path)
    for path in (tmp_path, tmp_path / "partition.parquet"):
        saved = FederatedConfig(mode="federated", partitioning="saved", partition_path=path)
        pd.testing.assert_frame_equal(partition_images(index, saved, rng=rng()), partition)
        assert client_ids(saved) == ("client_0", "client_1", "client_2", "late")
    part = partition_images(index[index["category"] == "a"], saved, rng=rng())
    assert part["image_id"].tolist() == [i for i in partition["image_id"] if i.startswith("a/")]
    with pytest.raises(ConfigError, match=r"gives 5 of 17 training images to nobody, such as c/.*made of other images"):
        partition_images(make_index({"a": 7, "b": 5, "c": 5}), saved, rng=rng())


def test_a_saved_partition_needs_its_path(tmp_path: Path) -> None:
    for wrong in ({"partitioning": "saved"}, {"partition_path": tmp_path}):
        with pytest.raises(ValidationError, match="go together"):
            FederatedConfig(mode="federated", **wrong)

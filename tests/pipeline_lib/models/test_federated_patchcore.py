"""The federation as a whole: the same banks as a run, rounds, failures and the quorum, checkpoints, predictions."""

from __future__ import annotations

import doctest
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline_lib.models.client
import pipeline_lib.models.federated_patchcore
from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError, DatasetError, FedpatchError, QuorumError
from flows.experiment import federated_experiment
from pipeline_lib.configuration.files import parse_config
from pipeline_lib.coreset.subsampling import covering_radius
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.models.federated_patchcore import FederatedPatchCore
from pipeline_lib.models.patchcore import PatchCore
from pipeline_lib.partition.partitioners import CategoryPartitioner, IIDPartitioner
from tests.conftest import experiment_values
from tests.dataset_fixtures import truncate
from tests.federation_fixtures import banks, failing, federation, same_banks, values


def test_the_example_in_the_docstring() -> None:
    results = doctest.testmod(pipeline_lib.models.federated_patchcore)
    assert results.attempted > 5
    assert results.failed == 0


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {
            "model": {"rows": "picks"},
            "aggregation": {"bank_scope": "global", "oversample_factor": 2.0},
            "upload": {"codec": "float16"},
        },
        {
            "model": {"rows": "cell_means", "lloyd_steps": 2},
            "aggregation": {"bank_scope": "global", "oversample_factor": 2.0},
            "upload": {"codec": "pq"},
        },
    ],
    ids=["per_category", "picks", "means"],
)
def test_one_round_gives_the_banks_of_the_flow(
    tiny_root: Path,
    tmp_path: Path,
    images: AutoVIDataset,
    extractor: FeatureExtractor,
    finished: Path,
    store: Path,
    sections: dict[str, Any],
) -> None:
    config = ExperimentConfig.model_validate(experiment_values(tiny_root, store, tmp_path / "run", **sections))
    out = finished / "run"
    if sections:
        out = tmp_path / "run"
        state: Any = federated_experiment(config, return_state=True)
        assert state.is_completed()
    made = FederatedPatchCore(config, extractor=extractor)
    made.setup_clients(images)
    made.train()
    files = sorted((out / "banks").iterdir())
    assert [file.stem for file in files] == sorted(made.server.banks)
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            merged = made.server.banks[file.stem]
            assert np.array_equal(arrays["features"], merged.rows)
            assert arrays["client_ids"].tolist() == merged.client_ids
            assert np.array_equal(arrays["row_client"], merged.row_client)
            for name, array in merged.to_arrays().items():
                assert np.array_equal(arrays[name], array)
            assert ("counts" in arrays.files) == (config.model.rows == "cell_means")


# --- clients ---------------------------------------------------------------------------------------------------------


def test_statistics_of_the_partition_and_any_partitioner(images: AutoVIDataset, extractor: FeatureExtractor) -> None:
    made = FederatedPatchCore(values(), extractor=extractor)
    stats = made.setup_clients(images)
    assert sum(client["total"] for client in stats["clients"].values()) == 18
    assert made.partition_stats is stats
    made.setup_clients(images, IIDPartitioner(5, seed=1))
    made.train()
    assert list(made.clients) == [f"client_{number}" for number in range(5)]
    stations = CategoryPartitioner({"clips": ["pipe_clip"], "tanks": ["tank_screw"], "qc": ["all"]}, seed=1)
    made.setup_clients(images, stations)
    made.train()
    assert made.server.banks["pipe_clip"].client_ids == ["clips", "qc"]
    assert made.server.banks["tank_screw"].client_ids == ["qc", "tanks"]


def test_a_client_without_images_is_skipped_and_does_not_count_among_all(
    tiny_root: Path, extractor: FeatureExtractor, caplog: pytest.LogCaptureFixture
) -> None:
    assignments = {"clips": ["pipe_clip"], "tanks": ["tank_screw"]}
    federated = {"partitioning": "category", "client_assignments": assignments}
    with caplog.at_level(logging.WARNING):
        made = federation(extractor, AutoVIDataset(tiny_root, ["pipe_clip"]), federated=federated)
    assert made.skipped_clients == ["tanks"]
    assert "client tanks has no images and is skipped" in caplog.text
    (summary,) = made.train()
    assert (summary.delivered, summary.failed) == (["clips"], {})
    strict = federation(extractor, AutoVIDataset(tiny_root, ["pipe_clip"]), federated={**federated, "min_clients": 2})
    with pytest.raises(QuorumError, match=r"quorum out of reach.*without images: tanks"):
        strict.train()


def test_what_is_not_ready_says_what_to_call(images: AutoVIDataset, extractor: FeatureExtractor) -> None:
    made = FederatedPatchCore(values(), extractor=extractor)
    with pytest.raises(FedpatchError, match="call setup_clients"):
        made.train()
    made.setup_clients(images)
    for call in (lambda: made.save("nowhere"), lambda: made.model_of("pipe_clip")):
        with pytest.raises(FedpatchError, match="call train first"):
            call()
    made.train()
    with pytest.raises(FedpatchError, match="no memory bank for 'bolt'; banks: pipe_clip, tank_screw"):
        made.model_of("bolt")


def test_a_configuration_that_is_not_federated_becomes_so(extractor: FeatureExtractor) -> None:
    assert FederatedPatchCore({"seed": 1}, extractor=extractor).config.federated.mode == "federated"
    assert FederatedPatchCore(parse_config({}), extractor=extractor).config.federated.num_clients == 5
    with pytest.raises(ConfigError, match="unknown key 'clients'"):
        FederatedPatchCore({"federated": {"clients": 3}}, extractor=extractor)


# --- rounds ----------------------------------------------------------------------------------------------------------


def test_several_rounds_send_no_more_rows_and_cover_better(
    tiny_root: Path, images: AutoVIDataset, extractor: FeatureExtractor
) -> None:
    one, three = (federation(extractor, images, model={"rows": "picks"}) for _ in range(2))
    (single,) = one.train()
    rounds = three.train(num_rounds=3)
    assert sum(summary.upload_rows for summary in rounds) == single.upload_rows
    assert rounds[-1].bank_rows == single.bank_rows
    assert all(summary.download_bytes > 0 for summary in rounds)
    sizes = [summary.bank_rows["pipe_clip"] for summary in rounds]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    patches = PatchCore(extractor, coreset_percentage=1.0, image_size=(64, 64)).fit(
        AutoVIDataset(tiny_root, ["pipe_clip"])
    )
    every = patches.memory_bank.features
    assert covering_radius(every, banks(three)["pipe_clip"]) < covering_radius(every, banks(one)["pipe_clip"])
    radii = [max(summary.covering_radius.values()) for summary in rounds]
    assert radii == sorted(radii, reverse=True)


def test_the_number_of_rounds_is_the_configurations_unless_given(
    images: AutoVIDataset, extractor: FeatureExtractor
) -> None:
    configured = federation(extractor, images, federated={"num_rounds": 2})
    given = federation(extractor, images)
    assert [summary.round for summary in configured.train()] == [1, 2]
    given.train(num_rounds=2)
    assert same_banks(configured, given)
    given.train(num_rounds=2)  # starts over
    assert same_banks(configured, given)
    assert len(given.history) == 2


def test_rounds_need_k_center(images: AutoVIDataset, extractor: FeatureExtractor) -> None:
    made = federation(extractor, images, model={"subsampling": "random"})
    made.train()
    with pytest.raises(ConfigError, match=r"num_rounds is 2, but model\.subsampling random cannot"):
        made.train(num_rounds=2)


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_failed_client_is_named_and_the_others_go_on(
    images: AutoVIDataset,
    extractor: FeatureExtractor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing(monkeypatch, lambda client, _round: client.client_id == "client_1")
    made = federation(extractor, images, federated={"min_clients": 2})
    with caplog.at_level(logging.WARNING):
        (summary,) = made.train()
    assert summary.delivered == ["client_0", "client_2"]
    assert list(summary.failed) == ["client_1"]
    assert "OSError: [Errno 5] Input/output error" in summary.failed["client_1"]
    assert "client client_1 failed" in caplog.text
    assert made.server.banks["pipe_clip"].client_ids == ["client_0", "client_2"]
    strict = federation(extractor, images)
    with pytest.raises(QuorumError, match=r"quorum not met, 2 of 3 .* 3 are needed: client_1: OSError"):
        strict.train()


def test_a_client_that_failed_in_the_first_round_joins_in_the_second(
    images: AutoVIDataset, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, lambda client, number: (client.client_id, number) == ("client_1", 1))
    first, second = federation(extractor, images, federated={"min_clients": 2}).train(num_rounds=2)
    assert list(first.failed) == ["client_1"]
    assert second.failed == {}
    assert second.delivered == ["client_0", "client_1", "client_2"]


def test_a_coreset_with_nan_is_refused_and_the_others_go_on(
    images: AutoVIDataset, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = pipeline_lib.models.client.coreset_of_patches

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        coreset = original(*args, **kwargs)
        if coreset is not None and kwargs["client_id"] == "client_2":
            coreset.arrays["rows"][0, 0] = np.nan
        return coreset

    monkeypatch.setattr(pipeline_lib.models.client, "coreset_of_patches", poisoned)
    made = federation(extractor, images, federated={"min_clients": 2})
    (summary,) = made.train()
    assert summary.delivered == ["client_0", "client_1"]
    assert list(summary.refused) == ["client_2"]
    assert "not finite" in summary.refused["client_2"]
    assert all(np.isfinite(rows).all() for rows in banks(made).values())
    assert made.clients["client_2"].provenance == {1: {}}
    strict = federation(extractor, images, federated={"min_clients": 3})
    with pytest.raises(QuorumError, match="client_2: upload of client client_2 for pipe_clip refused"):
        strict.train()


# --- predictions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["per_category", "global"])
def test_predictions_are_those_of_the_bank_of_each_category(
    tiny_root: Path, images: AutoVIDataset, extractor: FeatureExtractor, scope: Any
) -> None:
    made = federation(extractor, images, aggregation={"bank_scope": scope})
    made.train()
    test = AutoVIDataset(tiny_root, split="test")
    maps, scores = made.predict(test)
    assert maps.shape == (20, 48, 64)
    for category in test.categories:
        positions = test.get_category_indices(category)
        bank = "all" if scope == "global" else category
        model = PatchCore.of_rows(banks(made)[bank], extractor, made.inference, category=category)
        alone = model.predict([test[position] for position in positions])
        assert np.array_equal(alone.scores, scores[positions])
        assert np.array_equal(alone.anomaly_maps, maps[positions])
    labels = np.array([label for _, label, _, _ in test.samples])
    clips = test.get_category_indices("pipe_clip")
    assert scores[clips][labels[clips] == 1].min() > scores[clips][labels[clips] == 0].max()


def test_images_without_a_category_need_one(
    tiny_root: Path, images: AutoVIDataset, extractor: FeatureExtractor
) -> None:
    made = federation(extractor, images)
    made.train()
    pixels = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(FedpatchError, match="without a category"):
        made.predict(pixels)
    assert made.predict(pixels, category="tank_screw").scores.shape == (2,)
    alone = federation(extractor, AutoVIDataset(tiny_root, ["pipe_clip"]))
    alone.train()
    assert alone.predict(pixels).scores.shape == (2,)  # all clients inspect the same


def test_a_saved_federation_predicts_the_same(
    tiny_root: Path, images: AutoVIDataset, extractor: FeatureExtractor, tmp_path: Path
) -> None:
    made = federation(extractor, images, inference={"num_neighbors": 2})
    made.train()
    made.save(tmp_path / "model")
    test = AutoVIDataset(tiny_root, ["tank_screw"], split="test")
    loaded = PatchCore.load(tmp_path / "model", "tank_screw")
    assert np.array_equal(loaded.predict(test).scores, made.predict(test).scores)


def test_all_clients_failing_is_one_clear_error(
    images: AutoVIDataset, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, lambda _client, _round: True)
    with pytest.raises(QuorumError, match=r"0 of 3 clients delivered and 3 are needed: client_0: OSError"):
        federation(extractor, images).train()


def test_an_image_that_goes_bad_costs_one_image(
    tmp_path: Path, extractor: FeatureExtractor, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.dataset_fixtures import write_tiny_autovi

    dataset = AutoVIDataset(write_tiny_autovi(tmp_path, train=9))
    made = federation(extractor, dataset)
    truncate(Path(dataset.samples[4][0]))
    with caplog.at_level(logging.WARNING):
        (summary,) = made.train()
    assert len(summary.delivered) == 3
    assert "0004.png" in caplog.text
    for sample in dataset.samples:
        truncate(Path(sample[0]), keep=0.1)
    with pytest.raises(QuorumError, match=DatasetError.__name__):
        made.train()

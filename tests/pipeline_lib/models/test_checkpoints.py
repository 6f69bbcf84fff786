"""Rounds on disk: training goes on where it was, and nothing damaged or foreign counts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.config import canonical_hash
from data_contracts.errors import ConfigError
from data_contracts.settings import client_config_hashes
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.models.federated_patchcore import FederatedPatchCore
from pipeline_lib.models.patchcore import PatchCore
from tests.dataset_fixtures import truncate
from tests.federation_fixtures import banks, failing, federation, same_banks


@pytest.mark.parametrize("kind", ["picks", "cell_means"])
def test_an_interrupted_training_goes_on_where_it_was(
    images: AutoVIDataset, extractor: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    sections = {"model": {"rows": kind}, "upload": {"codec": "float16", "noise_sigma": 0.01}}
    straight = federation(extractor, images, **sections)
    expected = straight.train(num_rounds=3)

    made = federation(extractor, images, **sections)
    with monkeypatch.context() as patched:
        original = FederatedPatchCore._train_single_round

        def stopped(self: FederatedPatchCore, number: int, num_rounds: int) -> Any:
            if number == 3:
                raise KeyboardInterrupt
            return original(self, number, num_rounds)

        patched.setattr(FederatedPatchCore, "_train_single_round", stopped)
        with pytest.raises(KeyboardInterrupt):
            made.train(num_rounds=3, checkpoint_dir=tmp_path)

    calls = failing(monkeypatch, lambda _client, _round: False)
    resumed = federation(extractor, images, **sections)
    history = resumed.train(num_rounds=3, checkpoint_dir=tmp_path)
    assert calls == ["client_0:3", "client_1:3", "client_2:3"]
    assert same_banks(resumed, straight)
    assert [summary.upload_rows for summary in history] == [summary.upload_rows for summary in expected]
    assert [summary.covering_radius for summary in history] == [summary.covering_radius for summary in expected]

    calls.clear()
    finished = federation(extractor, images, **sections)
    assert finished.train(num_rounds=3, checkpoint_dir=tmp_path) == history
    assert calls == []
    assert same_banks(finished, straight)


def test_rounds_that_an_earlier_version_wrote_are_taken_up(
    images: AutoVIDataset, extractor: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hashes held how images are read, and the extractor's seed."""
    sections = {"training": {"batch_size": 8}}
    made = federation(extractor, images, **sections)
    made.train(num_rounds=2, checkpoint_dir=tmp_path)
    own = made.config.config_hashes()[1], client_config_hashes(made.config, extractor.settings)[1]
    identity = canonical_hash([*own, 2, dict(sorted(made._partition.items()))])
    for path in tmp_path.glob("*/round.json"):
        content = json.loads(path.read_text())
        assert content["identity"] != identity
        content["identity"] = identity
        for upload in content["uploads"]:
            upload["config_hash"] = own[1]
        path.write_text(json.dumps(content))
    calls = failing(monkeypatch, lambda _client, _round: False)
    resumed = federation(extractor, images, **sections)
    resumed.train(num_rounds=2, checkpoint_dir=tmp_path)
    assert calls == []
    assert same_banks(resumed, made)


def test_each_rounds_model_can_be_loaded(images: AutoVIDataset, extractor: FeatureExtractor, tmp_path: Path) -> None:
    made = federation(extractor, images)
    summaries = made.train(num_rounds=2, checkpoint_dir=tmp_path)
    for summary in summaries:
        model = PatchCore.load(tmp_path / f"round_{summary.round:03d}" / "server", "pipe_clip", extractor=extractor)
        assert len(model.memory_bank) == summary.bank_rows["pipe_clip"]
    assert np.array_equal(model.memory_bank.features, banks(made)["pipe_clip"])
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".tmp", ".pkl", ".pt"))]


@pytest.mark.parametrize("damaged", ["uploads/0001.npz", "clients/0000.npz", "round.json"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_damaged_round_and_later_ones_are_done_again(
    images: AutoVIDataset,
    extractor: FeatureExtractor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damaged: str,
    number: int,
) -> None:
    made = federation(extractor, images)
    made.train(num_rounds=2, checkpoint_dir=tmp_path)
    truncate(tmp_path / f"round_{number:03d}" / damaged)
    calls = failing(monkeypatch, lambda _client, _round: False)
    again = federation(extractor, images)
    with caplog.at_level(logging.WARNING):
        again.train(num_rounds=2, checkpoint_dir=tmp_path)
    assert {int(call[-1]) for call in calls} == set(range(number, 3))
    assert "is damaged" in caplog.text
    assert same_banks(again, made)


def test_a_round_that_was_not_finished_does_not_count(
    images: AutoVIDataset, extractor: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = federation(extractor, images)
    made.train(num_rounds=2, checkpoint_dir=tmp_path)
    (tmp_path / "round_002" / "round.json").unlink()
    calls = failing(monkeypatch, lambda _client, _round: False)
    again = federation(extractor, images)
    again.train(num_rounds=2, checkpoint_dir=tmp_path)
    assert [call[-1] for call in calls] == ["2", "2", "2"]
    assert same_banks(again, made)


def test_rounds_of_another_federation_are_not_mixed_in(
    tiny_root: Path, images: AutoVIDataset, extractor: FeatureExtractor, tmp_path: Path
) -> None:
    federation(extractor, images).train(num_rounds=2, checkpoint_dir=tmp_path)
    others: list[tuple[FederatedPatchCore, int]] = [
        (federation(extractor, images, seed=9), 2),
        (federation(extractor, images), 3),
        (federation(extractor, AutoVIDataset(tiny_root, ["pipe_clip"])), 2),
    ]
    for other, num_rounds in others:
        with pytest.raises(ConfigError, match=r"holds rounds of another federation .*choose another directory"):
            other.train(num_rounds=num_rounds, checkpoint_dir=tmp_path)

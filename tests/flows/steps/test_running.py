"""Where a run reads and writes, and what is said about a step that failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError
from data_contracts.settings import place_of
from flows.steps.running import located


def test_the_configuration_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPATCH_DATASET", str(tmp_path / "worker"))
    monkeypatch.setenv("FEDPATCH_STORE", str(tmp_path / "store"))
    config = ExperimentConfig()
    assert place_of(config).data_root == tmp_path / "worker"
    named = ExperimentConfig.model_validate({"dataset": {"root": tmp_path / "mine"}, "runtime": {"store": "there"}})
    place = place_of(named)
    assert (place.data_root, place.store) == (tmp_path / "mine", Path.cwd() / "there")
    noted = located(config, place_of(config))
    assert (noted.dataset.root, noted.runtime.store) == (tmp_path / "worker", tmp_path / "store")
    assert noted.config_hash() == config.config_hash()


def test_without_a_data_set_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDPATCH_DATASET", raising=False)
    with pytest.raises(ConfigError, match=r"dataset\.root: not given.*FEDPATCH_DATASET"):
        place_of(ExperimentConfig())

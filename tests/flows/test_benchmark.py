"""The benchmark: shared steps once, one failing experiment does not stop the others, a comparison at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.errors import ConfigError
from flows.benchmark import full_benchmark
from pipeline_lib.config_files import load_benchmark
from tests.conftest import ROOT, experiment_values


def matrix(tiny_root: Path, tmp_path: Path, experiments: dict[str, Any]) -> BenchmarkConfig:
    base = experiment_values(tiny_root, tmp_path / "store", tmp_path / "unused")
    return BenchmarkConfig.model_validate({"base": base, "experiments": experiments, "out": tmp_path / "bench"})


@pytest.mark.usefixtures("prefect_server")
def test_every_experiment_is_compared_with_the_baseline(tiny_root: Path, tmp_path: Path) -> None:
    config = matrix(
        tiny_root, tmp_path, {"centralized": {"federated.mode": "centralized"}, "iid_2": {"federated.num_clients": 2}}
    )
    state: Any = full_benchmark(config, return_state=True)
    assert state.is_completed()
    rows = json.loads((tmp_path / "bench" / "comparison.json").read_text())
    assert {row["experiment"] for row in rows} == {"centralized", "iid_2"}
    by_key = {(row["experiment"], row["metric"]): row for row in rows}
    zero = by_key["centralized", "image_auroc"]
    assert zero["delta_points"] == 0
    iid = by_key["iid_2", "auc_spro_0.05"]
    assert iid["bank_rows"] == zero["bank_rows"]
    assert iid["upload_share_of_image_bytes"] > 0


@pytest.mark.usefixtures("prefect_server")
def test_one_failing_experiment_does_not_stop_the_others(tiny_root: Path, tmp_path: Path) -> None:
    config = matrix(
        tiny_root,
        tmp_path,
        {"broken": {"model.layers": ["no_such_layer"]}, "centralized": {"federated.mode": "centralized"}},
    )
    state: Any = full_benchmark(config, return_state=True)
    assert state.is_failed()
    assert "1 of 2 experiments failed: broken" in state.message
    assert (tmp_path / "bench" / "centralized" / "metrics.json").is_file()
    assert "no_such_layer" in json.loads((tmp_path / "bench" / "failed.json").read_text())["broken"]


def test_wrong_matrices_are_refused_with_their_experiment(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text("baseline: a\nexperiments: {a: {model.coreset_percentage: 3}}\n")
    with pytest.raises(ConfigError, match=r"experiment a: .*coreset_percentage"):
        load_benchmark(path)
    path.write_text("baseline: b\nexperiments: {a: {}}\n")
    with pytest.raises(ConfigError, match="baseline is 'b', which is not among a"):
        load_benchmark(path)


def test_the_shipped_matrix_loads_and_set_addresses_its_base() -> None:
    config = load_benchmark(ROOT / "configs" / "benchmark_quick.yaml", ["dataset.root=/data"])
    assert str(config.base.dataset.root) == "/data"
    assert {c.federated.mode for c in config.configs().values()} == {"centralized", "federated"}

"""`fedpatch plan` of a benchmark: what runs share counts once, as the benchmark itself then does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_contracts.benchmark import BenchmarkConfig
from flows.benchmark import full_benchmark
from pipeline_lib.configuration.files import is_benchmark, load_benchmark
from tests.conftest import ROOT, experiment_values
from tests.flows.cli.test_plan import call, tree_bytes, write_config
from tests.flows.test_benchmark_axes import tasks_of

EXPERIMENTS: dict[str, dict[str, Any]] = {
    "centralized": {"federated.mode": "centralized"},
    "iid": {},
    "fewer": {"aggregation.global_bank_size": 20},  # the same coresets
    "smoothed": {"inference.smoothing_sigma": 2.0},  # the same maps
    "stricter": {"decision.target_false_alarm_rate": 0.01},  # the same in all stages
    "time": {"federated.partitioning": "time"},  # the same features of images
    "other_sizes": {"preprocessing.small_size": [96, 96], "preprocessing.large_size": [64, 64]},
    "rounds": {"federated.num_rounds": 2},
}


def values_of(tiny_root: Path, tmp_path: Path, **sections: Any) -> dict[str, Any]:
    sections |= {"federated": {"num_clients": 2}, "dataset": {"categories": ["pipe_clip"]}}
    base = experiment_values(tiny_root, tmp_path / "store", tmp_path / "unused", **sections)
    return {"name": "matrix", "base": base, "experiments": EXPERIMENTS, "out": str(tmp_path / "bench")}


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_runs_compute_what_the_plan_says_and_fit_into_its_disk(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = values_of(tiny_root, tmp_path, evaluation={"coverage": True})
    assert call("plan", write_config(tmp_path, values), "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    computing = plan["runs_computing"]
    assert (plan["experiments"], plan["runs"]) == (8, 8)
    assert computing["index and validate"] == 2
    assert computing["coresets"] == 5
    assert computing["score"] == 6
    assert computing["measure"] == 7
    assert not (tmp_path / "store").exists()

    state: Any = full_benchmark(BenchmarkConfig.model_validate(values), return_state=True)
    assert state.is_completed(), state.message
    tasks = tasks_of(state)
    done = {name: count for (name, how), count in tasks.items() if how == "Completed"}

    def completed(prefix: str) -> int:
        return sum(count for name, count in done.items() if name.startswith(prefix))

    earlier_round = 1  # of `rounds`, scored and measured too; the plan says that it leaves it out
    assert completed("extract-test-") == computing["test features"] == 2
    assert tasks["extract-test-pipe_clip", "Cached"] == 8 - 2 + earlier_round
    assert completed("score-") == computing["score"] + earlier_round
    assert completed("measure-") == computing["measure"] + earlier_round
    clients = 2 * computing["coresets"] - 1  # one is centralized
    assert completed("coreset-") == clients + 2  # and a second round
    assert completed("calibrate-") == 2 * computing["calibrate"] - 1
    assert completed("coverage-") == 2 * computing["coverage"] - 1
    assert tree_bytes(tmp_path / "store", tmp_path / "bench") <= sum(plan["disk_bytes"].values())


def test_times_add_up_and_features_count_once(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = values_of(tiny_root, tmp_path)
    values |= {"experiments": {name: EXPERIMENTS[name] for name in ("centralized", "iid", "time")}, "seeds": [1, 2]}
    config = write_config(tmp_path, values)
    assert call("plan", config, "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["runs"] == 6
    assert plan["runs_computing"]["client features"] == plan["runs_computing"]["test features"] == 1
    assert plan["seconds_without_sharing"]["test features"] == pytest.approx(
        6 * plan["seconds"]["test features"], abs=0.5
    )
    assert plan["seconds_without_sharing"]["score"] == plan["seconds"]["score"]  # another seed, other coresets
    assert call("plan", config) == 0
    shown = capsys.readouterr().out
    for words in ("6 runs of 3 experiments", "assumed: nothing is in the artifact store", "memory: at most"):
        assert words in shown


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "configs").glob("*.yaml")))
def test_a_benchmark_is_told_from_an_experiment(name: str) -> None:
    path = ROOT / "configs" / name
    assert is_benchmark(path) == name.startswith("benchmark_")
    if is_benchmark(path):
        assert load_benchmark(path, ["dataset.root=/data"]).cells()

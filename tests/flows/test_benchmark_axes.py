"""Every axis that a benchmark promises, end to end on tiny images; shared steps are computed once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from data_contracts.benchmark import BenchmarkConfig
from flows.benchmark import full_benchmark
from tests.conftest import experiment_values

TIME = {"federated.partitioning": "time", "model.subsampling": "random"}
DIRICHLET = {
    "federated.partitioning": "dirichlet", "aggregation.strategy": "simple_concatenate", "model.subsampling": "density",
}  # fmt: skip
NOISE = {"upload.clip_norm": 20.0, "upload.noise_sigma": 0.1}
FEATURES = {"model.neighborhood_size": 1, "model.layers": ["blocks.2"]}
AXES: dict[str, dict[str, Any]] = {  # every key that a matrix varies, more than one at a time
    "clients": {"set": TIME, "axes": {"federated.num_clients": [3, 5]}},
    "dirichlet": {"set": DIRICHLET, "axes": {"federated.alpha": [0.1]}},
    "alone": {"axes": {"federated.mode": ["local_only"]}},
    "rounds": {"set": {"aggregation.strategy": "diversity_preserving"}, "axes": {"federated.num_rounds": [2]}},
    "codec": {"axes": {"upload.codec": ["float16", "pq"]}},
    "noise": {"set": NOISE, "axes": {"upload.codec": ["pca_float16"]}},
    "features": {"set": FEATURES, "axes": {"model.coreset_percentage": [0.2]}, "own_baseline": True},
    "backbone": {"set": {"model.weights": "random"}, "axes": {"model.backbone": ["resnet18"]}},
}
QC = {"a": ["pipe_clip"], "b": ["tank_screw"], "quality": ["all"]}


def tasks_of(state: Any) -> Counter[tuple[str, str]]:
    """(task, state) -> how many task runs."""
    found: Counter[tuple[str, str]] = Counter()
    with get_client(sync_client=True) as client:
        only = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        while runs := client.read_task_runs(flow_run_filter=only, limit=200, offset=found.total()):
            found.update((run.name, run.state.name) for run in runs if run.state)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_every_axis_runs_and_a_second_run_computes_nothing(tiny_root: Path, tmp_path: Path) -> None:
    base = experiment_values(
        tiny_root, tmp_path / "store", tmp_path / "unused", federated={"num_clients": 2}, evaluation={"bootstrap": 10}
    )
    config = BenchmarkConfig.model_validate(
        {
            "base": base,
            "experiments": {
                "centralized": {"federated.mode": "centralized"},
                "category_qc": {"federated.partitioning": "category", "federated.client_assignments": QC},
            },
            "groups": AXES,
            "resamples": 20,
            "out": tmp_path / "bench",
        }
    )
    state: Any = full_benchmark(config, return_state=True)
    assert state.is_completed(), state.message
    rows = json.loads((tmp_path / "bench" / "comparison.json").read_text())
    assert {row["experiment"] for row in rows} == set(config.configs())
    assert all(row["value"] is not None for row in rows)
    share = {r["experiment"]: r["upload_share_of_image_bytes"] for r in rows if r["metric"] == "auc_spro_0.05"}
    assert share["codec-float16"] < share["clients-3"]
    first = tasks_of(state)
    # each category once under three feature settings (the base's, FEATURES, backbone), for all experiments
    assert [first[f"extract-test-{c}", "Completed"] for c in ("pipe_clip", "tank_screw")] == [3, 3]
    assert first["extract-test-pipe_clip", "Cached"] > 8
    again = tasks_of(full_benchmark(config, return_state=True))
    assert not [key for key in again if key[0].startswith(("extract", "coreset", "score", "measure")) and
                key[1] == "Completed"]  # fmt: skip

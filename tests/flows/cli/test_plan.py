"""`fedpatch plan` against what a run then makes: counts exact, disk and memory not below what was used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from data_contracts.config import ExperimentConfig
from data_contracts.settings import BackboneSettings
from flows.cli import main
from flows.experiment import centralized_experiment, federated_experiment
from flows.steps import running
from pipeline_lib.planning import resources, stage_times
from pipeline_lib.planning.experiment import ExperimentPlan, PlannedClient
from tests.conftest import ROOT, experiment_values

SETTINGS: list[dict[str, Any]] = [
    {"federated": {"mode": "centralized"}},
    {
        "federated": {"num_clients": 2, "coreset_percentage_by_client": {"client_1": 0.02}},
        "aggregation": {"bank_scope": "global", "oversample_factor": 2.0},
        "upload": {"codec": "float16"},
    },
    {"aggregation": {"global_bank_size": 7, "regions": 2}, "dataset": {"categories": ["pipe_clip"]}},
    {"model": {"rows": "cell_means"}, "federated": {"num_rounds": 2}, "dataset": {"categories": ["pipe_clip"]}},
]


def call(*arguments: str) -> int:
    """Exit status of `fedpatch ARGUMENTS`."""
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def write_config(directory: Path, values: dict[str, Any]) -> str:
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def tree_bytes(*directories: Path) -> int:
    """What files take on disk, each inode once."""
    sizes = {
        (info.st_dev, info.st_ino): info.st_blocks * 512
        for directory in directories
        for path in directory.rglob("*")
        if path.is_file() and (info := path.stat())
    }
    return sum(sizes.values())


def test_coverage_counts_where_it_is_asked_for(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, experiment_values(tiny_root, tmp_path / "store", tmp_path / "out"))
    found = {}
    for asked in ("true", "false"):
        assert call("plan", config, "--json", "--set", f"evaluation.coverage={asked}") == 0
        found[asked] = json.loads(capsys.readouterr().out)
    assert found["true"]["seconds"]["coverage"] >= 0
    assert found["true"]["memory_bytes"]["coverage"] > 0
    assert set(found["true"]["seconds"]) - set(found["false"]["seconds"]) == {"coverage"}
    assert set(found["true"]["memory_bytes"]) - set(found["false"]["memory_bytes"]) == {"coverage"}


@pytest.mark.parametrize(
    ("regions", "rows"), [(None, 45), (1, 20 + 10), (2, 35 + 10), ({"x": ("b",), "y": ("a", "c")}, 25 + 10)]
)
def test_with_regions_a_merge_needs_memory_for_the_largest_and_for_what_all_keep(regions: Any, rows: int) -> None:
    sent = {"a": {"clip": 15, "bolt": 15}, "b": {"clip": 20}, "c": {"clip": 10}}
    clients = [PlannedClient(client, 1, 1, own, 1) for client, own in sent.items()]
    config = ExperimentConfig.model_validate({"federated": {"num_clients": 3}, "aggregation": {"regions": regions}})
    backbone: Any = None
    plan = ExperimentPlan(config, 4, {}, {}, clients, {"clip": 5, "bolt": 3}, backbone)
    assert resources.rows_merged_at_a_time(plan, "clip") == rows


def test_a_stage_needs_memory_for_the_banks_that_it_is_at() -> None:
    banks = {f"category {number}": 1000 for number in range(6)}
    backbone: Any = None

    def needed(banks: dict[str, int], **aggregation: Any) -> dict[str, int]:
        clients = [PlannedClient(name, 9, 10 * sum(banks.values()), banks, 1) for name in "ab"]
        values = {"aggregation": aggregation, "model": {"rows": "picks"}, "runtime": {"workers": 2}}
        config = ExperimentConfig.model_validate({"federated": {"num_clients": 2}, **values})
        kept = {bank: aggregation.get("global_bank_size", 2 * sent) for bank, sent in banks.items()}
        return resources.memory_bytes(ExperimentPlan(config, 1536, {}, {}, clients, kept, backbone))

    two = dict(list(banks.items())[:2])
    all_six, pair = needed(banks), needed(two)
    assert all_six["aggregate"] == pair["aggregate"]  # two at a time
    assert all_six["select coresets"] - pair["select coresets"] == 2 * 4 * 1000 * 1536 * 4  # sent, and not yet written
    assert needed(two, global_bank_size=1000)["aggregate"] > pair["aggregate"]  # what is not kept is selected from


def test_means_cost_a_search_of_all_patches_a_step_and_their_counts() -> None:
    clients = [PlannedClient("a", 3, 1000, {"clip": 20, "bolt": 30}, 0), PlannedClient("b", 1, 400, {"clip": 8}, 0)]
    probe: Any = SimpleNamespace(multiplications_per_second=lambda plan, at_once: 1e4)

    def planned(dim: int = 4, **model: Any) -> ExperimentPlan:
        config = ExperimentConfig.model_validate({"federated": {"num_clients": 2}, "model": model})
        backbone = BackboneSettings(
            backbone="b", layers=("a",), weights_source="", weights_sha256="", weights_path=None, seed=0,
            mean=(0, 0, 0), std=(1, 1, 1), neighborhood_size=3,
        )  # fmt: skip
        return ExperimentPlan(config, dim, {}, {}, clients, {"clip": 5, "bolt": 3}, backbone)

    plans = [planned(rows="picks"), planned(), planned(lloyd_steps=3), planned(rows="picks", shard_patches=300)]
    picks, one, three, in_shards = (stage_times.stage_seconds(plan, probe)["coresets"] for plan in plans)
    pairs = 400 * 20 + 600 * 30 + 400 * 8  # patches times rows, a bank's patches in proportion to its rows
    assert in_shards == pytest.approx(picks / 2)  # two shards of each client's bank
    search = stage_times.SEARCH_PRODUCTS * 4 * pairs / 1e4
    assert [one - picks, three - picks] == pytest.approx([search, 3 * search])
    wide, many = (
        stage_times.stage_seconds(planned(1536, rows=rows), probe)["coresets"] for rows in ("picks", "cell_means")
    )
    assert many - wide == pytest.approx(stage_times.SEARCH_VALUES * pairs / 1e4)
    disk = [resources.disk_bytes(plan) for plan in plans]
    assert disk[1]["uploads"] - disk[0]["uploads"] == 1400 * 4
    assert disk[1]["memory banks"] - disk[0]["memory banks"] == 2 * (8 * 12 + 58 * 4 + 2 * 2 * 8)
    assert disk[1] == disk[2]


def assert_as_planned(plan: dict[str, Any], store: Path, out: Path) -> None:
    """Counts are exact, the bounds are bounds."""
    found = json.loads((out / "metrics.json").read_text())
    assert plan["config_hash"] == found["config_hash"]
    clients = found["federation"]["clients"]
    assert plan["clients"].keys() == clients.keys()
    for name, client in clients.items():
        planned = plan["clients"][name]
        assert planned["images"] == client["train_images"]
        assert planned["patches"] == client["patches"]
        assert planned["coreset rows"] == client["coreset_rows"]
        assert client["raw_image_bytes"] == planned["bytes of its images"]
        assert client["upload_bytes"] <= planned["upload bytes at most"] <= client["upload_bytes"] + 4096
    assert plan["bank_rows"] == found["federation"]["bank_rows_by_category"]
    assert tree_bytes(store, out) <= sum(plan["disk_bytes"].values())
    assert all(seconds >= 0 for seconds in plan["seconds"].values())
    assert plan["does_not_fit"] == []


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("sections", SETTINGS)
def test_counts_are_those_of_the_run_and_the_bounds_hold(
    sections: dict[str, Any], tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, experiment_values(tiny_root, tmp_path / "store", tmp_path / "out", **sections))
    assert call("plan", config, "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert call("run", config) == 0
    assert_as_planned(plan, tmp_path / "store", tmp_path / "out")


def test_the_plan_of_a_finished_run_is_what_it_came_to(
    tiny_root: Path, tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, experiment_values(tiny_root, tmp_path / "store", tmp_path / "out"))
    assert call("plan", config, "--json") == 0
    assert_as_planned(json.loads(capsys.readouterr().out), finished / "store", finished / "run")


@pytest.mark.slow
def test_a_run_of_its_own_process_stays_below_the_planned_memory(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, experiment_values(tiny_root, tmp_path / "store", tmp_path / "out"))
    assert call("plan", config, "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "run", config],
        cwd=ROOT, env={**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    peak = json.loads((tmp_path / "out" / "metrics.json").read_text())["peak_rss_mb"] * 2**20
    assert peak <= max(plan["memory_bytes"].values())


def test_a_table_for_people(tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, experiment_values(tiny_root, tmp_path / "store", tmp_path / "out"))
    assert call("plan", config) == 0
    shown = capsys.readouterr().out
    for words in ("pipe_clip", "client_2", "rough time", "memory: at most", "disk:   at most"):
        assert words in shown
    assert "more is sent" not in shown
    assert call("plan", config, "--set", "model.coreset_percentage=1") == 0
    assert "note:   more is sent than the images themselves have: client_0 " in capsys.readouterr().out
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("what", "words"),
    [("available_memory_bytes", "GB of memory, 0.0 MB are available"), ("free_disk_bytes", "0.0 MB are free in")],
)
def test_a_run_that_would_not_fit_is_refused_first(
    what: str, words: str, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(resources, what, lambda *_: 1000)
    config = write_config(tmp_path, experiment_values(tiny_root, tmp_path / "store", tmp_path / "out"))
    assert call("run", config) == 1
    starting, found, line = capsys.readouterr().err.strip().splitlines()
    assert "starting" in starting
    assert found.startswith("layout autovi")
    assert line.startswith("fedpatch: the run would not fit: ")
    assert words in line
    assert ("on the CPU runtime.keep_features: false needs " in line) == (what == "free_disk_bytes")
    assert "--force" in line
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("prefect_server")
def test_by_name_it_is_refused_too(
    tiny_root: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(flow: Any, there: Path, **options: Any) -> Any:
        config = ExperimentConfig.model_validate(experiment_values(tiny_root, there, tmp_path / "out"))
        return flow(config, **options, return_state=True)

    monkeypatch.setattr(resources, "available_memory_bytes", lambda: 1000)
    for flow in (centralized_experiment, federated_experiment):
        state = run(flow, tmp_path / "nothing yet")
        assert state.is_failed()
        assert "the run would not fit: the stage" in state.message
        assert not (tmp_path / "nothing yet").exists()
    assert run(federated_experiment, store, force=True).is_completed()
    monkeypatch.setattr(running.flow_run, "run_count", 2)
    assert run(federated_experiment, store).is_completed()  # a retry


@pytest.mark.usefixtures("prefect_server")
def test_a_benchmark_is_refused_before_its_first_experiment(
    tiny_root: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(resources, "free_disk_bytes", lambda _: 1000)

    def config(there: Path, experiments: dict[str, Any]) -> str:
        base = experiment_values(tiny_root, there, tmp_path / "unused")
        values = {"base": base, "experiments": experiments, "baseline": "iid_3", "out": str(tmp_path / "bench")}
        return write_config(tmp_path, values)

    two = config(tmp_path / "nothing yet", {"iid_3": {}, "iid_2": {"federated.num_clients": 2}})
    assert call("benchmark", two) == 1
    starting, line = capsys.readouterr().err.strip().splitlines()
    assert "starting" in starting
    assert line.startswith("fedpatch: the run would not fit: iid_2: it may write")
    assert "; iid_3: it may write" in line
    assert not (tmp_path / "bench").exists()
    assert not (tmp_path / "nothing yet").exists()
    assert call("benchmark", config(store, {"iid_3": {}}), "--force") == 0


@pytest.mark.usefixtures("prefect_server")
def test_force_runs_it_all_the_same(
    tiny_root: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: 1000)
    config = write_config(tmp_path, experiment_values(tiny_root, store, tmp_path / "out"))
    assert call("run", config, "--force") == 0
    assert (tmp_path / "out" / "metrics.json").is_file()

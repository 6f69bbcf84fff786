"""The benchmark: shared steps once, one failing experiment does not stop the others, a comparison at the end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

import tasks.clients
from data_contracts.benchmark import BenchmarkConfig
from data_contracts.errors import ConfigError, QuorumError
from flows.benchmark import full_benchmark
from flows.cli import main
from flows.cli.experiment.comparing import compare_finished
from pipeline_lib.configuration.files import load_benchmark
from tasks.comparison import alone_in
from tests.conftest import ROOT, experiment_values


def matrix(tiny_root: Path, store: Path, experiments: dict[str, Any]) -> BenchmarkConfig:
    base = experiment_values(tiny_root, store, store.parent / "unused")
    return BenchmarkConfig.model_validate({"base": base, "experiments": experiments, "out": store.parent / "bench"})


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_groups_and_seeds_are_compared_with_intervals_and_clients_with_what_they_have_alone(
    tiny_root: Path, tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = experiment_values(tiny_root, store, tmp_path / "unused", federated={"num_clients": 2})
    config = BenchmarkConfig.model_validate(
        {
            "base": base,
            "experiments": {
                "centralized": {"federated.mode": "centralized"},
                "alone": {"federated.mode": "local_only"},
            },
            "groups": {"codec": {"axes": {"upload.codec": ["float32", "float16"]}}},
            "seeds": [1, 2],
            "resamples": 50,
            "compare": [["codec-float16", "codec-float32"]],
            "out": tmp_path / "bench",
        }
    )
    state: Any = full_benchmark(config, return_state=True)
    assert state.is_completed()
    out = tmp_path / "bench"
    for name in ("comparison.json", "comparison_development.json", "comparison_report.json"):
        found = json.loads((out / name).read_text())
        assert {r["experiment"] for r in found} == {"centralized", "alone", "codec-float32", "codec-float16"}
        named = [r for r in found if r["named"]]
        assert {(r["experiment"], r["baseline"]) for r in named} == {("codec-float16", "codec-float32")}
        assert len(named) == 3
    found = json.loads((out / "comparison.json").read_text())
    rows = {(r["experiment"], r["metric"]): r for r in found if not r["named"]}
    pair = next(r for r in found if r["named"] and r["metric"] == "auc_spro_0.05")
    assert pair["delta_points"] == pytest.approx(
        rows["codec-float16", "auc_spro_0.05"]["delta_points"] - rows["codec-float32", "auc_spro_0.05"]["delta_points"],
        abs=2e-4,
    )
    assert pair["ci95"][0] <= pair["delta_points"] <= pair["ci95"][1]
    assert pair["bank_rows"] == rows["codec-float16", "auc_spro_0.05"]["bank_rows"]
    float32, float16 = (rows[f"codec-{codec}", "auc_spro_0.05"] for codec in ("float32", "float16"))
    assert float32["seeds"] == 2
    assert float32["ci95"][0] <= float32["delta_points"] <= float32["ci95"][1]
    assert 0 < float16["upload_share_of_image_bytes"] < float32["upload_share_of_image_bytes"]
    assert float32["download_bytes"] > 0
    assert rows["centralized", "image_auroc"]["verdict"] == "baseline"
    assert rows["centralized", "image_auroc"]["delta_points"] == 0
    assert float32["bank_rows"] == rows["centralized", "auc_spro_0.05"]["bank_rows"]
    assert rows["alone", "image_auroc"]["upload_share_of_image_bytes"] is None
    clients = json.loads((out / "clients.json").read_text())
    assert {(row["experiment"], row["client"]) for row in clients} == {
        (f"codec-{codec}", f"client_{number}") for codec in ("float32", "float16") for number in (0, 1)
    }
    one = next(row for row in clients if row["metric"] == "image_auroc")
    assert one["benefit_points"] == pytest.approx(100 * (one["federated"] - one["local"]), abs=1e-3)
    ranked = json.loads((out / "ranking.json").read_text())
    assert ranked[0]["place"] == 1
    assert (out / "codec-float16" / "seed_2" / "samples" / "pipe_clip.npz").is_file()
    readable = len(list(tiny_root.glob("*/t*/*/*.png")))
    assert (
        len(list((tmp_path / "store" / "index" / "image_features").rglob("*.json"))) == readable
    )  # once for both seeds
    assert (out / "tables" / "clients.csv").is_file()
    assert (out / "tables" / "weak_spots.tex").is_file()
    assert (out / "figures" / "curves-pipe_clip.svg").is_file()
    low, high = float32["value_ci95"]
    assert low <= float32["value"] <= high
    assert float32["ci95"] is not None
    weak = {row["experiment"]: row for row in json.loads((out / "weak_spots.json").read_text())}
    assert weak["codec-float32"]["worst_category"] in ("pipe_clip", "tank_screw")
    assert weak["alone"]["worst_client"] in ("client_0", "client_1")
    groups = json.loads((out / "groups.json").read_text())
    assert {row["group"] for row in groups} <= {"structural", "logical"}
    by_category = {
        (row["experiment"], row["category"]): row
        for row in json.loads((out / "categories.json").read_text())
        if row["metric"] == "auc_spro_0.05"
    }
    clip = by_category["codec-float32", "pipe_clip"]
    assert clip["lowest_per_cent"] <= clip["value_per_cent"] <= clip["highest_per_cent"]
    assert clip["ci95_low"] <= clip["delta_points"] <= clip["ci95_high"]
    assert by_category["codec-float32", "mean of categories"]["delta_points"] == float32["delta_points"]
    assert isinstance(json.loads((out / "warnings.json").read_text()), list)
    page = (out / "benchmark.html").read_text()
    assert "codec-float16" in page
    assert "What a client gains" in page
    assert "The same images" in page
    assert "data:image/webp" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    _compared_anew_without_running(config, tmp_path / "again.yaml", capsys)


def _compared_anew_without_running(config: BenchmarkConfig, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = config.out or Path()
    then = {row_key(row): row for row in json.loads((out / "comparison.json").read_text())}
    (out / "benchmark.html").unlink()
    values = config.model_dump(mode="json") | {"compare": [["codec-float16", "codec-float32"], ["alone", "codec-pq"]]}
    values["groups"]["codec"]["axes"]["upload.codec"].append("pq")  # has not run
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(QuorumError, match="without 2 of 10 experiments: codec-pq/seed_1: there is no finished run"):
        compare_finished(load_benchmark(path), as_json=True)
    now = {row_key(row): row for row in json.loads(capsys.readouterr().out)}
    assert set(now) - set(then) == {("alone", "codec-pq", m) for m in ("image_auroc", "image_ap", "auc_spro_0.05")}
    same = ("value", "delta_points", "ci95", "p_value", "bank_rows")
    assert all(now[key][name] == row[name] for key, row in then.items() for name in same)
    assert "no result of codec-pq/seed_2" in (out / "benchmark.html").read_text()
    shutil.rmtree(out / "alone" / "seed_2")
    with pytest.raises(QuorumError, match="alone/seed_2"):
        compare_finished(load_benchmark(path), as_json=True)
    with pytest.raises(SystemExit):
        compare_finished(load_benchmark(path, ["model.coreset_percentage=0.7"]), as_json=True)
    assert "has another configuration" in capsys.readouterr().err


def row_key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["experiment"], row["baseline"], row["metric"]


@pytest.mark.usefixtures("prefect_server")
def test_one_failing_experiment_does_not_stop_the_others(tiny_root: Path, tmp_path: Path, store: Path) -> None:
    config = matrix(
        tiny_root,
        store,
        {"broken": {"model.layers": ["no_such_layer"]}, "centralized": {"federated.mode": "centralized"}},
    )
    state: Any = full_benchmark(config, return_state=True)
    assert state.is_failed()
    assert "1 of 2 experiments failed: broken" in state.message
    assert (tmp_path / "bench" / "centralized" / "metrics.json").is_file()
    assert "no_such_layer" in (tmp_path / "bench" / "benchmark.html").read_text()
    assert "no_such_layer" in json.loads((tmp_path / "bench" / "failed.json").read_text())["broken"]


@pytest.mark.usefixtures("prefect_server")
def test_a_second_benchmark_in_the_same_directory_is_refused_while_the_first_is_at_work(
    tiny_root: Path, tmp_path: Path, store: Path
) -> None:
    config = matrix(tiny_root, store, {"centralized": {"federated.mode": "centralized"}})
    with (
        alone_in(tmp_path / "bench"),
        pytest.raises(ConfigError, match=r"another benchmark is at work in .*bench;"),
    ):
        full_benchmark(config)
    with alone_in(tmp_path / "bench"):
        pass
    assert not list((tmp_path / "bench").iterdir())


@pytest.mark.usefixtures("prefect_server")
def test_a_watched_benchmark_that_is_worse_than_its_last_good_run_is_marked(
    tiny_root: Path, tmp_path: Path, store: Path
) -> None:
    config = matrix(tiny_root, store, {"centralized": {"federated.mode": "centralized"}})
    history = tmp_path / "history"

    def night(number: int) -> Any:
        own = config.model_copy(update={"out": tmp_path / f"night_{number}", "history": history})
        return full_benchmark(own, return_state=True)

    first, second = night(1), night(2)
    assert [first.name, second.name] == ["Completed", "Completed"]
    assert first.message.startswith("image AUROC / AUC-sPRO@0.05 in per cent: centralized ")
    last = sorted(history.glob("*.json"))[-1]
    entry = json.loads(last.read_text())
    assert entry["compared_with"] is not None
    assert entry["state"] == "good"
    for value in entry["values"]:
        value |= {"value": 1.0, "ci95": [0.999, 1.0]}
    last.write_text(json.dumps(entry | {"directory": str(tmp_path / "gone"), "finished": "2099-01-01T00:00:00+00:00"}))
    state = night(3)
    assert state.is_completed()
    assert state.name == "CompletedRegressed"
    assert "centralized: auc_spro_0.05 -" in state.message
    marked = json.loads((tmp_path / "night_3" / "centralized" / "metrics.json").read_text())
    assert any("auc_spro_0.05" in text for text in marked["regressions"])
    assert "regressed" in (history / "history.html").read_text()
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        )
    assert "regression" in run.tags
    found = {artifact.key: str(artifact.data) for artifact in artifacts}
    assert {"benchmark-regression", "benchmark-history", "centralized-summary", "centralized-clients"} <= found.keys()
    assert "summary" not in found  # of which experiment?
    assert found["benchmark-summary"].startswith("## Regressed: worse than the last good run")
    assert "last good run, of 2099-01-01 00:00 UTC" in found["benchmark-summary"]
    assert "AUC-sPRO@" not in found["benchmark-summary"] + found["centralized-summary"]  # a mail address in the UI


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_night_without_all_clients_is_partial_and_nothing_is_compared_with_it(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = tasks.clients.rounds.select_client_coreset

    def failing(table: Any, store: Any, client_id: str, *args: Any, **kwargs: Any) -> Any:
        if client_id == "client_1":
            raise PermissionError(13, "Permission denied", "/dev/camera")
        return original(table, store, client_id, *args, **kwargs)

    changes = {"federated.num_clients": 2, "federated.min_clients": 1}
    config = matrix(tiny_root, tmp_path / "store", {"centralized": {"federated.mode": "centralized"}, "iid_2": changes})
    path, history = tmp_path / "night.yaml", tmp_path / "history"
    path.write_text(yaml.safe_dump({**config.model_dump(mode="json"), "history": str(history)}))

    def night() -> tuple[dict[str, Any], str]:
        with pytest.raises(SystemExit) as stop:
            main(["benchmark", str(path)])
        assert stop.value.code == 0
        return json.loads(sorted(history.glob("*.json"))[-1].read_text()), capsys.readouterr().err

    monkeypatch.setattr(tasks.clients.rounds, "select_client_coreset", failing)
    entry, shown = night()
    assert entry["state"] == "partial"
    assert "iid_2: without client_1: PermissionError" in entry["note"]
    assert "fedpatch: clients missing in 1 of 2 experiments: iid_2: without client_1: PermissionError" in shown
    assert {row["experiment"] for row in json.loads((tmp_path / "bench/comparison.json").read_text())} == {
        *config.experiments
    }
    monkeypatch.undo()
    entry, shown = night()
    assert (entry["state"], entry["compared_with"]) == ("good", None)
    assert "without client" not in shown


def test_wrong_matrices_are_refused_with_their_experiment(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text("baseline: a\nexperiments: {a: {model.coreset_percentage: 3}}\n")
    with pytest.raises(ConfigError, match=r"experiment a: .*coreset_percentage"):
        load_benchmark(path)
    path.write_text("baseline: b\nexperiments: {a: {}}\n")
    with pytest.raises(ConfigError, match="baseline is 'b', which is not among a"):
        load_benchmark(path)


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([["b", "z"]], r"compare: \[b, z\]: 'z' is not among a, b, c"),
        ([["b", "b"]], "an experiment and itself"),
        ([["b", "a"]], "compared already"),
        ([["a", "b"]], "compared already"),
        ([["b", "c"], ["c", "b"]], r"\[c, b\]: these two are compared already"),
    ],
)
def test_pairs_that_name_nothing_or_what_is_tested_already_are_refused(pairs: list[list[str]], problem: str) -> None:
    experiments: dict[str, Any] = {"a": {}, "b": {}, "c": {}}
    good = BenchmarkConfig.model_validate({"experiments": experiments, "baseline": "a", "compare": [["b", "c"]]})
    assert good.compare == (("b", "c"),)
    with pytest.raises(ValueError, match=problem):
        BenchmarkConfig.model_validate({"experiments": experiments, "baseline": "a", "compare": pairs})


def test_groups_multiply_their_axes_and_have_twins() -> None:
    config = BenchmarkConfig.model_validate(
        {
            "experiments": {"centralized": {"federated.mode": "centralized"}},
            "groups": {
                "iid": {"set": {"federated.mode": "federated"}, "axes": {"federated.num_clients": [3, 5]}},
                "ratio": {
                    "set": {"federated.mode": "federated"},
                    "axes": {"model.coreset_percentage": [0.01, 0.1]},
                    "own_baseline": True,
                },
            },
            "seeds": [1, 2],
        }
    )
    names = ["centralized", "iid-3", "iid-5", "ratio-0.01", "ratio-0.01-centralized", "ratio-0.1",
             "ratio-0.1-centralized"]  # fmt: skip
    assert list(config.configs()) == names
    assert config.configs()["iid-5"].federated.num_clients == 5
    assert config.baselines()["iid-5"] == "centralized"
    assert config.baselines()["ratio-0.1"] == "ratio-0.1-centralized"
    assert config.configs()["ratio-0.1-centralized"].federated.mode == "centralized"
    assert [cell.name for cell in config.cells()][:2] == ["centralized/seed_1", "iid-3/seed_1"]
    assert len(config.cells()) == 14
    assert config.group_of()["iid-3"] == "iid"
    twice = {"iid": {"axes": {"federated.num_clients": [3, 3]}}}
    with pytest.raises(ValueError, match="two experiments named iid-3"):
        BenchmarkConfig.model_validate({"experiments": {"centralized": {}}, "groups": twice})
    with pytest.raises(ValueError, match="seed is given twice"):
        BenchmarkConfig.model_validate({"experiments": {"centralized": {}}, "seeds": [1, 1]})


def test_a_key_below_a_section_changes_its_own_experiment_alone() -> None:
    changes = {"centralized": {}, "own": {"evaluation.defect_groups.dent": "structural"}, "after": {}}
    configs = BenchmarkConfig.model_validate({"experiments": changes}).configs()
    assert ["dent" in one.evaluation.defect_groups for one in configs.values()] == [False, True, False]


def test_the_shipped_matrix_loads_and_set_addresses_its_base() -> None:
    config = load_benchmark(ROOT / "configs" / "benchmark_quick.yaml", ["dataset.root=/data"])
    assert str(config.base.dataset.root) == "/data"
    assert {c.federated.mode for c in config.configs().values()} == {"centralized", "federated"}


def test_the_full_matrix_names_at_least_forty_experiments_and_every_mode() -> None:
    config = load_benchmark(ROOT / "configs" / "benchmark_full.yaml", ["dataset.root=/data"])
    configs = config.configs()
    assert len(configs) >= 40
    assert {c.federated.mode for c in configs.values()} == {"centralized", "federated", "local_only"}
    assert len(config.cells()) == len(configs)  # one seed; three are in benchmark_seeds.yaml
    assert {ratio for c in configs.values() if (ratio := c.model.coreset_percentage)} >= {0.01, 0.05, 0.1, 0.2}
    compared = [name for name, baseline in config.baselines().items() if name != baseline]
    assert config.resamples >= 40 * len(compared)  # fewer could show nothing after Holm's correction
    assert all(baseline in configs for baseline in config.baselines().values())


def test_the_benchmarks_of_three_seeds_name_what_they_compare() -> None:
    config = load_benchmark(ROOT / "configs" / "benchmark_seeds.yaml", ["dataset.root=/data"])
    configs = config.configs()
    assert len(config.cells()) == 3 * len(configs) == 21
    assert {c.model.rows for c in configs.values()} == {"cell_means"}
    rows = load_benchmark(ROOT / "configs" / "benchmark_rows.yaml", ["dataset.root=/data"]).configs()
    assert {
        name: (c.model.rows, c.model.coreset_percentage) for name, c in rows.items() if name.startswith("iid_5")
    } == {
        "iid_5_picks": ("picks", 0.01),
        "iid_5_means": ("cell_means", 0.01),
        "iid_5_half": ("cell_means", 0.005),
        "iid_5_quarter": ("cell_means", 0.0025),
    }
    assert all((c.model.rows == "picks") == name.endswith("picks") for name, c in rows.items())
    made_up = load_benchmark(ROOT / "configs" / "benchmark_made_up.yaml", ["dataset.root=/data"]).configs()
    assert {c.model.rows for c in made_up.values()} == {"picks", "cell_means"}
    upload = load_benchmark(ROOT / "configs" / "benchmark_upload.yaml", ["dataset.root=/data"]).configs()
    federated = [c for c in upload.values() if c.federated.mode == "federated"]
    assert [c.aggregation.oversample_factor for c in federated] == [1, 1.25, 1.5, 2]
    assert {c.federated.partitioning for c in federated} == {"time"}
    one_bank = load_benchmark(ROOT / "configs" / "benchmark_one_bank.yaml", ["dataset.root=/data"]).configs()
    assert [c.federated.mode for c in one_bank.values()] == ["centralized", "federated"]
    assert all(c.aggregation.bank_scope == "global" for c in one_bank.values())

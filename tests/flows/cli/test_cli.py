"""The command line: exit statuses, one clear line for errors, JSON, the commands on data sets and maps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from prefect import get_client

from data_contracts.config import ExperimentConfig
from flows.cli import main
from flows.experiment import federated_experiment
from tasks.stage import RETRY_DELAYS_SECONDS
from tests.conftest import experiment_values


def call(*arguments: object) -> int:
    """Exit status of `fedpatch ARGUMENTS`."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def write_yaml(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.usefixtures("prefect_server")
def test_run_prints_the_table_and_json(
    tiny_root: Path, tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = experiment_values(tiny_root, store, tmp_path / "ignored")
    del values["name"]
    config = write_yaml(tmp_path / "my_lab.yaml", values)
    assert call("run", config, "--set", "federated.num_clients=2", "--out", tmp_path / "out") == 0
    shown = capsys.readouterr()
    assert "my_lab" in shown.out
    assert "AUC-sPRO@0.05" in shown.out
    assert str(tmp_path / "out") in shown.out
    assert re.findall(r"^\d\d:\d\d:\d\d my_lab: ([^,:]+).*, \d+ s$", shown.err, re.MULTILINE) == [
        "index", "features", "coresets", "memory banks", "thresholds", "test features", "scores", "metrics", "report",
    ]  # fmt: skip
    assert shown.err.splitlines()[-1].startswith(f"next: open {tmp_path / 'out' / 'report.html'}; ")
    assert (tmp_path / "out" / "metrics.json").is_file()
    assert call("run", config, "--set", "federated.num_clients=2", "--out", tmp_path / "out2", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["experiment"] == "my_lab"
    assert len(document["federation"]["clients"]) == 2
    assert document["categories"]["pipe_clip"]["auc_spro"].keys() == {"0.01", "0.05", "0.1", "0.3", "1.0"}


@pytest.mark.usefixtures("prefect_server")
def test_run_fails_with_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = experiment_values(tmp_path / "nowhere", tmp_path / "store", tmp_path / "out")
    assert call("run", write_yaml(tmp_path / "c.yaml", values)) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("fedpatch: ")
    assert str(tmp_path / "nowhere") in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.usefixtures("prefect_server")
def test_weights_that_cannot_be_had_are_refused_before_a_run_is_made(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    tried: list[object] = []

    def offline(url: str, *_args: object, **_kwargs: object) -> None:
        tried.append(url)
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    values = experiment_values(tiny_root, tmp_path / "store", tmp_path / "out", model={"backbone": "wide_resnet50_2"})
    with get_client(sync_client=True) as client:
        before = client.count_flow_runs()
        benchmark = {"base": values, "experiments": {"centralized": {}}}
        path = write_yaml(tmp_path / "plan.yaml", values)
        assert call("plan", path) == 0
        assert (
            "weights: wide_resnet50_2.v1: pretrained weights are not on disk (torchvision wide_resnet50_2-95faca4d"
            in capsys.readouterr().out
        )
        for command, content in (("run", values), ("benchmark", benchmark)):
            assert call(command, write_yaml(tmp_path / f"{command}.yaml", content)) == 1
            begins, message = capsys.readouterr().err.splitlines()
            assert begins.endswith(": starting, its libraries and Prefect first")
            assert "choose model.backbone: efficientnet_lite0 (its weights are installed" in message
            assert len(tried) == 1 + len(RETRY_DELAYS_SECONDS)
            tried.clear()
        assert client.count_flow_runs() == before
    state = federated_experiment(ExperimentConfig.model_validate(values), return_state=True)  # as when run by name
    assert state.is_failed()
    assert "choose model.backbone: efficientnet_lite0" in state.message
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        ("modle: {}", None, "unknown key 'modle'; the top level accepts name, seed, dataset"),
        (
            "model: {coreset_percentage: 7}",
            None,
            "model.coreset_percentage: got 7, accepts a number less than or equal to 1",
        ),
        ("model: {backbone: efficientnet_lite0}", "model.layerz=[a]", "unknown key 'layerz'; model accepts backbone"),
        ("a: [", None, "is not YAML"),
        ("- 1", None, "expected keys and values, got a list"),
        ("{}", "seed", "--set takes key=value"),
        ("{}", "seed.x=1", "seed"),
        ("{}", None, "dataset.root: not given"),
    ],
)
def test_wrong_configuration_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, override: str | None, message: str
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    status = call("partition", tmp_path / "c.yaml", "--out", tmp_path, *(["--set", override] if override else []))
    shown = capsys.readouterr()
    assert status == 1
    assert shown.err.count("\n") == 1
    assert message in shown.err


@pytest.mark.parametrize("arguments", [["run"], ["no-such-command"], ["run", "x.yaml", "--nonsense", "1"]])
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == 2
    assert capsys.readouterr().err.startswith("fedpatch: ")


def test_partition_saves_what_a_run_uses(tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_yaml(tmp_path / "c.yaml", experiment_values(tiny_root, tmp_path, tmp_path))
    assert call("partition", config, "--out", tmp_path / "p", "--json") == 0
    stats = json.loads(capsys.readouterr().out)
    assert stats["n_images"] == 18
    table = pq.read_table(tmp_path / "p" / "partition.parquet").to_pandas()
    assert sorted(set(table.client_id)) == ["client_0", "client_1", "client_2"]
    assert len(set(table.image_id)) == 18


def test_partition_prints_each_count_below_its_category(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = experiment_values(tiny_root, tmp_path, tmp_path)
    categories = sorted(path.name for path in tiny_root.iterdir() if path.is_dir())
    assignments = {category: [category] for category in categories}
    values["federated"] = {"mode": "federated", "partitioning": "category", "client_assignments": assignments}
    assert call("partition", write_yaml(tmp_path / "c.yaml", values), "--out", tmp_path / "p") == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]] for line in lines if line[:1] in "┃│"]
    header, *rows = [row for row in cells if row]
    assert header == ["client", "images", *categories]
    for client, images, *counts in rows:
        assert counts == [images if category == client else "0" for category in categories]


def test_evaluate_measures_map_files(tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    maps = tmp_path / "maps"
    for image in sorted((tiny_root / "pipe_clip" / "test").rglob("*.png")):
        folder, stem = image.parent.name, image.stem
        with Image.open(image) as opened:
            values = rng.random((opened.height, opened.width), dtype=np.float32)
        for mask in (tiny_root / "pipe_clip" / "ground_truth" / folder / stem).glob("*.png"):
            with Image.open(mask) as opened:
                values[np.array(opened) > 0] += 2
        target = maps / "pipe_clip" / "test" / folder
        target.mkdir(parents=True, exist_ok=True)
        np.save(target / f"{stem}.npy", values)
    status = call("evaluate", "--dataset-root", tiny_root, "--maps", maps, "--out", tmp_path / "e", "--json")
    assert status == 0
    document = json.loads(capsys.readouterr().out)
    perfect = document["categories"]["pipe_clip"]
    assert list(document["categories"]) == ["pipe_clip"]
    assert perfect["image_auroc"] == 1.0
    assert perfect["auc_spro"]["0.05"] == pytest.approx(1.0)
    assert perfect["by_defect"]["scratch"]["auc_spro"]["0.3"] == pytest.approx(1.0)
    assert json.loads((tmp_path / "e" / "metrics.json").read_text()) == document
    next(maps.rglob("*.npy")).unlink()
    assert call("evaluate", "--dataset-root", tiny_root, "--maps", maps, "--out", tmp_path / "e") == 1
    assert "1 of 10 maps of pipe_clip are missing" in capsys.readouterr().err


def test_dataset_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    arguments = ("--scale", "0.2", "--images", "3", "--category", "pipe_clip", "--category", "tank_screw")
    assert call("dataset", "synthesize", "--out", made, *arguments) == 0
    assert str(made) in capsys.readouterr().out
    assert call("dataset", "validate", made) == 0
    said = capsys.readouterr()
    assert "pipe_clip" in said.out
    assert said.err.startswith("layout autovi, shown by pipe_clip/defects_config.json; another: --layout")
    assert call("dataset", "stats", made, "--json") == 0
    assert json.loads(capsys.readouterr().out)["pipe_clip"]["train"]["good"] == 3
    assert call("dataset", "validate", made, "--layout", "flat") == 1
    assert (
        "dataset.layout: got 'flat', accepts 'auto', 'autovi', 'mvtec', 'mvtec_ad2', 'visa' or 'folder'"
        in capsys.readouterr().err
    )
    config = {
        "dataset": {"root": str(made), "categories": ["tank_screw"], "group": {"pattern": "test/good/000[01]"}},
        "preprocessing": {"size_by_category": {"tank_screw": [64, 256]}},
    }
    assert call("dataset", "validate", write_yaml(tmp_path / "own.yaml", config)) == 0
    said = capsys.readouterr()
    assert "pipe_clip" not in said.out
    assert "that they are resized to" in said.out
    assert "64x256" in said.out
    assert "groups: 2, of 2 images; " in said.out
    assert said.err.splitlines()[-1].endswith(f"fedpatch plan {tmp_path / 'own.yaml'}")
    next((made / "pipe_clip" / "train" / "good").iterdir()).write_bytes(b"not an image")
    assert call("dataset", "validate", made) == 1
    assert "unreadable" in capsys.readouterr().out

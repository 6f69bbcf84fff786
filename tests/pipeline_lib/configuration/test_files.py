"""Reading configurations: YAML files, overrides, and errors of one line that a person can act on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import ConfigError
from pipeline_lib.configuration.files import (
    apply_overrides,
    load_benchmark,
    load_config,
    load_run_config,
    parse_config,
    write_config,
)


def written(directory: Path, text: str, name: str = "lab.yaml") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_files_name_is_the_experiments_unless_it_has_one(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "seed: 3\n")).name == "lab"
    assert load_config(written(tmp_path, "name: other\n")).name == "other"
    empty = load_config(written(tmp_path, "# nothing\n"))
    assert (empty.name, empty.seed) == ("lab", 42)


def test_overrides_are_yaml_and_reach_into_sections(tmp_path: Path) -> None:
    path = written(tmp_path, "model: {coreset_percentage: 0.2}\nfederated: {num_clients: 3}\n")
    overrides = [
        "model.coreset_percentage=0.05",
        "model.layers=[layer1, layer2]",
        "dataset.root=/data/with=sign",
        "preprocessing.size_by_category.bolt=[64, 48]",
        "model.use_faiss=false",
        "preprocessing.mean=[0.5, 0.5, 0.5]",
        "preprocessing.std=[0.5, 0.5, 0.5]",
        "seed=7",
    ]
    config = load_config(path, overrides)
    assert config.model.coreset_percentage == 0.05
    assert config.model.layers == ("layer1", "layer2")
    assert config.dataset.root == Path("/data/with=sign")
    assert config.preprocessing.size("bolt") == (64, 48)
    assert config.model.use_faiss is False
    assert config.seed == 7
    assert config.federated.num_clients == 3
    assert config.federated.mode == "federated"  # the section is there


def test_overrides_leave_the_given_values_alone() -> None:
    values: dict[str, Any] = {"model": {"weights": "random"}}
    merged = apply_overrides(values, ["model.weights=pretrained", "dataset.root=/x"])
    assert values == {"model": {"weights": "random"}}
    assert merged == {"model": {"weights": "pretrained"}, "dataset": {"root": "/x"}}


def test_what_is_written_reads_back_to_the_same_configuration(tmp_path: Path) -> None:
    config = parse_config(
        {
            "name": "both",
            "dataset": {"root": "/däta", "categories": ["a b", "1"]},
            "preprocessing": {"size_by_category": {"a b": [64, 48]}},
            "federated": {"partitioning": "category", "client_assignments": {0: ["a b"], "qc": "all"}},
            "aggregation": {"global_bank_size": 500},
            "evaluation": {"defect_weights": "severity"},
        }
    )
    write_config(config, tmp_path / "new" / "config.yaml")
    again = load_config(tmp_path / "new" / "config.yaml")
    assert again == config
    assert again.config_hash() == config.config_hash()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model.coresett=5"], "model.coresett: unknown key 'coresett'; model accepts backbone, weights, "),
        (["modle.x=5"], "modle: unknown key 'modle'; the top level accepts name, seed, dataset, "),
        (["model.coreset_percentage=5"], "model.coreset_percentage: got 5, accepts a number less than or equal to 1"),
        (["model.coreset_percentage=.nan"], "model.coreset_percentage: got nan, accepts a finite number"),
        (["seed=1.5"], "seed: got 1.5, accepts a whole number"),
        (["dataset.categories=pipe_clip"], "dataset.categories: got 'pipe_clip', accepts a list"),
        (["preprocessing.small_size=[400, x]"], "preprocessing.small_size.1: got 'x', accepts a whole number"),
        (["preprocessing.small_size=[400]"], "preprocessing.small_size.1: got [400], accepts one more value"),
        (["model.use_faiss=maybe"], "model.use_faiss: got 'maybe', accepts true or false"),
        (["dataset=3"], "dataset: got 3, accepts keys and values"),
        (["runtime.device=gpu"], "runtime.device: got 'gpu', accepts 'auto', 'cpu' or 'cuda'"),
        (["name=a b"], "name: got 'a b', accepts text that matches ^[A-Za-z0-9]"),
        (
            ["aggregation.global_bank_size=most"],
            "aggregation.global_bank_size: got 'most', accepts a whole number or 'match_centralized'",
        ),
        (
            ["evaluation.defect_weights={cut: -1}"],
            "evaluation.defect_weights.cut: got -1, accepts a number greater than or equal to 0",
        ),
        (["evaluation.defect_weights=3"], "evaluation.defect_weights: got 3, accepts keys and values or text"),
        (["federated.min_clients=9"], "federated: min_clients is 9, but there are only 5 clients"),
        (
            ["federated.coreset_percentage_by_client={0: 2}"],
            "federated.coreset_percentage_by_client.client_0: got 2, accepts a number less than or equal to 1",
        ),
        (
            ["federated.coreset_percentage_by_client={client_9: 0.1}"],
            "federated: coreset_percentage_by_client names client_9, but the clients are client_0, client_1, ",
        ),
        (["upload.noise_sigma=.inf"], "upload.noise_sigma: got inf, accepts a "),
        (["upload.clip_norm=.nan"], "upload.clip_norm: got nan, accepts a "),
        (["federated.alpha=.inf"], "federated.alpha: got inf, accepts a "),
        (["seed=x", "model.weights=none"], "seed: got 'x', accepts a whole number; model.weights: got "),
        (["model.coreset_percentage"], "--set takes key=value such as model.coreset_percentage=0.05, got 'model.c"),
        (["=5"], "--set takes key=value"),
        (["model..weights=5"], "--set takes key=value"),
        (["model.layers=[a"], "--set model.layers: '[a' is not a YAML value"),
        (["seed.x=5", "seed.x.y=5"], "--set seed.x.y: x is not a section, but 5"),
    ],
)
def test_a_wrong_key_or_value_is_one_line(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(line)}") as caught:
        parse_config({}, overrides)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_many_mistakes_are_counted_and_long_values_cut() -> None:
    overrides = [f"model.wrong{number}=1" for number in range(5)]
    with pytest.raises(ConfigError, match=r"wrong0.*wrong1.*wrong2.*; and 2 more$"):
        parse_config({}, overrides)
    with pytest.raises(ConfigError, match=r"got 'x{70,80}\.\.\., accepts") as caught:
        parse_config({"seed": "x" * 1000})
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", r"lab.yaml: expected keys and values, got a list"),
        ("just text", "got a str"),
        ("model: {weights: [", r"lab.yaml is not YAML: .*line 1"),
        ("seed: !!python/object/apply:os.getcwd []\n", "lab.yaml is not YAML: could not determine a constructor"),
        ("seed: 1\nmodel: {}\nseed: 2\n", r"lab.yaml is not YAML: .*'seed' is given twice.*line 3"),
        ("model: {weights: random, weights: pretrained}\n", r"'weights' is given twice"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*none.yaml: No such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin.yaml is not YAML"):
        load_config(tmp_path / "latin.yaml")


@pytest.mark.parametrize("model", ["{backbone: wide_resnet50_2}", "{backbone: wide_resnet50_2.v2}", "{}"])
def test_a_resnets_name_alone_means_other_weights_in_a_run_of_an_earlier_version(tmp_path: Path, model: str) -> None:
    (tmp_path / "config.yaml").write_text(f"model: {model}\n")
    assert load_run_config(tmp_path)[0].model.backbone == "wide_resnet50_2.v2"
    now = load_config(tmp_path / "config.yaml")
    assert now.model.backbone == ("wide_resnet50_2.v2" if "v2" in model else "wide_resnet50_2.v1")
    write_config(now, tmp_path / "config.yaml")
    assert load_run_config(tmp_path)[0].model.backbone == now.model.backbone


def test_anchors_and_merges_still_work(tmp_path: Path) -> None:
    text = "preprocessing:\n  size_by_category:\n    a: &size [64, 48]\n    b: *size\n"
    assert load_config(written(tmp_path, text)).preprocessing.size("b") == (64, 48)
    merged = "evaluation:\n  defect_groups: {<<: {cut: logical, rust: logical}, rust: structural}\n"
    groups = load_config(written(tmp_path, merged)).evaluation.defect_groups
    assert groups == {"cut": "logical", "rust": "structural"}


@pytest.mark.parametrize("mode", ["federated", "local_only", "centralized"])
def test_an_experiments_configuration_is_compared_with_one_place(tmp_path: Path, mode: str) -> None:
    text = f"seed: 7\nmodel: {{coreset_percentage: 0.2}}\nfederated: {{mode: {mode}, num_clients: 4}}\n"
    path = written(tmp_path, text, "own.yaml")
    matrix = load_benchmark(path, ["dataset.root=/data"], tmp_path / "out")
    other = "federated" if mode == "centralized" else mode
    assert (matrix.name, matrix.baseline, matrix.out) == ("own", "centralized", tmp_path / "out")
    assert [(cell.experiment, cell.seed) for cell in matrix.cells()] == [
        (name, seed) for seed in (7, 8, 9) for name in ("centralized", other)
    ]
    own = load_config(path, ["dataset.root=/data", f"name={other}", f"federated.mode={other}"])
    assert matrix.cells()[1].config == own
    with pytest.raises(ConfigError, match=r"^modle: unknown key 'modle'"):
        load_benchmark(path, ["modle=1"])

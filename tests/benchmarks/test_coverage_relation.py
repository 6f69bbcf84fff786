"""The relation of coverage and AUC-sPRO over the runs of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.coverage_relation import DISTANCES, relation
from data_contracts.results import CategoryMetrics, MetricsDocument
from pipeline_lib.configuration.files import load_benchmark
from tests.conftest import ROOT


def write_runs(directory: Path, values: dict[str, float | None]) -> Path:
    """Runs of one category: their distances grow in the order given, but for the radius, which falls."""
    rows = []
    for number, (name, value) in enumerate(values.items()):
        document = MetricsDocument(
            experiment=name, config_hash="0", seed=1, categories={"a": CategoryMetrics(auc_spro={"0.05": value})}
        )
        (directory / name).mkdir()
        (directory / name / "metrics.json").write_text(document.model_dump_json())
        row = {"experiment": name, "category": "a", **dict.fromkeys(DISTANCES, number), "covering_radius": -number}
        rows.append(row)
    (directory / "coverage.json").write_text(json.dumps(rows))
    return directory


def test_banks_that_lie_nearer_and_score_higher_are_at_minus_1(tmp_path: Path) -> None:
    (row,) = relation(write_runs(tmp_path, {"near": 0.9, "middle": 0.7, "far": 0.6}))
    assert row == {"category": "a", "runs": 3, **dict.fromkeys(DISTANCES, -1.0), "covering_radius": 1.0}
    assert relation(tmp_path, ["near", "far"])[0]["runs"] == 2


def test_a_category_without_masks_is_named(tmp_path: Path) -> None:
    write_runs(tmp_path, {"near": None})
    with pytest.raises(SystemExit, match="it needs masks"):
        relation(tmp_path)


def test_the_benchmark_of_coverage_measures_it_in_every_run() -> None:
    config = load_benchmark(ROOT / "configs" / "benchmark_coverage.yaml", [], None)
    configs = config.configs()
    assert len(configs) == 12
    assert all(own.evaluation.coverage and own.decision.blocks == 0 for own in configs.values())
    assert {own.federated.partitioning for own in configs.values()} == {"iid", "time", "dirichlet"}

"""fedpatch show: runs, the seeds of a benchmark's experiment, a benchmark, and measured maps under their names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flows.cli import main

RUN = Path(__file__).resolve().parents[2] / "earlier_runs" / "rounds"


def show(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["show", *words])
    assert not stop.value.code
    return capsys.readouterr().out


def test_an_experiments_directory_shows_its_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (9, 42):
        shutil.copytree(RUN, tmp_path / "iid" / f"seed_{seed}")
    shown = json.loads(show(capsys, str(tmp_path / "iid"), "--json"))
    assert len(shown) == 2
    text = show(capsys, str(tmp_path / "iid"), "--markdown")
    assert text.index("seed_9") < text.index("seed_42")


def test_measured_maps_go_by_their_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "measured").mkdir()
    shutil.copy(RUN / "metrics.json", tmp_path / "measured")
    name = json.loads((RUN / "metrics.json").read_text())["experiment"]
    text = show(capsys, str(tmp_path / "measured"), "--markdown")
    assert str(tmp_path / "measured") in text
    assert name in show(capsys, str(RUN), "--markdown")


def test_a_benchmarks_directory_shows_the_comparison_and_the_categories(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # no interval goes below its value
    row = {
        "experiment": "iid", "baseline": "centralized", "group": "main", "metric": "image_auroc", "value": 0.9,
        "delta_points": -0.8, "ci95": [-2.5, 0.9], "verdict": "no difference shown", "not_tested": None, "seeds": 3,
        "upload_share_of_image_bytes": 0.5, "upload_share_of_pixel_bytes": 0.1, "download_bytes": 10, "bank_rows": 7,
        "named": False,
    }  # fmt: skip
    category = {
        "experiment": "iid", "baseline": "centralized", "category": "tiles", "metric": "image_auroc", "seeds": 3,
        "value_per_cent": 90.0, "lowest_per_cent": 89.14, "highest_per_cent": 90.4, "delta_points": -0.8,
        "ci95_low": -2.5, "ci95_high": 0.9, "not_tested": None,
    }  # fmt: skip
    (tmp_path / "comparison.json").write_text(json.dumps([row]))
    assert "by category" not in show(capsys, str(tmp_path))  # of an earlier version
    (tmp_path / "categories.json").write_text(json.dumps([category]))
    (tmp_path / "warnings.json").write_text(json.dumps(["tiles: look"]))
    text = " ".join(show(capsys, str(tmp_path)).split())
    assert "90.0 (-0.8 [-2.5, +0.9])" in text
    assert "90.0 [89.1-90.4] (-0.8 [-2.5, +0.9])" in text
    assert "warning: tiles: look" in text
    assert json.loads(show(capsys, str(tmp_path), "--json")) == [row]

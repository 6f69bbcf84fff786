"""The script for machines with a GPU, as a dry run on the CPU."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import gpu_check


def test_a_dry_run_needs_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu_check, "DEVICE", torch.device("cpu"))
    found = gpu_check._checks(quick=True)
    smaller = {name: check for name, check in found.items() if not name.startswith("extract")}
    monkeypatch.setattr(gpu_check, "_checks", lambda *, quick: smaller)
    monkeypatch.setattr("sys.argv", ["gpu_check", "--quick", "--json"])
    assert gpu_check.main() == 0
    result = json.loads(capsys.readouterr().out)
    rows = [result[name] for name in smaller]
    assert all(row["equal"] for row in rows)
    assert [row["wanted"] for row in rows if "wanted" in row] == [5, 10, 2]
    assert rows[0]["peer_s"] > 0


def test_full_sizes_are_refused_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr("sys.argv", ["gpu_check"])
    assert gpu_check.main() == 2
    assert "no CUDA device" in capsys.readouterr().err
    names = list(gpu_check._checks(quick=False))
    assert names[:3] == [
        "coreset 1% of 200,000 x 1,536",
        "coreset 10% of 100,000 x 1,536",
        "search 100,000 in 100,000 x 1,536",
    ]

"""A rerun of the command line in which every stage is cached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.settings import PREFECT_API_URL

from pipeline_lib.configuration import hardware
from tests.conftest import ROOT, experiment_values

RUN = """
import sys
from flows.cli import main
try:
    main(["run", sys.argv[1]])
finally:
    print("imported:", *({*sys.argv[2:]} & {*sys.modules}))
"""
SLOW = ("torch", "torchvision", "timm", "scipy.stats", "sklearn")


def test_it_gives_the_same_and_imports_none_of_what_computes(
    finished: Path, store: Path, tiny_root: Path, tmp_path: Path
) -> None:
    if not hardware.is_cpu("auto"):
        pytest.skip("with a GPU torch says how it computes, which is part of the key")
    config, out = tmp_path / "tiny.yaml", tmp_path / "again"
    config.write_text(yaml.safe_dump(experiment_values(tiny_root, store, out, runtime={"workers": 1})))
    child = subprocess.run(
        [sys.executable, "-c", RUN, config, *SLOW],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": PREFECT_API_URL.value() or ""},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines()[-1] == "imported:"
    again, before = (json.loads((place / "metrics.json").read_text()) for place in (out, finished / "run"))
    assert again["categories"] == before["categories"]
    assert (out / "environment.json").read_text() == (finished / "run" / "environment.json").read_text()

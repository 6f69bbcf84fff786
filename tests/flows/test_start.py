"""What commands import that people call again and again: a cached rerun, and scoring an image."""

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

COMMAND = """
import sys
from flows.cli import main
words, slow = sys.argv[1].split("|"), {*sys.argv[2:]}
try:
    main(words)
finally:
    print("imported:", *(slow & {*sys.modules}))
"""
SLOW = ("torchvision", "timm", "torch._dynamo", "scipy.stats", "sklearn", "huggingface_hub")


def imported_by(words: list[str], *slow: str) -> list[str]:
    """Which of the slow modules the command line imports for these words."""
    child = subprocess.run(
        [sys.executable, "-c", COMMAND, "|".join(words), *slow],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": PREFECT_API_URL.value() or ""},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()[-1].split()[1:]


def test_a_cached_rerun_gives_the_same_and_imports_nothing_that_computes(
    finished: Path, store: Path, tiny_root: Path, tmp_path: Path
) -> None:
    if not hardware.is_cpu("auto"):
        pytest.skip("with a GPU torch says how it computes, which is part of the key")
    config, out = tmp_path / "tiny.yaml", tmp_path / "again"
    config.write_text(yaml.safe_dump(experiment_values(tiny_root, store, out, runtime={"workers": 1})))
    assert imported_by(["run", str(config)], "torch", *SLOW) == []
    again, before = (json.loads((place / "metrics.json").read_text()) for place in (out, finished / "run"))
    assert again["categories"] == before["categories"]
    assert (out / "environment.json").read_text() == (finished / "run" / "environment.json").read_text()


def test_scoring_an_image_imports_torch_and_neither_timm_nor_prefect(finished: Path, tiny_root: Path) -> None:
    image = next((tiny_root / "pipe_clip" / "test" / "good").iterdir())
    assert imported_by(["score", str(finished / "run"), str(image)], "torch", "prefect", *SLOW) == ["torch"]

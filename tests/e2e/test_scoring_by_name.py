"""New images scored by name: a run makes the model, the deployment score-images/on-demand decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e


def test_a_run_is_a_model_and_images_are_decided_by_name(stack: Stack, config: dict[str, Any], tmp_path: Path) -> None:
    stack.prefect(
        "deployment", "run", "centralized-experiment/on-demand", "--param", f"config={json.dumps(config)}", "--watch"
    )
    images = Path(config["dataset"]["root"]) / "pipe_clip" / "test"
    parameters = {
        "model": config["runtime"]["out"],
        "paths": [str(images)],
        "out": str(tmp_path / "scored"),
        "category": "pipe_clip",
    }
    words = [word for name, value in parameters.items() for word in ("--param", f"{name}={json.dumps(value)}")]
    done = stack.prefect("deployment", "run", "score-images/on-demand", *words, "--watch")
    assert done.returncode == 0
    table = pd.read_parquet(tmp_path / "scored" / "decisions.parquet")
    assert len(table) == len(list(images.rglob("*.png")))
    assert set(table.decision) <= {"good", "defective"}
    assert (tmp_path / "scored" / str(table.picture.iloc[0])).is_file()

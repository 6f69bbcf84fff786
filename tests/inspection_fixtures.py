"""A stand-in for a trained model, where only what it says of its thresholds is asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from pipeline_lib.inspection.run_model import RunModel

STAND_IN = cast(
    RunModel,
    SimpleNamespace(
        directory=Path("runs/first"),
        of_stations=False,
        missed=lambda category: f"{category}: missed",
        colour_scale=lambda category, score: (5.0, 15.0),
        promised=lambda category: f"{category}: promised",
        shortfalls=lambda categories: [f"{', '.join(categories)}: too few"],
    ),
)

"""A stand-in for a trained model, where only what is known of its thresholds is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from pipeline_lib.inspection.run_model import RunModel


class _Directory:
    directory = Path("runs/first")


STAND_IN = RunModel(
    cast(Any, _Directory),
    ("clip",),
    0.05,
    pd.DataFrame({"category": "clip", "score": np.linspace(1, 10, 10)}),
    None,
    colour_scales={"clip": (5.0, 15.0)},
)

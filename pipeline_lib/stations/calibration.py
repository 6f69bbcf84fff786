"""Scores of a station's normal images as plain arrays, which cross the shared place; which image has which stays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from data_contracts.errors import UploadError
from data_contracts.tables import calibration_schema

KINDS = {"category": "U", "block": "i", "score": "f"}
GROUP = {"group": "i"}  # where the station has groups: numbers of its own


def to_arrays(scores: pd.DataFrame) -> dict[str, np.ndarray]:
    """CALIBRATION_SCORES of one station as arrays, each (score,): category str, block int64, score float64; group int64
    where the table has it."""
    arrays = {
        "category": np.array([str(name) for name in scores.category], dtype=np.str_),
        "block": scores.block.to_numpy(np.int64),
        "score": scores.score.to_numpy(np.float64),
    }
    return arrays | {name: scores[name].to_numpy(np.int64) for name in GROUP if name in scores}


def from_arrays(arrays: Mapping[str, np.ndarray], *, sender: str) -> pd.DataFrame:
    """The inverse, with the sender as client_id. Raises UploadError for arrays that cannot be such scores."""

    def refuse(reason: str) -> UploadError:
        return UploadError(f"calibration of {sender} refused: {reason}")

    if set(arrays) - set(GROUP) != set(KINDS):
        raise refuse(f"expected the arrays {', '.join(KINDS)}, got {', '.join(sorted(arrays)) or 'none'}")
    kinds = {name: kind for name, kind in (KINDS | GROUP).items() if name in arrays}
    for name, kind in kinds.items():
        array = arrays[name]
        if array.ndim != 1 or array.dtype.kind != kind:
            raise refuse(f"{name} has shape {array.shape} and type {array.dtype}")
    if len({len(arrays[name]) for name in kinds}) > 1:
        raise refuse("its arrays do not have the same length")
    if not np.isfinite(arrays["score"]).all():
        raise refuse("score is not finite")
    frame = pd.DataFrame({name: arrays[name] for name in kinds}).assign(client_id=sender)
    numbers = {name: "float64" if kind == "f" else "int64" for name, kind in kinds.items() if kind != "U"}
    scores: pd.DataFrame = frame.astype(numbers)[calibration_schema(kinds).names]
    return scores

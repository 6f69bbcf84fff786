"""Scores of a station's normal images as plain arrays, which cross the shared place; which image has which stays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from data_contracts.errors import UploadError
from data_contracts.tables import CALIBRATION_SCORES

NAMES = ("category", "block", "score")


def to_arrays(scores: pd.DataFrame) -> dict[str, np.ndarray]:
    """CALIBRATION_SCORES of one station as arrays: category str, block int64, score float64, each (score,)."""
    return {
        "category": np.array([str(name) for name in scores.category], dtype=np.str_),
        "block": scores.block.to_numpy(np.int64),
        "score": scores.score.to_numpy(np.float64),
    }


def from_arrays(arrays: Mapping[str, np.ndarray], *, sender: str) -> pd.DataFrame:
    """The inverse, with the sender as client_id. Raises UploadError for arrays that cannot be such scores."""

    def refuse(reason: str) -> UploadError:
        return UploadError(f"calibration of {sender} refused: {reason}")

    if set(arrays) != set(NAMES):
        raise refuse(f"expected the arrays {', '.join(NAMES)}, got {', '.join(sorted(arrays)) or 'none'}")
    for name, kind in zip(NAMES, "Uif", strict=True):
        array = arrays[name]
        if array.ndim != 1 or array.dtype.kind != kind:
            raise refuse(f"{name} has shape {array.shape} and type {array.dtype}")
    if len({len(arrays[name]) for name in NAMES}) > 1:
        raise refuse("its arrays do not have the same length")
    if not np.isfinite(arrays["score"]).all():
        raise refuse("score is not finite")
    frame = pd.DataFrame({name: arrays[name] for name in NAMES}).assign(client_id=sender)
    scores: pd.DataFrame = frame.astype({"block": "int64", "score": "float64"})[CALIBRATION_SCORES.names]
    return scores

"""Calibration scores of a station on their way to the coordinator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_contracts.errors import UploadError
from pipeline_lib.stations.calibration import from_arrays, to_arrays
from pipeline_lib.stations.results import joined_calibration

SCORES = pd.DataFrame({"client_id": "station-a", "category": ["x", "x", "y"], "block": [0, 1, 0], "score": [1.5, 2, 3]})


def test_they_arrive_as_they_were_under_the_senders_name() -> None:
    pd.testing.assert_frame_equal(from_arrays(to_arrays(SCORES), sender="station-a"), SCORES)
    named_otherwise = from_arrays(to_arrays(SCORES.assign(client_id="station-b")), sender="station-a")
    pd.testing.assert_frame_equal(named_otherwise, SCORES)
    assert from_arrays(to_arrays(SCORES[:0]), sender="station-a").empty


def test_groups_of_two_stations_stay_apart_and_a_station_without_any_has_images_alone() -> None:
    one = SCORES.assign(group=[0, 0, -1])
    pd.testing.assert_frame_equal(from_arrays(to_arrays(one), sender="station-a"), one)
    joined = joined_calibration([one, SCORES[:0], SCORES, SCORES.assign(group=[1, 0, 1])])
    assert joined.group.tolist() == [0, 0, -1, -1, -1, -1, 2, 1, 2]
    assert "group" not in joined_calibration([SCORES, SCORES])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"score": np.array([1.0, np.nan, 2.0])}, "score is not finite"),
        ({"score": np.array([1.0])}, "not have the same length"),
        ({"score": np.zeros((3, 1))}, "score has shape"),
        ({"block": np.zeros(3)}, "block has shape"),
        ({"group": np.zeros(3)}, "group has shape"),
        ({"image_id": np.zeros(3)}, "expected the arrays category, block, score"),
    ],
)
def test_what_cannot_be_such_scores_is_refused(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(UploadError, match=f"calibration of station-a refused: .*{reason}"):
        from_arrays({**to_arrays(SCORES), **changed}, sender="station-a")

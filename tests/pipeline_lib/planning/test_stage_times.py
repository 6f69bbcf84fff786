"""Rough times: what they grow with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_contracts.config import ExperimentConfig
from pipeline_lib.planning.experiment import ExperimentPlan, PlannedImages
from pipeline_lib.planning.stage_times import Probe, stage_seconds


class _Idle(Probe):
    """A machine that takes a second for each image and counts how often it is asked."""

    def seconds_per_image(self, plan: ExperimentPlan, split: str, category: str, at_once: int) -> float:
        return 1.0

    def multiplications_per_second(self, plan: ExperimentPlan, at_once: int) -> float:
        return 1e9


def measuring(resamples: int, n_images: int) -> float:
    """Seconds to measure one category of images of a megapixel."""
    config = ExperimentConfig.model_validate(
        {
            "dataset": {"root": Path("/data")},
            "evaluation": {"bootstrap": resamples},
            "runtime": {"workers": 1, "threads": 1},
        }
    )
    images = PlannedImages(n_images, 100 * n_images, (100, 100), (1000, 1000))
    backbone: Any = config  # keys are made of what it dumps
    plan = ExperimentPlan(config, 8, {"part": images}, {"part": images}, [], {"part": 5}, backbone)
    return stage_seconds(plan, _Idle())["measure"]


def test_measuring_counts_pixels_and_the_resamples_of_the_intervals() -> None:
    pixels = measuring(0, 50)
    assert pixels > 0
    assert measuring(0, 100) == 2 * pixels
    resampled = measuring(1000, 50) - pixels
    assert resampled > 0
    assert round(measuring(4000, 50) - pixels, 6) == round(4 * resampled, 6)
    assert measuring(1000, 100) - 2 * pixels > resampled

"""What a plan refuses before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.errors import DatasetError
from pipeline_lib.planning.experiment import plan_experiment
from tests.dataset_fixtures import write_image, write_tiny_autovi


def test_two_images_of_one_stem_are_refused_as_the_run_does(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path, categories=("bracket",), train=2, good=1, defective=1)
    write_image(tmp_path / "bracket/test/scratch/0000.bmp", np.zeros((48, 64), np.uint8))
    with pytest.raises(DatasetError, match=r"scratch/0000\.bmp and .*scratch/0000\.png; masks and maps are found by"):
        plan_experiment(ExperimentConfig(), tmp_path)

"""What several tests of the library share."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.features.extractor import FeatureExtractor


@pytest.fixture(scope="session")
def extractor() -> FeatureExtractor:
    """The offline backbone; it holds no state between images."""
    return FeatureExtractor("efficientnet_lite0")


@pytest.fixture(scope="session")
def images(tiny_root: Path) -> AutoVIDataset:
    """The training images of the small made-up data set."""
    return AutoVIDataset(tiny_root)

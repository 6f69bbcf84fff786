"""Fused convolutions against the plain network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from data_contracts.errors import ConfigError
from pipeline_lib.features import fused_convolutions
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.features.fused_convolutions import FusedConvolution, convolves_in_bfloat16, fuse_convolutions

PIXELS = torch.randint(0, 256, (2, 96, 130, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def fused_count(extractor: FeatureExtractor) -> int:
    return sum(isinstance(module, FusedConvolution) for module in extractor.network.modules())


@pytest.mark.parametrize(
    ("backbone", "layers", "at_least"),
    [
        ("efficientnet_lite0", None, 30),  # ReLU6, depthwise, TensorFlow's padding
        ("resnet18", None, 12),
        ("densenet121", ("features.denseblock2",), 15),
        ("timm/regnety_002", ("s2", "s3"), 20),
        ("timm/convnext_atto", ("stages.1",), 0),  # no batch normalization: left alone
    ],
)
def test_features_equal_the_plain_networks(backbone: str, layers: tuple[str, ...] | None, at_least: int) -> None:
    weights = "pretrained" if backbone == "efficientnet_lite0" else "random"
    plain = FeatureExtractor(backbone, layers, weights=weights)
    fused = FeatureExtractor(backbone, layers, weights=weights, extraction="fused")
    assert fused_count(plain) == 0
    assert fused_count(fused) >= at_least
    expected, grid = plain.extract(PIXELS)
    found, found_grid = fused.extract(PIXELS)
    assert grid == found_grid
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert torch.equal(found, fused.extract(PIXELS)[0])


@pytest.mark.skipif(not convolves_in_bfloat16(), reason="this processor does not convolve in bfloat16")
def test_bfloat16_is_close_and_comes_as_float32() -> None:
    expected, _ = FeatureExtractor("efficientnet_lite0").extract(PIXELS)
    found, _ = FeatureExtractor("efficientnet_lite0", extraction="bfloat16").extract(PIXELS)
    assert found.dtype == torch.float32
    assert 1e-4 < float((found - expected).norm() / expected.norm()) < 5e-2


def test_bfloat16_is_refused_where_the_processor_has_it_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_lib.features.extractor.convolves_in_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match=r"model\.extraction: bfloat16 needs .* set it to fused"):
        FeatureExtractor("efficientnet_lite0", extraction="bfloat16")


def test_a_layer_whose_own_output_is_wanted_stays() -> None:
    layers = ("layer1.0.conv2", "layer2")
    plain = FeatureExtractor("resnet18", layers, weights="random")
    fused = FeatureExtractor("resnet18", layers, weights="random", extraction="fused")
    assert type(fused.network.get_submodule("layer1.0.conv2")) is nn.Conv2d
    assert fused_count(fused) > 0
    torch.testing.assert_close(fused.extract(PIXELS)[0], plain.extract(PIXELS)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [
        ("resnet18", ("layer1.0.bn1", "layer2")),  # a ReLU in place follows
        ("timm/tf_efficientnet_lite0", ("blocks.1.0.bn1", "blocks.1.1.bn2.act", "blocks.2")),  # its own activation
    ],
)
def test_a_normalization_whose_output_is_wanted_stays(backbone: str, layers: tuple[str, ...]) -> None:
    plain = FeatureExtractor(backbone, layers, weights="random")
    fused = FeatureExtractor(backbone, layers, weights="random", extraction="fused")
    assert type(fused.network.get_submodule(layers[0])) is type(plain.network.get_submodule(layers[0]))
    assert fused_count(fused) > 0
    torch.testing.assert_close(fused.extract(PIXELS)[0], plain.extract(PIXELS)[0], rtol=1e-4, atol=1e-4)


class Shared(nn.Module):
    """One convolution used twice, one whose output also goes elsewhere, one that can be fused."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.twice_norm = nn.BatchNorm2d(3)
        self.free = nn.Conv2d(3, 4, 1)
        self.free_norm = nn.BatchNorm2d(4)
        self.seen = nn.Conv2d(4, 4, 1)
        self.seen_norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor, *, use_seen: bool = True) -> Tensor:
        images = self.twice_norm(self.twice(self.twice(images)))
        images = self.free_norm(self.free(images))
        seen = self.seen(images)
        return self.seen_norm(seen) + (5 * seen if use_seen else 0)


def shared() -> Shared:
    network = Shared().eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(0.7)  # type: ignore[union-attr]
            module.running_var.fill_(3.0)  # type: ignore[union-attr]
    return network


def test_a_convolution_that_is_used_twice_stays() -> None:
    network = shared()
    assert fuse_convolutions(network, lambda images: network(images, use_seen=False)) == 2
    assert isinstance(network.twice, nn.Conv2d)


def test_everything_stays_where_a_probe_differs(caplog: pytest.LogCaptureFixture) -> None:
    network = shared()
    before = dict(network.named_modules())
    assert fuse_convolutions(network, network) == 0
    assert dict(network.named_modules()) == before
    assert "going on with the plain ones" in caplog.text


def test_everything_stays_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_convolutions, "_has_onednn", lambda: False)
    assert fused_count(FeatureExtractor("efficientnet_lite0", extraction="fused")) == 0

"""Where cells look: a probe at known places, drawn back to the image, lies there to half a pixel.

Kernels are symmetric and positive, so that a response has a centroid that does not depend on what was learned; what
learned kernels lean is held against gradients of the real weights.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data_contracts.manifests import Cells
from pipeline_lib.features import extractor as extractor_module
from pipeline_lib.features.backbone import build_network
from pipeline_lib.features.cell_centers import Outline, Places
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.maps.map_files import resize_map

PROBE_PX = 5
PLACES = ((0.42, 0.55), (0.5, 0.44), (0.57, 0.5))  # y, x as shares of the image, far from its border


def with_symmetric_kernels(network: nn.Module) -> nn.Module:
    """All kernels binomial, which weigh odd and even places alike, also where a stride leaves places out."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            size = module.kernel_size[0]
            taps = torch.tensor([float(math.comb(size - 1, tap)) for tap in range(size)])
            kernel = taps[:, None] * taps
            module.weight.data[:] = kernel / kernel.sum() / module.weight.shape[1]
            if module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.reset_parameters()
    return network


@pytest.fixture
def symmetric(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FeatureExtractor]:
    """Makes extractors of backbones with symmetric kernels."""
    monkeypatch.setattr(extractor_module, "build_network", lambda s: with_symmetric_kernels(build_network(s)))
    return lambda name, *layers, **options: FeatureExtractor(name, layers or None, weights="random", **options)


def misplaced_px(extractor: FeatureExtractor, width: int, height: int) -> np.ndarray:
    """(y, x): centroid of the drawn map less the place of a bright square, mean over PLACES."""
    off = []
    for share_y, share_x in PLACES:
        top, left = int(share_y * height), int(share_x * width)
        image = torch.zeros(1, 3, height, width)
        image[:, :, top : top + PROBE_PX, left : left + PROBE_PX] = 1
        with torch.inference_mode():
            response = extractor(image)[0].abs().sum(dim=0).numpy()
        drawn = resize_map(response, height, width, extractor.cells((height, width), response.shape)).astype(float)
        centroid = [(drawn.sum(axis=1 - axis) @ np.arange(drawn.shape[axis])) / drawn.sum() for axis in (0, 1)]
        off.append([centroid[0] - top - (PROBE_PX - 1) / 2, centroid[1] - left - (PROBE_PX - 1) / 2])
    return np.array(off).mean(axis=0)


@pytest.mark.parametrize(
    ("backbone", "layers", "width", "height", "as_patchcore_px"),
    [
        ("wide_resnet50_2", (), 200, 187, None),
        ("resnet18", (), 256, 230, (2.0, 7.0)),
        ("efficientnet_lite0", (), 256, 257, (0.0, -7.5)),
        ("efficientnet_lite0", (), 300, 231, None),
        ("densenet121", ("features.denseblock1", "features.denseblock2"), 200, 223, None),
        ("squeezenet1_1", ("features.4", "features.7"), 200, 215, None),
    ],
)
def test_a_probe_is_drawn_where_it_lies(
    symmetric: Callable[..., FeatureExtractor],
    backbone: str, layers: tuple[str, ...], width: int, height: int, as_patchcore_px: tuple[float, float] | None,
) -> None:  # fmt: skip
    off = misplaced_px(symmetric(backbone, *layers), width, height)
    assert np.abs(off).max() < 0.5
    if as_patchcore_px is not None:
        beside = symmetric(backbone, *layers, alignment="corners_as_patchcore")
        assert misplaced_px(beside, width, height) == pytest.approx(as_patchcore_px, abs=1)


def test_real_weights_look_where_their_gradients_lie() -> None:
    """The centroid of squared gradients of random sums of a cell's features on noise, mean of 12."""
    size = 257, 224
    outline = FeatureExtractor("efficientnet_lite0")._outline
    assert outline is not None
    for layer, within_px in (("blocks.2", 0.5), ("blocks.4", 1.0)):
        network = FeatureExtractor("efficientnet_lite0", [layer], neighborhood_size=1)
        generator = torch.Generator().manual_seed(0)
        known = outline.places(["blocks.2", "blocks.4"], size)[layer]
        y, x = known.grid[0] // 2, known.grid[1] // 2
        found = []
        for _ in range(12):
            images = torch.randn(1, 3, *size, generator=generator).requires_grad_()
            features = network(images)[0, :, y, x]
            (features * torch.randn(len(features), generator=generator)).sum().backward()
            assert images.grad is not None
            energy = images.grad[0].double().square().sum(dim=0)
            rows, columns = torch.arange(size[0]).double(), torch.arange(size[1]).double()
            found.append([float(energy.sum(1) @ rows), float(energy.sum(0) @ columns)] / energy.sum().numpy())
        expected = [known.first[0] + y * known.step[0], known.first[1] + x * known.step[1]]
        assert np.abs(np.mean(found, axis=0) - expected).mean() < within_px


def test_cells_of_a_resnet_look_at_multiples_of_their_stride(symmetric: Callable[..., FeatureExtractor]) -> None:
    cells = symmetric("wide_resnet50_2").cells((750, 1000), (94, 125))
    assert cells == Cells(offset=(0.5 / 8, 0.5 / 8), across=(750 / 8, 125.0))


def test_the_grid_of_efficientnet_lite0_is_even_at_multiples_of_32(extractor: FeatureExtractor) -> None:
    """Maps are then drawn as ever: its kernels lean by what the padding of even sizes moves them."""
    assert extractor.cells((256, 640), (32, 80)) == Cells.even((32, 80))
    assert extractor.cells((257, 640), (33, 80)) == Cells(offset=(-3 / 8, 0.5), across=(257 / 8, 80.0))


def test_tokens_are_the_middles_of_their_patches() -> None:
    layers = ["layers.0", "layers.1"]
    swin = FeatureExtractor("timm/swin_tiny_patch4_window7_224", layers, weights="random")
    assert swin.cells((224, 224), (56, 56)) == Cells.even((56, 56))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), Places((4, 5), (0, 0), (2, 2))),
        (nn.Conv2d(3, 4, (3, 5), stride=(1, 2), padding=(0, 2)), Places((6, 5), (1, 0), (1, 2))),
        (nn.Conv2d(3, 4, 3, dilation=2), Places((4, 6), (2, 2), (1, 1))),
        (nn.MaxPool2d(2), Places((4, 5), (0.5, 0.5), (2, 2))),
        (nn.AvgPool2d(3, stride=2, padding=1), Places((4, 5), (0, 0), (2, 2))),
        (nn.ZeroPad2d((1, 0, 2, 0)), Places((10, 11), (-2, -1), (1, 1))),
        (nn.Sequential(nn.ReflectionPad2d(1), nn.MaxPool2d(2), nn.ReLU()), Places((5, 6), (-0.5, -0.5), (2, 2))),
    ],
)
def test_operations_move_cells_as_their_arguments_say(network: nn.Module, expected: Places) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    found = Outline(nn.Sequential(network)).places(["0"], (8, 10))["0"]
    assert found == expected


def test_a_kernel_counts_with_the_centroid_of_its_squared_weights() -> None:
    convolution = nn.Conv2d(3, 1, 3, padding=1)
    nn.init.zeros_(convolution.weight)
    convolution.weight.data[0, 0, 0, 1], convolution.weight.data[0, 2, 2, 2] = 1, -2
    found = Outline(nn.Sequential(convolution)).places(["0"], (9, 9))["0"]
    assert found.first == pytest.approx((0.6, 0.8))  # a fifth at (-1, 0), four at (1, 1)
    assert found.cells((9, 9)) == Cells(offset=(1.0, 1.5), across=(9.0, 9.0))  # to half a pixel


def test_a_network_that_cannot_be_followed_is_named_and_has_even_cells(caplog: pytest.LogCaptureFixture) -> None:
    class Reads(nn.Module):
        def forward(self, images: torch.Tensor) -> Any:
            return images[:, :, ::2, ::2] * float(images.mean())

    with caplog.at_level(logging.WARNING):
        assert Outline(nn.Sequential(Reads())).places(["0"], (8, 8)) == {}
    assert "cannot be followed" in caplog.text


@pytest.mark.parametrize("extraction", ["plain", "fused"])
def test_how_a_backbone_computes_moves_no_cell(extraction: str, extractor: FeatureExtractor) -> None:
    other = FeatureExtractor("efficientnet_lite0", extraction=extraction)
    assert other.cells((70, 99), (9, 13)) == extractor.cells((70, 99), (9, 13)) != Cells.even((9, 13))

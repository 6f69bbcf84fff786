"""Networks of tokens against timm's own intermediate outputs: grids, padding, centres, numbers of layers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch.nn import functional

from data_contracts.config import ModelConfig, PreprocessingConfig
from data_contracts.errors import ConfigError
from data_contracts.manifests import Cells
from pipeline_lib.features.backbone import padding_notes, resolve_backbone
from pipeline_lib.features.extractor import FeatureExtractor

SWIN = "swin_tiny_patch4_window7_224"
FAMILIES = {  # timm's name -> its usual layers, and the pixels of a patch to which images are padded
    "vit_tiny_patch16_224": (("blocks.5", "blocks.8"), 16),
    "vit_small_patch14_reg4_dinov2": (("blocks.5", "blocks.8"), 14),
    "vit_small_patch16_dinov3": (("blocks.5", "blocks.8"), 16),
    SWIN: (("layers.1", "layers.2"), 4),
    "deit_tiny_distilled_patch16_224": (("blocks.5", "blocks.8"), 16),
    "convnext_atto": (("stages.1", "stages.2"), 1),
    "resnet18": (("layer2", "layer3"), 1),
    "mixer_s32_224": (("blocks.3", "blocks.5"), 32),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[str, FeatureExtractor, Any]:
    """The name, an extractor, and its network without the hooks."""
    options: Any = {"weights": "random", "neighborhood_size": 1, "alignment": "corners_as_patchcore"}
    extractor = FeatureExtractor(f"timm/{request.param}", **options)
    network = copy.deepcopy(extractor.network)
    for module in network.modules():
        module._forward_hooks.clear()
    return request.param, extractor, network


@pytest.mark.parametrize("size", [(224, 224), (112, 168), (100, 131)], ids=str)
def test_features_are_timms_intermediate_outputs(
    family: tuple[str, FeatureExtractor, Any], size: tuple[int, int]
) -> None:
    name, extractor, network = family
    layers, patch = FAMILIES[name]
    assert extractor.settings.layers == layers
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    padded = functional.pad(images, (0, -size[1] % patch, 0, -size[0] % patch))
    if name.startswith("mixer") and size != (224, 224):
        with pytest.raises(AssertionError, match="doesn't match model"):
            extractor(images)
        return
    indices = [i for i, stage in enumerate(network.feature_info) if stage["module"] in layers]
    with torch.inference_mode():
        fine, coarse = network.forward_intermediates(padded, indices=indices, norm=False, intermediates_only=True)
        if coarse.shape[-2:] != fine.shape[-2:]:
            coarse = functional.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(extractor(images), torch.cat([fine, coarse], dim=1), rtol=1e-5, atol=1e-5)


def test_a_network_is_cut_after_the_last_block_in_use_and_sizes_are_those_of_timm() -> None:
    extractor = FeatureExtractor("timm/test_vit", (1, 2), weights="random", neighborhood_size=1)  # type: ignore[arg-type]
    calls: list[int] = []
    for number, block in enumerate(extractor.network.blocks):  # type: ignore[arg-type, union-attr]
        block.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    images = torch.randn(1, 3, 96, 176, generator=torch.Generator().manual_seed(0))
    found = extractor(images)
    assert calls == [0, 1, 2]
    fixed = timm.create_model("test_vit", dynamic_img_size=False).eval()
    fixed.load_state_dict(extractor.network.state_dict())
    fixed.set_input_size((96, 176))  # which resizes the position embeddings once
    with torch.inference_mode():
        expected = torch.cat(fixed.forward_intermediates(images, indices=[1, 2], intermediates_only=True), dim=1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("backbone", "layers", "size", "grid", "expected"),
    [
        ("test_vit", ("3",), (96, 160), (6, 10), Cells.even((6, 10))),
        ("test_vit", ("3",), (100, 131), (7, 9), Cells(offset=(0.5, 0.5), across=(100 / 16, 131 / 16))),
        (SWIN, ("1",), (100, 131), (13, 17), Cells(offset=(0.5, 0.5), across=(12.5, 131 / 8))),
        (SWIN, ("0",), (100, 131), (25, 33), Cells(offset=(0.5, 0.5), across=(25, 131 / 4))),
    ],
)  # fmt: skip
def test_a_token_looks_at_the_middle_of_its_patch(
    backbone: str, layers: tuple[str, ...], size: tuple[int, int], grid: tuple[int, int], expected: Cells
) -> None:
    extractor = FeatureExtractor(f"timm/{backbone}", layers, weights="random")
    assert extractor(torch.zeros(1, 3, *size)).shape[-2:] == grid
    assert extractor.cells(size, grid) == expected
    even = FeatureExtractor(f"timm/{backbone}", layers, weights="random", alignment="corners_as_patchcore")
    assert even.cells(size, grid) == Cells.even(grid)


def test_a_bright_patch_answers_in_its_own_cell() -> None:
    """Also in the last row and column, which lie partly in the padding."""
    extractor = FeatureExtractor("timm/test_vit", ("0",), weights="random", neighborhood_size=1)
    blank = torch.zeros(1, 3, 100, 131)
    for y, x in ((0, 0), (3, 5), (6, 8)):
        bright = blank.clone()
        bright[:, :, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16] = 3
        change = (extractor(bright) - extractor(blank)).square().sum(dim=1)[0]
        assert divmod(int(change.argmax()), change.shape[1]) == (y, x)
        share_x, share_y = extractor.cells((100, 131), (7, 9)).center(y, x)
        assert (share_x * 131, share_y * 100) == pytest.approx((16 * x + 8, 16 * y + 8))


@pytest.mark.parametrize(
    ("backbone", "layers", "found"),
    [
        ("timm/test_vit", ["2", "blocks.4"], ("blocks.2", "blocks.4")),
        ("timm/test_vit", [0], ("blocks.0",)),
        (f"timm/{SWIN}", [0, 2], ("layers.0", "layers.2")),
        ("efficientnet_lite0", None, ("blocks.2", "blocks.4")),
        ("timm/efficientnet_b0", None, ("blocks.2", "blocks.4")),
        ("timm/densenet121", None, ("features.denseblock2", "features.denseblock3")),
    ],
)
def test_layers_by_number_and_the_usual_ones(backbone: str, layers: list[Any] | None, found: tuple[str, ...]) -> None:
    model = ModelConfig.model_validate({"backbone": backbone, "layers": layers, "weights": "random"})
    assert resolve_backbone(model, PreprocessingConfig(), seed=0).layers == found


def test_a_number_that_timm_does_not_give_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"layers: got 6, .*; timm gives this network numbers from 0 to 5, blocks.0 "):
        FeatureExtractor("timm/test_vit", ["6"], weights="random")
    with pytest.raises(ConfigError, match="resnet18 has no layer '2'"):
        FeatureExtractor("resnet18", ["2"], weights="random")


def test_what_is_padded_is_said() -> None:
    def notes(backbone: str, **sizes: tuple[int, int]) -> list[str]:
        model = ModelConfig(backbone=backbone, weights="random")
        return padding_notes(resolve_backbone(model, PreprocessingConfig(), seed=0), sizes)

    assert notes("timm/test_vit", a=(96, 160), b=(131, 100), c=(131, 100)) == [
        "for timm/test_vit images of b, c are padded from 131x100 to 144x112 pixels on the right and below, to whole "
        "patches of 16x16 pixels"
    ]
    assert notes(f"timm/{SWIN}", a=(224, 112), b=(400, 400)) == [
        f"for timm/{SWIN} images of b are padded inside the network to whole windows of 7x7 tokens; sides in multiples "
        "of 112 and 112 pixels are not"
    ]
    assert notes("timm/resnet18", a=(131, 100)) == notes("wide_resnet50_2", a=(131, 100)) == []

"""Files of weights in the names of timm and of the original repositories; which of torchvision's a name means."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from data_contracts.config import ModelConfig, PreprocessingConfig
from data_contracts.earlier_versions import MEANT_V2
from data_contracts.errors import ConfigError, WeightsError
from pipeline_lib.features.backbone import backbone_source, find_recorded_weights, resolve_backbone, timm_outline
from pipeline_lib.features.extractor import FeatureExtractor

State = dict[str, torch.Tensor]


def drawn(model: str) -> State:
    """Values for a timm model, in its own names."""
    generator = torch.Generator().manual_seed(3)
    names = timm_outline(model).state_dict()
    return {name: torch.randn(value.shape, generator=generator) for name, value in names.items()}


def renamed(state: State, *rules: tuple[str, str]) -> State:
    """Each name after each rule of `re.sub`."""
    for pattern, replacement in rules:
        state = {re.sub(pattern, replacement, name): value for name, value in state.items()}
    return state


def as_dinov2(state: State) -> State:
    """facebookresearch/dinov2, with registers: positions also of the class token."""
    at_class = torch.randn_like(state["cls_token"])
    state = renamed(state, ("^reg_token", "register_tokens"))
    positions = torch.cat([at_class, state["pos_embed"]], dim=1)
    first = {"cls_token": state["cls_token"] - at_class, "mask_token": torch.zeros(1, 384)}
    return {**state, **first, "pos_embed": positions}


def as_dinov3(state: State) -> State:
    """facebookresearch/dinov3: its own names of registers and scales, one bias of q, k and v, buffers."""
    state = renamed(
        state, ("^reg_token", "storage_tokens"), (r"gamma_(\d)", r"ls\1.gamma"), ("q_bias", "qkv.bias"),
    )  # fmt: skip
    for name in [name for name in state if name.endswith("attn.qkv.weight")]:
        bias, v_bias = name.replace("weight", "bias"), state.pop(name.replace("qkv.weight", "v_bias"), None)
        q_bias = state.get(bias, torch.zeros(len(state[name]) // 3))
        state[bias] = torch.cat([q_bias, torch.zeros_like(q_bias), q_bias if v_bias is None else v_bias])
        state[name.replace("weight", "bias_mask")] = torch.ones_like(state[bias])
    return {**state, "mask_token": torch.zeros(1, 1), "rope_embed.periods": torch.ones(16)}


def as_swin(state: State) -> dict[str, State]:
    """microsoft/Swin-Transformer: merging at the end of a stage, buffers, all below `model`."""
    state = renamed(state, (r"^head\.fc\.", "head."))
    state = {re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", n): v
             for n, v in state.items()}  # fmt: skip
    return {"model": {**state, "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}}


def as_convnext(state: State) -> dict[str, State]:
    """facebookresearch/ConvNeXt; the head of another number of classes."""
    names = (
        (r"^stem\.", "downsample_layers.0."), (r"stages\.(\d)\.downsample", r"downsample_layers.\1"),
        (r"\.blocks\.", "."), ("conv_dw", "dwconv"), (r"mlp\.fc", "pwconv"),
        (r"^head\.norm", "norm"), (r"^head\.fc\.", "head."),
    )  # fmt: skip
    return {"model": renamed(state, *names)}


def as_is(state: State) -> State:
    return state


SCHEMES: dict[str, tuple[str, Callable[[State], Any], str]] = {
    "timm's, ViT": ("test_vit", as_is, "safetensors"),
    "timm's, DINOv2": ("vit_small_patch14_reg4_dinov2", as_is, "pth"),
    "timm's, DINOv3": ("vit_tiny_patch16_dinov3_qkvb", as_is, "safetensors"),
    "timm's, Swin": ("swin_tiny_patch4_window7_224", as_is, "safetensors"),
    "timm's, ConvNeXt": ("test_convnext", as_is, "pth"),
    "torchvision's": ("resnet18", as_is, "pth"),
    "DINOv2": ("vit_small_patch14_reg4_dinov2", as_dinov2, "pth"),
    "DINOv3": ("vit_tiny_patch16_dinov3_qkvb", as_dinov3, "safetensors"),
    "DINOv3 without bias": ("vit_small_patch16_dinov3", as_dinov3, "pth"),
    "Swin": ("swin_tiny_patch4_window7_224", as_swin, "pth"),
    "ConvNeXt": ("test_convnext", as_convnext, "pth"),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_naming_is_read_as_timm_reads_it(scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, in_scheme, suffix = SCHEMES[scheme]
    made = in_scheme(drawn(model))
    path = tmp_path / f"weights.{suffix}"
    save_file({n: v.contiguous() for n, v in made.items()}, path) if suffix == "safetensors" else torch.save(made, path)
    found = FeatureExtractor(f"timm/{model}", weights_path=path).network.state_dict()
    assert capsys.readouterr().out == ""  # timm prints in the conversion of DINOv3
    expected = timm.create_model(model, pretrained=True, pretrained_cfg_overlay={"file": str(path)}).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_original_vits_npz(tmp_path: Path) -> None:
    """google-research/vision_transformer."""
    rng = np.random.default_rng(0)
    dim, heads, block = 192, 3, "Transformer/encoderblock_{}/"

    def values(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    arrays = {
        "embedding/kernel": values(16, 16, 3, dim), "embedding/bias": values(dim), "cls": values(1, 1, dim),
        "Transformer/posembed_input/pos_embedding": values(1, 197, dim),
        "Transformer/encoder_norm/scale": values(dim), "Transformer/encoder_norm/bias": values(dim),
    }  # fmt: skip
    for own in map(block.format, range(12)):
        for part in ("query", "key", "value"):
            arrays[f"{own}MultiHeadDotProductAttention_1/{part}/kernel"] = values(dim, heads, dim // heads)
            arrays[f"{own}MultiHeadDotProductAttention_1/{part}/bias"] = values(heads, dim // heads)
        arrays[f"{own}MultiHeadDotProductAttention_1/out/kernel"] = values(heads, dim // heads, dim)
        arrays[f"{own}MultiHeadDotProductAttention_1/out/bias"] = values(dim)
        for number, shape in ((0, (dim, 4 * dim)), (1, (4 * dim, dim))):
            arrays[f"{own}MlpBlock_3/Dense_{number}/kernel"] = values(*shape)
            arrays[f"{own}MlpBlock_3/Dense_{number}/bias"] = values(shape[1])
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            arrays[f"{own}{norm}/scale"], arrays[f"{own}{norm}/bias"] = values(dim), values(dim)
    np.savez(tmp_path / "vit.npz", **arrays)  # type: ignore[arg-type]
    found = FeatureExtractor("timm/vit_tiny_patch16_224", weights_path=tmp_path / "vit.npz").network.state_dict()
    kernel = arrays[f"{block.format(7)}MlpBlock_3/Dense_0/kernel"]
    assert np.array_equal(found["blocks.7.mlp.fc1.weight"].numpy(), kernel.T)
    assert np.array_equal(found["pos_embed"].numpy(), arrays["Transformer/posembed_input/pos_embedding"])


def test_nothing_is_asked_of_a_classifier(tmp_path: Path) -> None:
    state = drawn("test_convnext")
    for head in (torch.zeros(5, state["head.fc.weight"].shape[1]), None):
        state["head.fc.weight"] = head  # type: ignore[assignment]
        torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "other.pth")
        found = FeatureExtractor("timm/test_convnext", weights_path=tmp_path / "other.pth").network.state_dict()
        assert torch.equal(found["stages.0.blocks.0.conv_dw.weight"], state["stages.0.blocks.0.conv_dw.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.3.norm1.bias"), "lacks 1 tensors of test_vit, such as blocks.3.norm1.bias"),
        (lambda s: s.update({"blocks.6.norm1.bias": torch.zeros(64)}), "holds blocks.6.norm1.bias, which test_vit has"),
        (lambda s: s.update({"norm.bias": torch.zeros(65)}), r"norm.bias has shape \(65,\), the network needs \(64,\)"),
        (lambda s: s.update({"blocks": {}}), "which test_vit has not"),
        (lambda s: s.update({"pos_embed": torch.zeros(3)}), "cannot be converted to timm's test_vit: IndexError"),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[[Any], object], message: str, tmp_path: Path) -> None:
    state = drawn("test_vit")
    change(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=message):
        FeatureExtractor("timm/test_vit", weights_path=tmp_path / "w.pth")


def test_a_resnets_name_means_the_papers_weights() -> None:
    models = torchvision.models
    both = {
        name for name in models.list_models(module=models)
        if "resne" in name and {"IMAGENET1K_V1", "IMAGENET1K_V2"} <= set(models.get_model_weights(name).__members__)
    }  # fmt: skip
    assert both == MEANT_V2
    named = {name: backbone_source(name).weights for name in sorted(MEANT_V2)}
    assert set(named.values()) == {"IMAGENET1K_V1"}
    assert backbone_source("wide_resnet50_2.v2").weights == "IMAGENET1K_V2"
    assert backbone_source("efficientnet_b1").weights == "IMAGENET1K_V2"  # torchvision's default, as ever
    assert backbone_source("efficientnet_b1.v1").weights == "IMAGENET1K_V1"
    assert backbone_source("regnet_y_128gf").weights == "IMAGENET1K_SWAG_E2E_V1"
    with pytest.raises(ConfigError, match=r"torchvision has no IMAGENET1K_V2 of resnet18, but IMAGENET1K_V1"):
        backbone_source("resnet18.v2")


def test_a_model_of_either_version_finds_the_weights_that_it_was_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    files = {"v1": "wide_resnet50_2-95faca4d.pth", "v2": "wide_resnet50_2-9ba9bcbe.pth"}
    (tmp_path / "checkpoints").mkdir()
    for version, name in files.items():
        (tmp_path / "checkpoints" / name).write_text(version)
    made = {
        name: resolve_backbone(ModelConfig(backbone=name), PreprocessingConfig(), seed=0)
        for name in ("wide_resnet50_2", "wide_resnet50_2.v1", "wide_resnet50_2.v2")
    }
    assert made["wide_resnet50_2"] == made["wide_resnet50_2.v1"]
    first, second = made["wide_resnet50_2.v1"], made["wide_resnet50_2.v2"]
    assert first.weights_source == f"torchvision {files['v1']}, IMAGENET1K_V1"
    assert first.weights_sha256 != second.weights_sha256
    assert second.backbone == "wide_resnet50_2"  # as earlier versions had it: features and uploads keep their keys
    for settings, version in ((first, "v1"), (second, "v2")):
        assert find_recorded_weights(settings).read_text() == version
    earlier = second.model_copy(update={"weights_source": f"torchvision {files['v2']}"})
    assert find_recorded_weights(earlier).read_text() == "v2"
    assert earlier.identity() == second.identity()


def test_the_licence_is_recorded_where_timm_states_it(tmp_path: Path) -> None:
    torch.save(drawn("test_vit"), tmp_path / "w.pth")

    def of(backbone: str, **model: Any) -> str | None:
        config = ModelConfig(backbone=backbone, **model)
        return resolve_backbone(config, PreprocessingConfig(), seed=0).weights_license

    assert of("timm/test_vit.r160_in1k", weights_path=tmp_path / "w.pth") == "apache-2.0"
    assert of("timm/test_vit", weights_path=tmp_path / "w.pth") is None  # whose weights they are is not said
    assert of("timm/test_vit.r160_in1k", weights="random") is None
    assert of("efficientnet_lite0") is None

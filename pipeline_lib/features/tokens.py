"""Networks that see an image as patches: the grid of what their blocks give, and which blocks are of use.

They are built by timm (`patch_embed`, which says its `feat_ratio`), or by a function of the user's in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from data_contracts.errors import ConfigError
from data_contracts.manifests import Cells
from pipeline_lib.when_needed import torch

Size = tuple[int, int]  # height, width


def patch_px(network: Any) -> Size | None:
    """(height, width) in pixels of the patches that a network cuts its images into; None for other networks."""
    for name in ("patch_embed", "stem"):  # an MLP-Mixer's stem cuts patches, a ConvNeXt's does not say so
        ratio: Any = getattr(getattr(network, name, None), "feat_ratio", None)
        if ratio is not None:
            height, width = ratio(as_scalar=False)
            return int(height), int(width)
    return None


def padded_size(size: Size, patch: Size) -> Size:
    """`size` in whole patches."""
    height, width = (math.ceil(side / px) * px for side, px in zip(size, patch, strict=True))
    return height, width


def pad_to_patches(images: torch.Tensor, patch: Size) -> torch.Tensor:
    """Images (batch, channel, height, width) with zeros below and on the right, as timm pads them, in whole patches."""
    size = images.shape[-2], images.shape[-1]
    height, width = padded_size(size, patch)
    return (
        images
        if (height, width) == size
        else torch.nn.functional.pad(images, (0, width - size[1], 0, height - size[0]))
    )


def token_map(tokens: torch.Tensor, grid: Size, n_prefix: int) -> torch.Tensor | None:
    """Tokens (batch, token, channel) as a map (batch, channel, height, width) of `grid`; None if they are not of it.

    The first `n_prefix` of them, class and register tokens, are left out where they are there.
    """
    n_patches = math.prod(grid)
    if tokens.shape[1] not in (n_patches, n_patches + n_prefix):
        return None
    return tokens[:, -n_patches:].transpose(1, 2).reshape(len(tokens), -1, *grid)


def token_cells(size: Size, patch: Size, grid: Size) -> Cells:
    """Where tokens on `grid` look, of images of `size`: a token at the middle of its patch.

    One that stands for several patches, by twos a side (Swin's merging), looks at the middle of them.
    """
    patches = [math.ceil(side / px) for side, px in zip(size, patch, strict=True)]
    merged = next((m for m in (1, 2, 4, 8, 16, 32) if grid == (-(-patches[0] // m), -(-patches[1] // m))), None)
    if merged is None:
        return Cells.even(grid)
    return Cells(offset=(0.5, 0.5), across=(size[0] / (patch[0] * merged), size[1] / (patch[1] * merged)))


def said_of_padding(network: Any, layers: Sequence[str], size: Size) -> str:
    """What is padded of an image of `size` on its way through a timm network, in words; empty where nothing is."""
    patch = patch_px(network)
    if patch is None:
        return ""
    (height, width), (high, wide) = padded_size(size, patch), patch
    if (height, width) != size:
        return (
            f"padded from {size[1]}x{size[0]} to {width}x{height} pixels on the right and below, to whole patches of "
            f"{wide}x{high} pixels"
        )
    windows = [m.window_size for m in network.modules() if hasattr(m, "window_size") and hasattr(m, "shift_size")]
    used = [s["reduction"] for s in network.feature_info if any(f"{n}.".startswith(f"{s['module']}.") for n in layers)]
    if windows and used and any(side % (max(used) * n) for side, n in zip(size, windows[0], strict=True)):
        rows, columns = windows[0]
        return (
            f"padded inside the network to whole windows of {columns}x{rows} tokens; sides in multiples of "
            f"{max(used) * columns} and {max(used) * rows} pixels are not"
        )
    return ""


def usual_layers(network: Any) -> tuple[str, ...]:
    """What is used of a timm network unless layers are named; () where timm does not say its stages.

    The last ones at strides 8 and 16, as `layer2` and `layer3` of a ResNet; of blocks that are all at one stride those
    at half and three quarters of the depth.
    """
    stages = getattr(network, "feature_info", None) or ()
    strides = [stage["reduction"] for stage in stages]
    if len(stages) > 2 and len(set(strides)) == 1:
        return tuple(stages[len(stages) * quarters // 4 - 1]["module"] for quarters in (2, 3))
    last = {stage["reduction"]: stage["module"] for stage in stages}
    return tuple(last[stride] for stride in (8, 16) if stride in last)


def named_layers(network: Any, layers: Sequence[str]) -> tuple[str, ...]:
    """The modules of a timm network that `layers` name, some perhaps by timm's number of a block or stage.

    Raises ConfigError for a number that the network does not have.
    """
    stages = [stage["module"] for stage in getattr(network, "feature_info", None) or ()]
    for layer in layers:
        if layer.isdecimal() and int(layer) >= len(stages):
            has = f"numbers from 0 to {len(stages) - 1}, {stages[0]} to {stages[-1]}" if stages else "no numbers"
            raise ConfigError(f"model.layers: got {layer}, accepts names of modules; timm gives this network {has}")
    return tuple(stages[int(layer)] if layer.isdecimal() else layer for layer in layers)

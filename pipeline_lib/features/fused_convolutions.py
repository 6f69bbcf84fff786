"""Convolutions of a frozen network with the batch normalization, and the activation, that follow them: one step.

In eval mode batch normalization is a fixed scale and shift of each channel, which a convolution's weights can take up
(Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
section 3.2). On x86, oneDNN then applies a ReLU while a result is still in a register. Equal to the plain network but
for float32 rounding: about 2e-6 of a feature.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

logger = logging.getLogger(__name__)

PROBE_PX = 64
TOLERANCE = 1e-4  # relative difference of a probe's features from which the network is left as it was
Activation = tuple[str, list[float], str]  # as oneDNN's convolution takes it
NOTHING: Activation = ("none", [], "")


class FusedConvolution(nn.Module):
    """A convolution with its batch normalization and activation."""

    def __init__(self, convolution: nn.Conv2d, normalization: nn.BatchNorm2d, activation: Activation) -> None:
        super().__init__()
        assert normalization.running_mean is not None
        assert normalization.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            normalization.running_mean,
            normalization.running_var,
            normalization.eps,
            normalization.weight,
            normalization.bias,
        )
        laid_out = weight.detach().contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(laid_out, requires_grad=False)
        self.bias = nn.Parameter(bias.detach(), requires_grad=False)
        self.activation = activation
        self.geometry = (list(convolution.stride), list(convolution.dilation), convolution.groups)
        same = type(convolution).__name__ == "Conv2dSame"  # timm's: pads as much as the input's size asks for
        self.padding = None if same else [int(p) for p in convolution.padding]
        self.kernel = [int(k) for k in convolution.kernel_size]

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channel, height, width) -> the same, of the convolution's size."""
        stride, dilation, groups = self.geometry
        padding = self.padding
        if padding is None:
            images, padding = _pad_same(images, self.kernel, stride, dilation), [0, 0]
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            images, self.weight, self.bias, padding, stride, dilation, groups, *self.activation
        )
        return result


def fuse_convolutions(
    network: nn.Module, features_of: Callable[[Tensor], Tensor], *, keep: frozenset[str] = frozenset()
) -> int:
    """Fuse, in place, what follows each other in `network` (eval mode, float32, on the CPU); how many pairs.

    `features_of` runs it on images (batch, 3, height, width). A pair is fused only where a probe shows that a
    normalization takes exactly what a convolution gave, both once; `keep` names modules whose own output is wanted.
    Returns 0, with nothing changed, where oneDNN is missing, a network refuses the probe's size, or the probe's
    features differ by more than 1e-4: the plain network is always right.
    """
    if not _has_onednn() or not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return 0
    probe = torch.rand(1, 3, PROBE_PX, PROBE_PX, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            pairs = _followers(network, features_of, probe, keep)
        except (RuntimeError, ValueError, AssertionError) as error:
            logger.debug("convolutions stay plain, a probe of %d pixels does not pass: %s", PROBE_PX, error)
            return 0
        plain = features_of(probe)
        changes = [change for pair in pairs for change in _replace(network, *pair)]
        difference = float((features_of(probe) - plain).norm() / plain.norm().clamp_min(1e-30))
    if difference <= TOLERANCE:
        logger.debug("%d convolutions fused, difference %.1e", len(pairs), difference)
        return len(pairs)
    logger.warning("fused convolutions differ from plain ones by %.1e; going on with the plain ones", difference)
    for parent, name, module in changes:
        setattr(parent, name, module)
    return 0


def convolves_in_bfloat16() -> bool:
    """Whether convolutions of this processor take bfloat16: oneDNN's refuse it without AVX-512 or AVX-NE-CONVERT."""
    return not _has_onednn() or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _has_onednn() -> bool:
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def _followers(
    network: nn.Module, features_of: Callable[[Tensor], Tensor], probe: Tensor, keep: frozenset[str]
) -> list[tuple[str, str]]:
    """Names (convolution, normalization) where the second takes the first's output, both called once."""
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []  # keeps the outputs, so that no id is used twice

    def note(name: str) -> Any:
        return lambda module, inputs, output: calls.append((name, module, inputs[0], output))

    handles = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    try:
        features_of(probe)
    finally:
        for handle in handles:
            handle.remove()
    counts = Counter(name for name, *_ in calls)
    made_by = {id(output): (name, module) for name, module, _, output in calls if isinstance(module, nn.Conv2d)}
    pairs = []
    for name, module, taken, _ in calls:
        if not isinstance(module, nn.BatchNorm2d) or id(taken) not in made_by or not module.track_running_stats:
            continue
        convolution_name, convolution = made_by[id(taken)]
        once = counts[name] == counts[convolution_name] == 1
        inside = {f"{name}.{child}".rstrip(".") for child, _ in module.named_modules()}  # the normalization too
        if once and keep.isdisjoint({convolution_name, *inside}) and _is_plain(convolution):
            pairs.append((convolution_name, name))
    return pairs


def _is_plain(convolution: nn.Module) -> bool:
    """Whether the convolution is one that FusedConvolution knows how to do."""
    known = type(convolution) is nn.Conv2d or type(convolution).__name__ == "Conv2dSame"
    return (
        known
        and isinstance(convolution, nn.Conv2d)
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
    )


def _replace(network: nn.Module, convolution_name: str, normalization_name: str) -> list[tuple[nn.Module, str, Any]]:
    """Put a fused convolution in their place; what was there, as (parent, name, module)."""
    convolution = network.get_submodule(convolution_name)
    normalization = network.get_submodule(normalization_name)
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(normalization, nn.BatchNorm2d)
    after: nn.Module | None = getattr(normalization, "act", None)  # timm's BatchNormAct2d
    activation = _activation(after)
    stays = nn.Identity() if activation is not None or after is None else after
    fused = FusedConvolution(convolution, normalization, activation or NOTHING)
    changes = []
    for name, module in ((convolution_name, fused), (normalization_name, stays)):
        parent_name, _, own_name = name.rpartition(".")
        parent = network.get_submodule(parent_name)
        changes.append((parent, own_name, getattr(parent, own_name)))
        setattr(parent, own_name, module)
    return changes


def _activation(module: nn.Module | None) -> Activation | None:
    """The same as oneDNN has it; None where it must stay a step of its own."""
    match module:
        case nn.ReLU6():
            return ("hardtanh", [0.0, 6.0], "")
        case nn.ReLU():
            return ("relu", [], "")
        case nn.Identity():
            return NOTHING
    return None


def _pad_same(images: Tensor, kernel: list[int], stride: list[int], dilation: list[int]) -> Tensor:
    """Zeros around the images, as TensorFlow's SAME has them: the odd one below and to the right."""
    sizes = images.shape[-2:]
    missing = [
        max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
    ]
    if not any(missing):
        return images
    (top, left) = (amount // 2 for amount in missing)
    return nn.functional.pad(images, (left, missing[1] - left, top, missing[0] - top))

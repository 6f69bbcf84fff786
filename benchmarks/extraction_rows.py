"""Patch features of WideResNet-50-2 against a plain forward pass of the whole network.

Two forms of `model.extraction`: fused, equal to the plain network's maps but for rounding, and bfloat16, which rounds
what is multiplied; each row gives the relative difference of the features that it found. The peer runs in a process of
its own, in turn with this one, since a FeatureExtractor changes how its whole process keeps memory.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
import torchvision

from benchmarks.rows import Row, paired, seconds
from pipeline_lib.features.extractor import FeatureExtractor, apply_local_neighborhood_averaging
from pipeline_lib.features.fused_convolutions import convolves_in_bfloat16

EQUAL_FLOAT32 = 1e-5  # relative difference of the features
CLOSE_BFLOAT16 = 2e-2


def extract(*, quick: bool) -> list[Row]:
    """Layers 2 and 3 at 400x400, batch 4, random weights."""
    size, batch = (200, 2) if quick else (400, 4)
    pixels = torch.randint(
        0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    as_peer: Any = {"weights": "random", "alignment": "corners_as_patchcore"}
    exact = FeatureExtractor("wide_resnet50_2", extraction="fused", **as_peer)
    forms = [(exact, EQUAL_FLOAT32, "fused float32")]
    if convolves_in_bfloat16():
        rounded = FeatureExtractor("wide_resnet50_2", extraction="bfloat16", **as_peer)
        forms.append((rounded, CLOSE_BFLOAT16, "bfloat16"))
    network = plain_network(exact.settings.seed)
    images = (pixels.permute(0, 3, 1, 2).float().div(255) - exact.mean) / exact.std
    images = images.contiguous()
    reference = plain_features(network, images)
    result = []
    with plain_process(images, seed=exact.settings.seed, threads=torch.get_num_threads()) as peer:
        for extractor, tolerance, name in forms:
            found = extractor.extract(pixels)[0]
            difference = float((found - reference).norm() / reference.norm())
            pairs = paired(
                lambda: seconds(lambda: extractor.extract(pixels)),  # noqa: B023, called in this turn
                peer,
                repetitions=3 if quick else 9,
            )
            result.append(
                pairs.row(
                    "extract",
                    "plain eager float32 forward of the whole torchvision network",
                    wanted=3,
                    equal_results=difference <= tolerance,
                    work=f"WRN50-2, {batch} images of {size}x{size}, {name}",
                    relative_difference=difference,
                    allowed_difference=tolerance,
                )
            )
    return result


def plain_network(seed: int) -> torch.nn.Module:
    """torchvision's network with the random weights of that seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torchvision.models.wide_resnet50_2(weights=None).eval().requires_grad_(False)


@contextlib.contextmanager
def plain_process(images: torch.Tensor, *, seed: int, threads: int) -> Iterator[Callable[[], float]]:
    """A function that gives the seconds of one forward pass in a fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve_plain, args=(there, images.numpy(), seed, threads), daemon=True)
    process.start()

    def ask() -> float:
        here.send("go")
        answer: float = here.recv()
        return answer

    try:
        yield ask
    finally:
        here.close()
        process.join(timeout=30)


def _serve_plain(connection: Connection, images: object, seed: int, threads: int) -> None:
    torch.set_num_threads(threads)
    network, batch = plain_network(seed), torch.from_numpy(images)
    plain_forward(network, batch)
    with contextlib.suppress(EOFError):
        while connection.recv():
            connection.send(seconds(lambda: plain_forward(network, batch)))


@torch.inference_mode()
def plain_forward(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The classifier's answer, as a user of the network gets it."""
    answer: torch.Tensor = network(images)
    return answer


@torch.inference_mode()
def plain_features(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The patch features from the plain network's own layers 2 and 3, (batch, patch, dim)."""
    maps: dict[str, torch.Tensor] = {}
    handles = [
        getattr(network, name).register_forward_hook(lambda _m, _i, output, name=name: maps.update({name: output}))
        for name in ("layer2", "layer3")
    ]
    network(images)
    for handle in handles:
        handle.remove()
    fine = apply_local_neighborhood_averaging(maps["layer2"], 3)
    deep = apply_local_neighborhood_averaging(maps["layer3"], 3)
    deep = torch.nn.functional.interpolate(deep, fine.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([fine, deep], dim=1).flatten(2).permute(0, 2, 1)

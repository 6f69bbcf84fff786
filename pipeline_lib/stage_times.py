"""Rough seconds of each stage of a planned experiment, from a probe of a few seconds on this machine.

One image of each size goes through the backbone, and a matrix product says how fast this machine multiplies. Selection
and search are taken as so many products as real features have needed; they may be off by a factor of three.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from pipeline_lib.backbone import shared_extractor
from pipeline_lib.hardware import pick_device
from pipeline_lib.plan import ExperimentPlan
from pipeline_lib.resource_bounds import tasks_at_a_time

INDEX_S_PER_MPX = 0.02  # reading, hashing and decoding
SELECTION_PRODUCTS = 2.5  # a selection takes as long as so many products of all patches with all its rows
SEARCH_PRODUCTS = 1.0
MEASURE_S_PER_MPX = 0.35  # all of test and both halves
START_S = 12.0  # of Prefect's server, and the report


def stage_seconds(plan: ExperimentPlan) -> dict[str, float]:
    """Seconds of each stage, nothing cached."""
    workers = tasks_at_a_time(plan)
    parts = [*plan.train.values(), *plan.test.values()]
    per_image = {size: _extraction_seconds(plan, size) for size in sorted({part.resized_px for part in parts})}
    rate = _multiplications_per_second(plan.dim)
    native = sum(part.images * part.native_px[0] * part.native_px[1] for part in parts) / 1e6
    tested = sum(part.images * part.native_px[0] * part.native_px[1] for part in plan.test.values()) / 1e6

    def extraction(images: dict[str, int], sizes: dict[str, tuple[int, int]]) -> float:
        return sum(count * per_image[sizes[category]] for category, count in images.items())

    train = {category: part.images for category, part in plan.train.items()}
    test = {category: part.images for category, part in plan.test.items()}
    at_once = max(1, min(workers, len(plan.clients)))
    selected = sum(client.patches * max(client.coreset_rows.values()) for client in plan.clients) * plan.dim
    largest_bank = max(plan.bank_rows.values(), default=0)
    searched = sum(part.patches for part in plan.test.values()) * largest_bank * plan.dim
    return {
        "start and report": START_S,
        "index and validate": native * INDEX_S_PER_MPX / workers,
        "client features": extraction(train, {c: p.resized_px for c, p in plan.train.items()}) / at_once,
        "coresets": SELECTION_PRODUCTS * selected / rate / at_once,
        "test features": extraction(test, {c: p.resized_px for c, p in plan.test.items()})
        / max(1, min(workers, len(test))),
        "score": SEARCH_PRODUCTS * searched / rate / max(1, min(workers, len(test))),
        "measure": tested * MEASURE_S_PER_MPX / max(1, min(workers, len(test))),
    }


def _extraction_seconds(plan: ExperimentPlan, size: tuple[int, int]) -> float:
    extractor = shared_extractor(plan.backbone, pick_device(plan.config.runtime.device))
    pixels = torch.zeros(1, size[1], size[0], 3, dtype=torch.uint8)
    extractor.extract(pixels)
    return _seconds(lambda: extractor.extract(pixels))


def _multiplications_per_second(dim: int) -> float:
    rng = np.random.default_rng(0)
    left, right = (rng.random((rows, dim), dtype=np.float32) for rows in (1024, 2048))
    return float(len(left) * len(right) * dim) / _seconds(lambda: left @ right.T)


def _seconds(function: Callable[[], object]) -> float:
    """The faster of two runs."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return max(min(times), 1e-6)

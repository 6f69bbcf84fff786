"""Rough seconds of each stage of a planned experiment, from a probe of a few seconds on this machine.

A few images of each size are read, go through the backbone and are stored, and matrix products say how fast this
machine multiplies, both in as many tasks at a time and with as many threads each as the run will have. Selection and
search are taken as so many products as real features have needed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data_contracts.config import ModelConfig
from data_contracts.errors import DatasetError
from data_contracts.manifests import GLOBAL_BANK
from pipeline_lib.configuration.hardware import limit_threads, pick_device
from pipeline_lib.coreset.shards import shard_count
from pipeline_lib.dataset.images import load_image
from pipeline_lib.features.extraction import ImageRow, extract_features, shared_extractor
from pipeline_lib.planning.experiment import ExperimentPlan, PlannedClient, PlannedImages
from pipeline_lib.planning.resources import tasks_at_a_time
from pipeline_lib.planning.shared_steps import (
    Steps,
    bank_key,
    calibration_key,
    coreset_key,
    feature_key,
    index_key,
    measure_key,
    score_key,
)
from pipeline_lib.storage.artifact_store import ArtifactStore, sha256_of_file

INDEX_S_PER_MPX = 0.03  # reading, decoding, and hashing file and pixels
SELECTION_PRODUCTS = 1.2  # a selection takes as long as so many products of all patches with all its rows
SEARCH_PRODUCTS = 0.65  # and a search, of features with few values; of many it multiplies
SEARCH_VALUES = 250  # of a row at most, in short forms: between what random weights (fewer) and tiles (more) take
MEASURE_S_PER_MPX = 0.13  # all of test and both halves, without intervals
RESAMPLE_S_PER_CATEGORY = 1e-3  # of the intervals, for each resample: a category with its splits and halves,
RESAMPLE_S_PER_IMAGE = 4e-6  # and each of its images
START_S = 12.0  # of Prefect's server, and the report
PRODUCT_ROWS = (1024, 2048)


class Probe:
    """What a few seconds on this machine say about its speed; each thing is measured once."""

    def __init__(self) -> None:
        self._images: dict[tuple[object, ...], float] = {}
        self._products: dict[tuple[int, int, int], float] = {}

    def seconds_per_image(self, plan: ExperimentPlan, split: str, category: str, at_once: int) -> float:
        """Of an image read, extracted and stored by so many tasks at a time; images of one size take equally long."""
        part = (plan.train if split == "train" else plan.test)[category]
        network = (
            plan.backbone.backbone,
            plan.backbone.layers,
            plan.backbone.neighborhood_size,
            plan.backbone.extraction,
        )
        run = at_once, plan.config.runtime.threads, plan.config.training.batch_size
        key = *network, part.native_px, part.resized_px, *run
        if key not in self._images:
            self._images[key] = _seconds_per_image(plan, category, part, at_once)
        return self._images[key]

    def multiplications_per_second(self, plan: ExperimentPlan, at_once: int) -> float:
        """Of so many tasks at a time together."""
        key = plan.dim, at_once, plan.config.runtime.threads
        if key not in self._products:
            self._products[key] = _multiplications_per_second(plan.dim, at_once)
        return self._products[key]


def stage_seconds(plan: ExperimentPlan, probe: Probe | None = None, steps: Steps | None = None) -> dict[str, float]:
    """Seconds of each stage, nothing cached but the steps that `steps` has seen already."""
    probe, steps = probe or Probe(), steps or Steps()
    limit_threads(plan.config.runtime.threads)
    workers = tasks_at_a_time(plan)
    clients_at_once = max(1, min(workers, len(plan.clients)))
    tests_at_once = max(1, min(workers, len(plan.test)))
    native = sum(_megapixels(part) for part in [*plan.train.values(), *plan.test.values()])
    measured = sum(map(_megapixels, plan.test.values())) * MEASURE_S_PER_MPX + _resampled_s(plan)
    rate = {n: probe.multiplications_per_second(plan, n) for n in {clients_at_once, tests_at_once}}
    values, search_values = SELECTION_PRODUCTS * plan.dim, min(SEARCH_PRODUCTS * plan.dim, SEARCH_VALUES)
    if plan.config.model.rows == "cell_means":  # every step searches all patches in all rows
        values += search_values * plan.config.model.lloyd_steps
    selected = values * sum(_selected(client, plan.config.model) for client in plan.clients) / rate[clients_at_once]
    searched = search_values * _searched(plan, plan.train) / rate[clients_at_once]
    scored = search_values * _searched(plan, plan.test) / rate[tests_at_once]

    def once(step: str, key: str, seconds: float) -> float:
        return seconds if steps.is_new(step, key) else 0.0

    def extraction(split: str, category: str, at_once: int) -> float:
        part = getattr(plan, split)[category]
        return float(part.images * probe.seconds_per_image(plan, split, category, at_once))

    def extracted(split: str, parts: Mapping[str, PlannedImages], at_once: int) -> float:
        return sum(
            extraction(split, category, at_once)
            for category in parts
            if steps.is_new("features", feature_key(plan, split, category))
        )

    if not plan.config.runtime.keep_features:
        again = sum(extraction("train", category, clients_at_once) for category in plan.train)
        selected, searched = selected + again, searched + again
        scored += sum(extraction("test", category, tests_at_once) for category in plan.test)
    found = {
        "start and report": START_S,
        "index and validate": once("index", index_key(plan), native * INDEX_S_PER_MPX / workers),
        "client features": extracted("train", plan.train, clients_at_once),
        "coresets": once("coresets", coreset_key(plan), selected),
    }
    if plan.config.decision.blocks:
        found["calibrate"] = once("calibrate", calibration_key(plan), searched)
    if plan.config.evaluation.coverage:
        found["coverage"] = once("coverage", bank_key(plan), searched)
    return found | {
        "test features": extracted("test", plan.test, tests_at_once),
        "score": once("score", score_key(plan), scored),
        "measure": once("measure", measure_key(plan), measured / tests_at_once),
    }


def _megapixels(part: PlannedImages) -> float:
    return part.images * part.native_px[0] * part.native_px[1] / 1e6


def _resampled_s(plan: ExperimentPlan) -> float:
    """Seconds of the intervals of one run's metrics."""
    each = [RESAMPLE_S_PER_CATEGORY + part.images * RESAMPLE_S_PER_IMAGE for part in plan.test.values()]
    return plan.config.evaluation.bootstrap * sum(each)


def _selected(client: PlannedClient, model: ModelConfig) -> float:
    """Patches times rows, over the client's banks and their shards."""
    return sum(
        patches * client.coreset_rows[bank] / shard_count(patches, model.shard_patches)
        for bank, patches in client.patches_by_bank.items()
    )


def _searched(plan: ExperimentPlan, parts: Mapping[str, PlannedImages]) -> float:
    """Patches times rows of their banks."""
    rows = {category: plan.bank_rows.get(GLOBAL_BANK, plan.bank_rows.get(category, 0)) for category in parts}
    return float(sum(part.patches * rows[category] for category, part in parts.items()))


def _seconds_per_image(plan: ExperimentPlan, category: str, part: PlannedImages, at_once: int) -> float:
    """Wall time of a sample by so many tasks at a time, over the images that they all do; 0 where none can be read."""
    rows = [
        ImageRow(path.name, category, path, sha256_of_file(path), path.stat().st_size)
        for path in part.samples
        if _is_readable(path)
    ]
    if not rows:
        return 0.0
    extractor = shared_extractor(plan.backbone, pick_device(plan.config.runtime.device))
    training = plan.config.training

    def extract(chosen: list[ImageRow], directory: Path) -> None:
        extract_features(
            chosen,
            ArtifactStore(directory),
            extractor,
            {category: part.resized_px},
            batch_size=training.batch_size,
            num_workers=training.num_workers,
        )

    timed = rows[1:] or rows
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(at_once) as pool:
        extract(rows[:1], Path(root, "first"))
        start = time.perf_counter()
        list(pool.map(lambda n: extract(timed, Path(root, str(n))), range(at_once)))
        return (time.perf_counter() - start) / (at_once * len(timed))


def _is_readable(path: Path) -> bool:
    try:
        load_image(path)
    except (DatasetError, OSError):
        return False
    return True


def _multiplications_per_second(dim: int, at_once: int) -> float:
    """Of so many tasks at a time together."""
    rng = np.random.default_rng(0)
    left, right = (rng.random((rows, dim), dtype=np.float32) for rows in PRODUCT_ROWS)
    with ThreadPoolExecutor(at_once) as pool:
        elapsed = _seconds(lambda: list(pool.map(lambda _: left @ right.T, range(at_once))))
    return float(len(left) * len(right) * dim * at_once) / elapsed


def _seconds(function: Callable[[], object]) -> float:
    """The middle one of three runs."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return max(sorted(times)[1], 1e-6)

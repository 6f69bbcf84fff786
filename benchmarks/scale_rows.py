"""How selection and search grow with the images: a category of AutoVI (1,950,000 patches of 1,536) at 10 %, in parts.

The exact selection costs patches x rows and is measured at the two smallest parts; in shards (`model.shard_patches`) it
should grow with the patches alone. Rows are features of that shape (`real_features`, wide).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.real_features import features
from benchmarks.rows import Row, seconds
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.selection import CoresetSelection
from pipeline_lib.coreset.shards import image_shards, select_by_shards
from pipeline_lib.coreset.subsampling import covering_radius
from pipeline_lib.neighbors.exact import ExactSearch

CATEGORY_PATCHES = 1_950_000
PARTS = (1 / 40, 1 / 20, 1 / 10, 1 / 5)
SHARE = 0.1
IMAGE_PATCHES = 1024
SHARD_PATCHES = 10_000
QUERIES = 8192


def scale(*, quick: bool) -> list[Row]:
    """Selection exact and in shards, and search of 8,192 patches in the bank, each at growing parts of the images."""
    sizes = [int(part * CATEGORY_PATCHES / (20 if quick else 1)) for part in PARTS]
    matrix = features("wide", "magnetic_tile", "train", rows=sizes[-1])
    queries = features("wide", "magnetic_tile", "test", rows=QUERIES)
    exact, sharded, searched, radii = [], [], [], []
    for size in sizes:
        patches, rows = matrix[:size], round(SHARE * size)
        shards = image_shards([IMAGE_PATCHES] * (size // IMAGE_PATCHES) + [size % IMAGE_PATCHES], rows, SHARD_PATCHES)
        start = time.perf_counter()
        selection = select_by_shards(patches, shards, rows, _select)
        sharded.append(time.perf_counter() - start)
        bank = patches[selection.indices]
        radii.append(round(covering_radius(patches, bank), 2))
        if len(exact) < 2:
            exact.append(seconds(lambda p=patches, n=rows: _select(p, n, None)))
        search = ExactSearch(bank)
        searched.append(seconds(lambda s=search: s.search(queries)))
    return [
        _row("scale_shards", sizes, sharded, wanted=1.5, radius=radii),
        _row("scale_exact", sizes[:2], exact, wanted=2.0),
        _row("scale_search", sizes, searched, wanted=1.5),
    ]


def _select(patches: np.ndarray, rows: int, _: object) -> CoresetSelection:
    return greedy_coreset_selection(patches, rows, rng=np.random.default_rng(0))


def _row(name: str, sizes: Sequence[int], times: Sequence[float], *, wanted: float, **figures: object) -> Row:
    """The power of the patches that the time grows with, from the smallest part to the largest, and between parts."""
    powers = [math.log(times[i + 1] / times[i]) / math.log(sizes[i + 1] / sizes[i]) for i in range(len(sizes) - 1)]
    whole = math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0])
    return Row(
        name=name,
        peer="itself",
        ratio_median=round(whole, 2),
        ratio_min=round(max(powers), 2),
        repetitions=1,
        equal_results=True,
        wanted=wanted,
        direction="at most",
        work=f"{SHARE:.0%} of {', '.join(f'{size:,}' for size in sizes)} x 1,536: power of the patches",
        figures={"seconds": [round(one, 2) for one in times], **figures},
    )

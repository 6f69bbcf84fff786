"""Pass 2: how many normal pixels lie over and level with each score of a marked pixel.

Every image is counted once, into the counts of the category and either into those of the good images or into those
of its own subsets; the counts of a subset hold its own keys alone. So the memory does not grow with the number of
combinations of subsets that images are in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline_lib.metrics.spro.areas import key_chunks
from pipeline_lib.metrics.spro.defective_images import Collected, load_map
from pipeline_lib.metrics.spro.records import WHOLE, EvaluationImage, SubsetKey

BATCH_PX = 2**22  # normal scores sorted at a time; 16 MiB stay in the cache
LARGE_BATCH_PX = 2**24  # where so many defect scores are looked up that fewer batches pay off
MANY_KEYS = 2**17


class KeyCounts:
    """Normal pixels over and level with some of the keys (`places`, ascending; None for all)."""

    def __init__(self, n_keys: int, places: np.ndarray | None = None) -> None:
        self.places = places
        size = n_keys if places is None else len(places)
        self.above = np.zeros(size, np.uint32)
        self.at = np.zeros(size, np.uint32)
        self.n_px = 0

    def begin_batch(self, n_px: int) -> None:
        """Make room for the counts of so many more pixels."""
        self.n_px += n_px
        if self.n_px > np.iinfo(self.above.dtype).max:
            self.above, self.at = self.above.astype(np.uint64), self.at.astype(np.uint64)

    def add(self, chunk: slice, above: np.ndarray, at: np.ndarray | None) -> None:
        """Add the counts of a chunk of all keys."""
        mine, picked = chunk, slice(None)
        if self.places is not None:
            low, high = np.searchsorted(self.places, [chunk.start, chunk.stop])
            mine, picked = slice(low, high), self.places[low:high] - chunk.start
        self.above[mine] += above[picked].astype(self.above.dtype, copy=False)
        if at is not None:
            self.at[mine] += at[picked].astype(self.at.dtype, copy=False)


class NormalCounts:
    """The counts of the whole category, of the good images, and of each subset's images on the subset's keys."""

    def __init__(
        self, keys: np.ndarray, places: Mapping[SubsetKey, np.ndarray], grid: np.ndarray, *, n_images: int
    ) -> None:
        """`places`: where the keys of each subset but WHOLE are among `keys`, ascending."""
        self.keys = keys
        self.grid = grid  # descending
        self.whole = KeyCounts(len(keys))
        self.good = KeyCounts(len(keys)) if places else None
        self.own = {subset: KeyCounts(len(keys), where) for subset, where in places.items()}
        self.n_normal_px = np.zeros(n_images, np.int64)
        self.highest = np.full(n_images, np.nan)
        self.grid_above = np.zeros((n_images, 2 * len(grid)), np.int32)

    def add(self, subsets: frozenset[SubsetKey], scores: np.ndarray) -> None:
        """Count a batch of images with these subsets, none for good ones; `scores` is sorted in place."""
        if not len(scores):
            return
        scores.sort()
        targets = [self.whole, *(self.own[subset] for subset in subsets if subset in self.own)]
        if not subsets and self.good is not None:
            targets.append(self.good)
        for target in targets:
            target.begin_batch(len(scores))
        for chunk in key_chunks(len(self.keys)):
            keys = self.keys[chunk]
            not_above = np.searchsorted(scores, keys, side="right")
            level = np.flatnonzero(scores[not_above - 1] == keys)  # -1, the highest, where none is below: no match
            at = None
            if len(level):
                at = np.zeros(len(keys), np.uint32)
                at[level] = not_above[level] - np.searchsorted(scores, keys[level], side="left")
            above = (len(scores) - not_above).astype(np.uint32)
            for target in targets:
                target.add(chunk, above, at)

    def add_image(self, position: int, scores: np.ndarray) -> None:
        """Note one image's counts on the grid; `scores` is sorted in place if there is a grid."""
        self.n_normal_px[position] = len(scores)
        self.highest[position] = scores.max() if len(scores) else np.nan
        if len(self.grid):
            scores.sort()
            self.grid_above[position, 0::2] = len(scores) - np.searchsorted(scores, self.grid, side="right")
            self.grid_above[position, 1::2] = len(scores) - np.searchsorted(scores, self.grid, side="left")

    def of_subset(self, subset: SubsetKey) -> tuple[np.ndarray, np.ndarray, int]:
        """(above, at, number of normal pixels) on the subset's keys, over the good images and its own."""
        if subset == WHOLE:
            return self.whole.above, self.whole.at, self.whole.n_px
        own, good = self.own[subset], self.good
        assert good is not None
        n_normal = own.n_px + good.n_px
        dtype: np.dtype[Any] = np.dtype(np.uint32 if n_normal < 2**32 else np.uint64)
        above, at = (counts[own.places].astype(dtype) for counts in (good.above, good.at))
        above += own.above.astype(dtype, copy=False)
        at += own.at.astype(dtype, copy=False)
        return above, at, n_normal


def count_normal(images: Sequence[EvaluationImage], collected: Collected, normal: NormalCounts) -> None:
    """Count the normal pixels of all images, in batches of images with the same subsets."""
    groups: dict[frozenset[SubsetKey], list[int]] = {}
    for position, group in enumerate(collected.subsets):
        if position not in collected.unmasked:
            groups.setdefault(group, []).append(position)
    batch = np.empty(BATCH_PX if len(normal.keys) < MANY_KEYS else LARGE_BATCH_PX, np.float32)
    for group, positions in groups.items():
        filled = 0
        for position in positions:
            scores = _normal_scores(images[position], position, collected)
            if filled + len(scores) > len(batch):
                normal.add(group, batch[:filled])
                filled = 0
            if len(scores) > len(batch):
                batch = np.empty(len(scores), np.float32)
            batch[filled : filled + len(scores)] = scores
            normal.add_image(position, batch[filled : filled + len(scores)])
            filled += len(scores)
        normal.add(group, batch[:filled])


def _normal_scores(image: EvaluationImage, position: int, collected: Collected) -> np.ndarray:
    if position in collected.normal:
        return collected.normal.pop(position)
    scores = load_map(image).reshape(-1)
    if position in collected.normal_bits:
        bits = collected.normal_bits[position]
        scores = scores[np.unpackbits(bits, count=len(scores)).view(bool)]
    return scores

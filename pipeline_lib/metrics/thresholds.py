"""Thresholds from normal training images alone: out-of-fold scores, and what their number supports.

An image's own patches must not be in the bank that scores it, or its score is next to 0. A client's images are cut into
contiguous blocks (they lie in time order, so that near copies fall into one block), and the rows of a block's images
are taken out of the bank before the block is scored. What leaves the client are the scores, not which image has which.

The threshold is that of split conformal prediction (Vovk et al. 2005; Lei et al. 2018): with n scores of normal images
and k = ceil((n + 1) (1 - target)), the k-th smallest is exceeded by a new normal image with probability at most
(n + 1 - k) / (n + 1), if new images come from the same source. Rows of a block that is left out are not replaced by
others, so that its scores are rather too high than too low, and the threshold too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_contracts.settings import ScoringSettings
from data_contracts.tables import CALIBRATION_SCORES
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.bank.scoring import score_images
from pipeline_lib.storage.artifact_store import ArtifactStore

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Threshold:
    """A threshold on image scores: above it an image is called defective."""

    value: float
    target_rate: float
    nominal_rate: float  # expected share of normal images above it, over draws of calibration and new images
    upper_bound: float | None  # of that share for this very threshold, with 95 % confidence; None: n supports none
    rank: int  # it is the rank-th smallest of the n scores
    n: int


def time_blocks(groups: Sequence[str], n_blocks: int) -> np.ndarray:
    """Number of the contiguous block that each image belongs to, int64 (image,); images in time order.

    groups: the category of each image; each category is cut by itself into at most `n_blocks` blocks of sizes that
    differ by at most one. The only image of a category gets -1: there is nothing to score it with.
    """
    names = np.asarray(groups, dtype=object)
    blocks = np.full(len(names), -1, dtype=np.int64)
    for name in dict.fromkeys(groups):
        members = np.flatnonzero(names == name)
        if len(members) > 1:
            blocks[members] = np.arange(len(members)) * min(n_blocks, len(members)) // len(members)
    return blocks


def rows_in_bank(bank_rows: np.ndarray, uploaded_rows: np.ndarray, row_image: np.ndarray) -> pd.DataFrame:
    """Which rows of the bank came from which of a client's images: columns bank_row and image.

    bank_rows (row, dim) float32, as merged; uploaded_rows (row, dim) float32, as the client sent them, decoded;
    row_image (row,): the image of each uploaded row. Rows are found again by their bytes, which merging keeps.
    """
    positions: dict[bytes, list[int]] = {}
    for number, row in enumerate(np.ascontiguousarray(bank_rows, np.float32)):
        positions.setdefault(row.tobytes(), []).append(number)
    found = [
        (position, image)
        for row, image in zip(np.ascontiguousarray(uploaded_rows, np.float32), row_image.tolist(), strict=True)
        for position in positions.get(row.tobytes(), ())
    ]
    return pd.DataFrame(found, columns=["bank_row", "image"])


def out_of_fold_scores(
    table: pd.DataFrame,
    store: ArtifactStore,
    bank_rows: np.ndarray,
    origins: pd.DataFrame,
    settings: ScoringSettings,
    *,
    n_blocks: int,
) -> pd.DataFrame:
    """Scores of a client's normal images, each by the bank without the rows of its block: columns block and score.

    table: PATCH_FEATURES of the client's images of one category, in time order; origins: `rows_in_bank` with `image`
    as image_id. Images that no row would be left to score are left out.
    """
    blocks = time_blocks([str(c) for c in table.category], n_blocks)
    frames = []
    for block in range(int(blocks.max(initial=-1)) + 1):
        images = table[blocks == block]
        kept = np.ones(len(bank_rows), dtype=bool)
        kept[origins.loc[origins.image.isin(images.image_id), "bank_row"].to_numpy(np.int64)] = False
        if not kept.any():
            continue
        bank = MemoryBank(bank_rows[kept], use_faiss=settings.use_faiss, search=settings.search, seed=settings.seed)
        scored = score_images(images, store, bank, settings)
        frames.append(pd.DataFrame({"block": block, "score": scored.scores}))
    if not frames:
        return pd.DataFrame({"block": np.empty(0, np.int64), "score": np.empty(0, np.float64)})
    return pd.concat(frames, ignore_index=True)


def calibration_table(client_id: str, by_category: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Out-of-fold scores of one client in the schema CALIBRATION_SCORES."""
    frames = [
        scores.assign(client_id=client_id, category=category) for category, scores in by_category.items() if len(scores)
    ]
    if not frames:
        return pd.DataFrame(columns=CALIBRATION_SCORES.names)
    joined: pd.DataFrame = pd.concat(frames, ignore_index=True)[CALIBRATION_SCORES.names]
    return joined


def conformal_threshold(scores: np.ndarray, target_rate: float) -> Threshold | None:
    """The threshold for a target false-alarm rate from out-of-fold scores (image,) of normal images; None without any.

    With fewer than 1 / target_rate - 1 images it is the largest score, and the nominal rate lies above the target.
    Raises ValueError for a rate outside (0, 1) and for scores that are not finite.
    """
    if not 0 < target_rate < 1:
        raise ValueError(f"a target false-alarm rate lies between 0 and 1, got {target_rate}")
    if not np.isfinite(scores).all():
        raise ValueError("calibration scores must be finite")
    n = len(scores)
    if n == 0:
        return None
    rank = min(n, math.ceil((n + 1) * (1 - target_rate) - 1e-9))
    rank = max(rank, 1)
    bound = clopper_pearson_upper(n - rank, n) if n >= images_for_a_bound(target_rate) else None
    return Threshold(float(np.sort(scores)[rank - 1]), target_rate, (n + 1 - rank) / (n + 1), bound, rank, n)


def images_for_a_bound(target_rate: float, *, confidence: float = CONFIDENCE) -> int:
    """Normal images that a bound needs: the smallest n with (1 - target)^n <= 1 - confidence.

    With fewer, not even the largest score is one. 59 for 5 % with 95 % confidence (Wilks 1941).
    """
    return math.ceil(math.log(1 - confidence) / math.log(1 - target_rate) - 1e-9)


def clopper_pearson_upper(count: int, n: int, *, confidence: float = CONFIDENCE) -> float:
    """One-sided upper bound of a share, `count` of n observed (Clopper and Pearson 1934).

    For an order statistic it is exact: the share above the k-th smallest of n is Beta(n - k + 1, k), here with
    count = n - k.
    """
    from scipy import stats  # slow to import, and few commands come here

    return 1.0 if count >= n else float(stats.beta.ppf(confidence, count + 1, n - count))


def clopper_pearson_interval(count: int, n: int, *, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Two-sided interval of a share; None for n = 0."""
    if n == 0:
        return None
    each = 1 - (1 - confidence) / 2
    return 1 - clopper_pearson_upper(n - count, n, confidence=each), clopper_pearson_upper(count, n, confidence=each)


def excess_p_value(threshold: Threshold, false_alarms: int, n_good: int) -> float:
    """Chance of at least so many false alarms among n_good new images if they come from the calibration's source.

    The number is then beta-binomial(n_good, n + 1 - rank, rank), whatever the distribution of the scores; a small
    value says that the test images differ from the training images (drift).
    """
    rank, n = threshold.rank, threshold.n
    from scipy import stats  # slow to import, and few commands come here

    return float(stats.betabinom.sf(false_alarms - 1, n_good, n + 1 - rank, rank))

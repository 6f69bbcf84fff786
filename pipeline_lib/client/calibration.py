"""Out-of-fold scores of a client's own normal images, for thresholds.

An image's own patches must not be in the bank that scores it, or its score is next to 0. A client's images are cut into
contiguous blocks (they lie in time order, so that near copies fall into one block), or into blocks of whole groups
where a part, place or tile comes back, and the rows of a block's images are taken out of the bank before the block is
scored; where rows are means, the block's patches are taken out of them (`fold_banks`). What leaves the client are the
scores, and which of them are of one group, not which image has which.

Rows of a block that is left out are not replaced by others, so that its scores are rather too high than too low, and a
threshold made of them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from data_contracts.settings import ScoringSettings
from data_contracts.tables import CALIBRATION_SCORES, calibration_schema
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.bank.scoring import score_images
from pipeline_lib.client.fold_banks import OwnMeans, Sent
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.when_needed import torch


def time_blocks(categories: Sequence[str], n_blocks: int, groups: Sequence[int] | None = None) -> np.ndarray:
    """Number of the block that each image belongs to, int64 (image,); images in time order.

    Each category is cut by itself into at most `n_blocks` blocks of whole groups (equal numbers in `groups`; -1, and
    all where it is not given: an image by itself), in order of their first images, whose numbers of groups differ by at
    most one: contiguous in time where images stand alone. The only group of a category gets -1: there is nothing to
    score it with.
    """
    names = np.asarray(categories, dtype=object)
    numbers = np.full(len(names), -1) if groups is None else np.asarray(groups, dtype=np.int64)
    blocks = np.full(len(names), -1, dtype=np.int64)
    for name in dict.fromkeys(categories):
        members = np.flatnonzero(names == name)
        own = numbers[members]
        unit = np.where(own < 0, -1 - np.arange(len(own)), own)
        _, first, unit_of = np.unique(unit, return_index=True, return_inverse=True)
        position = np.argsort(np.argsort(first))[unit_of]  # of the image's group, in order of first images
        if len(first) > 1:
            blocks[members] = position * min(n_blocks, len(first)) // len(first)
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


def origins_in_bank(
    bank: Mapping[str, np.ndarray], client_id: str, sent: Sequence[Sent], table: pd.DataFrame, store: ArtifactStore
) -> pd.DataFrame | OwnMeans:
    """What of a bank's arrays a client's uploads (at least one) put there; table: PATCH_FEATURES of its images."""
    if (means := OwnMeans.of(bank, client_id, sent, table, store)) is not None:
        return means
    image = np.concatenate([np.array(origin.image_ids)[origin.patch_image] for _, _, origin in sent])
    return rows_in_bank(bank["features"], np.concatenate([rows for rows, _, _ in sent]), image)


def out_of_fold_scores(
    table: pd.DataFrame,
    store: ArtifactStore,
    bank_rows: np.ndarray,
    origins: pd.DataFrame | OwnMeans,
    settings: ScoringSettings,
    *,
    n_blocks: int,
    groups: Sequence[int] | None = None,
    device: torch.device | None = None,
) -> pd.DataFrame:
    """Scores of a client's normal images, each by the bank without the rows of its block: columns block and score.

    table: PATCH_FEATURES of the client's images of one category, in time order; origins: `origins_in_bank`; groups: the
    number of each image's group, as in `time_blocks`, which becomes the column group. Images that no row would be left
    to score are left out.
    """
    blocks = time_blocks([str(c) for c in table.category], n_blocks, groups)
    whole = MemoryBank(
        bank_rows, use_faiss=settings.use_faiss, search=settings.search, seed=settings.seed, device=device
    )
    frames = []
    for block in range(int(blocks.max(initial=-1)) + 1):
        images = table[blocks == block]
        rows, source = bank_without(bank_rows, origins, images, store)
        if not len(rows):
            continue
        scored = score_images(images, store, whole.revised(rows, source), settings)
        frame = pd.DataFrame({"block": block, "score": scored.scores})
        frames.append(frame if groups is None else frame.assign(group=np.asarray(groups)[blocks == block]))
    if not frames:
        return pd.DataFrame({"block": np.empty(0, np.int64), "score": np.empty(0, np.float64)})
    return pd.concat(frames, ignore_index=True)


def bank_without(
    bank_rows: np.ndarray, origins: pd.DataFrame | OwnMeans, images: pd.DataFrame, store: ArtifactStore
) -> tuple[np.ndarray, np.ndarray]:
    """The rows (row, dim) of a bank without those of these images, or without their patches where rows are means.

    Beside them, int64 (row,), which row of the bank each is; -1 for a mean that lost some patches.
    """
    if isinstance(origins, OwnMeans):
        return origins.bank_without(bank_rows, images, store)
    kept = np.ones(len(bank_rows), dtype=bool)
    kept[origins.loc[origins.image.isin(images.image_id), "bank_row"].to_numpy(np.int64)] = False
    source = np.flatnonzero(kept)
    return bank_rows[source], source


def calibration_table(client_id: str, by_category: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Out-of-fold scores of one client in the schema CALIBRATION_SCORES, with `group` where the scores have it."""
    frames = [
        scores.assign(client_id=client_id, category=category) for category, scores in by_category.items() if len(scores)
    ]
    if not frames:
        return pd.DataFrame(columns=CALIBRATION_SCORES.names)
    joined: pd.DataFrame = pd.concat(frames, ignore_index=True)
    table: pd.DataFrame = joined[calibration_schema(joined.columns).names]
    return table

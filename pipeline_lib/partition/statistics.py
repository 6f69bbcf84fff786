"""What a partition looks like: how many images each client holds, of which categories and labels, and how evenly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from scipy.special import rel_entr

from data_contracts.errors import DatasetError

LABEL_NAMES = {0: "normal", 1: "defective"}


@runtime_checkable
class HasSamples(Protocol):
    """What is needed of the guide's `AutoVIDataset`: tuples (path, label, category, defect type)."""

    @property
    def samples(self) -> Sequence[tuple[Any, int, str, str]]: ...


def compute_partition_stats(
    images: pd.DataFrame | HasSamples,
    partition: pd.DataFrame | Mapping[str, Sequence[int]],
    *,
    clients: Iterable[str] = (),
) -> dict[str, Any]:
    """Statistics of a partition, ready for JSON.

    `images` with `partition` is either a data set index with a partition table (`partition_images`), or a data set
    with client id -> indices (`IIDPartitioner.partition` and its like). `clients` names clients that are listed even
    if they hold nothing.

    Returns::

        {"n_images", "n_clients", "balance",        # balance: largest / smallest client, null when one is empty
         "by_category": {category: images}, "labels": {"normal": n, "defective": n},
         "clients": {client: {"total", "share", "n_categories", "by_category", "labels",
                              "js_divergence"}}}    # of its categories from the whole's, bits; null when empty

    Raises DatasetError when the partition names an image that is not among `images`.
    """
    held = _held_by_client(images, partition)
    held = {client: held.get(client, []) for client in [*clients, *(c for c in held if c not in set(clients))]}
    everything = [image for images_of_client in held.values() for image in images_of_client]
    whole = _counts(category for category, _ in everything)
    per_client: dict[str, Any] = {}
    for client, images_of_client in held.items():
        by_category = _counts(category for category, _ in images_of_client)
        per_client[client] = {
            "total": len(images_of_client),
            "share": len(images_of_client) / len(everything) if everything else 0.0,
            "n_categories": len(by_category),
            "by_category": by_category,
            "labels": _labels(images_of_client),
            "js_divergence": jensen_shannon_divergence(by_category, whole) if by_category else None,
        }
    sizes = [len(images_of_client) for images_of_client in held.values()]
    return {
        "n_images": len(everything),
        "n_clients": len(held),
        "balance": max(sizes) / min(sizes) if sizes and min(sizes) > 0 else None,
        "by_category": whole,
        "labels": _labels(everything),
        "clients": per_client,
    }


def jensen_shannon_divergence(counts: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Jensen-Shannon divergence of two category distributions given as counts, in bits: 0 equal, 1 disjoint.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy", equation 3.1, with equal weights.
    """
    names = sorted({*counts, *other})
    p, q = (np.array([c.get(name, 0.0) for name in names], dtype=np.float64) for c in (counts, other))
    p, q = p / p.sum(), q / q.sum()
    divergence = (rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)).sum() / (2 * np.log(2))
    return float(min(max(divergence, 0.0), 1.0))  # scipy's own jensenshannon is NaN where rounding goes below 0


def _held_by_client(
    images: pd.DataFrame | HasSamples, partition: pd.DataFrame | Mapping[str, Sequence[int]]
) -> dict[str, list[tuple[str, int]]]:
    """Client -> (category, label) of each image it holds."""
    if isinstance(images, pd.DataFrame) and isinstance(partition, pd.DataFrame):
        known = dict(zip(images["image_id"], zip(images["category"], images["label_index"], strict=True), strict=True))
        held: dict[str, list[tuple[str, int]]] = {client: [] for client in sorted(set(partition["client_id"]))}
        for image_id, client in zip(partition["image_id"], partition["client_id"], strict=True):
            if image_id not in known:
                raise DatasetError(f"the partition names the image {image_id!r}, which is not in the data set index")
            held[client].append(known[image_id])
        return held
    if isinstance(images, HasSamples) and isinstance(partition, Mapping):
        samples = images.samples
        outside = [i for indices in partition.values() for i in indices if not 0 <= i < len(samples)]
        if outside:
            raise DatasetError(
                f"the partition names the index {outside[0]}, but the data set has {len(samples)} images"
            )
        return {client: [(samples[i][2], samples[i][1]) for i in indices] for client, indices in partition.items()}
    raise TypeError(
        "give a data set index with a partition table, or a data set with client id -> indices; "
        f"got {type(images).__name__} with {type(partition).__name__}"
    )


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _labels(images: Sequence[tuple[str, int]]) -> dict[str, int]:
    counts = Counter(label for _, label in images)
    return {name: counts.get(label, 0) for label, name in LABEL_NAMES.items()}

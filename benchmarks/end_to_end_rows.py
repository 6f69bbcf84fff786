"""Fit and test on one category against anomalib's PatchcoreModel: time, memory, image AUROC."""

from __future__ import annotations

import statistics

from benchmarks import peers
from benchmarks.checks import auroc_not_shown_to_be_lower
from benchmarks.children import run_module
from benchmarks.end_to_end_child import CATEGORY
from benchmarks.real_features import data_root
from benchmarks.rows import Row

TOLERANCE_POINTS = 0.3
SEEDS = (0, 1, 2)


def end_to_end(*, quick: bool) -> list[Row]:
    """Ball screws at 256x256, 1 %: three rows, time, memory, and AUROC as both's check of equal results."""
    size = ["--train", "40", "--test", "40"] if quick else []
    seeds = SEEDS[:1] if quick else SEEDS
    own, peer = [], []
    read_all_files()
    for seed in seeds:
        own.append(run_module("end_to_end_child", "own", "--seed", str(seed), *size))
        peer.append(run_module("end_to_end_child", "peer", "--seed", str(seed), *size))
    peer_auroc = [run_module("end_to_end_child", "peer_auroc", "--seed", str(s), *size).answer for s in seeds]
    own_mean = statistics.mean(o.answer["auroc"] for o in own)
    peer_mean = statistics.mean(p["auroc"] for p in peer_auroc)
    if quick:  # too few images to tell 0.3 points
        as_good = auroc_not_shown_to_be_lower(
            own[0].answer["labels"], own[0].answer["scores"], peer_auroc[0]["scores"], TOLERANCE_POINTS / 100
        )
    else:
        as_good = 100 * (peer_mean - own_mean) <= TOLERANCE_POINTS
    equal = as_good and all(p["same_picks"] for p in peer_auroc)
    name = f"{peers.ANOMALIB} PatchcoreModel"
    work = f"ballscrew, {own[0].answer['train']} training and {own[0].answer['test']} test images of 256x256, 1 %"
    auroc = {"own_auroc": round(100 * own_mean, 2), "peer_auroc": round(100 * peer_mean, 2)}
    ratios = [p.answer["total_s"] / o.answer["total_s"] for o, p in zip(own, peer, strict=True)]
    memory = [p.peak_anonymous_mb / o.peak_anonymous_mb for o, p in zip(own, peer, strict=True)]
    time_figures = {
        "own_parts_s": own[0].answer["parts_s"],
        "peer_parts_s": peer[0].answer["parts_s"],
        "peer_timed_picks": peer[0].answer["timed_picks"],
        "peer_picks": peer[0].answer["picks"],
    }
    memory_figures = {
        "own_mb": [round(o.peak_anonymous_mb) for o in own],
        "peer_mb": [round(p.peak_anonymous_mb) for p in peer],
    }
    return [
        Row(
            name="end_to_end",
            peer=f"{name}, {what}",
            ratio_median=round(statistics.median(values), 2),
            ratio_min=round(min(values), 2),
            repetitions=len(values),
            equal_results=equal,
            wanted=wanted,
            work=work,
            figures={**auroc, **figures},
        )
        for what, values, wanted, figures in (
            ("time", ratios, 20, time_figures),
            ("peak anonymous memory", memory, 2, memory_figures),
        )
    ]


def read_all_files() -> None:
    """Bring the images into the system's cache: else the side that goes first waits for the disk, and the other not."""
    for path in (data_root() / CATEGORY).rglob("*"):
        if path.is_file():
            path.read_bytes()

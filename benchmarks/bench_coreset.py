"""Speed of greedy k-center selection against the loop that anomalib 2.7 runs.

    python benchmarks/bench_coreset.py FEATURES.npy [--percentage 0.01] [--rows 200000] [--threads 2] [--peer-picks 20]

FEATURES.npy is a float32 matrix (rows, dim), as extract_features writes it. The peer's loop is written out here
(KCenterGreedy: per pick the distance of every row to the newest center, a minimum, an arg max), so anomalib need not
be installed; it is timed over its first picks after a warm-up and extrapolated, since each costs the same. anomalib
runs its loop on a random projection of the features (to the Johnson-Lindenstrauss dimension at eps 0.9), which changes
what is selected; both forms are timed, the projection itself not counted.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from sklearn.random_projection import johnson_lindenstrauss_min_dim

from pipeline_lib.coreset import coreset_size, greedy_coreset_selection


def peer_seconds_per_pick(features: torch.Tensor, picks: int) -> float:
    """Mean wall time of one pick of the peer's loop."""
    smallest = torch.full((len(features), 1), torch.inf)
    index = torch.tensor(0)
    began = 0.0
    for pick in range(picks + 2):
        if pick == 2:
            began = time.perf_counter()
        distances = torch.linalg.norm(features - features[index], ord=2, dim=1, keepdim=True)
        smallest = torch.minimum(smallest, distances)
        index = smallest.squeeze(1).argmax()
        smallest[index] = 0.0
    return (time.perf_counter() - began) / picks


def main() -> None:
    """Time both and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features")
    parser.add_argument("--percentage", type=float, default=0.01)
    parser.add_argument("--rows", type=int, help="the first so many rows alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-picks", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    features = np.array(np.load(arguments.features, mmap_mode="r")[: arguments.rows], dtype=np.float32)
    size = coreset_size(len(features), arguments.percentage)

    walls, processor = [], []
    for _ in range(arguments.repeat):
        wall, used = time.perf_counter(), time.process_time()
        selection = greedy_coreset_selection(features, size, rng=np.random.default_rng(0), threads=arguments.threads)
        walls.append(time.perf_counter() - wall)
        processor.append(time.process_time() - used)
    peer = peer_seconds_per_pick(torch.from_numpy(features), arguments.peer_picks)
    dim = int(johnson_lindenstrauss_min_dim(len(features), eps=0.9))  # may be above the features' own
    matrix = np.random.default_rng(0).standard_normal((features.shape[1], dim), dtype=np.float32)
    projected = features @ matrix
    peer_projected = peer_seconds_per_pick(torch.from_numpy(projected), arguments.peer_picks)
    print(
        json.dumps(
            {
                "rows": len(features),
                "dim": features.shape[1],
                "selected": size,
                "threads": arguments.threads,
                "seconds": round(min(walls), 3),
                "processor_seconds": round(min(processor), 3),
                "covering_radius": selection.covering_radius,
                "peer_picks_timed": arguments.peer_picks,
                "peer_seconds_extrapolated": round(peer * size, 1),
                "times_faster": round(peer * size / min(walls), 1),
                "projected_dim": projected.shape[1],
                "peer_projected_seconds_extrapolated": round(peer_projected * size, 1),
                "times_faster_than_projected": round(peer_projected * size / min(walls), 1),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

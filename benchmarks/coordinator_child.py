"""What the coordinator does with the uploads in its store: check each, merge all; prints one JSON object."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.scale_child import made_up_station
from data_contracts.manifests import UploadManifest
from data_contracts.settings import AggregationSettings
from pipeline_lib.configuration.hardware import limit_threads
from pipeline_lib.coreset.subsampling import covering_radius
from pipeline_lib.server.regions import aggregate_pending, pending_uploads
from pipeline_lib.storage.artifact_store import ArtifactStore

CATEGORY, HASH = "made_up", "0" * 16


def write_upload(store: ArtifactStore, number: int, rows: int, dim: int) -> UploadManifest:
    """One made-up station's upload; its covering radius is left out of the bound."""
    station = made_up_station(number, rows, dim)
    written = store.write_arrays("client_upload", {"rows": station.rows}, rows=rows)
    return UploadManifest(
        **written.model_dump(), client_id=f"station-{number:05d}", category=CATEGORY, round=1, config_hash=HASH,
        dim=dim, n_images=rows, n_patches=10 * rows, raw_image_bytes=0, covering_radius=0.0,
    )  # fmt: skip


def main() -> None:
    """Run once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stations", type=int)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--dim", type=int, default=152)
    parser.add_argument("--per-region", type=int, default=0, help="0: all at once")
    parser.add_argument("--bank-rows", type=int, default=5_000)
    a = parser.parse_args()
    limit_threads(1)
    settings = AggregationSettings(
        seed=0, strategy="federated_coreset", target_rows=a.bank_rows, coreset_percentage=0.1, weight_by_samples=True,
        regions=a.per_region or None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="fedpatch-coordinator-") as directory:
        store = ArtifactStore(Path(directory))
        uploads = [write_upload(store, number, a.rows, a.dim) for number in range(a.stations)]
        start = time.process_time()
        pending = pending_uploads(uploads, store.read_arrays, config_hash=HASH)
        bank, regional = aggregate_pending(pending, settings, bank=CATEGORY)
        seconds = time.process_time() - start
        reached = max(covering_radius(one.read().rows, bank.rows, threads=1) for one in pending)
    held = a.stations * a.rows if regional is None else regional.peak_rows
    radius = bank.covering_radius if regional is None else regional.radius_bound
    megabytes = a.dim * 4 / 2**20
    result = {
        "received_mb": a.stations * a.rows * megabytes,
        "held_mb": held * megabytes,
        "bank_rows": len(bank.rows),
        "radius_bound": radius,
        "radius": reached,
        "merge_s": seconds,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""One run of extraction, coreset, bank and scoring over so many training images; prints one JSON object."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from benchmarks.real_features import cache_directory, images_of
from data_contracts.config import ExperimentConfig
from data_contracts.settings import AggregationSettings, CoresetSettings, ScoringSettings
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.bank.scoring import score_images
from pipeline_lib.client.rounds import select_client_coreset
from pipeline_lib.features.extraction import ImageRow, extract_features
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.server.aggregation import aggregate_uploads
from pipeline_lib.storage import scratch
from pipeline_lib.storage.artifact_store import ArtifactStore, sha256_of_file
from pipeline_lib.upload.acceptance import Upload
from pipeline_lib.upload.codec import decode_rows

CATEGORY = "magnetic_tile"
TEST_IMAGES = 40


def main() -> None:
    """Run once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int)
    parser.add_argument("bank_rows", type=int)
    parser.add_argument("--in-memory", action="store_true", help="nothing in files: what the other runs must equal")
    parser.add_argument("--check", action="store_true", help="say the bank's SHA-256")
    arguments = parser.parse_args()
    if arguments.in_memory:
        scratch.IN_MEMORY_BYTES = 1 << 60
    root = Path(tempfile.mkdtemp(dir=cache_directory()))
    try:
        print(json.dumps(run(root, arguments.images, arguments.bank_rows)))
    finally:
        shutil.rmtree(root)


def run(root: Path, n_images: int, bank_rows: int) -> dict[str, object]:
    """The stages of a centralized experiment on one category, with a store of its own."""
    store = ArtifactStore(root)
    config = ExperimentConfig.model_validate({"model": {"coreset_percentage": bank_rows / (1024 * n_images)}})
    extractor = FeatureExtractor("efficientnet_lite0")
    sizes = {CATEGORY: (256, 256)}
    train = extract_features(_rows("train", n_images), store, extractor, sizes, num_workers=1)
    (coreset,) = select_client_coreset(train, store, "centralized", CoresetSettings.of(config, "centralized"))
    upload = Upload("centralized", decode_rows(coreset.arrays), coreset.n_images, coreset.n_patches)
    merged = aggregate_uploads([upload], AggregationSettings.of(config), bank=CATEGORY)
    test = extract_features(_rows("test", TEST_IMAGES), store, extractor, sizes, num_workers=1)
    scored = score_images(test, store, MemoryBank(merged.rows), ScoringSettings.of(config))
    return {
        "patches": coreset.n_patches,
        "bank_sha256": hashlib.sha256(merged.rows.tobytes() + scored.maps.tobytes()).hexdigest(),
    }


def _rows(split: str, count: int) -> list[ImageRow]:
    paths = images_of(CATEGORY, "train" if split == "train" else "test", count)
    return [
        ImageRow(f"{split}/{n}", CATEGORY, path, sha256_of_file(path), path.stat().st_size)
        for n, path in enumerate(paths)
    ]


if __name__ == "__main__":
    main()

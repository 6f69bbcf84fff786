"""New images, one at a time: `fedpatch score` as a whole process, and a scorer that is up, as `--watch` has it."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import pipeline_lib
from benchmarks import peers
from benchmarks.children import run_child
from benchmarks.real_features import cache_directory, images_of
from benchmarks.rows import Row, paired, seconds
from benchmarks.warm_rows import run_real3
from pipeline_lib.inspection.decisions import decide_image
from pipeline_lib.inspection.run_model import RunModel, open_run_model

CATEGORY = "magnetic_tile"
TRAINING_IMAGES = 213  # 1 % of their patches: a bank of 2,181 rows
IMAGES = 10  # that are scored, one after the other
LARGEST_DIFFERENCE = 5e-3  # of two scores, as a share: ours come from features in float16
COMMAND = "from flows.cli import main; main()"


def score_cold(*, quick: bool) -> list[Row]:
    """Against `import torch` in the same Python, which scoring cannot do without."""
    work = own_side("score_cold", quick=quick)
    equal = work().tobytes() == work().tobytes()
    pairs = paired(
        lambda: seconds(work),
        lambda: seconds(lambda: run_child([sys.executable, "-P", "-c", "import torch; print(0)"])),
        repetitions=3 if quick else 11,
        warm_up=False,
    )
    return [
        pairs.row(
            "score_cold", "import torch", wanted=0.5, equal_results=equal, work=f"one image of {CATEGORY}, 256x256"
        )
    ]


def score_warm(*, quick: bool) -> list[Row]:
    """Against PatchcoreModel with the same weights and bank: image file to score and map, one after the other.

    It takes the nearest neighbour alone, as our model does, so that its score is the largest distance of a patch too;
    our maps are at the image's size, its own at that of the input. Grids are aligned as in its network.
    """
    from benchmarks.end_to_end_child import Peer, batches

    own, model = warm_scorer(quick=quick)
    side = Peer(neighbors=1)
    side.model.memory_bank = torch.from_numpy(model.patchcore(CATEGORY).memory_bank.features)
    side.model.eval()
    images = images_of(CATEGORY, "test", IMAGES)

    @torch.no_grad()
    def peer(path: Path) -> float:
        (batch,) = batches([path])
        return float(side.model(batch).pred_score)

    scores = np.array([(own(path), peer(path)) for path in images])
    difference = float((abs(scores[:, 0] - scores[:, 1]) / scores[:, 1]).max())
    pairs = paired(
        lambda: seconds(lambda: [own(path) for path in images]),
        lambda: seconds(lambda: [peer(path) for path in images]),
        repetitions=3 if quick else 15,
    )
    bank = side.model.memory_bank
    return [
        pairs.row(
            "score_warm",
            f"{peers.ANOMALIB} PatchcoreModel, one neighbour",
            wanted=3,
            equal_results=difference < LARGEST_DIFFERENCE,
            work=f"{len(images)} images of {CATEGORY}, 256x256, bank {bank.shape[0]} x {bank.shape[1]}",
            largest_difference=round(difference, 5),
            own_images_per_s=round(len(images) / statistics.median(pairs.own), 1),
            peer_images_per_s=round(len(images) / statistics.median(pairs.peer), 1),
        )
    ]


def warm_scorer(*, quick: bool) -> tuple[Callable[[Path], float], RunModel]:
    """From an image file to its score, with decision and map, and the model that scores: a run that is made once."""
    place = cache_directory() / "score-warm"
    name = "quick" if quick else "model"
    if not (place / name / "model.json").exists():
        settings = ["federated.mode=centralized", "model.alignment=corners_as_patchcore"]
        settings += [f"dataset.categories=[{CATEGORY}]", f"dataset.max_images={TRAINING_IMAGES}"]
        run_real3(place, name, *settings, quick=quick)
    model = open_run_model(place / name)

    def score(path: Path) -> float:
        decision = decide_image(model, path, category=CATEGORY)
        assert decision.anomaly_map is not None
        assert decision.score is not None
        return decision.score

    return score, model


def own_side(name: str, *, quick: bool) -> Callable[[], np.ndarray]:
    """The command of the checkout that pipeline_lib comes from; score and threshold."""
    model = _model()
    (image,) = images_of(CATEGORY, "test", 1)
    checkout = str(Path(pipeline_lib.__file__).parents[1])
    words = ["score", str(model), str(image), "--category", CATEGORY, "--json"]

    def score() -> np.ndarray:
        command = [sys.executable, "-P", "-c", COMMAND, *words]  # -P: not from the directory that it is called in
        (decision,) = run_child(command, environment={"PYTHONPATH": checkout}).answer
        return np.array([decision["score"], decision["threshold"]])

    return score


def _model() -> Path:
    """A run on 12 images a category and split, made once."""
    place = cache_directory() / "score-cold"
    if not (place / "model" / "model.json").exists():
        run_real3(place, "model", quick=True)
    return place / "model"

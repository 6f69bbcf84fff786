"""`fedpatch score` of one image, whole processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import pipeline_lib
from benchmarks.children import run_child
from benchmarks.real_features import cache_directory, images_of
from benchmarks.rows import Row, paired, seconds
from benchmarks.warm_rows import run_real3

CATEGORY = "magnetic_tile"
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

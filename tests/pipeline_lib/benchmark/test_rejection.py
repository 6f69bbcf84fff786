"""How often equal experiments are called different: simulated benchmarks, image by image, at a nominal 5 %.

pytest -m slow -s tests/pipeline_lib/benchmark/test_rejection.py     prints the figures of docs/method.md
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import special, stats

from data_contracts.results import MetricsDocument, MetricValues
from pipeline_lib.benchmark.comparison import ExperimentRuns
from pipeline_lib.benchmark.differences import image_component, paired_difference
from pipeline_lib.benchmark.paired import ResampledMetrics
from pipeline_lib.benchmark.ranking import rank
from pipeline_lib.metrics.bootstrap import ImageSample, resample_weights, resampled_image_auroc

LIFT, OWN = 1.5, 0.6
"""Of defective images above good ones; and each experiment's own standard deviation of an image's score."""
RESAMPLES = 150

Runs = dict[int, ResampledMetrics]


def benchmarks(
    n: int, *, experiments: int, n_images: tuple[int, int], n_seeds: int, seed_ratio: float
) -> Iterator[list[Runs]]:
    """n benchmarks of experiments that are equal on average, one category.

    seed_ratio: variance of a difference between seeds over that between draws of the images.
    """
    rng = np.random.default_rng([n_seeds, *n_images, experiments, int(100 * seed_ratio)])
    labels = np.repeat([0, 1], n_images)
    ids = tuple(f"i{i:03d}" for i in range(len(labels)))
    # A lift moved by d moves the AUROC by d times the density of the difference of two scores at 0.
    deviation = np.sqrt(2 * (1 + OWN**2))
    of_lift = stats.norm.pdf(LIFT, 0, deviation)
    spread = np.sqrt(seed_ratio * _image_variance(rng, labels) / 2) / of_lift
    for _ in range(n):
        shared = rng.normal(size=len(labels))
        drawn = resample_weights(labels, resamples=RESAMPLES, rng=rng)
        weights = np.concatenate([np.ones((1, len(labels))), drawn])
        found = []
        for _ in range(experiments):
            own = shared + OWN * rng.normal(size=len(labels))
            lifts = LIFT + spread * rng.normal(size=n_seeds)
            found.append({s: _metrics(ids, labels, own + lift * labels, weights) for s, lift in enumerate(lifts)})
        yield found


def _metrics(ids: tuple[str, ...], labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> ResampledMetrics:
    values = resampled_image_auroc(ImageSample(ids, labels, scores, None), weights)
    assert values is not None
    degrees = min(np.bincount(labels)) - 1
    return ResampledMetrics({"image_auroc": {"a": values}}, {"a": ids}, {"a": int(degrees)})


def _image_variance(rng: np.random.Generator, labels: np.ndarray) -> float:
    """Of the difference of two equal experiments, by drawing images."""
    differences = []
    for _ in range(400):
        shared = rng.normal(size=len(labels)) + LIFT * labels
        one, other = (shared + OWN * rng.normal(size=len(labels)) for _ in range(2))
        ones = np.ones((1, len(labels)))
        values = [resampled_image_auroc(ImageSample((), labels, scores, None), ones) for scores in (one, other)]
        differences.append(np.subtract(*[value[0] for value in values if value is not None]))
    return float(np.var(differences))


@pytest.mark.slow
@pytest.mark.parametrize("seed_ratio", [0.0, 1.0, 4.0])
@pytest.mark.parametrize(("n_seeds", "n_images"), [(3, (40, 40)), (3, (14, 32)), (2, (40, 40)), (5, (40, 40))])
def test_equal_experiments_are_called_different_in_at_most_five_per_cent(
    n_seeds: int, n_images: tuple[int, int], seed_ratio: float
) -> None:
    n, percentile, called = 1500, 0, 0
    for first, second in benchmarks(n, experiments=2, n_images=n_images, n_seeds=n_seeds, seed_ratio=seed_ratio):
        found = paired_difference(first, second, "image_auroc")
        assert found is not None
        assert found.p_value is not None
        called += found.p_value < 0.05
        percentile += _called_by_percentiles(first, second)
    print(f"{n_seeds} seeds, {n_images} images, ratio {seed_ratio}: {called / n:.1%}, percentiles {percentile / n:.1%}")
    assert called / n < 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)
    if n_seeds == 3 and seed_ratio >= 1:
        assert percentile > called


def _called_by_percentiles(first: Runs, second: Runs) -> bool:
    """The plain way, which this replaces: images and seeds drawn together, percentiles of the means."""
    by_seed = np.array([first[s].by_category["image_auroc"]["a"] - second[s].by_category["image_auroc"]["a"]
                        for s in first])[:, 1:]  # fmt: skip
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(by_seed), np.full(len(by_seed), 1 / len(by_seed)), size=by_seed.shape[1])
    low, high = np.percentile(np.einsum("rs,sr->r", drawn / len(by_seed), by_seed), [2.5, 97.5])
    return not low <= 0 <= high


@pytest.mark.slow
@pytest.mark.parametrize("experiments", [3, 10, 20])
@pytest.mark.parametrize("seed_ratio", [0.0, 1.0, 4.0])
def test_of_equal_experiments_one_is_ranked_behind_the_best_in_at_most_five_per_cent(
    experiments: int, seed_ratio: float
) -> None:
    n, behind = 300, 0
    for found in benchmarks(n, experiments=experiments, n_images=(40, 40), n_seeds=3, seed_ratio=seed_ratio):
        rows = rank({f"e{number}": _runs(own) for number, own in enumerate(found)}, "image_auroc")
        assert len(rows) == experiments
        behind += any(row["place"] is None for row in rows)
    print(f"{experiments} experiments, ratio {seed_ratio}: {behind / n:.1%}")
    assert behind / n < 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)


def _runs(own: Runs) -> ExperimentRuns:
    values = {seed: float(one.by_category["image_auroc"]["a"][0]) for seed, one in own.items()}
    documents = {
        seed: MetricsDocument(experiment="", config_hash="0", seed=seed, mean=MetricValues(image_auroc=value))
        for seed, value in values.items()
    }
    return ExperimentRuns(documents, own)


def test_a_ranking_by_hand() -> None:
    (found,) = benchmarks(1, experiments=3, n_images=(40, 40), n_seeds=3, seed_ratio=1.0)
    runs = {f"e{number}": _runs(own) for number, own in enumerate(found)}
    rows = rank(runs, "image_auroc")
    values = {name: float(np.mean([d.mean.image_auroc for d in own.documents.values()])) for name, own in runs.items()}
    assert [row["experiment"] for row in rows] == sorted(values, key=lambda name: -values[name])
    table = np.array([[runs[name].documents[s].mean.image_auroc for s in range(3)] for name in runs], np.float64)
    left = table - table.mean(0) - table.mean(1)[:, None] + table.mean()
    of_seeds = 2 * (left**2).sum() / 4 / 3
    best, other = rows[0]["experiment"], rows[1]["experiment"]
    images = image_component(runs[other].resampled, runs[best].resampled, "image_auroc")
    assert images is not None
    of_range = [stats.studentized_range.ppf(0.95, 3, df) / np.sqrt(2) for df in (39, 4)]
    error = np.sqrt(images.variance + of_seeds)
    weighted = (images.variance * of_range[0] + of_seeds * of_range[1]) / error**2
    assert rows[1]["ci95"][1] == pytest.approx(100 * (values[other] - values[best] + weighted * error), abs=1e-3)
    assert rows[0]["place"] == 1


def test_the_ranking_leaves_out_who_lacks_seeds_and_one_seed_has_none() -> None:
    (found,) = benchmarks(1, experiments=3, n_images=(20, 20), n_seeds=2, seed_ratio=1.0)
    runs = {f"e{number}": _runs(own) for number, own in enumerate(found)}
    fewer = runs | {"e1": _runs({0: found[1][0]})}
    assert sorted(row["experiment"] for row in rank(fewer, "image_auroc")) == ["e0", "e2"]
    one = {name: _runs({0: own.resampled[0]}) for name, own in runs.items()}
    assert rank(one, "image_auroc") == []
    assert rank({name: ExperimentRuns(own.documents) for name, own in runs.items()}, "image_auroc") == []


def test_a_clear_difference_is_still_ranked_behind() -> None:
    (found,) = benchmarks(1, experiments=3, n_images=(60, 60), n_seeds=3, seed_ratio=0.25)
    worse = {
        seed: ResampledMetrics(
            {"image_auroc": {"a": one.by_category["image_auroc"]["a"] - 0.2}}, one.images, one.degrees
        )
        for seed, one in found[1].items()
    }
    rows = rank({"a": _runs(found[0]), "b": _runs(worse), "c": _runs(found[2])}, "image_auroc")
    assert {row["experiment"]: row["place"] for row in rows} == {"a": 1, "b": None, "c": 1}


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [2, 3])
def test_satterthwaites_degrees_of_freedom_would_call_equal_ones_different_too_often(n_seeds: int) -> None:
    """The same two variances without images: normal, that of images known, seeds with four times as much."""
    rng, n = np.random.default_rng(n_seeds), 200_000
    seeds = 2 * rng.normal(size=(n, n_seeds))
    of_seeds = seeds.var(axis=1, ddof=1) / n_seeds
    statistic = np.abs(rng.normal(size=n) + seeds.mean(axis=1)) / np.sqrt(1 + of_seeds)
    degrees = (1 + of_seeds) ** 2 / (of_seeds**2 / (n_seeds - 1))
    for level in (0.05, 0.005):
        satterthwaite = np.mean(2 * special.stdtr(degrees, -statistic) < level)
        ends = [special.stdtrit(df, 1 - level / 2) for df in (1e6, n_seeds - 1)]
        weighted = np.mean(statistic > (ends[0] + of_seeds * ends[1]) / (1 + of_seeds))
        print(f"{n_seeds} seeds, level {level:.1%}: Satterthwaite {satterthwaite:.1%}, Cochran and Cox {weighted:.1%}")
        assert weighted < level < satterthwaite

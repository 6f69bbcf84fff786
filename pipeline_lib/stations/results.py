"""What stations come to together: pooled figures and thresholds, without an image or a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from data_contracts.config import ExperimentConfig
from data_contracts.exchange import StationResults
from data_contracts.results import CategoryMetrics, FederationSummary, MetricValues
from data_contracts.tables import CALIBRATION_SCORES, CURVES, IMAGE_SCORES, calibration_schema
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.metrics import decisions
from pipeline_lib.metrics.bootstrap import ImageSample, confidence_intervals
from pipeline_lib.metrics.category import curve_rows, mean_metrics, metrics_table
from pipeline_lib.metrics.evaluation import metrics_document
from pipeline_lib.results.run_directory import RunFigures
from pipeline_lib.stations import figures as pooled_figures
from pipeline_lib.stations.figures import PooledFigures, StationFigures

ByCategory = Mapping[str, Mapping[str, StationFigures]]  # category -> station -> figures


def pool_stations(
    config: ExperimentConfig,
    figures: Sequence[ByCategory],
    calibration: pd.DataFrame,
    federation: FederationSummary,
) -> RunFigures:
    """Metrics of the last round's banks with intervals of the image AUROC, decisions, and the mean after each round.

    A warning names categories whose pooled figures may be off by more than `pooled_figures.TOLERANCE`.
    figures: one for each round; calibration: CALIBRATION_SCORES of all stations.
    """
    last = figures[-1]
    pooled = [_pool(config, of_round) for of_round in figures]
    categories = {name: _category_metrics(config, name, last[name], pooled[-1][name].metrics) for name in sorted(last)}
    document = metrics_document(categories, experiment=config.name, config_hash=config.config_hash(), seed=config.seed)
    scores = _frame([image_rows(name, last[name]) for name in categories], IMAGE_SCORES.names)
    decisions.add_decisions({"all": document}, calibration, scores, config.decision)
    means = [mean_metrics(one.metrics for one in of_round.values()) for of_round in pooled[:-1]] + [document.mean]
    rounds = [
        one.model_copy(update={"mean": mean})
        for one, mean in zip(federation.rounds, means if federation.rounds else [], strict=True)
    ]
    errors = [one.error for of_round in pooled for one in of_round.values() if one.error is not None]
    document.federation = federation.model_copy(update={"rounds": rounds, "pooling_error": max(errors, default=None)})
    document.warnings = [
        f"{name}: pixel AUROC and AUC-sPRO may be off by {error:.2g} from those of all images at one place; the bins "
        "are too coarse, as those of stations of an earlier version are (update them), or for a very low FPR limit"
        for name in categories
        if (error := pooled[-1][name].error) is not None and error > pooled_figures.TOLERANCE
    ]
    return RunFigures(
        documents={"all": document},
        tables=[metrics_table(document.categories)],
        curves=_frame([_curves(name, last[name]) for name in categories], CURVES.names),
        scores=scores,
        calibration=calibration,
    )


def bytes_left(results: Sequence[Mapping[str, StationResults]]) -> dict[str, Counter[str]]:
    """Station -> bytes of what it handed over with its figures, over all rounds."""
    found: dict[str, Counter[str]] = {}
    for of_round in results:
        for station, one in of_round.items():
            own = found.setdefault(station, Counter())
            own["figures"] += sum(manifest.size_bytes for manifest in one.figures)
            own["calibration_scores"] += one.calibration.size_bytes if one.calibration else 0
            own["manifests"] += one.manifest_bytes
    return found


def image_rows(category: str, by_station: Mapping[str, StationFigures]) -> pd.DataFrame:
    """IMAGE_SCORES of one category; an image is known by its station and a number alone."""
    frames = []
    for station, figures in sorted(by_station.items()):
        n = len(figures.image_scores)
        frame = pd.DataFrame({"image_id": [f"{station}/{category}/{i:05d}" for i in range(n)], "category": category})
        frame["label"] = np.where(figures.label_index == 0, "good", "defective")
        frame["label_index"], frame["score"] = figures.label_index, figures.image_scores
        frames.append(frame.assign(path="", sha256=""))
    return _frame(frames, IMAGE_SCORES.names)


def joined_calibration(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """CALIBRATION_SCORES of all stations; empty without any. Groups are a station's own: none is at two of them."""
    found = [frame for frame in frames if len(frame)]
    if not any("group" in frame for frame in found):
        return _frame(found, CALIBRATION_SCORES.names)
    joined, begin = [], 0
    for frame in found:
        own = frame["group"] if "group" in frame else pd.Series(-1, frame.index)
        joined.append(frame.assign(group=own.where(own < 0, own + begin)))
        begin += max(0, int(own.max()) + 1)
    return _frame(joined, calibration_schema(joined[0].columns).names)


def _category_metrics(
    config: ExperimentConfig, category: str, by_station: Mapping[str, StationFigures], values: MetricValues
) -> CategoryMetrics:
    stations = [by_station[name] for name in sorted(by_station)]
    labels, scores = pooled_figures.pooled_images(stations)
    sample = ImageSample(tuple(str(i) for i in range(len(labels))), labels, scores, None)
    rng = stage_rng(config.seed, "bootstrap", category, "all")
    intervals = confidence_intervals(sample, resamples=config.evaluation.bootstrap, rng=rng)
    return CategoryMetrics(**values.model_copy(update={"ci95": intervals}).model_dump())


def _curves(category: str, by_station: Mapping[str, StationFigures]) -> pd.DataFrame:
    stations = [by_station[name] for name in sorted(by_station)]
    return curve_rows(category, *pooled_figures.pooled_images(stations), pooled_figures.pooled_spro_curve(stations))


def _pool(config: ExperimentConfig, figures: ByCategory) -> dict[str, PooledFigures]:
    limits = config.evaluation.fpr_limits
    return {
        category: pooled_figures.pool_figures([by_station[name] for name in sorted(by_station)], fpr_limits=limits)
        for category, by_station in figures.items()
    }


def _frame(frames: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    if not frames:
        return pd.DataFrame(columns=columns)
    joined: pd.DataFrame = pd.concat(frames, ignore_index=True)[columns]
    return joined

"""Experiments against a baseline or another one: differences in points with paired intervals, bytes, bank rows.

An experiment is one run a seed; values are means over seeds of the means over categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_contracts.results import COMPARED, METRICS_FILES, TABLED, Metric, MetricsDocument
from pipeline_lib.benchmark.differences import LEVEL, NO_RESAMPLES, Difference, holm, paired_difference, value_interval
from pipeline_lib.benchmark.paired import ResampledMetrics, resampled_metrics
from pipeline_lib.metrics.bootstrap import RESAMPLED, percentile_interval
from pipeline_lib.results.image_samples import read_samples

MEASURED = {metric.key: metric for metric in (*COMPARED, *TABLED)}


@dataclass(frozen=True)
class ExperimentRuns:
    """The finished runs of one experiment on one subset of the test images, by seed."""

    documents: Mapping[int, MetricsDocument]
    resampled: Mapping[int, ResampledMetrics] = field(default_factory=dict)

    def mean(self, metric: str, seeds: Sequence[int] | None = None) -> float | None:
        """Mean over seeds (all, or these) of the mean over categories; None where undefined."""
        chosen = self.documents if seeds is None else {seed: self.documents[seed] for seed in seeds}
        values = [MEASURED[metric].of(document.mean) for document in chosen.values()]
        defined = [value for value in values if value is not None]
        return sum(defined) / len(defined) if defined and len(defined) == len(values) else None

    def interval(self, metric: Metric) -> tuple[float, float] | None:
        """95 % interval of `mean` from the runs' own, or from their resamples where they have none."""
        own = {}
        for seed, document in self.documents.items():
            drawn = self.resampled[seed].mean(metric.key) if seed in self.resampled else None
            own[seed] = metric.interval(document.mean) or (None if drawn is None else percentile_interval(drawn[1:]))
        return value_interval(list(own.values()), [metric.of(document.mean) for document in self.documents.values()])


def read_runs(directories: Mapping[int, Path], *, subset: str, resamples: int, seed: int) -> ExperimentRuns:
    """The runs of one experiment, seed -> run directory, on all of test or one half."""
    documents = {
        run_seed: MetricsDocument.model_validate_json((path / METRICS_FILES[subset]).read_text(encoding="utf-8"))
        for run_seed, path in directories.items()
    }
    resampled = {
        run_seed: resampled_metrics(read_samples(path, subset=subset), resamples=resamples, seed=seed)
        for run_seed, path in directories.items()
        if resamples
    }
    return ExperimentRuns(documents, resampled)


def compare(
    runs: Mapping[str, ExperimentRuns],
    baselines: Mapping[str, str],
    pairs: Sequence[tuple[str, str]] = (),
    *,
    groups: Mapping[str, str] | None = None,
    metrics: Sequence[Metric] = COMPARED,
) -> list[dict[str, Any]]:
    """A row an experiment and metric, then one a named pair and metric, with the keys of `comparison.json`.

    pairs: further (experiment, reference); their rows have the reference as `baseline`, and `named` is true.
    `delta_points` is null where the baseline has no result or a metric is undefined; a pair whose experiment has none
    is left out. `p_holm` is corrected over all these comparisons, within a metric; the verdict needs it below 0.05.
    Where nothing is tested, as with one seed, `not_tested` says why, and what a test gives is null; `ci95_images` is
    the interval over draws of the test images alone.
    """
    rows = []
    asked = [(name, baselines[name], False) for name in runs]
    asked += [(name, reference, True) for name, reference in pairs if name in runs]
    for name, baseline, named in asked:
        own, other = runs[name], runs.get(baseline)
        seeds = sorted(set(own.documents) & set(other.documents)) if other else []
        for metric in metrics:
            paired = None
            if other and name != baseline:
                paired = paired_difference(own.resampled, other.resampled, metric.key)
            rows.append(
                _row(name, baseline, metric.key, own, other, seeds, paired)
                | {"value_ci95": own.interval(metric)}
                | {"group": (groups or {}).get(name, ""), "named": named}
            )
    return _with_verdicts(rows)


def against_baselines(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of each experiment against its baseline."""
    return [row for row in rows if not row["named"]]


def named_pairs(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of the pairs that `compare` of the benchmark names."""
    return [row for row in rows if row["named"]]


def _row(
    name: str,
    baseline: str,
    metric: str,
    own: ExperimentRuns,
    other: ExperimentRuns | None,
    seeds: list[int],
    paired: Difference | None,
) -> dict[str, Any]:
    first, second = own.mean(metric, seeds), other.mean(metric, seeds) if other and seeds else None
    delta = None if first is None or second is None else round(100 * (first - second), 4)
    untested = paired.not_tested if paired else "nothing to compare with: not tested"
    if not paired and (not own.resampled or metric not in RESAMPLED):
        untested = NO_RESAMPLES
    documents = list(own.documents.values())
    return {
        "experiment": name,
        "baseline": baseline,
        "metric": metric,
        "value": own.mean(metric),
        "delta_points": delta,
        "ci95": _points(paired.interval) if paired else None,
        "ci95_images": _points(paired.images_interval) if paired else None,
        "not_tested": None if name == baseline else untested or None,
        "p_value": paired.p_value if paired else None,
        "seeds": len(own.documents),
        "upload_share_of_image_bytes": _mean_share([upload_share(document) for document in documents]),
        "upload_share_of_pixel_bytes": _mean_share([upload_share(document, of="pixels") for document in documents]),
        "download_bytes": round(sum(_downloads(document) for document in documents) / len(documents)),
        "bank_rows": round(sum(document.federation.bank_rows for document in documents) / len(documents)),
    }


def _points(interval: tuple[float, float] | None) -> list[float] | None:
    return [round(100 * edge, 4) for edge in interval] if interval else None


def _with_verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for metric in {row["metric"] for row in rows}:
        family = [row for row in rows if row["metric"] == metric]
        adjusted = holm({str(number): row["p_value"] for number, row in enumerate(family)})
        for number, row in enumerate(family):
            row["p_holm"] = adjusted[str(number)]
            row["verdict"] = _verdict(row)
    return rows


def _verdict(row: Mapping[str, Any]) -> str:
    if row["experiment"] == row["baseline"]:
        return "baseline"
    if row["p_holm"] is None:
        return "not tested"
    if row["p_holm"] >= LEVEL:
        return "no difference shown"
    return "better" if row["delta_points"] > 0 else "worse"


def upload_share(document: MetricsDocument, *, of: str = "files") -> float | None:
    """Bytes that all clients uploaded over all rounds, as a share of their own image files, or of the decoded pixels.

    None where nothing was uploaded or the size is not known.
    """
    clients = document.federation.clients.values()
    raw = sum(client.raw_image_bytes if of == "files" else client.raw_pixel_bytes for client in clients)
    if document.federation.mode != "federated" or not raw:
        return None
    return round(sum(client.upload_bytes for client in clients) / raw, 4)


def _mean_share(shares: Sequence[float | None]) -> float | None:
    defined = [share for share in shares if share is not None]
    return round(sum(defined) / len(defined), 4) if defined else None


def _downloads(document: MetricsDocument) -> int:
    return sum(client.download_bytes for client in document.federation.clients.values())


def total_timings(runs: Mapping[str, ExperimentRuns]) -> dict[str, float]:
    """Stage -> wall time in seconds over all runs."""
    total: dict[str, float] = {}
    for own in runs.values():
        for document in own.documents.values():
            for stage, seconds in document.timings_s.items():
                total[stage] = total.get(stage, 0.0) + seconds
    return total

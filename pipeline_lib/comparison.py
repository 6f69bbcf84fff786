"""Experiments against a baseline: differences in points with paired intervals, bytes, bank rows, and who alone gains.

An experiment is one run a seed; values are means over seeds of the means over categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_contracts.results import MetricsDocument, MetricValues
from pipeline_lib.paired_comparison import (
    Difference,
    ResampledMetrics,
    holm,
    paired_difference,
    resampled_metrics,
    value_interval,
)
from pipeline_lib.result_tables import HEADLINE_LIMIT, per_cent
from pipeline_lib.run_directory import METRICS_FILES
from pipeline_lib.run_samples import read_samples

LEVEL = 0.05


@dataclass(frozen=True)
class ExperimentRuns:
    """The finished runs of one experiment on one subset of the test images, by seed."""

    documents: Mapping[int, MetricsDocument]
    resampled: Mapping[int, ResampledMetrics] = field(default_factory=dict)

    def mean(self, metric: str, seeds: Sequence[int] | None = None) -> float | None:
        """Mean over seeds (all, or these) of the mean over categories; None where undefined."""
        chosen = self.documents if seeds is None else {seed: self.documents[seed] for seed in seeds}
        values = [headline_values(document.mean)[metric] for document in chosen.values()]
        defined = [value for value in values if value is not None]
        return sum(defined) / len(defined) if defined and len(defined) == len(values) else None


def headline_values(values: MetricValues) -> dict[str, float | None]:
    """metric -> value in [0, 1] of the figures that experiments are compared by."""
    return {
        "image_auroc": values.image_auroc,
        "image_ap": values.image_ap,
        f"auc_spro_{HEADLINE_LIMIT}": values.auc_spro.get(HEADLINE_LIMIT),
    }


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
    *,
    groups: Mapping[str, str] | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """A row an experiment and metric, with the keys of `comparison.json`.

    `delta_points` is null where the baseline has no result or a metric is undefined. `p_holm` is corrected over all
    experiments, within a metric; the verdict needs it below 0.05.
    """
    rows = []
    for name, own in runs.items():
        baseline = baselines[name]
        other = runs.get(baseline)
        seeds = sorted(set(own.documents) & set(other.documents)) if other else []
        for metric in headline_values(MetricValues()):
            paired = None
            if other and name != baseline:
                paired = paired_difference(own.resampled, other.resampled, metric, resamples=resamples, seed=seed)
            rows.append(
                _row(name, baseline, metric, own, other, seeds, paired)
                | {"value_ci95": value_interval(own.resampled, metric, seed=seed)}
                | {"group": (groups or {}).get(name, "")}
            )
    return _with_verdicts(rows)


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
    interval = [round(100 * edge, 4) for edge in paired.interval] if paired and paired.interval else None
    documents = list(own.documents.values())
    return {
        "experiment": name,
        "baseline": baseline,
        "metric": metric,
        "value": own.mean(metric),
        "delta_points": delta,
        "ci95": interval,
        "p_value": paired.p_value if paired else None,
        "seeds": len(own.documents),
        "upload_share_of_image_bytes": _mean_share([upload_share(document) for document in documents]),
        "upload_share_of_pixel_bytes": _mean_share([upload_share(document, of="pixels") for document in documents]),
        "download_bytes": round(sum(_downloads(document) for document in documents) / len(documents)),
        "bank_rows": round(sum(document.federation.bank_rows for document in documents) / len(documents)),
    }


def _with_verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for metric in {row["metric"] for row in rows}:
        family = {row["experiment"]: row["p_value"] for row in rows if row["metric"] == metric}
        adjusted = holm(family)
        for row in rows:
            if row["metric"] == metric:
                row["p_holm"] = adjusted[row["experiment"]]
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


def comparison_table(rows: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row an experiment for people: means in per cent, points against its baseline [95 % interval], bytes, rows."""
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        line = table.setdefault(row["experiment"], {"experiment": row["experiment"], "state": "completed"})
        line[row["metric"]] = per_cent(row["value"]) + _delta(row)
    for row in rows:
        share, pixels = row["upload_share_of_image_bytes"], row["upload_share_of_pixel_bytes"]
        table[row["experiment"]] |= {
            "against": row["baseline"],
            "upload share": "-" if share is None else f"{100 * share:.0f} %",
            "of pixels": "-" if pixels is None else f"{100 * pixels:.1f} %",
            "back MB": round(row["download_bytes"] / 1e6, 1),
            "bank rows": row["bank_rows"],
        }
    lines = list(table.values())
    columns = [column for column in (lines[0] if lines else {}) if column not in ("experiment", "state")]
    lines += [{"experiment": n, "state": f"failed: {cause}", **dict.fromkeys(columns)} for n, cause in failed.items()]
    return lines


def _delta(row: Mapping[str, Any]) -> str:
    if row["delta_points"] is None or row["verdict"] == "baseline":
        return ""
    interval = f" [{row['ci95'][0]:+.1f}, {row['ci95'][1]:+.1f}]" if row["ci95"] else ""
    mark = "*" if row["verdict"] in ("better", "worse") else ""
    return f" ({row['delta_points']:+.1f}{mark}{interval})"

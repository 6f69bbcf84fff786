"""Results as rows for people: the terminal's table, the UI's tables, the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_contracts.config import ExperimentConfig
from data_contracts.results import (
    AUC_SPRO,
    HEADLINES,
    METRICS,
    CategoryMetrics,
    FederationSummary,
    MetricsDocument,
    MetricValues,
)

THIN_CLASS = 20


def per_cent(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """0.9731 -> "97.3", with its interval "97.3 [96.1, 98.2]"; an undefined value is a dash."""
    if value is None:
        return "-"
    text = f"{100 * value:.1f}"
    return f"{text} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else text


def metric_rows(document: MetricsDocument) -> list[dict[str, Any]]:
    """A row a category and one for their mean: the metrics in per cent with intervals, and counts."""
    return [_row(name, values) for name, values in {**document.categories, "mean": document.mean}.items()]


def headline_cells(values: MetricValues) -> dict[str, str]:
    """Title -> the headline metrics in per cent, with their intervals."""
    return {metric.title: per_cent(metric.of(values), metric.interval(values)) for metric in HEADLINES}


def _row(name: str, values: MetricValues) -> dict[str, Any]:
    thin = isinstance(values, CategoryMetrics) and 0 < values.n_defective < THIN_CLASS
    return {
        "category": name,
        **{metric.title: per_cent(metric.of(values), metric.interval(values)) for metric in METRICS},
        "sPRO by chance": per_cent(AUC_SPRO.chance(values)),
        "good": values.n_good,
        "defective": f"{values.n_defective} (few)" if thin else str(values.n_defective),
    }


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table, with the columns of the first."""
    columns = list(rows[0]) if rows else []
    lines = [columns, ["---"] * len(columns), *([_cell(row[column]) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def table_in_ui(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same for the Prefect UI, which makes a mail address of AUC-sPRO@0.05 where nothing escapes it."""
    return markdown_table(rows).replace("@", "\\@")


def _cell(value: Any) -> str:
    return "-" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def two_digits(value: float) -> float:
    """Rounded to two digits, or to a whole number: 0.0032, 3.2, 32, 321."""
    return float(round(value)) if value >= 10 else float(f"{value:.2g}")


def share_of_bytes(share: float | None) -> str:
    """A share of bytes in per cent, which can be very small and above 100."""
    return "-" if share is None else f"{two_digits(100 * share):g} %"


def client_rows(federation: FederationSummary) -> list[dict[str, Any]]:
    """A row a client: images, patches, rows sent, bytes sent and their share of the client's own image files."""
    rows: list[dict[str, Any]] = []
    for name, client in federation.clients.items():
        share = client.upload_bytes / client.raw_image_bytes if client.raw_image_bytes else None
        rows.append(
            {
                "client": name,
                "state": "delivered",
                "images": client.train_images,
                "patches": client.patches,
                "rows sent": client.coreset_rows,
                "upload MB": round(client.upload_bytes / 1e6, 2),
                "share of image bytes": share_of_bytes(share),
                "covering radius": None if client.covering_radius is None else round(client.covering_radius, 3),
            }
        )
    empty = dict.fromkeys(("images", "patches", "rows sent", "upload MB", "share of image bytes", "covering radius"))
    rows += [{"client": n, "state": f"failed: {cause}", **empty} for n, cause in federation.failed_clients.items()]
    rows += [{"client": n, "state": "skipped: no images", **empty} for n in federation.skipped_clients]
    return rows


def local_rows(document: MetricsDocument) -> list[dict[str, Any]]:
    """A row a client and category of clients that train alone, worst AUC-sPRO first within a category."""
    rows = []
    for category in document.categories:
        found = [(name, own[category]) for name, own in document.local_clients.items() if category in own]
        found.sort(key=lambda item: AUC_SPRO.of(item[1]) or 0.0)
        rows += [{"client": name, **_row(category, values)} for name, values in found]
    return rows


def round_rows(federation: FederationSummary) -> list[dict[str, Any]]:
    """A row a round: who delivered, what travelled, what is covered, and what the banks score after it."""
    return [
        {
            "round": one.round,
            "clients": len(one.delivered),
            "rows sent": one.upload_rows,
            "upload MB": round(one.upload_bytes / 1e6, 2),
            "download MB": round(one.download_bytes / 1e6, 2),
            "bank rows": sum(one.bank_rows.values()),
            "largest covering radius": round(max(one.covering_radius.values()), 3) if one.covering_radius else None,
            **{metric.title: per_cent(metric.of(one.mean)) for metric in HEADLINES},
            "failed or refused": ", ".join(sorted({*one.failed, *one.refused})) or "-",
        }
        for one in federation.rounds
    ]


def choice_warnings(config: ExperimentConfig, federation: FederationSummary) -> list[str]:
    """Banks in which a strategy that was chosen by name made no difference.

    The default does so by design (each client sends its quota), and simple_concatenate is asked to keep all.
    """
    strategy, banks = config.aggregation.strategy, federation.banks_without_choice
    if strategy in ("federated_coreset", "simple_concatenate") or not banks:
        return []
    return [
        f"aggregation.strategy: {strategy} had nothing to decide for {', '.join(banks)}: every uploaded row is kept; "
        "set aggregation.oversample_factor above 1, or a smaller aggregation.global_bank_size"
    ]

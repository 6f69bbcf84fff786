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
CHANCE, ALARMS = "sPRO by chance", "good called defective"
TITLES = (*(metric.title for metric in METRICS), CHANCE)


def per_cent(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """0.9731 -> "97.3", with its interval "97.3 [96.1, 98.2]"; an undefined value is a dash."""
    if value is None:
        return "-"
    text = f"{100 * value:.1f}"
    return f"{text} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else text


def metric_rows(document: MetricsDocument) -> list[dict[str, Any]]:
    """A row a category and one for their mean: what `measured` leaves of the metrics in per cent with intervals, and
    counts."""
    rows = [_row(name, values, [values]) for name, values in document.categories.items()]
    return measured([*rows, _row("mean", document.mean, [*document.categories.values()])])


def measured(rows: Sequence[Mapping[str, Any]], titles: Sequence[str] = TITLES) -> list[dict[str, Any]]:
    """The rows without the metrics of these titles, and without false alarms, that none of them has a value of."""
    empty = [title for title in (*titles, ALARMS) if all(row.get(title, "-") == "-" for row in rows)]
    return [{title: value for title, value in row.items() if title not in empty} for row in rows]


def false_alarms(categories: Sequence[CategoryMetrics]) -> tuple[int, int, tuple[float, float] | None] | None:
    """The one figure of test images that are all good: (called defective by the threshold in use, of so many, 95 %
    interval of the share where it is of one category); None where there are others, none, or no threshold."""
    decided = [one.decision for one in categories if one.decision is not None and one.threshold is not None]
    n_good = sum(one.n_good for one in decided)
    if not n_good or any(one.n_defective for one in categories):
        return None
    return sum(one.false_alarms for one in decided), n_good, decided[0].realised_ci95 if len(decided) == 1 else None


def alarm_cells(categories: Sequence[CategoryMetrics]) -> dict[str, str]:
    """Title -> `false_alarms`: the count, the share in per cent and its interval."""
    if (found := false_alarms(categories)) is None:
        return {ALARMS: "-"}
    count, n_good, interval = found
    return {ALARMS: f"{count} of {n_good}: {per_cent(count / n_good, interval)}"}


def headline_cells(values: MetricValues) -> dict[str, str]:
    """Title -> the headline metrics in per cent, with their intervals."""
    return {metric.title: per_cent(metric.of(values), metric.interval(values)) for metric in HEADLINES}


def headline_text(document: MetricsDocument) -> str:
    """The headline metrics, means over categories in per cent, that have a value, or the false alarms, in one line."""
    cells = {
        **headline_cells(document.mean.model_copy(update={"ci95": {}})),
        **alarm_cells([*document.categories.values()]),
    }
    return ", ".join(f"{title} {text}" for title, text in cells.items() if text != "-")


def _row(name: str, values: MetricValues, categories: Sequence[CategoryMetrics]) -> dict[str, Any]:
    thin = isinstance(values, CategoryMetrics) and 0 < values.n_defective < THIN_CLASS
    return {
        "category": name,
        **{metric.title: per_cent(metric.of(values), metric.interval(values)) for metric in METRICS},
        CHANCE: per_cent(AUC_SPRO.chance(values)),
        **alarm_cells(categories),
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
        rows += [{"client": name, **_row(category, values, [values])} for name, values in found]
    return measured(rows)


def round_rows(federation: FederationSummary) -> list[dict[str, Any]]:
    """A row a round: who delivered, what travelled, what is covered, and what the banks score after it."""
    rows = [
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
    return measured(rows)


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

"""The report's tables: plain cells of text, which the template escapes and draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_contracts.manifests import BankManifest
from data_contracts.results import (
    AUC_SPRO,
    AUC_SPRO_AS_PRO,
    COMPARED,
    HEADLINES,
    IMAGE_AUROC,
    METRICS,
    SUBSET_TITLES,
    CategoryMetrics,
    FederationSummary,
    MetricsDocument,
    MetricValues,
    auc_spro,
)
from data_contracts.validation import ValidationReport
from pipeline_lib.metrics.intervals import share_interval
from pipeline_lib.results.tables import THIN_CLASS, share_of_bytes

TNRS = ("0.99", "0.95", "0.9")
SPLIT_METRICS = (*METRICS[:-1], AUC_SPRO_AS_PRO, METRICS[-1])
Interval = tuple[float, float] | None
UNDEFINED = "-"


@dataclass(frozen=True)
class Cell:
    """One cell: the text, a smaller line under it (an interval), and a short mark beside it."""

    text: str
    small: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A caption, column heads and rows; the first cell of a row names it. Columns past `text_columns` are numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: int = 1
    emphasized_last: bool = False
    narrow: bool = False

    @property
    def shown(self) -> list[int]:
        """Positions of the columns that say something: not of numbers without a single value."""
        columns = range(len(self.columns))
        return [i for i in columns if i < self.text_columns or any(row[i].text != UNDEFINED for row in self.rows)]


def measure(value: float | None, interval: Interval = None) -> Cell:
    """A metric in per cent with its interval."""
    if value is None:
        return Cell(UNDEFINED)
    return Cell(f"{100 * value:.1f}", f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else "")


def count(n: int) -> Cell:
    """A whole number with thin spaces between thousands."""
    return Cell(f"{n:,}".replace(",", "\u202f"))


def defective_count(values: MetricValues) -> Cell:
    """Defective images, marked where they are few."""
    few = "few" if 0 < values.n_defective < THIN_CLASS else ""
    return Cell(count(values.n_defective).text, mark=few)


def file_size(n_bytes: int) -> str:
    """Bytes for people."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} B"


def overview(document: MetricsDocument) -> Table:
    """A row a category and their mean: the headline metrics with intervals, and counts."""
    columns = (
        "category", *(metric.title for metric in SPLIT_METRICS), f"{AUC_SPRO.title} above chance", "TPR at TNR 95",
        "good", "defective",
    )  # fmt: skip
    rows = [_overview_row(name, values, _above_chance([values])) for name, values in document.categories.items()]
    rows.append(_overview_row("mean of categories", document.mean, _above_chance([*document.categories.values()])))
    return Table(f"By category, {SUBSET_TITLES[document.subset]}", columns, tuple(rows), emphasized_last=True)


def _above_chance(categories: Sequence[MetricValues]) -> Cell:
    """(figure - chance) / (1 - chance) of AUC-sPRO with the chance below it, means over categories that have it."""
    both = [(AUC_SPRO.of(values), AUC_SPRO.chance(values)) for values in categories]
    found = [(value, chance) for value, chance in both if value is not None and chance is not None and chance < 1]
    if not found:
        return Cell(UNDEFINED)
    share = sum((value - chance) / (1 - chance) for value, chance in found) / len(found)
    return Cell(f"{100 * share:.1f}", f"chance {100 * sum(chance for _, chance in found) / len(found):.1f}")


def _overview_row(name: str, values: MetricValues, above_chance: Cell) -> tuple[Cell, ...]:
    with_intervals = isinstance(values, CategoryMetrics)
    return (
        Cell(name),
        *(measure(metric.of(values), metric.interval(values)) for metric in SPLIT_METRICS),
        above_chance,
        _caught(values, "0.95", with_interval=with_intervals),
        count(values.n_good),
        defective_count(values) if with_intervals else count(values.n_defective),
    )


def _caught(values: MetricValues, rate: str, *, with_interval: bool) -> Cell:
    share = values.tpr_at_tnr.get(rate)
    return measure(share, share_interval(share, values.n_defective) if with_interval and share is not None else None)


def halves(documents: Mapping[str, MetricsDocument], category: str) -> Table:
    """One category: a row a half of the test set; AUC-sPRO at every limit."""
    found = {
        half: documents[half].categories.get(category, CategoryMetrics()) for half in SUBSET_TITLES if half in documents
    }
    limits = sorted({limit for values in found.values() for limit in values.auc_spro}, key=float)
    metrics = (IMAGE_AUROC, *map(auc_spro, limits))
    columns = ("test images", *(metric.title for metric in metrics), "good", "defective")
    rows = tuple(
        (
            Cell(SUBSET_TITLES[half]),
            *(measure(metric.of(values), metric.interval(values)) for metric in metrics),
            count(values.n_good),
            defective_count(values),
        )
        for half, values in found.items()
    )
    return Table("Halves of the test set", columns, rows)


def splits(values: CategoryMetrics, half: str) -> Table | None:
    """One category by defect, test folder and group; None where it has no such split."""
    scopes = {"defect": values.by_defect, "folder": values.by_folder, "group": values.by_group}
    if values.by_defect == values.by_folder:
        scopes = {"defect and folder": values.by_defect, "group": values.by_group}
    rows = tuple(_split_row(scope, name, split) for scope, by_name in scopes.items() for name, split in by_name.items())
    columns = (
        "name", "kind", *(metric.title for metric in SPLIT_METRICS),
        *(f"TPR at TNR {100 * float(rate):.0f}" for rate in TNRS), "good", "defective",
    )  # fmt: skip
    return Table(f"By defect, folder and group, {SUBSET_TITLES[half]}", columns, rows, text_columns=2) if rows else None


def _split_row(scope: str, name: str, values: MetricValues) -> tuple[Cell, ...]:
    return (
        Cell(name),
        Cell(scope),
        *(measure(metric.of(values), metric.interval(values)) for metric in SPLIT_METRICS),
        *(_caught(values, rate, with_interval=True) for rate in TNRS),
        count(values.n_good),
        defective_count(values),
    )


def clients(federation: FederationSummary) -> Table:
    """A row a client: what it had and sent, or why it is missing."""
    rows: list[tuple[Cell, ...]] = []
    for name, client in federation.clients.items():
        share = client.upload_bytes / client.raw_image_bytes if client.raw_image_bytes else None
        radius = client.covering_radius
        rows.append(
            (
                Cell(name),
                Cell("delivered"),
                count(client.train_images),
                count(client.patches),
                count(client.coreset_rows),
                Cell(file_size(client.upload_bytes)),
                Cell(share_of_bytes(share)),
                Cell(UNDEFINED if radius is None else f"{radius:.3g}"),
            )
        )
    states = {name: ("failed", cause) for name, cause in federation.failed_clients.items()}
    states |= dict.fromkeys(federation.skipped_clients, ("skipped", "no images"))
    rows += [(Cell(n), Cell(cause, mark=state), *[Cell(UNDEFINED)] * 6) for n, (state, cause) in states.items()]
    columns = (
        "client", "state", "images", "patches", "rows sent", "bytes of rows", "share of its image bytes",
        "covering radius",
    )  # fmt: skip
    return Table("Clients: what each had and sent", columns, tuple(rows), text_columns=2)


def bytes_left(federation: FederationSummary) -> Table | None:
    """A row a client: all bytes that left it, by kind; None where nothing did, and for runs of earlier versions."""
    found = federation.bytes_left_by_kind
    kinds = [kind for kind in dict.fromkeys(kind for own in found.values() for kind in own)
             if any(own.get(kind) for own in found.values())]  # fmt: skip
    rows = tuple(
        (Cell(name), *(Cell(file_size(own.get(kind, 0))) for kind in kinds), Cell(file_size(sum(own.values()))))
        for name, own in found.items()
    )
    columns = ("client", *(kind.replace("_", " ") for kind in kinds), "all")
    return Table("What left each client, over all rounds", columns, rows) if rows else None


def coverage(federation: FederationSummary) -> Table | None:
    """A row a client and category: how far its patches lie from the final bank; None where it was not measured."""
    rows = tuple(
        (
            Cell(name),
            Cell(category),
            count(found.patches),
            *(
                Cell(UNDEFINED if v is None else f"{v:.3g}")
                for v in (found.q50, found.q90, found.q95, found.q99, found.mean, found.covering_radius)
            ),
        )
        for name, client in federation.clients.items()
        for category, found in client.coverage.items()
    )
    columns = ("client", "category", "patches", "50 %", "90 %", "95 %", "99 %", "mean", "largest")
    caption = "Coverage: distances of each client's training patches to the nearest row of the final bank"
    return Table(caption, columns, rows, text_columns=2) if rows else None


def local_clients(document: MetricsDocument) -> Table | None:
    """A row a client and category: what each scores with its own images alone; None for other modes."""
    rows = tuple(
        (
            Cell(name),
            Cell(category),
            *(measure(metric.of(values), metric.interval(values)) for metric in COMPARED),
            count(values.n_good),
            defective_count(values),
        )
        for name, categories in document.local_clients.items()
        for category, values in categories.items()
    )
    columns = ("client", "category", *(metric.title for metric in COMPARED), "good", "defective")
    return Table("Each client alone, all of test", columns, rows, text_columns=2) if rows else None


def rounds(federation: FederationSummary) -> Table | None:
    """A row a round: what travelled, what is covered, what the banks then score; None for one round."""
    rows = tuple(
        (
            Cell(str(one.round), mark="incomplete" if one.failed or one.refused else ""),
            count(len(one.delivered)),
            count(one.upload_rows),
            Cell(file_size(one.upload_bytes)),
            Cell(file_size(one.download_bytes)),
            count(sum(one.bank_rows.values())),
            Cell(f"{max(one.covering_radius.values()):.3g}" if one.covering_radius else UNDEFINED),
            *(measure(metric.of(one.mean)) for metric in HEADLINES),
        )
        for one in federation.rounds
    )
    columns = (
        "round", "clients", "rows sent", "bytes sent", "bytes back", "bank rows", "largest covering radius",
        *(metric.title for metric in HEADLINES),
    )  # fmt: skip
    return Table("Rounds: what travelled, and what the banks score after each", columns, rows) if rows else None


def client_categories(stats: Mapping[str, Any]) -> Table | None:
    """Training images by client and category, with the divergence from the whole (partition_stats.json) of several."""
    names = list(stats.get("by_category", {}))
    clients = stats.get("clients", {})
    rows = tuple(
        (
            Cell(client),
            *(count(int(found["by_category"].get(name, 0))) for name in names),
            Cell(
                UNDEFINED
                if found.get("js_divergence") is None or len(clients) == 1
                else f"{found['js_divergence']:.3f}"
            ),
        )
        for client, found in clients.items()
    )
    columns = ("client", *names, "JS divergence")
    return Table("Training images by client and category", columns, rows) if rows and names else None


def banks(manifests: Sequence[BankManifest]) -> Table:
    """A row a memory bank."""
    rows = tuple(
        (Cell(bank.bank), count(bank.rows), count(bank.dim), Cell(file_size(bank.size_bytes))) for bank in manifests
    )
    return Table("Memory banks", ("bank", "rows", "dimensions", "size"), rows, narrow=True)


def timings(timings_s: Mapping[str, float]) -> Table:
    """A row a stage: wall time and its share of the whole."""
    total = sum(timings_s.values())
    rows = [
        (Cell(name), Cell(f"{seconds:.1f}"), Cell(f"{100 * seconds / total:.0f} %" if total else UNDEFINED))
        for name, seconds in timings_s.items()
    ]
    rows.append((Cell("total"), Cell(f"{total:.1f}"), Cell("100 %" if total else UNDEFINED)))
    return Table(
        "Wall time of each stage", ("stage", "seconds", "share"), tuple(rows), emphasized_last=True, narrow=True
    )


def images(report: ValidationReport) -> Table:
    """A row a category and folder: readable images, and mask channels by defect."""
    rows = []
    for category, by_split in report.counts.items():
        channels = report.mask_channels.get(category, {})
        rows += [
            (Cell(category), Cell(f"{split}/{label}"), count(n), count(channels.get(label, 0)))
            for split, by_label in sorted(by_split.items(), reverse=True)
            for label, n in by_label.items()
        ]
    columns = ("category", "folder", "images", "mask channels of that defect")
    return Table("Readable images", columns, tuple(rows), text_columns=2)

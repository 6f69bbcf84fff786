"""The page: what the template needs, from the documents of a run and its galleries. Pure; reads nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import yaml
from markupsafe import Markup

from data_contracts.results import (
    AUC_SPRO,
    HEADLINE_LIMIT,
    HEADLINES,
    METRICS,
    SUBSET_TITLES,
    SUBSETS,
    MetricsDocument,
    MetricValues,
)
from pipeline_lib.drawing.html_pages import page_template
from pipeline_lib.maps.visualize import ANCHORS
from pipeline_lib.metrics.thresholds import condition
from pipeline_lib.report import decision_table, facts, tables
from pipeline_lib.report.figures import IntervalRow, curve_chart, interval_chart, score_histogram
from pipeline_lib.report.gallery import KINDS, THRESHOLD_TNR, CategoryGallery, good_threshold
from pipeline_lib.report.record import RunRecord
from pipeline_lib.results.method_words import method_words
from pipeline_lib.results.tables import THIN_CLASS
from pipeline_lib.results.warnings import counted_findings

SPRO_X_END = 0.3
PARTITION_KEYS = {  # of `federated`: they make clients of one data set
    *("num_clients", "partitioning", "partition_path", "partition_groups"),
    *("alpha", "client_assignments", "qc_sample_ratio"),
}
_TNR = f"{100 * THRESHOLD_TNR:.0f}"
CAPTIONS = {
    "hits": "defective and above the threshold; the highest scores of each defect folder in turn",
    "misses": "defective and not above the threshold; the lowest scores of each defect folder in turn",
    "false alarms": "good and above the threshold; the highest scores",
}
MODES = {
    "centralized": "All training images lie in one place; nothing is uploaded.",
    "federated": "Training images stay with the clients; each sends rows of features, which are merged into the banks.",
    "local_only": "Every client trains on its own images alone; nothing is merged or sent. "
    "Figures of a category are means over the clients that have images of it.",
}


@dataclass(frozen=True)
class CategorySection:
    """What the page shows of one category."""

    name: str
    anchor: str
    halves: tables.Table | None  # None where nothing could be measured
    splits: list[tables.Table]  # all of test first
    figures: list[tuple[str, Markup]]  # (caption, SVG)
    weighted: str
    bad_saturation_channels: int
    has_masks: bool
    gallery: CategoryGallery | None


def render_report(record: RunRecord, galleries: Sequence[CategoryGallery] = ()) -> str:
    """The report as one HTML document, which needs nothing beside itself and runs no script.

    Text from the data (names, paths, warnings) is escaped. Raises KeyError where `record.documents` lacks "all".
    """
    document = record.document
    by_category = {gallery.category: gallery for gallery in galleries}
    sections = [
        _section(record, name, f"category-{number}", by_category.get(name))
        for number, name in enumerate(document.categories)
    ]
    grouped = record.config.dataset.group is not None
    return page_template("pipeline_lib.report", "report.html.j2", data_uri=data_uri).render(
        record=record,
        config=record.config,
        document=document,
        mode_text=MODES[record.config.federated.mode],
        headline=facts.headline(record.documents),
        sentence=facts.plain_sentence(document),
        loud=facts.loud_warnings(record),
        warnings=facts.quiet_warnings(record),
        counted=counted_findings(record.validation) if record.validation else "",
        method=method_words(record.config.model),
        intervals=_interval_figures(record.documents),
        is_measured=any(map(_is_measured, document.categories.values())),
        overview=[tables.overview(record.documents[half]) for half in _there(record)],
        halves=[(half, SUBSET_TITLES[half]) for half in _there(record)],
        decisions=decision_table.decisions(document),
        decision_notes=decision_table.notes(document),
        of_clients=decision_table.of_clients(document),
        grouped=grouped,
        promise_condition=condition(grouped=grouped),
        target_rate=f"{100 * record.config.decision.target_false_alarm_rate:g}",
        sections=sections,
        clients=tables.clients(document.federation),
        bytes_left=tables.bytes_left(document.federation),
        coverage=tables.coverage(document.federation),
        local_clients=tables.local_clients(document),
        rounds=tables.rounds(document.federation),
        client_categories=tables.client_categories(record.partition_stats),
        banks=tables.banks(record.banks),
        timings=tables.timings(document.timings_s),
        images=tables.images(record.validation) if record.validation else None,
        findings=facts.findings(record.validation) if record.validation else None,
        facts=facts.run_facts(record),
        packages=sorted(dict(record.environment.get("packages") or {}).items()),
        config_yaml=_config_yaml(record),
        gradient=", ".join(f"#{colour:06x}" for colour in ANCHORS),
        kinds=KINDS,
        captions=CAPTIONS,
        threshold_tnr=_TNR,
        thin_class=THIN_CLASS,
        n_pictures=sum(bool(e.image) for g in galleries for examples in g.examples.values() for e in examples),
    )


def _config_yaml(record: RunRecord) -> str:
    """The configuration; of stations, which are the clients themselves, without what makes clients of one data set."""
    left_out = {"federated": PARTITION_KEYS} if record.validation is None else None
    values = record.config.model_dump(mode="json", exclude=left_out)
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return text


def _there(record: RunRecord) -> list[str]:
    return [half for half in SUBSETS if half in record.documents]


def _section(record: RunRecord, name: str, anchor: str, gallery: CategoryGallery | None) -> CategorySection:
    values = record.document.categories[name]
    found = [
        tables.splits(record.documents[half].categories[name], half)
        for half in _there(record)
        if name in record.documents[half].categories
    ]
    weighted = values.auc_spro_weighted or {}
    return CategorySection(
        name,
        anchor,
        tables.halves(record.documents, name) if _is_measured(values) else None,
        [table for table in found if table is not None] if _is_measured(values) else [],
        _figures(record, name),
        ", ".join(f"{100 * v:.1f} at {limit}" for limit, v in weighted.items() if v is not None),
        values.bad_saturation_channels,
        AUC_SPRO.of(values) is not None,
        gallery,
    )


def _is_measured(values: MetricValues) -> bool:
    """Whether any metric is defined: not without defective images, or without good ones."""
    return any(metric.of(values) is not None for metric in METRICS)


def _figures(record: RunRecord, name: str) -> list[tuple[str, Markup]]:
    """Histogram of the scores, ROC, sPRO against FPR; each where the run has it."""
    values = record.document.categories[name]
    own = record.scores[record.scores.category == name]
    good, defective = (own.loc[own.label_index == i, "score"].to_numpy(float) for i in (0, 1))
    threshold, meaning = values.threshold, "the threshold of the decision"
    if threshold is None:
        threshold = good_threshold(own.label_index.to_numpy(), own.score.to_numpy(float))
        meaning = f"TNR {_TNR}"
    found = []
    if len(own):
        chart = score_histogram(
            good, defective, threshold=threshold, description=f"Scores of the test images of {name}"
        )
        of = " and ".join(name for name, scores in (("good", good), ("defective", defective)) if len(scores))
        dashed = "" if threshold is None else f"; dashed: {meaning}, {threshold:.4g}"
        found.append((f"Image scores: {of}, as shares of the class{dashed}", chart))
    roc = _curve(record.curves, name, "roc")
    if len(roc) and values.image_auroc is not None:
        chart = curve_chart(
            roc.x.to_numpy(), roc.y.to_numpy(), x_label="good called defective", y_label="defective found",
            description=f"ROC of {name}, area {tables.measure(values.image_auroc).text} per cent", chance=True,
        )  # fmt: skip
        found.append((f"ROC of the images, AUROC {tables.measure(values.image_auroc).text}", chart))
    spro = _curve(record.curves, name, "spro_fpr")
    if len(spro) and AUC_SPRO.of(values) is not None:
        area = tables.measure(AUC_SPRO.of(values)).text
        chart = curve_chart(
            spro.x.to_numpy(), spro.y.to_numpy(), x_label="normal pixels called defective", y_label="sPRO",
            description=f"sPRO against FPR of {name}, area up to {HEADLINE_LIMIT} is {area} per cent",
            x_end=SPRO_X_END, shaded_to=float(HEADLINE_LIMIT),
        )  # fmt: skip
        found.append((f"sPRO against FPR; shaded: {AUC_SPRO.title}, {area}", chart))
    return found


def _curve(curves: pd.DataFrame, category: str, kind: str) -> pd.DataFrame:
    return curves[(curves.category == category) & (curves.curve == kind)]


def _interval_figures(documents: Mapping[str, MetricsDocument]) -> list[tuple[str, Markup]]:
    """Image AUROC and AUC-sPRO of every category with intervals, and the halves as small points."""
    halves = [half for half in SUBSETS if half in documents and half != "all"]
    charts = []
    for metric in HEADLINES:
        title = metric.title[:1].upper() + metric.title[1:]
        rows = [
            IntervalRow(
                name,
                metric.of(values),
                metric.interval(values),
                tuple((half, metric.of(documents[half].categories.get(name, MetricValues()))) for half in halves),
            )
            for name, values in documents["all"].categories.items()
        ]
        if any(row.value is not None for row in rows):
            charts.append((title, interval_chart(rows, description=f"{title} by category in per cent")))
    return charts


def data_uri(content: bytes, media_type: str = "image/webp") -> str:
    """Bytes as a data: URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
